"""A pair of processes that train, are killed at arbitrary moments and started again, until the run is done.

    python tests/rl/distributed_kills.py FOLDER

The pairs are forked, so that a start costs no import. Whatever is killed, the folder has to hold a set of files that
belongs together, and the run has to end as one that nobody disturbed.
"""

import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from distributed_lessons import Run, weight_sum
from metta.agent.serialize import read_metadata
from metta.common.interrupt import stop_on_interrupt
from metta.rl.distributed import (
    LostProcessError,
    any_rank,
    cleanup_distributed,
    explain_lost_process,
    setup_distributed_vars,
)
from metta.rl.rollout import rollout
from metta.rl.tensor_tree import read_tree
from metta.rl.types import STATE_FILE, TrainingState

EPOCHS = 12
SIZES = {"batch_size": 128, "minibatch_size": 128, "bptt_horizon": 8, "update_epochs": 1}


def train(folder: Path, epochs: int) -> None:
    """What a rank does: go on from the folder, save after every epoch, stop politely when one of them is asked to."""
    _, _, rank = setup_distributed_vars(timeout=30)
    run = Run(8, sizes=SIZES)
    run.load(folder)
    with stop_on_interrupt() as stop:
        while run.epoch < epochs and not any_rank(bool(stop)):
            run.go(1)
            rollout(
                run.experience, run.policy, 3 * 8
            )  # so that the saved worlds are in the middle of a batch
            run.save(folder)
    (folder / f"end_{rank}").write_text(repr([run.epoch, run.agent_step, weight_sum(run.agent)]))
    cleanup_distributed()


def lose(folder: Path, how: str) -> None:
    """Rank 1 is lost: it dies while rank 0 averages gradients, or does not come to count."""
    _, _, rank = setup_distributed_vars(timeout=30 if how == "dies" else 1)
    run = Run(8, sizes=SIZES)
    rollout(run.experience, run.policy)
    any_rank(False)
    if rank == 1 and how == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if rank == 1:
        time.sleep(60)
    try:
        with explain_lost_process():
            if how == "dies":
                minibatch = run.experience.minibatch(torch.arange(4), torch.zeros(16, 8))
                seen = (minibatch.observations, minibatch.start_state, minibatch.dones, minibatch.actions)
                out = run.policy.evaluate(*seen)
                (out.values + out.logprobs).mean().backward()
            else:
                run.go(1)
    except LostProcessError as error:
        (folder / how).write_text(str(error))
    cleanup_distributed()


def start(folder: Path, work: Callable[[Path, Any], None], option: Any) -> list[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in (0, 1):
        child = os.fork()
        if not child:
            os.environ.update(
                WORLD_SIZE="2",
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=str(port),
            )
            status = 1
            try:
                work(folder, option)
                status = 0
            finally:
                sys.stderr.flush()
                os._exit(status)
        children.append(child)
    return children


def wait(children: list[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def check(folder: Path) -> int:
    """The set that the state names is there, whole, and of one moment."""
    state = TrainingState.load(folder)
    metadata = read_metadata(folder / str(state.policy_path))
    assert metadata["epoch"] == state.epoch
    assert metadata["agent_step"] == state.agent_step
    assert state.rank_state is not None
    first = state.rank_state["experience"]
    other = read_tree(folder / f"rank_state_{state.save_id}_rank_1.safetensors", kind="metta-rank-state-1")
    other = other["experience"]
    assert other["num_updates"] == first["num_updates"] == state.epoch
    assert other["position"] == first["position"] == 3
    return state.epoch


def main(home: Path) -> None:
    torch.set_num_threads(1)
    Run(8, sizes=SIZES).go(1)  # whatever is compiled or loaded at the first use, the children inherit
    whole, cut, polite = home / "whole", home / "cut", home / "polite"
    for folder in (whole, cut, polite):
        folder.mkdir()
    assert wait(start(whole, train, EPOCHS)) == [0, 0]

    chance, kills, seen = random.Random(0), 0, set()
    while not (cut / "end_0").exists() and kills < 100:
        children = start(cut, train, EPOCHS)
        state = cut / STATE_FILE
        before = state.stat().st_mtime_ns if state.exists() else 0
        while (not state.exists() or state.stat().st_mtime_ns == before) and not (cut / "end_0").exists():
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.1))
        if (cut / "end_0").exists():
            wait(children)
            break
        victims = children if kills % 3 else [children[kills % 2]]
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        codes = wait(children)
        assert 0 not in codes or (cut / "end_0").exists() or (cut / "end_1").exists(), codes
        kills += 1
        seen.add(check(cut))
    if not (cut / "end_1").exists():
        wait(start(cut, train, EPOCHS))
    print("kills", kills, "moments", len(seen))
    assert kills >= 6
    assert len(seen) >= 5
    ends = {(folder / f"end_{rank}").read_text() for folder in (whole, cut) for rank in (0, 1)}
    assert len(ends) == 1, ends

    children = start(polite, train, 1_000_000)
    while not (polite / STATE_FILE).exists():
        time.sleep(0.001)
    os.kill(children[1], signal.SIGTERM)
    assert wait(children) == [0, 0]
    epochs = check(polite)
    assert {(polite / f"end_{rank}").read_text() for rank in (0, 1)}.pop().startswith(f"[{epochs}, ")
    parts = [entry.name for entry in polite.iterdir() if "rank" in entry.name]
    assert len(parts) == 1, parts
    print("polite stop after", epochs)

    for how in ("dies", "sleeps"):
        survivor, lost = start(home, lose, how)
        assert wait([survivor]) == [0], how
        if how == "sleeps":
            os.kill(lost, signal.SIGKILL)
        assert wait([lost]) == [-signal.SIGKILL]
        print(how, (home / how).read_text())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
