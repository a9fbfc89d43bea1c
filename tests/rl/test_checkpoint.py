"""Both call forms of save_checkpoint and load_checkpoint, and a resume that changes nothing."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from metta.agent.policy_store import PolicyStore
from metta.common.stopwatch import Stopwatch
from metta.rl.checkpoint import load_checkpoint, save_checkpoint
from metta.rl.optimizer import make_lr_scheduler, make_optimizer
from metta.rl.rollout import rollout
from metta.rl.trainer_config import OptimizerConfig, PPOConfig
from metta.rl.types import TrainingState
from metta.rl.update import train_ppo


def same_weights(a, b) -> bool:
    states = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(name == other and torch.equal(x, y) for (name, x), (other, y) in states)


def test_first_form_writes_and_reads_the_documented_file(make_agent, tmp_path: Path) -> None:
    agent, other = make_agent(0), make_agent(1)
    metadata = {"total_steps": 1000000}
    assert save_checkpoint(agent, str(tmp_path), epoch=100, metadata=metadata) is None
    assert save_checkpoint(agent, tmp_path, 7) is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint_000007.pt", "checkpoint_000100.pt"]
    assert metadata == {"total_steps": 1000000}
    assert not same_weights(agent, other)
    loaded = load_checkpoint(other, str(tmp_path / "checkpoint_000100.pt"))
    assert loaded == {"total_steps": 1000000, "epoch": 100}
    assert same_weights(agent, other)
    assert load_checkpoint(other, tmp_path / "checkpoint_000007.pt")["epoch"] == 7


def test_an_empty_folder_name_is_the_current_folder(make_agent, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_checkpoint(make_agent(), "", 2)
    assert (tmp_path / "checkpoint_000002.pt").is_file()


class Run:
    """A small training run that can be saved and put back."""

    def __init__(
        self,
        make_env,
        make_agent,
        make_experience,
        kind="adam",
        *,
        seed=0,
        batches=10,
        rate=0.01,
        anneal=True,
        width=16,
        **fields,
    ) -> None:
        self.agent = make_agent(seed, hidden_dim=width, l2_init_weight_update_interval=6)
        self.experience = make_experience(make_env(seed=seed), self.agent, seed, **fields)
        self.optimizer = make_optimizer(self.agent, OptimizerConfig(type=kind, learning_rate=rate))
        warmup = 1024 if batches > 2 else None
        self.scheduler = make_lr_scheduler(self.optimizer, batches * 512, 512, warmup, anneal_lr=anneal)
        self.epoch = self.agent_step = 0

    def go(self, epochs: int) -> list[dict[str, float]]:
        history = []
        for _ in range(epochs):
            self.agent_step += rollout(self.experience, self.agent).total_env_steps
            config = PPOConfig(l2_init_loss_coef=0.1)
            history.append(train_ppo(self.agent, self.optimizer, self.experience, config, update_epochs=2))
            if self.scheduler is not None:
                self.scheduler.step()
            self.epoch += 1
        return history

    def save(self, folder, **options):
        return save_checkpoint(
            epoch=self.epoch,
            agent_step=self.agent_step,
            agent=self.agent,
            optimizer=self.optimizer,
            checkpoint_path=folder,
            lr_scheduler=self.scheduler,
            experience=self.experience,
            **{"policy_store": None, "checkpoint_interval": 1, **options},
        )

    @property
    def rates(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def everything(self):
        """A copy of all that a load may change."""
        parts = (self.agent, self.optimizer, self.scheduler, self.experience)
        return copy.deepcopy([part.state_dict() for part in parts])

    def load(self, folder):
        result = load_checkpoint(
            checkpoint_dir=folder,
            agent=self.agent,
            optimizer=self.optimizer,
            policy_store=None,
            lr_scheduler=self.scheduler,
            experience=self.experience,
        )
        self.agent_step, self.epoch, _ = result
        return result


@pytest.fixture
def make_run(make_env, make_agent, make_experience):
    return lambda *args, **options: Run(make_env, make_agent, make_experience, *args, **options)


@pytest.mark.parametrize("kind", ["adam", "muon"])
@pytest.mark.parametrize("seed", [0, 5], ids=["same seed", "another seed"])
def test_n_and_m_updates_are_n_save_load_m(make_run, tmp_path: Path, kind, seed) -> None:
    whole = make_run(kind)
    whole.go(2)
    record = whole.save(tmp_path)
    history = whole.go(3)

    resumed = make_run(kind, seed=seed)
    assert resumed.load(tmp_path) == (2 * 512, 2, str(tmp_path / "checkpoint_000002.pt"))
    assert record.path == tmp_path / "checkpoint_000002.pt"
    assert resumed.go(3) == history
    assert same_weights(whole.agent, resumed.agent)
    for name in ("observations", "actions", "logprobs", "rewards", "start_h"):
        assert torch.equal(getattr(whole.experience, name), getattr(resumed.experience, name)), name


@pytest.mark.parametrize("kind", ["adam", "muon"])
def test_a_finished_run_continues_on_a_longer_schedule(make_run, tmp_path: Path, kind) -> None:
    done = make_run(kind, batches=4)
    done.go(4)
    assert set(done.rates) == {0.0}
    done.save(tmp_path)

    longer = make_run(kind, batches=10)
    longer.load(tmp_path)
    # Warm-up takes 2 of the 10 batches, so after 4 of them 6 of 8 steps down are left.
    np.testing.assert_allclose(longer.rates, 0.01 * 6 / 8)
    assert longer.scheduler.get_last_lr() == longer.rates
    before = copy.deepcopy(longer.agent)
    assert [stats["learning_rate"] for stats in longer.go(7)] == pytest.approx(
        [0.01 * left / 8 for left in (6, 5, 4, 3, 2, 1, 0)]
    )
    assert not same_weights(before, longer.agent)


def test_the_optimizer_goes_on_with_the_options_that_it_was_made_with(make_run, tmp_path: Path) -> None:
    old, new = make_run(), make_run()
    old.go(1)
    old.save(tmp_path)
    new.optimizer.param_groups[0]["weight_decay"] = 0.25
    new.optimizer.param_groups[0]["betas"] = (0.5, 0.75)
    new.load(tmp_path)
    (group,) = new.optimizer.param_groups
    assert (group["weight_decay"], group["betas"]) == (0.25, (0.5, 0.75))
    assert (
        new.optimizer.state_dict()["state"][0]["step"] == old.optimizer.state_dict()["state"][0]["step"] > 0
    )


def test_the_rate_is_the_one_that_the_new_plan_says(make_run, tmp_path: Path) -> None:
    annealed, constant = make_run(batches=2), make_run(anneal=False)
    for run, name in ((annealed, "annealed"), (constant, "constant")):
        run.go(1)
        for group in run.optimizer.param_groups:
            group["lr"] *= 0.5  # by hand, as a caller's own schedule would
        run.save(tmp_path / name)

    def rate_after(name, **plan):
        run = make_run(**plan)
        run.load(tmp_path / name)
        return run.rates

    assert rate_after("annealed", batches=2, rate=0.5) == [0.25]
    assert rate_after("annealed", anneal=False, rate=0.5) == [0.5]
    assert rate_after("constant", batches=2, rate=0.5) == [0.5]
    assert rate_after("constant", anneal=False, rate=0.5) == [0.005]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 256}, r"holds 64 segments, but batch_size=256 .* makes only 32: .* 512 or more"),
        ({"width": 8}, r"checkpoint_000001\.pt cannot be loaded: .* has shape"),
        ({"kind": "muon"}, "saved with another optimizer"),
    ],
    ids=["batch size", "weights", "optimizer"],
)
def test_a_refused_load_leaves_everything_as_it_was(make_run, tmp_path: Path, options, message) -> None:
    saved = make_run()
    saved.go(1)
    rollout(saved.experience, saved.agent)
    saved.save(tmp_path)
    other = make_run(seed=3, **options)
    other.go(1)
    before = other.everything()
    with pytest.raises(ValueError, match=message):
        other.load(tmp_path)
    assert_same(other.everything(), before)
    other.go(1)


def assert_same(found, expected) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        found, expected = list(found.values()), list(expected.values())
    if isinstance(expected, list | tuple):
        for a, b in zip(found, expected, strict=True):
            assert_same(a, b)
    elif isinstance(expected, torch.Tensor | np.ndarray):
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
    else:
        assert found == expected


@pytest.mark.parametrize("steps", [12 * 8, 16 * 8, 64 * 8], ids=["inside a segment", "between", "full"])
def test_resumes_inside_a_batch(make_run, tmp_path: Path, steps) -> None:
    whole = make_run()
    whole.go(1)
    rollout(whole.experience, whole.agent, steps)
    whole.save(tmp_path)
    resumed = make_run(seed=3)
    resumed.load(tmp_path)
    for run in (whole, resumed):
        if steps < 512:
            rollout(run.experience, run.agent)
    assert [run.experience.ready_for_training for run in (whole, resumed)] == [True, True]
    results = [train_ppo(run.agent, run.optimizer, run.experience) for run in (whole, resumed)]
    assert results[0] == results[1]
    assert same_weights(whole.agent, resumed.agent)


def test_a_used_batch_is_not_carried_along(make_run, tmp_path: Path) -> None:
    run = make_run()
    run.go(1)
    run.save(tmp_path / "small")
    rollout(run.experience, run.agent)
    run.save(tmp_path / "large")
    sizes = [(tmp_path / name / "training_state.safetensors").stat().st_size for name in ("small", "large")]
    assert sizes[1] - sizes[0] > run.experience.num_bytes * 0.9


def test_saves_on_the_interval_or_when_forced(make_run, tmp_path: Path) -> None:
    run = make_run()
    saved = []
    for epoch in range(7):
        run.epoch = epoch
        record = run.save(tmp_path, checkpoint_interval=3)
        assert (record is not None) == (epoch in (0, 3, 6))
        saved += [record.epoch] if record else []
    assert saved == [0, 3, 6]
    run.epoch = 7
    assert run.save(tmp_path, checkpoint_interval=3, force=True).path.name == "checkpoint_000007.pt"
    assert run.save(tmp_path, checkpoint_interval=0) is None
    with pytest.raises(ValueError, match="checkpoint_interval=-1"):
        run.save(tmp_path, checkpoint_interval=-1)


def test_the_record_and_the_store_know_the_policy(make_run, tmp_path: Path) -> None:
    run = make_run()
    run.epoch, run.agent_step = 4, 99
    store = PolicyStore(tmp_path / "elsewhere")
    record = run.save(tmp_path / "run", policy_store=store, metadata={"score": 1.5})
    assert record == store.latest()
    assert record.metadata == {"agent_step": 99, "score": 1.5, "epoch": 4}
    assert same_weights(store.load(record), run.agent)
    other = PolicyStore(tmp_path / "another")
    load_checkpoint(
        checkpoint_dir=tmp_path / "run", agent=run.agent, optimizer=run.optimizer, policy_store=other
    )
    assert [r.path for r in other.records()] == [record.path]


def test_what_the_caller_adds_comes_back(make_run, tmp_path: Path) -> None:
    run, timer, other = make_run(), Stopwatch(), Stopwatch()
    timer.load_state({"elapsed": {"train": 2.0}})
    run.save(tmp_path, extra_args={"best": (1, None)}, stopwatch=timer)
    assert TrainingState.load(tmp_path).extra_args == {"best": (1, None)}
    load_checkpoint(checkpoint_dir=tmp_path, stopwatch=other)
    assert other.get_all_elapsed() == {"train": 2.0}


def test_a_moved_folder_still_resumes(make_run, tmp_path: Path) -> None:
    run = make_run()
    run.save(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    assert make_run().load(tmp_path / "new")[2] == str(tmp_path / "new" / "checkpoint_000000.pt")


def test_nothing_to_load_is_zeros(make_agent, tmp_path: Path) -> None:
    agent = make_agent()
    optimizer, store = make_optimizer(agent), PolicyStore(tmp_path)
    for folder in (tmp_path, tmp_path / "missing"):
        result = load_checkpoint(checkpoint_dir=folder, agent=agent, optimizer=optimizer, policy_store=store)
        assert result == (0, 0, None)


def test_a_death_between_the_two_files_leaves_the_older_pair(make_run, tmp_path: Path, monkeypatch) -> None:
    run = make_run()
    run.epoch = 1
    run.save(tmp_path)
    run.go(1)

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingState, "save", die)
    with pytest.raises(KeyboardInterrupt):
        run.save(tmp_path)
    assert (tmp_path / "checkpoint_000002.pt").is_file()
    assert make_run().load(tmp_path) == (0, 1, str(tmp_path / "checkpoint_000001.pt"))


def test_mistakes_are_told(make_run, make_agent, tmp_path: Path) -> None:
    run = make_run()
    run.save(tmp_path)
    with pytest.raises(TypeError, match="either a folder"):
        save_checkpoint(run.agent)
    with pytest.raises(TypeError, match="pass optimizer"):
        save_checkpoint(agent=run.agent, epoch=1, checkpoint_path=tmp_path, checkpoint_interval=1)
    with pytest.raises(TypeError, match="give one of path and checkpoint_dir"):
        load_checkpoint(run.agent)
    with pytest.raises(TypeError, match="pass one"):
        load_checkpoint(path=tmp_path / "checkpoint_000000.pt")
    with pytest.raises(ValueError, match="epoch=-1"):
        save_checkpoint(run.agent, tmp_path, -1)
    with pytest.raises(FileNotFoundError, match="checkpoint_000001"):
        load_checkpoint(run.agent, tmp_path / "checkpoint_000001.pt")
    muon = make_optimizer(run.agent, OptimizerConfig(type="muon"))
    with pytest.raises(
        ValueError, match=r"saved with another optimizer .*: make it with the same OptimizerConfig"
    ):
        load_checkpoint(checkpoint_dir=tmp_path, optimizer=muon)
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_checkpoint(make_agent(hidden_dim=8), tmp_path / "checkpoint_000000.pt")
    (tmp_path / "checkpoint_000000.pt").unlink()
    with pytest.raises(FileNotFoundError, match="checkpoint_000000"):
        load_checkpoint(checkpoint_dir=tmp_path, optimizer=run.optimizer)
