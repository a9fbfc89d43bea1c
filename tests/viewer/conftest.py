"""A browser for the tests of the replay page; started only where a test asks for it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from metta.viewer.page import write_replay_page
from story import play

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def find_chromium() -> str:
    """Path of the installed browser."""
    executable = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    assert executable is not None, f"no browser found under the names {CHROMIUM_NAMES}; install chromium"
    return executable


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's Chromium, driven by playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_ARGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def story_replay() -> Any:
    """The puppet play, as the data of its replay."""
    return play()


@pytest.fixture(scope="session")
def story_page(tmp_path_factory: pytest.TempPathFactory, story_replay: Any) -> Path:
    """The puppet play's page."""
    return write_replay_page(story_replay.to_dict(), tmp_path_factory.mktemp("page") / "play.html")


@pytest.fixture
def complaints() -> list[str]:
    """What the page printed, threw or tried to fetch; `open_page` fills it, and it must end up empty."""
    return []


@pytest.fixture
def open_page(browser: Any, complaints: list[str]) -> Iterator[Any]:
    """Opens a page file without a network, in a window of a given size, and waits until it plays."""
    contexts = []

    def open_it(path: Path, width: int = 1280, height: int = 800, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(5000)
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"thrown: {error}"))
        page.on("request", lambda request: complaints.extend(_foreign(request.url, path)))
        page.goto(path.as_uri())
        page.locator("#facts", has_text="step").wait_for()
        return page

    yield open_it
    for context in contexts:
        context.close()


def _foreign(url: str, path: Path) -> list[str]:
    return [] if url == path.as_uri() or url.startswith(("data:", "blob:")) else [f"fetched: {url}"]
