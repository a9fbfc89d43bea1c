"""Options and fixtures that several rooms share."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

TRACES = Path(__file__).parent / "data" / "traces"


def pytest_configure() -> None:
    """What is started in the background ignores Ctrl-C, and so would every process that the tests start and interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--traces",
        type=Path,
        default=TRACES,
        help="folder of recorded episodes that the engine has to reproduce",
    )


@pytest.fixture(scope="session")
def traces(request: pytest.FixtureRequest) -> Path:
    """The folder of recorded episodes."""
    folder: Path = request.config.getoption("--traces")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> None:
    """Small networks gain nothing from more, and on a busy machine two threads wait for each other most of the time."""
    torch.set_num_threads(1)
