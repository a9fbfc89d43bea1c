"""Teachers: what they say, what they remember, how long they count, and that a student learns from them."""

import copy
from dataclasses import replace

import pytest
import torch

import metta.rl.kickstarter
from conftest import ScriptedEnv
from metta.agent.config import AgentModelConfig
from metta.agent.metta_agent import MettaAgent
from metta.agent.policy_store import PolicyStore
from metta.agent.serialize import save_agent
from metta.rl.kickstarter import Kickstarter
from metta.rl.losses import minibatch_losses
from metta.rl.optimizer import make_optimizer
from metta.rl.rollout import perform_rollout_step, rollout
from metta.rl.trainer_config import KickstartConfig, OptimizerConfig, PPOConfig
from metta.rl.update import train_ppo


@pytest.fixture
def save(tmp_path):
    """Saves an agent and gives its address."""

    def write(agent: MettaAgent, name: str = "teacher") -> str:
        path = tmp_path / f"{name}.pt"
        save_agent(agent, path, {})
        return str(path)

    return write


def opinionated(agent: MettaAgent) -> MettaAgent:
    with torch.no_grad():
        agent.action_head.layers[-1].weight.mul_(100)
    return agent


class Watcher:
    """A teacher by hand: sees, tick by tick and without batches, everything that is stepped."""

    def __init__(self, env, agent) -> None:
        self.env, self.agent = env, agent
        self.state = agent.initial_state(env.num_agents)
        self.logprobs: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self.plain = env.step
        env.step = self.step

    def step(self, actions, worlds=None):
        starts = torch.from_numpy(self.env.starts.copy())
        obs = torch.from_numpy(self.env.observations.copy())
        rows = len(obs)
        with torch.no_grad():
            out = self.agent.evaluate(
                obs.unsqueeze(1),
                self.state.zeroed(starts),
                torch.zeros(rows, 1, dtype=torch.bool),
                torch.zeros(rows, 1, 2, dtype=torch.int64),
            )
        self.state = out.state
        self.logprobs.append(out.all_logprobs[:, 0])
        self.values.append(out.values[:, 0])
        return self.plain(actions, worlds)

    def segments(self, first: int, chunks: int, horizon: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What it said in `chunks` stretches from step `first`, as `[segments, horizon, ...]`."""
        parts = []
        for said in (self.logprobs, self.values):
            steps = torch.stack(said[first : first + chunks * horizon])
            by_chunk = steps.reshape(chunks, horizon, *steps.shape[1:]).transpose(1, 2)
            parts.append(by_chunk.reshape(-1, horizon, *steps.shape[2:]))
        return parts[0], parts[1]


@pytest.mark.parametrize(
    "fields", [{}, {"lstm_layers": 2, "hidden_dim": 24}, {"forward_lstm": False}], ids=str
)
def test_a_teacher_says_what_it_would_by_itself_from_batch_to_batch(
    make_env, make_agent, make_experience, save, fields
) -> None:
    student, teacher = make_agent(), opinionated(make_agent(5, **fields))
    # Long episodes, so that memories from before the batch still count in it.
    experience = make_experience(make_env(lengths=(1, 40)), student, async_factor=1, minibatch_size=32)
    watcher = Watcher(experience.env, teacher)
    kickstarter = Kickstarter(KickstartConfig(teacher_uri=save(teacher)), "cpu")
    (inner,) = kickstarter._teachers
    everything = torch.arange(experience.num_segments)
    step = 0
    for batch in range(4):
        if batch == 2:  # a begun segment that the next batch finishes
            rollout(experience, student, 20 * 8)
            chunks, after = 2, 4
        else:
            rollout(experience, student)
            chunks, after = 8, 0
        logprobs, values = inner.lesson(experience, everything[: experience.num_filled], torch.device("cpu"))
        expected = watcher.segments(step, chunks, 8)
        torch.testing.assert_close(logprobs, expected[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(values, expected[1], rtol=1e-4, atol=1e-5)
        experience.mark_used()
        step += chunks * 8
        assert len(watcher.values) == step + after


def test_a_batch_that_grows_is_studied_anew_from_its_beginning(
    make_env, make_agent, make_experience, save
) -> None:
    student, teacher = make_agent(), opinionated(make_agent(5))
    experience = make_experience(make_env(lengths=(1, 40)), student, async_factor=1)
    watcher = Watcher(experience.env, teacher)
    (inner,) = Kickstarter(KickstartConfig(teacher_uri=save(teacher)), "cpu")._teachers
    rollout(experience, student)
    inner.lesson(experience, torch.arange(64), torch.device("cpu"))
    experience.mark_used()
    for chunks in (2, 6):
        rollout(experience, student, chunks * 64)
        filled = torch.arange(experience.num_filled)
        logprobs, _ = inner.lesson(experience, filled, torch.device("cpu"))
        expected, _ = watcher.segments(64, len(filled) // 8, 8)
        torch.testing.assert_close(logprobs, expected, rtol=1e-4, atol=1e-4)


def test_a_touched_environment_empties_the_teachers_memory_too(
    make_env, make_agent, make_experience, save
) -> None:
    student, teacher = make_agent(), opinionated(make_agent(5))
    env = make_env(lengths=(1000, 1000))
    experience = make_experience(env, student, async_factor=1)
    (inner,) = Kickstarter(KickstartConfig(teacher_uri=save(teacher)), "cpu")._teachers
    rollout(experience, student)
    inner.lesson(experience, torch.arange(64), torch.device("cpu"))
    experience.mark_used()
    env.reset()
    watcher = Watcher(env, teacher)
    rollout(experience, student)
    logprobs, _ = inner.lesson(experience, torch.arange(64), torch.device("cpu"))
    torch.testing.assert_close(logprobs, watcher.segments(0, 8, 8)[0], rtol=1e-4, atol=1e-4)


def test_it_computes_once_per_batch(make_env, make_agent, make_experience, save, monkeypatch) -> None:
    student = make_agent()
    experience = make_experience(make_env(), student)
    kickstarter = Kickstarter(KickstartConfig(teacher_uri=save(make_agent(5))), "cpu")
    (inner,) = kickstarter._teachers
    calls = []
    plain = inner._study
    monkeypatch.setattr(inner, "_study", lambda experience: (calls.append(1), plain(experience)))
    for _ in range(2):
        rollout(experience, student)
        train_ppo(student, make_optimizer(student), experience, update_epochs=2, kickstarter=kickstarter)
    assert len(calls) == 2


def test_another_experience_is_another_story(make_env, make_agent, make_experience, save) -> None:
    """Whatever the teacher said of one, and remembers of it, has nothing to do with the next."""
    student, teacher = make_agent(), opinionated(make_agent(5))
    (inner,) = Kickstarter(KickstartConfig(teacher_uri=save(teacher)), "cpu")._teachers
    everything = torch.arange(64)
    first = make_experience(make_env(lengths=(1000, 1000)), student, async_factor=1)
    env = make_env(seed=1, lengths=(1000, 1000))
    second = make_experience(env, student, async_factor=1)
    watcher = Watcher(env, teacher)
    for batch in range(2):
        for experience in (first, second):
            rollout(experience, student)
            logprobs, _ = inner.lesson(experience, everything, torch.device("cpu"))
            experience.mark_used()
        if batch == 0:
            torch.testing.assert_close(logprobs, watcher.segments(0, 8, 8)[0], rtol=1e-4, atol=1e-4)
    assert inner._before.state.h.abs().max() == 0, "the memory of the other one is not this one's"


def test_terms_by_hand(make_env, make_agent, make_experience, save) -> None:
    student = opinionated(make_agent())
    experience = make_experience(make_env(), student)
    rollout(experience, student)
    teachers = [opinionated(make_agent(seed)) for seed in (5, 6)]
    first, second = (save(teacher, f"t{i}") for i, teacher in enumerate(teachers))
    extra = {"teacher_uri": second, "action_loss_coef": 0.5, "value_loss_coef": 3.0}
    config = KickstartConfig(
        teacher_uri=first,
        action_loss_coef=2.0,
        value_loss_coef=0.25,
        kickstart_steps=100,
        anneal_ratio=0.5,
        additional_teachers=[extra],
    )
    # The first chunk, where every memory is empty, so that the teachers' can be had by evaluate alone.
    minibatch = experience.minibatch(indices := torch.tensor([0, 3, 7]), torch.zeros(64, 8))

    def judged(agent):
        return agent.evaluate(
            minibatch.observations, minibatch.start_state, minibatch.dones, minibatch.actions
        )

    out = judged(student)
    by_hand, divergences, errors = 0.0, [], []
    for teacher, (action, value) in zip(teachers, ((2.0, 0.25), (0.5, 3.0)), strict=True):
        told = judged(teacher)
        gap = told.all_logprobs.exp() * (told.all_logprobs - out.all_logprobs)
        divergences.append(float(gap.sum(-1).mean().detach()))
        errors.append(float((told.values - out.values).pow(2).mean().detach()) / 2)
        by_hand += action * divergences[-1] + value * errors[-1]
    kickstarter = Kickstarter(config, "cpu")
    for agent_step, coefficient in ((0, 1.0), (75, 0.5)):
        loss, terms = kickstarter.loss(experience, minibatch, out, agent_step)
        assert float(loss.detach()) == pytest.approx(coefficient * by_hand, rel=1e-4)
        assert float(terms["ks_action_loss"].detach()) == pytest.approx(sum(divergences) / 2, rel=1e-4)
        assert float(terms["ks_value_loss"].detach()) == pytest.approx(sum(errors) / 2, rel=1e-4)
        assert float(terms["ks_coefficient"]) == coefficient
    assert min(divergences) > 0.01
    weighted = replace(minibatch, weights=torch.tensor([3.0, 0.0, 0.0]))
    one = experience.minibatch(indices[:1], torch.zeros(64, 8))
    out_one = student.evaluate(one.observations, one.start_state, one.dones, one.actions)
    assert float(kickstarter.loss(experience, weighted, out, 0)[0].detach()) == pytest.approx(
        float(kickstarter.loss(experience, one, out_one, 0)[0].detach()), rel=1e-4
    )
    silent, nothing = kickstarter.loss(experience, minibatch, out, 100)
    assert float(silent) == 0
    assert nothing == {}


def test_its_own_teacher_has_nothing_to_say(make_env, make_agent, make_experience, save) -> None:
    student = opinionated(make_agent())
    experience = make_experience(make_env(), student)
    kickstarter = Kickstarter(KickstartConfig(teacher_uri=save(student)), "cpu")
    for _ in range(2):
        rollout(experience, student)
        minibatch = experience.minibatch(torch.arange(64), torch.zeros(64, 8))
        terms = minibatch_losses(
            student, minibatch, PPOConfig(), kickstarter=kickstarter, experience=experience
        ).scalars()
        assert terms["ks_action_loss"] == pytest.approx(0, abs=1e-6)
        assert terms["ks_value_loss"] == pytest.approx(0, abs=1e-9)
        experience.mark_used()


def test_the_coefficient_falls_at_the_end(make_agent, save) -> None:
    uri = save(make_agent())

    def at(ratio: float, *steps: int) -> list[float]:
        config = KickstartConfig(teacher_uri=uri, anneal_ratio=ratio, kickstart_steps=1000)
        kickstarter = Kickstarter(config, "cpu")
        return [kickstarter.coefficient(step) for step in steps]

    assert at(0.5, 0, 500, 600, 750, 999, 1000, 5000) == pytest.approx([1, 1, 0.8, 0.5, 0.002, 0, 0])
    assert at(1.0, 0, 250, 1000) == pytest.approx([1, 0.75, 0])
    assert at(0.0, 0, 999, 1000) == [1, 1, 0]


def test_without_a_teacher_it_adds_nothing(make_env, make_agent, make_experience) -> None:
    student = make_agent()
    experience = make_experience(make_env(), student)
    rollout(experience, student)
    kickstarter = Kickstarter(KickstartConfig(), "cpu")
    assert not kickstarter.enabled
    minibatch = experience.minibatch(torch.arange(8), torch.zeros(64, 8))
    with_it = minibatch_losses(
        student, minibatch, PPOConfig(), kickstarter=kickstarter, experience=experience
    )
    without = minibatch_losses(student, minibatch, PPOConfig())
    assert with_it.scalars() == without.scalars()
    assert kickstarter.state_dict() == {"teachers": []}


def test_a_teacher_of_another_world_is_translated(make_env, make_agent, make_experience, save) -> None:
    """The same agent, in a world whose actions lie in another order and know one more."""
    student = opinionated(make_agent())
    spec = student.spec
    other_spec = replace(spec, action_names=("right", "jump", "left"), max_action_args=(1, 0, 0))
    config = AgentModelConfig(hidden_dim=16, backbone="mlp", analyze_weights_interval=0)
    teacher = opinionated(MettaAgent(other_spec, config, generator=torch.Generator().manual_seed(3)))
    experience = make_experience(make_env(), student)
    rollout(experience, student)
    kickstarter = Kickstarter(KickstartConfig(teacher_uri=save(teacher)), "cpu")
    first_chunk = experience.minibatch(torch.arange(8), torch.zeros(64, 8))
    logprobs, _ = kickstarter._teachers[0].lesson(experience, first_chunk.indices, torch.device("cpu"))
    seen = (first_chunk.observations, first_chunk.start_state, first_chunk.dones, first_chunk.actions)
    at_home = teacher.evaluate(
        *seen[:3], torch.zeros_like(seen[3])
    ).all_logprobs  # right 0, right 1, jump, left
    expected = torch.log_softmax(at_home[..., [3, 0, 1]], -1)
    torch.testing.assert_close(logprobs, expected)
    assert minibatch_losses(
        student, first_chunk, PPOConfig(), kickstarter=kickstarter, experience=experience
    ).loss.isfinite()


def test_addresses_go_through_the_store(make_agent, tmp_path) -> None:
    store = PolicyStore(tmp_path)
    for epoch in (1, 2):
        store.save(make_agent(epoch), epoch)
    kickstarter = Kickstarter(KickstartConfig(teacher_uri=tmp_path.as_uri()), "cpu", store)
    newest = make_agent(2).state_dict()
    assert all(
        torch.equal(newest[name], tensor)
        for name, tensor in kickstarter._teachers[0].agent.state_dict().items()
    )
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Kickstarter(KickstartConfig(teacher_uri=str(tmp_path / "nowhere.pt")), "cpu")


def test_resumes_with_the_teachers_memory(make_env, make_agent, make_experience, save) -> None:
    def make(seed: int):
        student = make_agent(seed)
        experience = make_experience(make_env(lengths=(1, 60), seed=seed), student, seed)
        kickstarter = Kickstarter(KickstartConfig(teacher_uri=teacher), "cpu")
        return student, experience, make_optimizer(student, OptimizerConfig(learning_rate=0.01)), kickstarter

    def go(run, count: int) -> list[dict[str, float]]:
        student, experience, optimizer, kickstarter = run
        return [
            (
                rollout(experience, student),
                train_ppo(student, optimizer, experience, kickstarter=kickstarter),
            )[1]
            for _ in range(count)
        ]

    teacher = save(opinionated(make_agent(9)))
    whole, resumed, forgetful = make(0), make(1), make(2)
    go(whole, 2)
    states = [copy.deepcopy(part.state_dict()) for part in whole]
    expected = go(whole, 2)
    for part, state in zip(resumed, states, strict=True):
        part.load_state_dict(state)
    assert go(resumed, 2) == expected
    for part, state in list(zip(forgetful, states, strict=True))[:3]:
        part.load_state_dict(state)
    assert go(forgetful, 1)[0]["ks_action_loss"] != expected[0]["ks_action_loss"]
    other = Kickstarter(KickstartConfig(), "cpu")
    with pytest.raises(
        ValueError, match=r"the saved kickstarter had the teachers \[.*teacher.pt'\], this one has \[\]"
    ):
        other.load_state_dict(states[3])


# --- teaching ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """The address of an agent that has learnt the memory task, and what it reached."""
    from metta.rl.experience import Experience
    from metta.rl.trainer_config import ExperienceConfig

    env = ScriptedEnv(16, 2, memory=True)
    config = AgentModelConfig(hidden_dim=16, backbone="mlp", analyze_weights_interval=0)
    agent = MettaAgent(env.spec, config, generator=torch.Generator().manual_seed(0))
    sizes = ExperienceConfig(batch_size=1024, minibatch_size=256, bptt_horizon=16)
    experience = Experience(env, agent, sizes)
    optimizer = make_optimizer(agent, OptimizerConfig(learning_rate=0.01))
    for _ in range(16):
        rollout(experience, agent)
        ppo = PPOConfig(clip_coef=0.2, ent_coef=0.01, gamma=0.5, gae_lambda=0.9)
        train_ppo(agent, optimizer, experience, ppo, update_epochs=3)
    assert float(experience.rewards.mean()) > 0.95
    path = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    save_agent(agent, path, {})
    return str(path)


NO_RL = PPOConfig(vf_coef=0.0, ent_coef=0.0, norm_adv=False)


@pytest.fixture
def study(make_env, make_agent, make_experience):
    """Trains a student of another size for a few batches; the share of right actions in the last one, and how far its
    actions are from the teacher's."""

    def run(
        teacher: str, ppo: PPOConfig = NO_RL, batches: int = 8, taught: bool = True, rate: float = 0.01
    ) -> tuple[float, float]:
        student = make_agent(1, hidden_dim=24)
        experience = make_experience(
            make_env(16, 2, memory=True, seed=1), student, batch_size=1024, minibatch_size=256, bptt_horizon=4
        )
        optimizer = make_optimizer(student, OptimizerConfig(learning_rate=rate))
        kickstarter = Kickstarter(KickstartConfig(teacher_uri=teacher), "cpu")
        if not taught:  # so little that no weight moves by it, but the distance is told
            kickstarter.coefficient = lambda agent_step: 1e-30
        for _ in range(batches):
            rollout(experience, student)
            if ppo is NO_RL:
                experience.advantages = torch.zeros(experience.num_segments, experience.horizon)
            stats = train_ppo(student, optimizer, experience, ppo, update_epochs=3, kickstarter=kickstarter)
        return float(experience.rewards.mean()), stats["ks_action_loss"]

    return run


def test_a_student_learns_from_its_teacher_alone(study, taught) -> None:
    right, distance = study(taught)
    assert right > 0.93
    right_without, distance_without = study(taught, taught=False)
    assert right_without < 0.6
    assert distance < 0.1 * distance_without


def test_a_student_that_also_learns_for_itself_is_pulled_to_its_teacher(study, taught) -> None:
    ppo = PPOConfig(clip_coef=0.2, ent_coef=0.01, gamma=0.5, gae_lambda=0.9)
    _, distance = study(taught, ppo, batches=6)
    _, distance_without = study(taught, ppo, batches=6, taught=False)
    assert distance < 0.5 * distance_without


def _empty_memories(patch) -> None:
    """The teacher starts every segment with an empty memory."""
    plain = metta.rl.kickstarter.PolicyState.index
    patch.setattr(
        metta.rl.kickstarter,
        "split_size",
        lambda count, largest: [slice(0, count)],
    )
    patch.setattr(
        MettaAgent,
        "evaluate",
        _with_state(
            lambda state: plain(state, slice(None)).zeroed(torch.ones(state.batch_size, dtype=torch.bool))
        ),
    )


def _shifted_memories(patch) -> None:
    """The teacher has its neighbour's memory."""
    patch.setattr(
        MettaAgent,
        "evaluate",
        _with_state(lambda state: type(state)(state.h.roll(2, 1), state.c.roll(2, 1))),
    )


def _with_state(change):
    plain = MettaAgent.evaluate

    def evaluate(self, obs, state, dones, actions):
        if not torch.is_grad_enabled():  # the teacher: the student is evaluated with its graph
            state = change(state)
        return plain(self, obs, state, dones, actions)

    return evaluate


@pytest.mark.parametrize("fault", [_empty_memories, _shifted_memories])
def test_a_teacher_with_a_wrong_memory_fails(study, taught, monkeypatch, fault) -> None:
    fault(monkeypatch)
    assert study(taught)[0] < 0.88


def test_the_documented_loop_may_step_by_step(make_env, make_agent, make_experience, save) -> None:
    student = make_agent()
    experience = make_experience(make_env(), student, async_factor=1)
    while not experience.ready_for_training:
        perform_rollout_step(student, experience.env, experience, "cpu", None)
    kickstarter = Kickstarter(KickstartConfig(teacher_uri=save(make_agent(4))), "cpu")
    minibatch = experience.sample_minibatch(torch.zeros(64, 8))
    assert (
        "ks_action_loss"
        in minibatch_losses(
            student, minibatch, PPOConfig(), kickstarter=kickstarter, experience=experience
        ).terms
    )
