"""Take a picture of the page of a replay: `python tests/viewer/screenshot.py REPLAY.json.z OUT.png --step 120 --agent 2`."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from conftest import CHROMIUM_ARGS, find_chromium
from metta.viewer.page import write_replay_page


def take_screenshot(
    replay: Path,
    picture: Path,
    *,
    step: int = 0,
    agent: int | None = None,
    width: int = 1280,
    height: int = 800,
    theme: str = "dark",
    scale: float = 1,
) -> None:
    """Write a PNG of the page that plays `replay`.

    Args:
        replay: a `.json.z` file.
        picture: the PNG to write.
        step: the step to show.
        agent: the agent to select and follow, None for none.
        width: of the window, in CSS pixels; 400 looks like a phone.
        height: of the window.
        theme: "dark" or "light".
        scale: device pixels per CSS pixel.
    """
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        page_file = write_replay_page(replay, Path(folder) / "replay.html")
        browser = driver.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_ARGS)
        size = {"width": width, "height": height}
        page = browser.new_page(viewport=size, color_scheme=theme, device_scale_factor=scale)
        page.goto(page_file.as_uri())
        page.locator("#facts", has_text="step").wait_for()
        page.evaluate(f"metta.seek({step})")
        if agent is not None:
            page.locator(".row.agent", has=page.locator(f".who >> text='{agent}'")).click()
            page.locator("body").hover(position={"x": 1, "y": 1})
        picture.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Take a picture of the page of a replay.")
    parser.add_argument("replay", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--step", type=int, default=0)
    parser.add_argument("--agent", type=int)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--theme", choices=["dark", "light"], default="dark")
    parser.add_argument("--scale", type=float, default=1)
    take_screenshot(**vars(parser.parse_args()))
