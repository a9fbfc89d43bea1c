"""Ctrl-C asks a loop to stop; a second one insists."""

import os
import signal
import threading

import pytest

from metta.common.interrupt import stop_on_interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_request(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_on_interrupt() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_other_threads_can_use_it_too() -> None:
    seen: list[bool] = []

    def loop() -> None:
        with stop_on_interrupt() as stop:
            seen.append(bool(stop))

    thread = threading.Thread(target=loop)
    thread.start()
    thread.join()
    assert seen == [False]
