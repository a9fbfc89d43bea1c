"""The replay page in a real browser."""

from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image

from metta.mettagrid.replay import Replay, ReplayRecorder
from metta.viewer.page import write_replay_page
from story import HEIGHT, ITEMS, LAST_STEP, WIDTH

pytestmark = pytest.mark.browser

EVENTS = [
    (3, "agent 0 took 3 ore_red from mine_red"),
    (8, "agent 0 put ore_red into generator_red"),
    (9, "generator_red made battery_red"),
    (10, "agent 0 took battery_red from generator_red"),
    (14, "agent 0 attacked agent 1 and took 2 ore_red"),
    (17, "altar made heart"),
    (17, "agent 0 put battery_red into altar"),
    (17, "agent 1 swapped places with block"),
    (17, "agent 1 can move again"),
    (18, "agent 0 got heart from altar"),
]


@pytest.fixture
def replay(story_replay: ReplayRecorder) -> Replay:
    return Replay(story_replay.to_dict())


@pytest.fixture
def page(open_page: Any, story_page: Path) -> Any:
    return open_page(story_page)


def step_of(page: Any) -> int:
    step = page.evaluate("metta.step")
    assert page.locator("#clock").inner_text() == f"{step} / {LAST_STEP}"
    assert page.locator("#scrub").input_value() == str(step)
    return int(step)


def wait_until(page: Any, condition: str) -> None:
    """Wait for a JavaScript condition. Playwright's own way evaluates text inside the page, which forbids it."""
    for _ in range(250):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"after five seconds still not: {condition}")


def click_cell(page: Any, col: int, row: int) -> None:
    x, y = page.evaluate(f"metta.pixels({col}, {row})")
    page.locator("#world").click(position={"x": x, "y": y})


def fact(page: Any, name: str) -> str:
    return " ".join(page.locator(f"#details dd[data-fact='{name}']").inner_text().split())


def test_it_loads_offline_and_without_complaint(page: Any, complaints: list[str]) -> None:
    assert page.title() == "A short play · Metta replay"
    assert page.locator("#title").inner_text() == "A short play"
    assert page.locator("#facts").inner_text() == "2 agents · 9 × 6 cells · 18 steps"
    assert page.locator("#banner").is_hidden()
    assert step_of(page) == 0
    assert "gives 1 ore_red every 7 steps" in " ".join(page.locator("#details").inner_text().split())
    assert complaints == []


def test_scrubbing_shows_the_recorded_positions(page: Any, replay: Replay, complaints: list[str]) -> None:
    for step in [*range(LAST_STEP + 1), 3, 11, 0]:
        page.locator("#scrub").fill(str(step))
        assert step_of(page) == step
        expected = {o["id"]: replay.series(o, "position")[step] for o in replay.objects}
        assert {key: [col, row] for key, col, row in page.evaluate("metta.drawn")} == expected
    assert complaints == []


def test_the_picture_changes_where_an_agent_moves(page: Any) -> None:
    """The canvas itself is looked at, not only what the page says of it."""

    def pixels(col: int, row: int) -> Any:
        return page.evaluate(
            """([col, row]) => {
              const [x, y] = metta.pixels(col, row);
              const ratio = devicePixelRatio;
              const data = document.getElementById("world").getContext("2d")
                .getImageData(x * ratio - 12, y * ratio - 12, 24, 24).data;
              return [...data];
            }""",
            [col, row],
        )

    page.evaluate("metta.seek(1)")
    there, empty = pixels(3, 2), pixels(2, 2)
    page.evaluate("metta.seek(2)")
    assert pixels(2, 2) != empty
    assert pixels(3, 2) != there


def test_play_advances_and_stops_at_the_end(page: Any, complaints: list[str]) -> None:
    page.locator("#speed").select_option("32")
    page.locator("#play").click()
    wait_until(page, "metta.step > 2")
    assert page.locator("#play").get_attribute("aria-label") == "Pause"
    wait_until(page, "!metta.playing")
    assert step_of(page) == LAST_STEP
    assert page.locator("#play").get_attribute("aria-label") == "Play"
    page.locator("#play").click()
    wait_until(page, f"metta.step > 0 && metta.step < {LAST_STEP}")
    assert complaints == []


def test_pause_rests_on_a_recorded_step(page: Any, replay: Replay) -> None:
    page.locator("#speed").select_option("4")
    page.locator("#play").click()
    wait_until(page, "metta.step >= 4")
    page.locator("#play").click()
    step = step_of(page)
    assert not page.evaluate("metta.playing")
    expected = {o["id"]: replay.series(o, "position")[step] for o in replay.objects}
    assert {key: [col, row] for key, col, row in page.evaluate("metta.drawn")} == expected


def test_following_an_agent_shows_all_about_it(page: Any, replay: Replay) -> None:
    agent = replay.agents[0]
    click_cell(page, 3, 2)
    assert page.evaluate("metta.selected") == agent["id"]
    assert page.locator("#selected-name").inner_text() == "Agent 0"
    assert page.locator("#follow").is_checked()
    for step in range(LAST_STEP + 1):
        page.evaluate(f"metta.seek({step})")
        held = replay.series(agent, "inventory")[step]
        limits = ["of 10", "of 10", ""]
        chips = " ".join(f"{ITEMS[item]} {count} {limits[item]}".strip() for item, count in held)
        assert fact(page, "carries") == (chips or "nothing")
        total = replay.series(agent, "total_reward")[step]
        reward = replay.series(agent, "current_reward")[step]
        assert fact(page, "reward") == f"{f'+{reward:g}' if reward else '0'} this step, {total:g} in all"
        col, row = replay.series(agent, "position")[step]
        assert fact(page, "at") == f"column {col}, row {row}"
        assert page.locator(".row.agent").first.locator(".number").inner_text() == f"{total:.2f}"
    assert page.locator("#team-total").inner_text() == "total 1.10"
    assert [
        cell.strip() for cell in page.locator(".row.agent").first.locator(".count").all_inner_texts()
    ] == [
        "3",
        "1",
        "1",
    ]


def test_actions_are_told_in_words(page: Any) -> None:
    click_cell(page, 3, 2)
    told = {1: "rotate left ✓", 2: "move forward ✓", 3: "get_items ✓", 14: "attack target 0 ✓", 15: "noop ✓"}
    for step, words in told.items():
        page.evaluate(f"metta.seek({step})")
        assert fact(page, "last action") == words
    page.locator(".row.agent").nth(1).click()
    page.evaluate("metta.seek(14)")
    assert fact(page, "last action") == "move forward ✗ failed"
    assert fact(page, "reward") == "−0.1 this step, −0.1 in all"
    assert fact(page, "frozen") == "for 3 more of 4 steps"
    assert fact(page, "team") == "agent, shares 25 % of its reward"


def test_an_object_explains_itself(page: Any) -> None:
    click_cell(page, 6, 2)
    assert page.locator("#selected-name").inner_text() == "generator_red"
    assert page.locator("#follow").is_hidden()
    told = {
        0: "waits for 1 ore_red",
        8: "converting, 0 % done",
        10: "resting, 5 more steps",
        12: "resting, 3 more steps",
    }
    for step, words in told.items():
        page.evaluate(f"metta.seek({step})")
        assert fact(page, "now") == words
    assert fact(page, "recipe") == "1 ore_red → 1 battery_red"
    assert fact(page, "takes") == "2 steps, then rests 5 steps"
    assert fact(page, "stops at") == "5 in store"
    page.evaluate("metta.seek(9)")
    assert fact(page, "holds") == "battery_red 1"
    click_cell(page, 7, 3)
    assert page.locator("#selected-name").inner_text() == "block"
    click_cell(page, 4, 3)
    assert page.locator("#selected-name").inner_text() == "On the map"


def test_what_happened_is_told_in_words(page: Any) -> None:
    assert [(event["step"], event["text"]) for event in page.evaluate("metta.events")] == EVENTS
    page.evaluate(f"metta.seek({LAST_STEP})")
    lines = [" ".join(text.split()) for text in page.locator("#events li:visible").all_inner_texts()]
    assert lines == [f"{step} {text}" for step, text in reversed(EVENTS)]
    page.evaluate("metta.seek(9)")
    assert page.locator("#events li:visible").count() == 3
    page.evaluate("metta.seek(2)")
    assert page.locator("#events li:visible").all_inner_texts() == ["Nothing yet."]


def test_events_can_be_jumped_to(page: Any, replay: Replay) -> None:
    page.evaluate(f"metta.seek({LAST_STEP})")
    page.locator("#events button", has_text="agent 0 put ore_red").click()
    assert step_of(page) == 8
    assert page.evaluate("metta.selected") == replay.agents[0]["id"]
    page.locator("#event-on").click()
    assert step_of(page) == 9
    page.locator("#event-back").click()
    page.locator("#event-back").click()
    assert step_of(page) == 3
    page.locator(".row.agent").nth(1).click()
    page.locator("#only-selected").check()
    page.evaluate(f"metta.seek({LAST_STEP})")
    assert page.locator("#events li:visible").count() == 3


def test_the_timeline_is_a_way_to_jump(page: Any) -> None:
    box = page.locator("#timeline").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 20)
    assert "step 9" in page.locator("#tip").inner_text()
    page.mouse.down()
    page.mouse.up()
    assert step_of(page) == 9
    # Third lane: hearts. Its only mark is at the end, and a click beside it goes to it.
    page.mouse.click(box["x"] + box["width"] - 13, box["y"] + 48 + 2.5 * 14)
    assert step_of(page) == LAST_STEP


def test_keys(page: Any, replay: Replay) -> None:
    def press(*keys: str) -> int:
        for key in keys:
            page.keyboard.press(key)
        return step_of(page)

    assert press("ArrowRight", "ArrowRight", "ArrowRight") == 3
    assert press("ArrowLeft") == 2
    assert press("Shift+ArrowRight") == 12
    assert press("Shift+ArrowLeft") == 2
    assert press("End") == LAST_STEP
    assert press("ArrowRight") == LAST_STEP
    assert press("Home") == 0
    assert press("ArrowLeft") == 0
    assert press("]") == 3
    assert press("]") == 8
    assert press("[") == 3
    page.keyboard.press("ArrowDown")
    assert page.locator("#speed").input_value() == "4"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert page.locator("#speed").input_value() == "16"
    first, second = (agent["id"] for agent in replay.agents)
    for key, expected in [("n", first), ("n", second), ("n", first), ("p", second), ("Escape", None)]:
        page.keyboard.press(key)
        assert page.evaluate("metta.selected") == expected
    page.keyboard.press("Space")
    wait_until(page, "metta.step > 4")
    page.keyboard.press("Space")
    assert not page.evaluate("metta.playing")
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    before = step_of(page)
    page.keyboard.press("ArrowRight")
    assert step_of(page) == before
    page.keyboard.press("Escape")
    assert page.locator("#keys").is_hidden()


def test_space_after_a_click_plays_instead_of_clicking_again(page: Any) -> None:
    page.locator("#forward").click()
    assert step_of(page) == 1
    page.keyboard.press("Space")
    assert page.evaluate("metta.playing")


def test_light_and_dark(open_page: Any, story_page: Path) -> None:
    shade = "getComputedStyle(document.body).backgroundColor"
    dark = open_page(story_page, color_scheme="dark")
    light = open_page(story_page, color_scheme="light")
    night, day = dark.evaluate(shade), light.evaluate(shade)
    assert night != day
    dark.keyboard.press("t")
    assert dark.evaluate(shade) == day
    light.locator("#theme").click()
    assert light.evaluate(shade) == night


def test_a_phone_shows_all_without_sideways_scrolling(
    open_page: Any, story_page: Path, complaints: list[str]
) -> None:
    page = open_page(story_page, 400, 800, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    for name in ("#world", "#timeline", "#scrub", "#play", "#speed", "#clock"):
        box = page.locator(name).bounding_box()
        assert box["x"] >= 0, name
        assert box["x"] + box["width"] <= 400, name
        assert box["y"] + box["height"] <= 800, name
    assert page.locator("#play").bounding_box()["height"] >= 36
    x, y = page.evaluate("metta.pixels(3, 2)")
    frame = page.locator("#world").bounding_box()
    page.touchscreen.tap(frame["x"] + x, frame["y"] + y)
    assert page.locator("#selected-name").inner_text() == "Agent 0"
    assert complaints == []


def wide_world() -> ReplayRecorder:
    """One agent walks through a world too large to show at once."""
    recorder = ReplayRecorder(
        num_agents=1,
        map_size=(200, 150),
        type_names=["agent"],
        action_names=["move"],
        item_names=[],
        label="wide",
    )
    for step in range(60):
        agent = {
            "type": 0,
            "r": 100,
            "c": 100 + step,
            "layer": 0,
            "agent_id": 0,
            "orientation": 3,
            "group_id": 0,
            "is_frozen": False,
            "freeze_remaining": 0,
            "freeze_duration": 0,
        }
        done = (np.zeros((1, 2)), np.ones(1, bool), np.zeros(1)) if step else ()
        recorder.record(step, {1: agent}, *done)
    return recorder


def test_the_camera_follows_through_a_large_map(
    open_page: Any, tmp_path: Path, complaints: list[str]
) -> None:
    page = open_page(write_replay_page(wide_world().to_dict(), tmp_path / "wide.html"))
    frame = page.locator("#world").bounding_box()
    middle = [frame["width"] / 2, frame["height"] / 2]
    corner = page.evaluate("metta.pixels(199, 149)")
    assert corner[0] < frame["width"], "the whole map fits at first"
    assert corner[1] < frame["height"]
    page.keyboard.press("n")
    for step in (0, 30, 59):
        page.evaluate(f"metta.seek({step})")
        assert page.evaluate(f"metta.pixels({100 + step}, 100)") == pytest.approx(middle)
    page.mouse.move(frame["x"] + 300, frame["y"] + 300)
    page.mouse.down()
    page.mouse.move(frame["x"] + 200, frame["y"] + 250, steps=4)
    page.mouse.up()
    assert page.locator("#follow").is_checked() is False
    assert page.evaluate("metta.pixels(159, 100)") == pytest.approx([middle[0] - 100, middle[1] - 50])
    page.keyboard.press("0")
    assert page.evaluate("metta.pixels(199, 149)") == pytest.approx(corner)
    page.mouse.move(frame["x"] + 400, frame["y"] + 200)
    under = page.evaluate("metta.pixels(100, 60)")
    page.mouse.wheel(0, -400)
    wait_until(page, f"Math.abs(metta.pixels(100, 60)[0] - {under[0]}) > 1")
    assert complaints == []


def test_another_replay_can_be_opened(page: Any, tmp_path: Path, complaints: list[str]) -> None:
    other = wide_world().save(tmp_path / "wide.json.z")
    bad = tmp_path / "bad.json.z"
    bad.write_bytes(b"nothing")
    page.locator("#file").set_input_files(bad)
    page.locator("#banner", has_text="This is no replay file: it is not zlib-compressed").wait_for()
    assert page.locator("#title").inner_text() == "A short play"
    bad.write_bytes(zlib.compress(b'{"version": 1}'))
    page.locator("#file").set_input_files(bad)
    page.locator("#banner", has_text="This is no replay of version 2.").wait_for()
    page.locator("#file").set_input_files(other)
    page.locator("#facts", has_text="200 × 150 cells").wait_for()
    assert page.locator("#title").inner_text() == "wide"
    assert page.locator("#banner").is_hidden()
    assert complaints == []


def test_names_are_shown_as_text(
    open_page: Any, tmp_path: Path, story_replay: Any, complaints: list[str]
) -> None:
    data = story_replay.to_dict()
    evil = "<img src=x onerror=document.title='caught'>"
    data |= {"file_name": evil, "item_names": [evil, "battery_red", "heart"], "type_names": [evil] * 6}
    page = open_page(write_replay_page(data, tmp_path / "evil.html"))
    page.evaluate(f"metta.seek({LAST_STEP})")
    page.keyboard.press("n")
    assert page.locator("#title").inner_text() == evil
    assert page.locator("img").count() == 0
    assert complaints == []


def test_the_map_has_the_recorded_shape(page: Any) -> None:
    left, top = page.evaluate("metta.pixels(0, 0)")
    right, bottom = page.evaluate(f"metta.pixels({WIDTH - 1}, {HEIGHT - 1})")
    assert (right - left) / (WIDTH - 1) == pytest.approx((bottom - top) / (HEIGHT - 1))
    frame = page.locator("#world").bounding_box()
    assert 0 < left < right < frame["width"]
    assert 0 < top < bottom < frame["height"]


@pytest.mark.parametrize(("width", "height", "theme"), [(1280, 800, "dark"), (400, 800, "light")])
def test_a_picture_can_be_taken(
    story_replay: ReplayRecorder, tmp_path: Path, width: int, height: int, theme: str
) -> None:
    picture = tmp_path / "pictures" / "page.png"
    replay = story_replay.save(tmp_path / "play.json.z")
    command = [sys.executable, Path(__file__).parent / "screenshot.py", replay, picture, "--step", "14"]
    command += ["--agent", "1", "--width", str(width), "--height", str(height), "--theme", theme]
    subprocess.run(command, check=True, timeout=60)
    shape = image.imread(picture).shape
    assert shape[:2] == (height, width)
