"""TrainingState and the file format behind it: exact, whole, and never pickled."""

import math
import subprocess
import sys
from collections import OrderedDict, namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metta.rl.tensor_tree import read_tree, write_tree
from metta.rl.types import BatchInfo, TrainingState

KILLED = """
import os, signal, sys, time, torch
torch.set_num_threads(1)
from metta.rl.types import TrainingState
folder, rounds = sys.argv[1], int(sys.argv[2])

def state(number):
    return TrainingState(epoch=number, agent_step=number, total_agent_step=number,
        optimizer_state_dict={"weights": torch.full((200_000,), float(number))}, extra_args={"again": number})

path, seen = state(0).save(folder), set()
for turn in range(rounds):
    child = os.fork()
    if not child:
        number = TrainingState.load(path).epoch
        while True:
            number += 1
            state(number).save(folder)
    before = os.stat(path).st_mtime_ns
    while os.stat(path).st_mtime_ns == before:
        time.sleep(0.0005)
    time.sleep(0.0007 * turn)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = TrainingState.load(path)
    assert found.agent_step == found.epoch == found.extra_args["again"]
    assert torch.equal(found.optimizer_state_dict["weights"], torch.full((200_000,), float(found.epoch)))
    seen.add(found.epoch)
assert len(seen) == rounds, seen
print("whole", len(seen))
"""


def same(a: Any, b: Any) -> bool:
    """Equal and of the same type, all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.nan_to_num(7), b.nan_to_num(7))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return len(a) == len(b) and all(
            same(k, q) and same(v, w) for (k, v), (q, w) in zip(a.items(), b.items(), strict=True)
        )
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) and math.isnan(a):
        return math.isnan(b)
    return bool(a == b)


def round_trip(value: Any, folder: Path) -> Any:
    return read_tree(write_tree(folder / "tree", value, kind="test"), kind="test")


plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.builds(np.float32, st.floats(width=32, allow_nan=False)),
    st.builds(lambda n: np.arange(n, dtype=np.int16), st.integers(0, 4)),
    st.builds(lambda n: torch.arange(n, dtype=torch.float64), st.integers(0, 4)),
)
keys = st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.tuples(st.integers(), st.text()))
trees = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(keys, inner, max_size=3),
        st.dictionaries(st.text(), inner, max_size=3).map(OrderedDict),
    ),
    max_leaves=12,
)


@given(trees)
def test_any_nested_value_comes_back_equal_and_of_the_same_type(tmp_path_factory, value) -> None:
    assert same(round_trip(value, tmp_path_factory.mktemp("tree")), value)


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8, torch.bool],
)
def test_tensors_of_any_type_and_layout(tmp_path: Path, dtype: torch.dtype) -> None:
    whole = torch.arange(24).reshape(4, 6).to(dtype)
    value = [whole, whole.t(), whole[1:3, ::2], whole[0, 0], whole[:0]]
    back = round_trip(value, tmp_path)
    assert same(back, value)
    back[0].zero_()
    assert not torch.equal(back[1], back[0].t())  # views were saved apart


def test_random_streams_continue(tmp_path: Path) -> None:
    streams = [np.random.default_rng(1), np.random.Generator(np.random.MT19937(2))]
    torchs = torch.Generator().manual_seed(3)
    saved = round_trip([[rng.bit_generator.state for rng in streams], torchs.get_state()], tmp_path)
    expected = [rng.random(4).tolist() for rng in streams], torch.rand(4, generator=torchs)
    for rng, state in zip(streams, saved[0], strict=True):
        rng.bit_generator.state = state
    torchs.set_state(saved[1])
    assert [rng.random(4).tolist() for rng in streams] == expected[0]
    assert torch.equal(torch.rand(4, generator=torchs), expected[1])


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"run": {"callback": print}},
            r"extra_args\['run'\]\['callback'\] is a builtins.builtin_function_or_method",
        ),
        ({"list": [1, {2, 3}]}, r"extra_args\['list'\]\[1\] is a builtins.set"),
        ({"pair": Pair(1, 2)}, r"extra_args\['pair'\] is a test_types.Pair"),
        (
            {"model": torch.nn.Linear(1, 1)},
            "torch.nn.modules.linear.Linear, which cannot be saved without pickling",
        ),
        ({"words": np.array(["a"])}, r"extra_args\['words'\] is a numpy.ndarray"),
        ({"sparse": torch.eye(2).to_sparse()}, r"extra_args\['sparse'\] is a torch.Tensor"),
        ({"outer": {frozenset((1,)): 2}}, r"extra_args\['outer'\] has a key frozenset\(\{1\}\)"),
    ],
)
def test_what_cannot_be_saved_is_named_and_nothing_is_written(tmp_path: Path, value, message) -> None:
    with pytest.raises(TypeError, match=message):
        TrainingState(extra_args=value).save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_state_comes_back_whole(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.randn(3))
    optimizer = torch.optim.Adam([parameter], lr=0.1, betas=(0.8, 0.9))
    parameter.grad = torch.ones(3)
    optimizer.step()
    state = TrainingState(
        epoch=3,
        agent_step=4,
        total_agent_step=5,
        optimizer_state_dict=optimizer.state_dict(),
        lr_scheduler_state_dict={"last_epoch": 3, "base_lrs": [0.1]},
        policy_path="checkpoint_000003.pt",
        stopwatch_state={"rollout": 1.5},
        extra_args={"best": float("-inf"), "shape": (1, 2), 7: "seven"},
    )
    path = state.save(str(tmp_path / "new" / "folder"))
    assert isinstance(path, str)
    for where in (path, tmp_path / "new" / "folder"):
        assert same(vars(TrainingState.load(where)), vars(state))
    assert b"pickle" not in Path(path).read_bytes()
    assert same(vars(TrainingState.load(TrainingState().save(tmp_path))), vars(TrainingState()))


def test_a_file_that_is_not_a_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no file .*training_state"):
        TrainingState.load(tmp_path)
    path = Path(TrainingState(epoch=1).save(tmp_path))
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"no state at all"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="cannot be loaded: it is not a whole safetensors file"):
            TrainingState.load(path)
    other = write_tree(tmp_path / "other", 1, kind="something else")
    with pytest.raises(ValueError, match="its format is 'something else'"):
        TrainingState.load(other)


def test_a_process_killed_while_it_saves_leaves_a_whole_state(tmp_path: Path) -> None:
    rounds = 30
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), str(rounds)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"whole {rounds}"


def test_batch_info_takes_the_documented_fields() -> None:
    assert BatchInfo(total_env_steps=3, episode_returns=[1.0], episode_lengths=[2]) == BatchInfo(
        3, [1.0], [2]
    )
    assert (BatchInfo(3).episode_returns, BatchInfo(3).episode_lengths) == (None, None)
