"""Processes that train together, started for real: what they agree on, what differs, and how they end."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from metta.agent.state import PolicyState
from metta.rl import distributed
from metta.rl.checkpoint import load_checkpoint
from metta.rl.distributed import (
    all_mean,
    any_rank,
    cleanup_distributed,
    fail_together,
    gather,
    gather_episodes,
    get_rank,
    get_world_size,
    setup_distributed_vars,
    split_seed,
    unwrap_agent,
)
from metta.rl.optimizer import make_optimizer
from metta.rl.policy_management import wrap_agent_distributed
from metta.rl.rollout import rollout
from metta.rl.trainer_config import OptimizerConfig

HERE = Path(__file__).parent
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder and the reports of two processes that torchrun started."""
    home = tmp_path_factory.mktemp("torchrun")
    command = ["-m", "torch.distributed.run", "--nproc_per_node=2", str(HERE / "distributed_lessons.py")]
    done = subprocess.run(
        [sys.executable, "-W", "error", *command, str(home)],
        env=ONE_THREAD,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return home, [json.loads((home / f"report_{rank}.json").read_text()) for rank in (0, 1)]


def test_each_process_knows_its_place(told) -> None:
    home, reports = told
    for rank, report in enumerate(reports):
        setup = report["setup"]
        assert setup["text"] == "cpu"
        assert setup["vars"] == ["cpu", rank == 0, 2, rank]
        assert setup["again"] == [rank == 0, 2, rank]
    assert reports[0]["setup"]["run"] == reports[1]["setup"]["run"]
    assert [report["setup"]["seed"] for report in reports] == [split_seed(5, 0), split_seed(5, 1)]
    (run,) = (home / "runs").iterdir()
    assert "rank: 0" in (run / "config.yaml").read_text()
    assert "world_size: 2" in (run / "config.yaml").read_text()
    assert len(list(run.glob("config*"))) == 1


def test_they_count_and_decide_together(told) -> None:
    _, reports = told
    for rank, report in enumerate(reports):
        together = report["together"]
        assert together["mean"] == [1.5, 3.0]
        assert together["any"] == [False, True, True]
        assert [entry["rank"] for entry in together["gather"]] == [0, 1]
        assert together["gather"][1]["long"] == "ä" * 100
        assert together["fails"][2] == "fine"
        for failing in (0, 1):
            sentence = f"no file {failing}"
            assert together["fails"][failing] == sentence + (
                "" if failing == rank else f" (in rank {failing})"
            )
    own = reports[0]["together"]["own"] + reports[1]["together"]["own"]
    assert reports[0]["together"]["own"] != reports[1]["together"]["own"], "both ranks played the same worlds"
    for report in reports:
        assert [episode[:2] for episode in report["together"]["episodes"]] == own
        assert {tuple(episode[2:]) for episode in report["together"]["episodes"]} == {
            ("scripted", "float32", 2)
        }


def test_two_processes_learn_what_one_would_from_both_halves(told, make_agent) -> None:
    """Against a loss written out here, in double precision, over the segments of both."""
    home, reports = told
    first, second = (report["averaging"] for report in reports)
    assert first["start"] == second["start"], "rank 1 did not get rank 0's weights"
    assert first["end"] == second["end"]
    assert first["start"] != first["end"]
    for name in ("grad_norm", "learning_rate", "updates", "early_stop"):
        assert first["stats"][name] == second["stats"][name], name

    agent = make_agent().double()
    shapes = {name: tensor.shape for name, tensor in agent.state_dict().items()}
    agent.load_state_dict(
        {name: torch.tensor(first["start"][name], dtype=torch.float64).view(shapes[name]) for name in shapes}
    )
    halves = [np.load(home / f"batch_{rank}.npz") for rank in (0, 1)]

    def joined(name: str, axis: int = 0) -> torch.Tensor:
        tensor = torch.from_numpy(np.concatenate([half[name] for half in halves], axis))
        return tensor.double() if tensor.is_floating_point() else tensor

    state = PolicyState(joined("start_h", 1), joined("start_c", 1))
    dones = joined("terminals") | joined("truncations")
    raw, old = joined("advantages"), joined("values")
    advantages = (raw - raw.mean()) / (raw.std(correction=0) + 1e-8)
    optimizer = make_optimizer(agent, OptimizerConfig(learning_rate=0.01))
    for _ in range(3):
        out = agent.evaluate(joined("observations"), state, dones, joined("actions"))
        ratio = (out.logprobs - joined("logprobs")).exp()
        policy = -torch.minimum(ratio * advantages, ratio.clamp(0.9, 1.1) * advantages).mean()
        near = old + (out.values - old).clamp(-0.1, 0.1)
        target = raw + old
        value = 0.5 * torch.maximum((out.values - target) ** 2, (near - target) ** 2).mean()
        weights = torch.cat([p.flatten() for p in agent.parameters()])
        l2 = weights.square().mean() + (weights - agent.reference).square().mean()
        loss = policy + 0.44 * value - 0.0021 * out.entropies.mean() + 0.1 * l2
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(agent.parameters(), 0.05)
        optimizer.step()
    for name, tensor in agent.state_dict().items():
        np.testing.assert_allclose(first["end"][name], tensor.flatten().numpy(), atol=2e-5, err_msg=name)


def test_options_that_touch_gradients_keep_the_weights_equal(told) -> None:
    _, (first, second) = told
    assert first["options"]["sums"] == second["options"]["sums"]
    assert first["options"]["stops"] == second["options"]["stops"]
    assert any(first["options"]["stops"]), "target_kl never stopped an epoch, so nothing was tested"


def test_gradients_accumulate_apart_and_are_averaged_at_the_end(told) -> None:
    _, reports = told
    (mean0, own0, both0), (mean1, own1, both1) = (report["options"]["gradients"] for report in reports)
    assert mean0 == mean1
    assert own0 != own1, "no_sync averaged"
    np.testing.assert_allclose(mean0, np.add(own0, own1) / 2, rtol=1e-4, atol=1e-6)
    assert both0 == both1
    np.testing.assert_allclose(both0, np.multiply(mean0, 2), rtol=1e-4, atol=1e-6)


def test_what_is_not_finite_in_one_process_stops_both(told) -> None:
    _, reports = told
    for report in reports:
        assert "and the weights were left alone" in report["not_finite"]["error"]
        assert np.isfinite(report["not_finite"]["sum"])
    assert reports[0]["not_finite"]["sum"] == reports[1]["not_finite"]["sum"]


def test_a_resumed_pair_goes_on_exactly(told) -> None:
    home, reports = told
    for rank, report in enumerate(reports):
        resume = report["resume"]
        assert resume["record"] == (rank == 0), "the master alone gets the record"
        assert resume["path"] == str(home / "checkpoints" / "checkpoint_000002.pt")
        assert resume["same"]
        assert resume["rewards"]
        assert resume["histories"]
        error, left_alone, position = resume["refused"]
        assert "the saved experience has" in error
        assert left_alone
        assert position == 0, "rank 0's experience was not put back"
        assert "share" in resume["apart"]
    assert reports[0]["resume"]["mine"] != reports[1]["resume"]["mine"]
    save_id = reports[0]["resume"]["state"]
    assert reports[0]["resume"]["files"] == [
        "checkpoint_000002.pt",
        f"rank_state_{save_id}_rank_1.safetensors",
        "training_state.safetensors",
    ]


def test_another_number_of_processes_goes_on_with_worlds_anew(
    told, make_env, make_agent, make_experience, caplog
) -> None:
    home, _ = told
    agent = make_agent(5)
    experience = make_experience(make_env(), agent)
    optimizer = make_optimizer(agent)
    before = experience.state_dict()
    with caplog.at_level("INFO", "metta"):
        steps, epoch, path = load_checkpoint(
            checkpoint_dir=home / "checkpoints", agent=agent, optimizer=optimizer, experience=experience
        )
    assert (steps, epoch) == (2 * 2 * 512, 2)
    assert path is not None
    assert load_checkpoint(make_agent(), path)["sum"] == sum(
        float(t.double().sum()) for t in agent.state_dict().values()
    )
    assert optimizer.state_dict()["state"]
    assert experience.state_dict()["position"] == before["position"] == 0
    assert "saved by 2 processes and goes on with 1" in caplog.text
    rollout(experience, agent)


# --- ends ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_at_any_moment_a_run_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    """And asked to stop politely, on one rank, it stops on both, saved; a lost rank is told by the other."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(HERE / "distributed_kills.py"), str(tmp_path)],
        env=ONE_THREAD,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "polite stop after" in done.stdout
    for how in ("dies", "sleeps"):
        sentence = (tmp_path / how).read_text()
        assert sentence.startswith("rank 0 of 2 lost touch with another process of the run"), sentence


# --- alone ---------------------------------------------------------------------------------------------------


def test_alone_everything_is_as_it_was(make_agent, monkeypatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert setup_distributed_vars() == (True, 1, 0)
    agent = make_agent()
    assert wrap_agent_distributed(agent, "cpu") is agent
    assert unwrap_agent(agent) is agent
    tensor = torch.ones(3)
    assert all_mean(tensor) is tensor
    assert (any_rank(True), any_rank(False)) == (True, False)
    assert gather({"a": [1, None]}) == [{"a": [1, None]}]
    assert gather_episodes([]) == []
    assert (get_rank(), get_world_size()) == (0, 1)
    any_rank(False)
    with pytest.raises(KeyError), fail_together():
        raise KeyError("as it is")
    cleanup_distributed()
    cleanup_distributed()


def test_a_torn_launch_is_told(monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(
        ValueError, match=r"WORLD_SIZE=2 is set but MASTER_ADDR, MASTER_PORT is not: .* torchrun"
    ):
        setup_distributed_vars()
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ValueError, match="WORLD_SIZE is 'two', not a number"):
        setup_distributed_vars()


def test_only_an_agent_can_be_unwrapped() -> None:
    with pytest.raises(TypeError, match="Linear is neither"):
        unwrap_agent(torch.nn.Linear(1, 1))  # type: ignore[arg-type]


def test_seeds_of_ranks_differ_and_rank_0_keeps_its_own() -> None:
    drawn = {split_seed(seed, rank) for seed in range(50) for rank in range(1, 20)}
    assert len(drawn) == 50 * 19
    assert all(0 <= seed < 2**63 for seed in drawn)
    assert not drawn & set(range(10_000))
    assert [split_seed(seed, 0) for seed in (0, 7)] == [0, 7]
    assert split_seed(7) == 7
    with pytest.raises(ValueError, match="seed is -1"):
        split_seed(-1, 0)


def test_only_one_module_talks_to_other_processes() -> None:
    source = Path(distributed.__file__).parents[1]
    users = {
        str(file.relative_to(source))
        for file in source.rglob("*.py")
        if "torch.distributed" in file.read_text()
    }
    assert users == {"rl/distributed.py"}
    assert issubclass(distributed.DistributedAgent, DistributedDataParallel)
