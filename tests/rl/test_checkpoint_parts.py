"""What else a checkpoint has to keep together: curriculum, optimizer, wrapper, policies of one epoch."""

from pathlib import Path

import pytest
import torch

from metta.agent.config import AgentModelConfig
from metta.agent.metta_agent import MettaAgent
from metta.agent.policy_store import PolicyStore
from metta.agent.serialize import load_agent
from metta.mettagrid.config import EnvConfig, GameConfig
from metta.mettagrid.curriculum.base import Task
from metta.mettagrid.curriculum.learning_progress import LearningProgressConfig, LearningProgressCurriculum
from metta.mettagrid.vec import VecEnv
from metta.rl.checkpoint import load_checkpoint, save_checkpoint
from metta.rl.experience import make_experience_manager
from metta.rl.kickstarter import Kickstarter
from metta.rl.optimizer import Optimizer, make_optimizer
from metta.rl.rollout import rollout
from metta.rl.trainer_config import ExperienceConfig, KickstartConfig, TrainerConfig
from metta.rl.types import TrainingState
from metta.rl.update import train_ppo

SIZES = {"batch_size": 96, "minibatch_size": 96, "bptt_horizon": 8}


def save(agent, folder: Path, epoch: int = 1, **options):
    return save_checkpoint(
        **{
            "agent": agent,
            "epoch": epoch,
            "agent_step": 0,
            "optimizer": make_optimizer(agent),
            "policy_store": None,
            "checkpoint_path": folder,
            "checkpoint_interval": 1,
            **options,
        }
    )


class Worlds:
    """Training on a curriculum that hears every outcome and remembers it."""

    def __init__(self, seed: int) -> None:
        tasks = [
            Task(
                f"{steps} steps", EnvConfig(game=GameConfig(num_agents=2, width=9, height=9, max_steps=steps))
            )
            for steps in (3, 5, 8)
        ]
        measuring = LearningProgressConfig(
            sample_threshold=2, memory=3, ema_timescale=0.3, num_active_tasks=2
        )
        self.env = VecEnv(LearningProgressCurriculum(tasks, measuring), 3, seed=seed)
        config = AgentModelConfig(hidden_dim=8, backbone="mlp", analyze_weights_interval=0)
        self.agent = MettaAgent(self.env.spec, config, generator=torch.Generator().manual_seed(seed))
        self.experience = make_experience_manager(self.env, self.agent, ExperienceConfig(**SIZES), seed=seed)
        self.optimizer = Optimizer(policy=self.agent, learning_rate=0.01)

    def go(self, epochs: int) -> list[tuple[str, int, float]]:
        played = []
        for _ in range(epochs):
            batch = rollout(self.experience, self.agent)
            played += [(episode.task, episode.length, episode.score) for episode in batch.episodes]
            train_ppo(self.agent, self.optimizer, self.experience)
        return played

    @property
    def parts(self):
        return {"agent": self.agent, "optimizer": self.optimizer, "experience": self.experience}


def test_a_curriculum_goes_on_with_what_it_has_heard(tmp_path: Path) -> None:
    whole, resumed = Worlds(0), Worlds(9)
    before = whole.go(3)
    save(**whole.parts, folder=tmp_path)
    heard = whole.env.curriculum.state_dict()
    assert heard != resumed.env.curriculum.state_dict()
    assert {task for task, _, _ in before} == {"3 steps", "5 steps", "8 steps"}
    load_checkpoint(checkpoint_dir=tmp_path, **resumed.parts)
    assert resumed.env.curriculum.state_dict() == heard
    after = whole.go(3)
    assert resumed.go(3) == after
    assert len(after) > 10
    assert resumed.env.curriculum.state_dict() == whole.env.curriculum.state_dict() != heard


def test_teachers_remember_what_they_have_watched(tmp_path: Path) -> None:
    teacher = PolicyStore(tmp_path / "teacher").save(Worlds(3).agent).uri
    config = TrainerConfig(**SIZES, kickstart=KickstartConfig(teacher_uri=teacher))

    def go(worlds: Worlds, kickstarter: Kickstarter, epochs: int) -> list[float]:
        losses = []
        for _ in range(epochs):
            rollout(worlds.experience, worlds.agent)
            stats = train_ppo(
                worlds.agent, worlds.optimizer, worlds.experience, trainer_cfg=config, kickstarter=kickstarter
            )
            losses.append(stats["ks_value_loss"])
        return losses

    whole, watching = Worlds(0), Kickstarter(config.kickstart, "cpu")
    go(whole, watching, 2)
    save(**whole.parts, folder=tmp_path, kickstarter=watching)
    expected = go(whole, watching, 2)
    resumed, again = Worlds(9), Kickstarter(config.kickstart, "cpu")
    load_checkpoint(checkpoint_dir=tmp_path, kickstarter=again, **resumed.parts)
    assert go(resumed, again, 2) == expected
    forgetful = Worlds(9)
    load_checkpoint(checkpoint_dir=tmp_path, **forgetful.parts)
    assert go(forgetful, Kickstarter(config.kickstart, "cpu"), 2) != expected

    other = Worlds(9)
    before = other.env.state_dict()["curriculum"], other.agent.l2_reg_loss().item()
    with pytest.raises(ValueError, match="the saved kickstarter had the teachers"):
        load_checkpoint(
            checkpoint_dir=tmp_path, kickstarter=Kickstarter(KickstartConfig(), "cpu"), **other.parts
        )
    assert (other.env.state_dict()["curriculum"], other.agent.l2_reg_loss().item()) == before


def test_the_documented_optimizer_is_saved_in_the_middle_of_an_update(
    make_env, make_agent, make_experience, tmp_path
):
    losses = []
    for folder in (None, tmp_path):
        agent = make_agent()
        optimizer = Optimizer(policy=agent, learning_rate=0.01)
        for number in range(6):
            if folder is not None and number == 3:  # one of two losses of an update is in
                save(agent, folder, optimizer=optimizer)
                agent = make_agent(5)
                optimizer = Optimizer(policy=agent, learning_rate=0.5)
                load_checkpoint(checkpoint_dir=folder, agent=agent, optimizer=optimizer)
            optimizer.step((number + 1) * agent.l2_reg_loss(), accumulate_steps=2)
        losses.append(agent.l2_reg_loss().item())
        assert optimizer.num_updates == 3
    assert losses[0] == losses[1]


def test_a_policy_that_a_state_names_keeps_its_weights(make_agent, tmp_path: Path, monkeypatch) -> None:
    """The same epoch saved again, with other weights: whenever it dies, state and policy belong together."""
    first, second = make_agent(1), make_agent(2)
    assert save(first, tmp_path).name == "checkpoint_000001"
    assert save(first, tmp_path, metadata={"again": True}).name == "checkpoint_000001"
    assert load_agent(tmp_path / "checkpoint_000001.pt")[1]["again"]

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "save", die)
        with pytest.raises(KeyboardInterrupt):
            save(second, tmp_path)
    found = make_agent(3)
    load_checkpoint(checkpoint_dir=tmp_path, agent=found)
    assert found.l2_reg_loss().item() == first.l2_reg_loss().item()

    assert save(second, tmp_path).name == "checkpoint_000001-2"
    assert load_checkpoint(checkpoint_dir=tmp_path, agent=found)[2] == str(
        tmp_path / "checkpoint_000001-2.pt"
    )
    assert found.l2_reg_loss().item() == second.l2_reg_loss().item()
    assert save(make_agent(4), tmp_path).name == "checkpoint_000001-3"
    assert save(make_agent(4, hidden_dim=8), tmp_path).name == "checkpoint_000001-4"
    for number in range(5, 12):
        save(make_agent(number), tmp_path)
    latest = PolicyStore(tmp_path).latest()
    assert latest is not None
    assert latest.name == "checkpoint_000001-11"


def test_the_best_policy_is_found_by_the_score_it_was_saved_with(make_agent, tmp_path: Path) -> None:
    for epoch, score in enumerate([1.0, 4.0, None, 2.0]):
        save(make_agent(epoch), tmp_path, epoch, score=score, agent_step=epoch * 10, metadata={"name": "x"})
    store = PolicyStore(tmp_path)
    assert store.policy_record(tmp_path, "top").metadata == {
        "agent_step": 10,
        "score": 4.0,
        "name": "x",
        "epoch": 1,
    }
    assert "score" not in store.records()[2].metadata
    assert store.policy_record(tmp_path, "top", "agent_step").epoch == 3


def test_a_policy_saved_again_keeps_its_score(make_agent, tmp_path: Path) -> None:
    agent, store = make_agent(), PolicyStore(tmp_path / "elsewhere")
    save(agent, tmp_path, score=3.0, metadata={"name": "x"}, policy_store=store)
    again = save(agent, tmp_path, force=True, metadata={"name": "y"}, policy_store=store)
    assert again.metadata == {"score": 3.0, "name": "y", "agent_step": 0, "epoch": 1}
    assert store.policy_record(selector="top") == again
    assert "score" not in save(make_agent(2), tmp_path).metadata, "other weights of the same epoch"


def test_a_run_in_another_environment_is_refused_by_name(tmp_path: Path) -> None:
    config = AgentModelConfig(hidden_dim=8, backbone="mlp")

    def make(width: int):
        game = GameConfig(num_agents=2, width=width, height=9, max_steps=5)
        env = VecEnv(EnvConfig(game=game), 3)
        agent = MettaAgent(env.spec, config)
        return agent, make_experience_manager(env, agent, ExperienceConfig(**SIZES))

    agent, experience = make(9)
    save(agent, tmp_path, experience=experience)
    agent, experience = make(12)
    with pytest.raises(ValueError, match=r"is of another environment \(.*\): make the environment as it was"):
        load_checkpoint(checkpoint_dir=tmp_path, agent=agent, experience=experience)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.RMSprop])
def test_another_kind_of_optimizer_is_refused(make_agent, tmp_path: Path, kind) -> None:
    agent, optimizer = make_agent(), kind(make_agent().parameters(), lr=0.1)
    save(agent, tmp_path)
    before = optimizer.state_dict()
    with pytest.raises(ValueError, match=r"another kind of optimizer, one without .*momentum"):
        load_checkpoint(checkpoint_dir=tmp_path, agent=agent, optimizer=optimizer)
    assert optimizer.state_dict() == before


def test_parts_that_no_state_names_are_removed_once_a_new_one_is_there(make_agent, tmp_path: Path) -> None:
    old = [
        "rank_state_000001_0a1b2c3d_rank_1.safetensors",
        ".rank_state_x.tmp",
        ".training_state.safetensors.ab.tmp",
    ]
    for name in [*old, "mine.txt", ".checkpoint_000009.pt.ab.tmp"]:
        (tmp_path / name).write_text("x")
    save(make_agent(), tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        ".checkpoint_000009.pt.ab.tmp",
        "checkpoint_000001.pt",
        "mine.txt",
        "training_state.safetensors",
    ]


def test_a_state_of_the_first_format_is_refused_by_name(make_agent, tmp_path: Path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("metta.rl.types._STATE_KIND", "metta-training-state-1")
        save(make_agent(), tmp_path)
    with pytest.raises(ValueError, match="its format is 'metta-training-state-1'"):
        load_checkpoint(checkpoint_dir=tmp_path, agent=make_agent())
