"""Several processes played by threads: what they decide together, without starting any."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import torch

T = TypeVar("T")

MODULES = ("metta.rl.losses", "metta.rl.finite")
"""Who talks to the other processes."""


class Ranks:
    """`all_mean` and `any_rank` among threads that all come to them in the same order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
        self.count = count
        self.barrier = threading.Barrier(count, timeout=20)
        self.given: dict[int, Any] = {}
        self.rank = threading.local()
        for module in MODULES:
            monkeypatch.setattr(f"{module}.any_rank", lambda flag: any(self.exchange(flag)))
        monkeypatch.setattr(
            "metta.rl.losses.all_mean", lambda tensor: torch.stack(self.exchange(tensor.detach())).mean(0)
        )

    def exchange(self, value: T) -> list[T]:
        """Everyone's value."""
        self.given[self.rank.number] = value
        self.barrier.wait()
        everything = [self.given[number] for number in range(self.count)]
        self.barrier.wait()
        return everything

    def run(self, work: Callable[[int], T]) -> list[T]:
        """What `work(rank)` gives in each of them; an error in one is raised here."""
        results: dict[int, T] = {}
        errors: list[BaseException] = []

        def go(rank: int) -> None:
            self.rank.number = rank
            try:
                results[rank] = work(rank)
            except BaseException as error:
                errors.append(error)
                self.barrier.abort()

        threads = [threading.Thread(target=go, args=(rank,)) for rank in range(self.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        real = [error for error in errors if not isinstance(error, threading.BrokenBarrierError)]
        if errors:
            raise (real or errors)[0]
        return [results[rank] for rank in range(self.count)]
