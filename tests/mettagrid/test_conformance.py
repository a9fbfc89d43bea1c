"""The engine against recorded episodes, compiled and interpreted; and the command that compares them."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metta.mettagrid import traces as traces_module
from metta.mettagrid.conformance import check_folder, main
from metta.mettagrid.engine import state as cols
from metta.mettagrid.rules import RuleTable
from metta.mettagrid.traces import Trace, replay

SHORT = ("s00_tiny_open", "s14_tokens_tiny", "s24_few_actions", "s32_random_c", "s09_penalties")


def copy_folder(source: Path, target: Path, names: list[str]) -> Path:
    """A folder of traces with only these scenarios."""
    target.mkdir()
    index = json.loads((source / "index.json").read_text())
    (target / "index.json").write_text(json.dumps([e for e in index if Path(e["file"]).stem in names]))
    for name in names:
        shutil.copy(source / f"{name}.npz", target)
    shutil.copy(source / "errors.json", target)
    return target


@pytest.fixture
def one_trace(tmp_path: Path) -> Path:
    """A folder with a single short trace and no error cases."""
    folder = copy_folder(conftest_traces(), tmp_path / "traces", ["s14_tokens_tiny"])
    (folder / "errors.json").write_text("[]")
    return folder


def conftest_traces() -> Path:
    return Path(__file__).parents[1] / "data" / "traces"


def test_every_trace_and_every_refusal_is_reproduced(traces: Path) -> None:
    results = list(check_folder(traces))
    assert [str(result) for result in results if result.problem] == []
    assert len(results) >= len(list(traces.glob("*.npz"))) > 0


def test_interpreted_the_rules_are_the_same(traces: Path, tmp_path: Path) -> None:
    by_length = sorted(traces.glob("*.npz"), key=lambda path: path.stat().st_size)
    names = [name for name in SHORT if (traces / f"{name}.npz").exists()] or [p.stem for p in by_length[:3]]
    folder = copy_folder(traces, tmp_path / "short", names)
    done = subprocess.run(
        [sys.executable, "-m", "metta.mettagrid.conformance", str(folder), "--interpreted"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [name for name in names if f"ok   {name}:" not in done.stdout] == []


def spoil_json(name: str, change: Callable[[Any], None]) -> Callable[[dict[str, Any]], None]:
    def spoil(arrays: dict[str, Any]) -> None:
        data = json.loads(str(arrays[name]))
        change(data)
        arrays[name] = np.array(json.dumps(data))

    return spoil


def spoil_item(name: str, index: tuple[int, ...], value: Any) -> Callable[[dict[str, Any]], None]:
    def spoil(arrays: dict[str, Any]) -> None:
        assert arrays[name][index] != value
        arrays[name][index] = value

    return spoil


SPOILED = {
    "observations": (spoil_item("observations", (8, 2, 1, 2), 99), "step 7, agent 2, token 1: expected ["),
    "first observation": (
        spoil_item("observations", (0, 3, 0, 0), 99),
        "at the reset, agent 3, token 0: expected [99,",
    ),
    "rewards": (spoil_item("rewards", (4, 1), 0.5), "step 4, agent 1, rewards: expected 0.5, got "),
    "episode rewards": (
        spoil_item("episode_rewards", (4, 1), 0.5),
        "step 4, agent 1, episode_rewards: expected 0.5",
    ),
    "terminals": (
        spoil_item("terminals", (6, 0), True),
        "step 6, agent 0, terminals: expected True, got False",
    ),
    "truncations": (
        spoil_item("truncations", (6, 5), True),
        "step 6, agent 5, truncations: expected True, got False",
    ),
    "order": (spoil_item("agent_order", (9, 3), 77), "step 9, agent_order[3]: expected 77, got "),
    "state": (spoil_item("agent_state", (2, 1, 4), 77), "step 1, agent 1, agent_state[4]: expected 77, got "),
    "inventory": (
        spoil_item("agent_inventory", (3, 0, 2), 77),
        "step 2, agent 0, agent_inventory[2]: expected 77",
    ),
    "converters": (
        spoil_item("converter_inventory", (3, 1, 0), 77),
        "step 2, converter_inventory[1, 0]: expected 77",
    ),
    "object ids": (spoil_item("agent_object_ids", (2,), 7777), "agent_object_ids[2]: expected 7777, got "),
    "hash": (spoil_item("initial_grid_hash", (), 1), "initial_grid_hash: expected 1, got "),
    "arguments": (spoil_item("max_action_args", (0,), 55), "max_action_args[0]: expected 55, got "),
    "statistic": (
        spoil_json("stats", lambda stats: stats["game"].update(tokens_dropped=5)),
        "stats.game.tokens_dropped: expected 5, got ",
    ),
    "missing statistic": (
        spoil_json("stats", lambda stats: stats["agent"][1].update({"no.such": 1})),
        "stats.agent[1].no.such: expected 1, got nothing",
    ),
    "objects": (
        spoil_json("grid_objects_final", lambda objects: objects["1"].update(r=40)),
        "grid_objects_final.1.r: expected 40, got ",
    ),
    "features": (
        spoil_json("feature_spec", lambda spec: spec["type_id"].update(normalization=3)),
        "feature_spec.type_id.normalization: expected 3, got 1.0",
    ),
    "resolved": (
        spoil_json("resolved_config", lambda config: config.update(num_agents=9)),
        "resolved_config.num_agents: expected 9, got ",
    ),
}


@pytest.mark.parametrize("what", SPOILED)
def test_the_first_difference_is_named(
    one_trace: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, expected = SPOILED[what]
    path = one_trace / "s14_tokens_tiny.npz"
    with np.load(path) as data:
        arrays = {name: data[name].copy() for name in data.files}
    spoil(arrays)
    np.savez(path, **arrays)
    index = json.loads((one_trace / "index.json").read_text())
    del index[0]["sha256_observations"]
    (one_trace / "index.json").write_text(json.dumps(index))
    assert main([str(one_trace)]) == 1
    output = capsys.readouterr().out
    assert f"FAIL s14_tokens_tiny: {expected}" in output or f", {expected}" in output


def swap_window_cells(rules: RuleTable) -> None:
    rules.tables["window"][[1, 2]] = rules.tables["window"][[2, 1]]


def forget_sharing(rules: RuleTable) -> None:
    rules.tables["group_reals"][:, cols.SHARE] = 0


def forget_penalty(rules: RuleTable) -> None:
    rules.tables["group_reals"][:, cols.PENALTY] = 0


def slow_converters(rules: RuleTable) -> None:
    rules.tables["objects"][:, cols.TICKS] += 1


def equal_priorities(rules: RuleTable) -> None:
    rules.tables["actions"][:, cols.PRIORITY] = 0
    rules.tables["scalars"][cols.S_TOP_PRIORITY] = 0


def lower_limits(rules: RuleTable) -> None:
    rules.tables["groups"][:, cols.LIMITS :] = 1


def forget_rewards(rules: RuleTable) -> None:
    rules.tables["item_rewards"][:, :, cols.RATE] = 0


def forget_stat_caps(rules: RuleTable) -> None:
    rules.tables["stat_rates"][:, :, cols.CAP] = np.inf


@pytest.mark.parametrize(
    ("fault", "scenario", "field"),
    [
        (swap_window_cells, "s10_swapping", "token"),
        (forget_sharing, "s32_random_c", "rewards"),
        (forget_penalty, "s09_penalties", "rewards"),
        (slow_converters, "s05_zero_ticks", "converter_inventory"),
        (equal_priorities, "s01_edge_brawl", "agent_state"),
        (lower_limits, "s28_quantities", "agent_inventory"),
        (forget_rewards, "s28_quantities", "rewards"),
        (forget_stat_caps, "s20_stat_rewards", "rewards"),
    ],
)
def test_wrong_rules_are_noticed(
    fault: Callable[[RuleTable], None], scenario: str, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_rules = traces_module.compile_rules

    def wrong_rules(config: Any) -> RuleTable:
        rules = compile_rules(config)
        copied = dataclasses.replace(
            rules, tables={name: table.copy() for name, table in rules.tables.items()}
        )
        fault(copied)
        return copied

    trace = Trace(conftest_traces() / f"{scenario}.npz")
    assert replay(trace) is None
    monkeypatch.setattr(traces_module, "compile_rules", wrong_rules)
    difference = replay(trace)
    assert difference is not None
    assert difference.field.startswith(field), str(difference)


def test_a_wrong_refusal_is_noticed(one_trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = json.loads((conftest_traces() / "errors.json").read_text())
    by_name = {case["name"]: case for case in cases}
    by_name["unknown_cell"]["message"] = "Unknown object type: candle"
    by_name["obs_even"]["fields"] = ["obs_height:literal_error"]
    by_name["reward_item_absent_ignored"]["ok"] = False
    by_name["extra_key"]["ok"] = True
    del by_name["tokens_zero"]["map"]
    by_name["glyphs_256"].update(map=None, config=by_name["unknown_cell"]["config"])
    unknown = by_name["consumed_unknown_item_disabled_ok"]
    unknown["config"]["actions"]["noop"]["enabled"] = True
    unknown.update(
        ok=False,
        message="Action 'noop' has consumed_resources ['gold'] that are not in inventory_item_names. So.",
    )
    (one_trace / "errors.json").write_text(json.dumps([*cases, 3]))
    assert main([str(one_trace)]) == 1
    failures = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert len(failures) == 7
    assert failures[0].startswith(
        "FAIL errors.json/unknown_cell: expected the message 'Unknown object type: candle'"
    )
    assert failures[-1] == f"FAIL errors.json[{len(cases)}]: the case is not a JSON object"


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda folder: (folder / "index.json").unlink(), "FAIL index.json: the file is missing"),
        (
            lambda folder: (folder / "errors.json").write_text("{"),
            "FAIL errors.json: the file cannot be read as JSON",
        ),
        (
            lambda folder: (folder / "errors.json").write_text("{}"),
            "FAIL errors.json: the file holds a dict, not a list",
        ),
        (
            lambda folder: (folder / "s14_tokens_tiny.npz").write_bytes(b"not a zip"),
            "FAIL s14_tokens_tiny: the file cannot be read as npz",
        ),
        (
            lambda folder: (folder / "s14_tokens_tiny.npz").unlink(),
            "FAIL s14_tokens_tiny: index.json lists s14_tokens_tiny.npz, but there is no such file",
        ),
        (
            lambda folder: np.savez(folder / "another.npz", actions=np.zeros((2, 1, 2), np.int32)),
            "FAIL another: entry ",
        ),
        (
            lambda folder: (folder / "index.json").write_text(
                (folder / "index.json").read_text().replace('observations": "', 'observations": "0')
            ),
            "FAIL s14_tokens_tiny: the file's observations do not have the sha256 that index.json gives",
        ),
    ],
)
def test_broken_folders_get_a_clear_line(
    one_trace: Path, spoil: Callable[[Path], Any], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(one_trace)
    assert main([str(one_trace)]) in (1, 2)
    assert line in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        (
            "actions",
            np.zeros((250, 6), np.int32),
            "actions is int32 (250, 6), not integers [steps, agents, 2]",
        ),
        ("rewards", np.zeros((3, 6), np.float32), "rewards has shape (3, 6) where (250, 6) would fit"),
        ("stats", np.array("{"), "stats is not JSON"),
        (
            "map",
            np.full((11, 11), "empty"),
            "the config or the map is refused: the map of world 0 has 0 agents",
        ),
        ("map", np.zeros((11, 11)), "map is float64 (11, 11), not cell names"),
        ("config", np.array("{}"), "the config or the map is refused:"),
        ("config", np.array("[]"), "config is [], not a dict"),
        ("converter_ids", np.array(3), "converter_state has shape (251, 15, 2) where (251, 1, 2) would fit"),
        ("inventory_item_names", np.array("3"), "inventory_item_names is 3, not a list"),
    ],
)
def test_broken_traces_get_a_clear_line(
    one_trace: Path, name: str, value: Any, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = one_trace / "s14_tokens_tiny.npz"
    with np.load(path) as data:
        arrays = {key: data[key] for key in data.files}
    np.savez(path, **{**arrays, name: value})
    assert main([str(one_trace)]) == 1
    assert f"FAIL s14_tokens_tiny: {problem}" in capsys.readouterr().out


def test_a_folder_without_traces_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "holds no traces" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "is no folder" in capsys.readouterr().err
