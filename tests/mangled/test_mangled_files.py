"""Whatever a file holds, it is read or refused in one sentence: never a crash, a hang, or memory without end."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kinds import KINDS, YAML_FILES, policies, problem_of, read_policy, replays, spoiled, states, traces
from metta.common.reading import inflate, one_line, parse_json, read_bytes, repeated
from metta.eval.stats_db import StatsDB
from metta.mettagrid.config import EnvConfig
from metta.mettagrid.map.ascii import parse_ascii
from metta.mettagrid.registry import register_yaml
from metta.mettagrid.replay_format import read_replay
from metta.mettagrid.spec import EnvSpec
from metta.mettagrid.traces import BrokenTraceError, Trace, replay
from metta.mettagrid.yaml_files import read_description
from metta.rl.types import TrainingState
from metta.tracking.metrics_file import read_metrics
from metta.viewer.page import write_replay_page


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_spoiled_file_is_read_or_refused(name: str, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert problem_of(KINDS[name], spoiled(KINDS[name], seed), Path(folder)) is None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=20, deadline=None)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(name: str, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert problem_of(KINDS[name], data, Path(folder)) is None


@pytest.mark.parametrize("name", KINDS)
def test_valid_files_are_read(name: str, tmp_path: Path) -> None:
    for data in KINDS[name].valid():
        path = tmp_path / f"file{KINDS[name].suffix}"
        path.write_bytes(data)
        KINDS[name].read(path)


LAUGHS = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))
MERGES = "\n".join(f"m{n}: &m{n} {{<<: [*m{n - 1}, *m{n - 1}], k{n}: 1}}" for n in range(1, 40))
ENV = "path: /env/fuzz/x\nenv: {game: {width: 9, height: 9, num_agents: 1}, map_builder: {objects: {}}}"


def with_game(**fields: Any) -> str:
    about = yaml.safe_load(ENV)
    about["env"]["game"] |= fields
    return str(yaml.safe_dump(about))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (f"path: /env/x\na0: &a0 [1]\n{LAUGHS}", "more than 100000 values, anchors written out"),
        (f"path: /env/x\nm0: &m0 {{a: 1}}\n{MERGES}", "more than 100000 values, anchors written out"),
        ("path: /env/x\nbase: &a [*a]", "contains itself"),
        ("path: /env/x\nset: &a {b: {c: *a}}", "contains itself"),
        ("path: /env/x\nset: " + "[" * 20_000, "is no valid YAML: RecursionError"),
        ("path: /env/x\nset: " + "9" * 5000, "a number of 5000 characters is too long"),
        ("path: /env/x\nset: " + "1:" * 20_000 + "1", "a number of 40001 characters is too long"),
        ("path: /env/x\n" + "#" * 2**20, "has more than 1,048,576 bytes"),
        ("path: /env/x\nset: {" + ", ".join(f"k{n}: 1" for n in range(40_000)) + "}", "give one of the two keys"),
        ("path: /env/x\nenv: {objects: [" + "a, " * 60_000 + "]}", "has a wrong entry at env.objects.0"),
        ("path: /env/x\n\xff\xfe", "is no valid YAML"),
        (with_game(num_agents=10**9), "num_agents"),
        (with_game(width=10**9, height=10**9), "a map of 1000000000 x 1000000000 cells is too large; it has at most 4194304"),
        (with_game(width=10**30), "a map of 1000000000000000000000000000000 x 9 cells is too large"),
        (with_game(num_agents=30_000, num_observation_tokens=2**20), "see 94371840000 bytes at a step; it may be 268435456"),
        (with_game(max_steps=10**12), "max_steps is 1000000000000, but the engine takes"),
        (with_game(time_punishment=1e39), r"step_reward is 1e\+39, but a reward is a number from -1e\+20 to 1e\+20"),
        (with_game(heart_reward=float("nan")), "heart_reward"),
        (with_game(heart_max_reward=10**400), "heart_max.*a reward is a number|too long"),
        (with_game(stat_rewards={"ore_red.get": -1e300}), r"agent.rewards.stats.ore_red.get is -1e\+300"),
        (with_game(inventory_item_names=["a"] * 50_000), "inventory_item_names has a more than once"),
        ("path: /env/x\nenv: {map_builder: {type: Rooms, num_rooms: 1000000000000, room: {type: Maze}}}", "cells is too large"),
        ("path: /env/x\nenv: {map_builder: {type: Rooms, border_width: 1000000000, room: {type: Maze}}}", "cells is too large"),
        ("path: /env/x\nenv: {map_builder: {type: Ascii, ascii_map: '#\\u0007@'}}", "Unknown character: #?"),
        (
            "path: /env/x\ncurriculum: bucketed\nbase: /env/mettagrid/simple\n"
            "buckets: {map_builder.objects.altar: {range: [0, 2000000000], bins: 1000000000}}",
            "has 1000000000 bins; a curriculum has at most 4096 tasks",
        ),
        (
            "path: /env/x\ncurriculum: bucketed\nbase: /env/mettagrid/simple\n"
            f"buckets: {{game.max_steps: {list(range(1, 101))}, game.freeze_duration: {list(range(100))}}}",
            "a bucketed curriculum of 10000 combinations is too large",
        ),
    ],
)  # fmt: skip
def test_a_description_without_measure_is_refused(text: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=sentence) as caught:
        register_yaml(file)
    assert len(str(caught.value)) < 1500
    assert "\n" not in str(caught.value)


def test_anchors_may_be_used(tmp_path: Path) -> None:
    file = tmp_path / "good.yaml"
    file.write_text(
        "path: /env/x\nbase: /env/mettagrid/simple\n"
        "set: {map_builder.objects.altar: &few [1, 2], map_builder.objects.mine_red: *few}\n"
    )
    assert read_description(file).names == ["/env/mettagrid/simple"]
    assert len(YAML_FILES) == 6


def bomb(size: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(2**24)) for _ in range(size // 2**24)) + packer.flush()


def packed(data: Any) -> bytes:
    return zlib.compress(json.dumps(data).encode())


def test_replays_without_measure_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json.z"
    whole = json.loads(zlib.decompress(replays()[0]))
    for content, sentence in (
        (bomb(2**28 + 2**24), "unpacks to more than 268,435,456 bytes"),
        (zlib.compress(b"[" * 100_000), "nested too deeply"),
        (zlib.compress(b'{"version": ' + b"9" * 5000 + b"}"), "does not hold JSON"),
        (packed({**whole, "num_agents": 10**12}), "it names 1000000000000 agents but holds"),
        (packed({**whole, "max_steps": 10**12}), "max_steps is 1000000000000, and a replay has 0 to 1000000"),
        (replays()[0][:-4], "not zlib-compressed, or cut short"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=sentence):
            read_replay(path)
    for content in (
        bomb(2**28 + 2**24),
        zlib.compress(b"[" * 100_000),
        zlib.compress(b"9" * 5000),
        replays()[0][:-4],
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is no replay"):
            write_replay_page(path, tmp_path / "a.html")


def test_traces_without_measure_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("actions.npy", "w", force_zip64=True) as out,
    ):
        for _ in range(65):
            out.write(bytes(2**24))
    with pytest.raises(BrokenTraceError, match="the file unpacks to 1,090,519,040 bytes"):
        Trace(path)
    np.save(tmp_path / "plain.npy", np.zeros(3))
    with pytest.raises(BrokenTraceError, match="the file cannot be read as npz"):
        Trace(tmp_path / "plain.npy")
    header = (
        b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000000,), }".ljust(
            127
        )
        + b"\n"
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("actions.npy", header)
    with pytest.raises(BrokenTraceError, match="the file cannot be read as npz"):
        Trace(path)
    with np.load(io.BytesIO(traces()[0])) as file:
        arrays = dict(file)
    config = json.loads(str(arrays["config"]))
    for changes, sentence in (
        ({"num_agents": 30_000}, "config says"),
        ({"num_observation_tokens": 2**24}, "config says"),
        ({"agent": {"action_failure_penalty": float("nan")}}, "the config or the map is refused"),
    ):
        np.savez_compressed(path, **{**arrays, "config": np.array(json.dumps({**config, **changes}))})
        with pytest.raises(BrokenTraceError, match=sentence):
            replay(Trace(path))


def rewritten(data: bytes, **notes: str) -> bytes:
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] |= notes
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def changed(data: bytes, note: str, **fields: Any) -> bytes:
    size = int.from_bytes(data[:8], "little")
    value = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][note])
    return rewritten(data, **{note: json.dumps({**value, **fields})})


def test_policies_without_measure_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    policy = policies()[0]
    for content, sentence in (
        (
            changed(policy, "config", hidden_dim=10**6),
            "it describes an agent of 4,000,000,000,000 weights at least",
        ),
        (changed(policy, "config", lstm_layers=10**9), "its description cannot be read"),
        (changed(policy, "config", mlp_layers=64, hidden_dim=10**4), "weights at least"),
        (changed(policy, "spec", max_action_args=[2**31] * 9), "max_action_args has 2147483648"),
        (changed(policy, "spec", obs_width=10**9), "obs_height and obs_width has 1000000000"),
        (changed(policy, "spec", features=[]), "cannot be loaded"),
        (changed(policy, "spec", action_names=[]), "there are 0 action names"),
        (changed(policy, "spec", item_names=[1]), "a name is 1, which is no text"),
        (rewritten(policy, spec="[" * 100_000), "nested too deeply"),
        (rewritten(policy, metadata="["), "its metadata cannot be read"),
        (rewritten(policy, metadata="[1]"), r"its metadata is \[1\], not a JSON object"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=sentence) as caught:
            read_policy(path)
        assert str(caught.value).startswith(f"{path} cannot be loaded: ")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"features": [{"id": 300, "name": "a", "normalization": 1.0}]}, "feature ids has 300"),
        ({"features": [{"id": 1, "name": "a", "normalization": 0}]}, "the normalization of 'a' is 0"),
        (
            {"features": [{"id": n, "name": "a", "normalization": 1} for n in (2, 1)]},
            "not in ascending order",
        ),
        ({"num_tokens": True}, "num_tokens has True"),
        ({"max_action_args": [0]}, "there are 7 action names and 1 largest arguments"),
    ],
)
def test_a_spec_that_means_nothing_is_refused(change: dict[str, Any], sentence: str) -> None:
    size = int.from_bytes(policies()[0][:8], "little")
    spec = json.loads(json.loads(policies()[0][8 : 8 + size])["__metadata__"]["spec"])
    with pytest.raises(ValueError, match=sentence):
        EnvSpec.from_json({**spec, **change})


def test_states_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for tree, sentence in (
        ('{"dict": [["epoch", 1]]}', "holds no training state, or not all of one"),
        ("3", "holds no training state"),
        ('{"dict": [1]}', "cannot be put together"),
        ('{"tensor": "none"}', "cannot be put together"),
        ("{}", "cannot be put together"),
        ("[" * 100_000, "nested too deeply"),
    ):
        path.write_bytes(rewritten(states()[0], tree=tree))
        with pytest.raises(ValueError, match=sentence):
            TrainingState.load(path)
    state = TrainingState(agent_step="many")  # type: ignore[arg-type]
    state.save(tmp_path)
    with pytest.raises(ValueError, match="has the agent_step 'many', which is no int"):
        TrainingState.load(tmp_path)


def test_other_files_without_measure_are_refused(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_bytes(b'{"step": 1}\n' + b"[" * 100_000 + b"\n")
    with pytest.raises(ValueError, match=r"line 2 of .* is no line of metrics"):
        read_metrics(metrics)
    with StatsDB(tmp_path / "stats.duckdb") as database:
        database.query("DELETE FROM metta_schema")
    with pytest.raises(ValueError, match="schema version None"):
        StatsDB(tmp_path / "stats.duckdb")
    content = (tmp_path / "stats.duckdb").read_bytes()
    (tmp_path / "stats.duckdb").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="is damaged"):
        StatsDB(tmp_path / "stats.duckdb")


def test_maps_without_measure_are_refused() -> None:
    with pytest.raises(ValueError, match="has 4,194,305 characters; a map has at most 4,194,304 cells"):
        parse_ascii("." * (2**22 + 1))
    with pytest.raises(ValueError, match=r"Unknown character: '\\x07' in row 0, column 1"):
        parse_ascii("#\x07")
    with pytest.raises(ValueError, match=r"Unknown character: '\\ud800'"):
        parse_ascii("\ud800")
    assert EnvConfig(game={"width": 2048, "height": 2048}).game.width == 2048


def test_the_parts_of_reading(tmp_path: Path) -> None:
    assert one_line("a\n  b") == "a b"
    assert one_line("x" * 300) == "x" * 200 + "..."
    assert repeated(["b", "a", "b", "a", "c"]) == ["a", "b"]
    assert parse_json('{"a": 1}') == {"a": 1}
    assert inflate(zlib.compress(b"abc"), 3) == b"abc"
    with pytest.raises(ValueError, match="more than 2 bytes"):
        inflate(zlib.compress(b"abc"), 2)
    (tmp_path / "a").write_bytes(b"abc")
    assert read_bytes(tmp_path / "a", 3) == b"abc"
    with pytest.raises(ValueError, match="has more than 2 bytes, the most that is read"):
        read_bytes(tmp_path / "a", 2)
