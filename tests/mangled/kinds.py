"""The kinds of files that Metta reads: a valid one of each, how to spoil it, and how it is read.

    python tests/mangled/kinds.py [--kind yaml] [--inputs 10000] [--seed 0]

reads so many spoiled files of each kind, under limits of time and memory, and lists what was not refused in our words.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from pydantic import ValidationError
from safetensors.torch import load, save

from mangle import mangle_bytes, mangle_value, mangle_words, to_json
from metta.agent.config import AgentModelConfig
from metta.agent.metta_agent import MettaAgent
from metta.agent.serialize import load_agent, read_metadata, save_agent
from metta.eval.stats_db import StatsDB
from metta.mettagrid.config import EnvConfig, GameConfig
from metta.mettagrid.env import MettaGridEnv
from metta.mettagrid.map.ascii import parse_ascii
from metta.mettagrid.registry import get_env_config
from metta.mettagrid.replay_format import read_replay
from metta.mettagrid.traces import BrokenTraceError, Trace, replay
from metta.mettagrid.vec import VecEnv
from metta.mettagrid.world_config import explain
from metta.mettagrid.yaml_files import read_description
from metta.rl.types import TrainingState
from metta.sim.replays import record_replay
from metta.tracking.metrics_file import MetricsFile, read_metrics
from metta.viewer.page import write_replay_page

TRACES = Path(__file__).parent.parent / "data" / "traces"

SECONDS = 10
"""No file may keep a reader longer."""

MEMORY = 6 * 2**30
"""Bytes of address space that a reader gets; most of it is what torch and numba reserve."""


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        valid: makes a file that can be read.
        spoil: changes one.
        read: reads the file and uses what was read as far as its words say that it can be used.
        suffix: of the file's name.
    """

    valid: Callable[[], list[bytes]]
    spoil: Callable[[bytes, random.Random], bytes]
    read: Callable[[Path], Any]
    suffix: str = ""


YAML_FILES = (
    """
path: /env/fuzz/field
env:
  game: {num_agents: 2, width: 12, height: 12, max_steps: 50, stat_rewards: {ore_red.get: 0.1, ore_red.get_max: 1}}
  map_builder: {type: Random, objects: {altar: [1, 3], mine_red: 2}, border_width: 1}
  actions:
    - {type: move, key: move}
    - {type: rotate, key: left, delta: -1}
    - {type: attack, key: attack, consumed_resources: {laser: 1}}
  objects:
    - {type: wall, name: wall}
    - {type: mine, name: mine_red, cooldown: 3}
    - {type: converter, name: altar, input_resources: {ore_red: 2}, output_resources: {heart: 1}, conversion_ticks: 2}
""",
    """
path: /env/fuzz/drawn
env:
  game: &game {observation_width: 5, observation_height: 7, groups: {agent: {}, prey: {group_reward_pct: 0.5}}}
  map_builder:
    type: Ascii
    ascii_map: |
      #########
      #@..m..p#
      #########
""",
    """
path: /env/fuzz/rooms
base: /env/mettagrid/arena/basic
set:
  game.max_steps: 300
  map_builder.room.objects.altar: [2, 4]
  map_builder.num_rooms: 4
""",
    """
path: /env/fuzz/curriculum
curriculum: bucketed
base: /env/mettagrid/simple
buckets:
  game.max_steps: [50, 100]
  map_builder.objects.altar: {range: [2, 18], bins: 4}
config: {ema_timescale: 0.01}
""",
    """
path: /env/fuzz/random
curriculum: random
tasks: {/env/mettagrid/arena/basic: 1, /env/mettagrid/arena/basic_easy: 3.5}
""",
    """
path: /env/fuzz/terrain
env:
  game: {num_agents: 2}
  map_builder: {type: Rooms, num_rooms: 2, room: {type: Maze, room_size: 2, width: 30, height: 30, objects: {altar: 2}}}
""",
)


def spoil_yaml(data: bytes, rng: random.Random) -> bytes:
    """A YAML file, spoiled."""
    text = data.decode()
    match rng.randrange(3):
        case 0:
            return mangle_bytes(data, rng)
        case 1:
            return mangle_words(text, rng).encode(errors="surrogatepass")
    return yaml.safe_dump(mangle_value(yaml.safe_load(text), rng), allow_unicode=True).encode(
        errors="surrogatepass"
    )


def read_yaml(path: Path) -> None:
    """A description, and an environment of its first task; each must play or be refused."""
    about = read_description(path)
    try:
        made = about.make(get_env_config)
        with VecEnv(made) as env:
            env.step(np.zeros((env.num_agents, 2), np.int32))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_env_json(path: Path) -> None:
    """An environment as JSON."""
    try:
        with VecEnv(EnvConfig.model_validate_json(path.read_bytes())) as env:
            env.step(np.zeros((env.num_agents, 2), np.int32))
    except ValidationError as error:
        raise ValueError(explain(error, str(path))) from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def env_json() -> list[bytes]:
    names = (
        "/env/mettagrid/simple",
        "/env/mettagrid/arena/combat",
        "/env/mettagrid/navigation/evals/radialmaze",
    )
    return [to_json(get_env_config(name).model_dump(mode="json", exclude_unset=True)) for name in names]


def spoil_json(data: bytes, rng: random.Random) -> bytes:
    """A JSON file, spoiled."""
    if rng.random() < 0.3:
        return mangle_bytes(data, rng)
    return to_json(mangle_value(json.loads(data), rng))


def read_map(path: Path) -> None:
    """A drawn map, and an environment on it."""
    try:
        grid = parse_ascii(path.read_text(encoding="utf-8", errors="surrogateescape"))
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        config = {"map_builder": {"type": "Ascii", "ascii_map": text}}
        if grid.size < 10_000:
            MettaGridEnv(EnvConfig.model_validate(config))
    except ValidationError as error:
        raise ValueError(explain(error, str(path))) from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


@cache
def traces() -> list[bytes]:
    return [
        (TRACES / f"{name}.npz").read_bytes()
        for name in ("s00_tiny_open", "s05_zero_ticks", "s14_tokens_tiny")
    ]


def spoil_trace(data: bytes, rng: random.Random) -> bytes:
    """A trace, spoiled: its bytes, one of its arrays, or its config."""
    kind = rng.randrange(4)
    if kind == 0:
        return mangle_bytes(data, rng)
    out = io.BytesIO()
    if kind == 1:  # the arrays' own files
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
            spoiled = rng.choice(old.namelist())
            for name in old.namelist():
                content = old.read(name)
                new.writestr(name, mangle_bytes(content, rng) if name == spoiled else content)
        return out.getvalue()
    with np.load(io.BytesIO(data)) as file:
        arrays = dict(file)
    name = rng.choice(sorted(arrays))
    array = arrays[name]
    if array.dtype.kind == "U" and array.ndim == 0:
        arrays[name] = np.array(to_json(mangle_value(json.loads(str(array)), rng)).decode(errors="replace"))
    else:
        match rng.randrange(5):
            case 0:
                arrays[name] = array.astype(rng.choice(("f8", "u1", "i8", "U3", "?", "c16")))
            case 1:
                arrays[name] = array[..., :0] if array.ndim else np.zeros(rng.randrange(4))
            case 2:
                arrays[name] = np.concatenate([array, array]) if array.ndim else array[None]
            case 3:
                arrays[name] = np.full(array.shape, rng.choice((-1, 255, 2**31, 2**62)))
            case _:
                del arrays[name]
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def read_trace(path: Path) -> None:
    """A trace, replayed."""
    try:
        replay(Trace(path))
    except BrokenTraceError as error:
        raise ValueError(f"{path}: {error}") from None


@cache
def replays() -> list[bytes]:
    env = MettaGridEnv(EnvConfig(game=GameConfig(num_agents=1, width=8, height=8, max_steps=4)))
    agent = MettaAgent(env.vec.spec, AgentModelConfig(hidden_dim=4))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "episode.json.z"
        record_replay(agent, env, path)
        return [path.read_bytes()]


def spoil_replay(data: bytes, rng: random.Random) -> bytes:
    """A replay, spoiled."""
    match rng.randrange(3):
        case 0:
            return mangle_bytes(data, rng)
        case 1:
            return zlib.compress(mangle_bytes(zlib.decompress(data), rng))
    return zlib.compress(to_json(mangle_value(json.loads(zlib.decompress(data)), rng)))


def read_replay_file(path: Path) -> None:
    """A replay, and all of its series; and the page of it."""
    found = read_replay(path)
    for entry in found.objects:
        for name in entry:
            found.series(entry, name)
    assert len(found.agents) == found.num_agents
    found.map_size  # noqa: B018
    write_replay_page(path, path.with_suffix(".html"))


@cache
def policies() -> list[bytes]:
    env = MettaGridEnv(EnvConfig(game=GameConfig(num_agents=1, width=8, height=8)))
    agent = MettaAgent(env.vec.spec, AgentModelConfig(hidden_dim=4))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.pt"
        save_agent(agent, path, {"epoch": 3, "score": 0.5})
        return [path.read_bytes()]


def spoil_safetensors(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file, spoiled: its bytes, its header, or the JSON in that."""
    kind = rng.randrange(4)
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    if kind == 0:
        return mangle_bytes(data[: 8 + size], rng) + data[8 + size :]
    if kind == 1:
        text = to_json(mangle_value(header, rng))
        return len(text).to_bytes(8, "little") + text + data[8 + size :]
    if kind == 2:
        notes = header["__metadata__"]
        name = rng.choice(sorted(set(notes) - {"format"}))
        try:
            notes[name] = to_json(mangle_value(json.loads(notes[name]), rng)).decode(errors="replace")
        except json.JSONDecodeError:
            notes[name] = "{"
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + data[8 + size :]
    tensors = load(data)
    name = rng.choice(sorted(tensors))
    tensors[name] = rng.choice(
        [tensors[name].flatten()[:0], tensors[name].double(), torch.zeros(3), tensors[name].bool()]
    )
    return save(tensors, header["__metadata__"])


def read_policy(path: Path) -> None:
    """A policy, and its notes alone."""
    read_metadata(path)
    load_agent(path)


@cache
def states() -> list[bytes]:
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimizer.step()
    state = TrainingState(
        epoch=2,
        agent_step=100,
        optimizer_state_dict=optimizer.state_dict(),
        extra_args={"a": (1, 2.5), "b": np.ones(2)},
    )
    with tempfile.TemporaryDirectory() as folder:
        return [Path(state.save(folder)).read_bytes()]


@cache
def metrics() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metrics.jsonl"
        file = MetricsFile(path)
        for step in range(3):
            file.log({"score": 0.5 * step, "loss": float("nan")}, step)
        file.close()
        return [path.read_bytes()]


def spoil_lines(data: bytes, rng: random.Random) -> bytes:
    """A file of lines, spoiled."""
    if rng.random() < 0.4:
        return mangle_bytes(data, rng)
    return mangle_words(data.decode(), rng).encode(errors="surrogatepass")


def read_metrics_file(path: Path) -> None:
    """Metrics, and going on with them."""
    read_metrics(path)
    MetricsFile(path, resume_step=1).close()


@cache
def databases() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stats.duckdb"
        with StatsDB(path) as database:
            database.query("INSERT INTO policies VALUES (1, 'uri', 'name', 3, '{}')")
            database.query("INSERT INTO evaluations VALUES (1, 1, 'suite', 0, true, now())")
            database.query("INSERT INTO episodes VALUES (1, 'arena/basic', 0, 'task', 5, 0.5, 10, false)")
        return [path.read_bytes()]


def read_database(path: Path) -> None:
    """An evaluation database, and the scores in it."""
    with StatsDB(path) as database:
        database.scores()


KINDS: dict[str, Kind] = {
    "yaml": Kind(lambda: [text.encode() for text in YAML_FILES], spoil_yaml, read_yaml, ".yaml"),
    "env": Kind(env_json, spoil_json, read_env_json, ".json"),
    "map": Kind(
        lambda: [b"#####\n#@.m#\n#.s_#\n#####\n", b"\n  ...\n  .@.\n"], mangle_bytes, read_map, ".map"
    ),
    "trace": Kind(traces, spoil_trace, read_trace, ".npz"),
    "replay": Kind(replays, spoil_replay, read_replay_file, ".json.z"),
    "policy": Kind(policies, spoil_safetensors, read_policy, ".pt"),
    "state": Kind(states, spoil_safetensors, TrainingState.load, ".safetensors"),
    "metrics": Kind(metrics, spoil_lines, read_metrics_file, ".jsonl"),
    "database": Kind(databases, mangle_bytes, read_database, ".duckdb"),
}


def problem_of(kind: Kind, data: bytes, folder: Path) -> str | None:
    """What is wrong with how a file is read; None if it is read, or refused in one sentence of ours."""
    path = folder / f"file{kind.suffix}"
    for old in folder.glob("file*"):
        old.unlink()
    path.write_bytes(data)
    started = time.perf_counter()
    try:
        kind.read(path)
    except (ValueError, FileNotFoundError) as error:
        message = str(error)
        if type(error) not in (ValueError, FileNotFoundError):
            return f"{type(error).__name__}: {message[:300]}"
        if str(path) not in message:
            return f"does not name the file: {message[:300]}"
        if "\n" in message or len(message) > 8000:
            return f"is no sentence: {len(message)} characters, {message[:300]!r}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    seconds = time.perf_counter() - started
    return f"took {seconds:.1f} s" if seconds > SECONDS / 2 else None


def spoiled(kind: Kind, seed: int) -> bytes:
    """One spoiled file."""
    rng = random.Random(seed)
    data = rng.choice(kind.valid())
    for _ in range(rng.choice((1, 1, 1, 2))):
        try:
            data = kind.spoil(data, rng)
        except Exception:
            break  # what is spoiled already need not be fit to be spoiled again
    return data


def fuzz(name: str, seeds: range) -> int:
    """Read spoiled files in this process, whatever happens to it."""
    kind = KINDS[name]
    with tempfile.TemporaryDirectory() as folder:
        for data in kind.valid():
            path = Path(folder) / f"valid{kind.suffix}"
            path.write_bytes(data)
            kind.read(path)  # compiles what is not compiled yet
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")

    def stop(*_: object) -> None:
        raise TimeoutError("it took too long")

    signal.signal(signal.SIGALRM, stop)
    seen: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            print(f"seed {seed}", file=sys.stderr)
            data = spoiled(kind, seed)
            signal.alarm(SECONDS)
            problem = problem_of(kind, data, Path(folder))
            signal.alarm(0)
            sort = re.sub(r"[0-9]+|/tmp/[^ :]*", "#", problem or "")[:40]
            if problem is not None and sort not in seen:
                seen.add(sort)
                print(f"{name} {seed}: {problem}", flush=True)
    return len(seen)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kind", choices=sorted(KINDS), action="append")
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--here", action="store_true", help="in this process")
    args = parser.parse_args()
    for name in args.kind or KINDS:
        if args.here:
            fuzz(name, range(args.seed, args.seed + args.inputs))
            continue
        seed = args.seed
        started = time.perf_counter()
        while seed < args.seed + args.inputs:
            command = [sys.executable, __file__, "--here", "--kind", name, "--seed", str(seed)]
            command += ["--inputs", str(args.seed + args.inputs - seed)]
            run = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
            last = [line for line in run.stderr.splitlines() if line.startswith("seed ")]
            if run.returncode == 0:
                break
            seed = int(last[-1].split()[1]) + 1 if last else seed + 1
            print(
                f"{name} {seed - 1}: the process ended with {run.returncode}: {run.stderr[-200:]!r}",
                flush=True,
            )
            if not last:
                break
        print(f"{name}: {args.inputs} inputs in {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
