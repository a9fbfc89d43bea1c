"""The learning benchmark's page: what is kept of runs, how they are aggregated, and what the page says."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.learning.aggregate import aggregate, aggregate_tasks, interquartile_mean
from benchmarks.learning.kept import gather, groups, is_standing, keep, load, parts, save
from benchmarks.learning.report import (
    KEPT,
    PAGE,
    first_hearts,
    ledger,
    reached,
    report,
    results,
    write_tables,
)
from benchmarks.learning.runs import read_log, write
from benchmarks.learning.settings import Changes, differences
from benchmarks.learning.tasks import TASKS, settings_of

PLACES = ("tasks", "results", "pictures", "peers", "ledger")
MARKS = "".join(f"<!-- {n} -->\nold\n<!-- end of {n} -->\n" for n in PLACES)


def log_of(
    folder: Path,
    learner: str = "metta",
    *,
    seed: int = 0,
    score: float = 1.0,
    changes: Changes | None = None,
    ended: bool = True,
    started: str = "2026-01-01T00:00:00+00:00",
    speed: float = 1000.0,
) -> Path:
    """A log as a run would have written it, whose training scores rise evenly up to the last one."""
    usual = settings_of(TASKS["arena"], learner)
    dump = settings_of(TASKS["arena"], learner, changes).model_dump(mode="json")
    header = {"task": "arena", "learner": learner, "seed": seed, "steps": 100_000, "env": TASKS["arena"].env}
    header |= {"own_env": True, "changes": differences(usual.model_dump(mode="json"), dump), "note": "a try"}
    header |= {"settings": dump, "weights": 5, "threads": 1, "commit": "abc", "started": started}
    header |= {"versions": {}, "command": []}
    name = f"{learner}-{len(list(folder.glob('*')))}-seed{seed}.jsonl"
    with (folder / name).open("w") as file:
        write(file, "header", header)
        write(file, "evaluation", judged(0, 0.0))
        for number in range(1, 101):
            steps = 1000 * number
            clock = {"steps": steps, "seconds": 2 * steps / speed, "cpu_seconds": steps / speed}
            stats = {"heart.gained": 0.2 * number / 100, "ore_red.gained": 3.0}
            row = {
                "steps_per_s": speed,
                "episodes": 2,
                "score": score * number / 100,
                "stats": stats,
                "losses": {},
            }
            write(
                file,
                "row",
                clock | (row if number % 2 else row | {"episodes": 0, "score": None, "stats": None}),
            )
        write(file, "evaluation", judged(100_000, score))
        if ended:
            write(file, "end", {"steps": 100_000, "seconds": 200.0, "cpu_seconds": 1e5 / speed})
    return folder / name


def judged(steps: int, score: float) -> dict[str, Any]:
    stats = {"heart.gained": score / 2, "ore_red.gained": 3.0}
    return {"steps": steps, "episodes": 64, "score": score, "stats": stats, "half_interval": 0.1}


def test_the_interquartile_mean_leaves_out_a_quarter_at_each_end() -> None:
    assert interquartile_mean(np.array([100.0, 1.0, 2.0, -50.0])) == 1.5
    assert interquartile_mean(np.array([3.0, 1.0, 2.0])) == 2.0
    assert interquartile_mean(np.array([0.0, 1, 2, 3, 4, 5, 6, 99])) == 3.5
    assert aggregate([7.0]).mean == 7.0
    assert str(aggregate([7.0])) == "7.00"
    with pytest.raises(ValueError, match="no runs to aggregate"):
        aggregate([])


def test_the_interval_is_that_of_the_bootstrap() -> None:
    """Of two runs, a quarter of the samples holds only the lower and a quarter only the upper."""
    pair = aggregate([1.0, 3.0])
    assert (pair.mean, pair.low, pair.high) == (2.0, 1.0, 3.0)
    rng = np.random.default_rng(1)
    scores = rng.normal(size=400)
    middle = np.sort(scores)[100:300]
    many = aggregate(scores.tolist(), draws=2000)
    # The trimmed mean's standard error, by Winsorising (Tukey and McLaughlin 1963).
    error = np.clip(scores, middle[0], middle[-1]).std(ddof=1) / (0.5 * np.sqrt(len(scores)))
    assert many.high - many.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert many.low < many.mean < many.high


def test_samples_are_drawn_within_each_task() -> None:
    """Where the runs of a task are alike there is nothing to be unsure about, however far apart the tasks are."""
    both = aggregate_tasks([[1.0, 1.0, 1.0], [9.0, 9.0, 9.0]])
    assert both.low == both.mean == both.high == 5.0


@pytest.mark.peers
@pytest.mark.parametrize("runs", [3, 8, 10])
def test_rliable_gives_the_same(runs: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from rliable import library, metrics

        scores = np.random.default_rng(runs).normal(size=(runs, 3))
        means, intervals = library.get_interval_estimates(
            {"ours": scores}, lambda x: np.array([metrics.aggregate_iqm(x)]), reps=5000
        )
    ours = aggregate_tasks(scores.T.tolist())
    assert ours.mean == pytest.approx(float(means["ours"][0]))
    width = ours.high - ours.low
    assert [ours.low, ours.high] == pytest.approx(intervals["ours"][:, 0].tolist(), abs=0.05 * width)


def test_a_curve_is_thinned_by_means_over_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = read_log(log_of(tmp_path))
    log["row"][0]["episodes"] = 52  # at a score of 0.01; the other 49 have 2 each
    with monkeypatch.context() as patch:
        patch.setattr("benchmarks.learning.kept.POINTS", 1)
        assert keep(log)["curve"]["score"] == pytest.approx([(25 * 2 + 0.01 * 50) / 150], abs=1e-4)
    log["row"][0]["episodes"] = 2
    curve = keep(log)["curve"]
    assert len(curve["steps"]) == 40
    assert curve["steps"][-1] == 99_000
    assert np.mean(curve["score"]) == pytest.approx(0.5, abs=0.02)
    assert curve["ore_red.gained"] == [3.0] * 40
    assert curve["battery_red.gained"] == [0.0] * 40
    assert [len(part) for part in parts(list(range(7)), 3)] == [2, 3, 2]
    assert parts([], 3) == []


def test_runs_that_differ_in_their_seed_are_one_group(tmp_path: Path) -> None:
    for seed, score in ((0, 1.0), (1, 2.0), (2, 6.0)):
        log_of(tmp_path, seed=seed, score=score)
    log_of(tmp_path, seed=0, score=5.0, changes={"ppo.gamma": 0.5}, started="2026-01-02T00:00:00+00:00")
    log_of(
        tmp_path, seed=1, score=3.0, started="2026-01-03T00:00:00+00:00"
    )  # again: it takes the old one's place
    unfinished = log_of(tmp_path, seed=7, ended=False)
    kept, incomplete = gather(tmp_path, {"runs": {}, "settings": {}})
    assert incomplete == [f"{unfinished.stem} stands at 100,000 of 100,000 steps"]
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "metrics.jsonl").write_text("{}")  # something else
    for file in list(tmp_path.glob("*-seed2.jsonl")):
        file.rename(tmp_path / "below" / file.name)
    assert gather(tmp_path, {"runs": {}, "settings": {}}) == (kept, incomplete)
    usual, other = groups(kept)
    assert usual.standing
    assert not other.standing
    assert (usual.changes, other.changes) == ({}, {"ppo.gamma": 0.5})
    assert [run["seed"] for run in usual.runs] == [0, 1, 2]
    assert usual.after("score") == [1.0, 3.0, 6.0]
    assert usual.after("heart.gained") == [0.5, 1.5, 3.0]
    assert first_hearts(usual) == "0.1 M"  # 51,000 steps, at the odd row in which 0.1 is passed
    save(tmp_path / "kept.json", kept)
    assert groups(load(tmp_path / "kept.json")) == [usual, other]


def test_runs_in_another_world_stand_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log_of(tmp_path)
    kept, _ = gather(tmp_path, {"runs": {}, "settings": {}})
    world = TASKS["arena"].env
    assert [group.env for group in groups(kept)] == [""]
    monkeypatch.setitem(TASKS, "arena", dataclasses.replace(TASKS["arena"], env="/env/mettagrid/simple"))
    assert [group.env for group in groups(kept)] == [world]
    assert results(groups(kept)) == "No run is kept yet."
    assert f"trained in `{world}`" in ledger(groups(kept))


def test_settings_that_came_later_count_as_left_alone() -> None:
    settings = settings_of(TASKS["arena"], "metta").model_dump(mode="json")
    assert is_standing("arena", "metta", settings)
    del settings["ppo"]["target_kl"]
    assert is_standing("arena", "metta", settings)
    assert not is_standing("arena", "metta", settings | {"async_factor": 2})
    assert not is_standing("arena", "metta", settings | {"gone": 1})
    assert not is_standing("gone", "metta", settings)


def test_the_page_says_what_the_runs_say(tmp_path: Path) -> None:
    for seed, score in ((0, 1.0), (1, 2.0), (2, 6.0)):
        log_of(tmp_path, seed=seed, score=score)
    log_of(tmp_path, "plain", score=1.5, speed=250.0)
    log_of(tmp_path, score=4.0, changes={"ppo.gamma": 0.5})
    page, file = tmp_path / "page.md", tmp_path / "kept.json"
    page.write_text(MARKS)
    said = report(tmp_path, page, file)
    text = page.read_text()
    assert "old" not in text
    assert "| arena | 0.1 M | metta | 3 | 3.00 (1.00 to 6.00) | 3.00 | 0.00 | 1.50 |" in text
    assert "| arena | 0.1 M | plain | 1 | 1.50 | 3.00 | 0.00 | 0.75 |" in text
    assert "| arena | metta | `ppo.gamma=0.5` | a try | 0.1 M | 1 | 4.00 |" in text
    assert "| arena | metta | nothing | a try |" in text
    assert "3.00 (1.00 to 6.00)" in said
    # Metta's mean rises to 3 within 100 CPU seconds, so it stands at 1.5 after half of them; the other needs 400.
    line = next(line for line in text.splitlines() if line.startswith("| arena | plain | 1.4"))
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells[3:5] == ["0.1 M", "400"]
    assert float(cells[6]) == pytest.approx(50, abs=3)
    assert float(cells[7]) == pytest.approx(8, abs=0.6)
    assert "](learning_arena.png)" in text
    assert "learning_newcomer.png" not in text
    assert (tmp_path / "learning_arena.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "learning_newcomer.png").exists()
    before = text, file.read_text()
    report(None, page, file)
    assert (page.read_text(), file.read_text()) == before
    with pytest.raises(FileNotFoundError, match="has no logs"):
        report(tmp_path / "nothing", page, file)
    with pytest.raises(ValueError, match="no '<!-- tasks -->'"):
        write_tables("# Nothing", [])


def test_what_is_never_reached_is_said(tmp_path: Path) -> None:
    log_of(tmp_path, score=1.0)
    kept, _ = gather(tmp_path, {"runs": {}, "settings": {}})
    group = groups(kept)[0]
    assert reached(group, 2.0, "steps") is None
    first = group.runs[0]["curve"]["steps"][0]
    soonest = reached(group, 0.0, "steps")
    assert soonest is not None
    assert first <= soonest <= first + 1000, "a stretch has its score when it ends, and no sooner"
    for curve in (run["curve"] for run in group.runs):
        curve["heart.gained"] = [0.0] * len(curve["steps"])
    assert first_hearts(group) == "never"
    assert results([]) == "No run is kept yet."


def test_the_page_of_the_project_shows_what_is_kept() -> None:
    kept = load(KEPT)
    assert set(kept) == {"runs", "settings"}
    assert write_tables(PAGE.read_text(), groups(kept)) == PAGE.read_text(), (
        "docs/learning.md is not what docs/learning.json and the tasks say; run python -m benchmarks.learning report"
    )
    assert len(json.dumps(kept)) < 2**20
