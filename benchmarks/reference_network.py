"""How fast the loop trains the reference network, beside the loop that everyone writes.

    python -m benchmarks.reference_network [--json] [--rounds 5] [--threads 1 2]

The network: 22 feature planes of 11 by 11, two convolutions of 64 channels (5 by 5 with stride 3, 3 by 3), a layer of
128, two LSTM layers of 128, a critic of 1024 and an actor of 512 units, 30 logits. 256 agents make 64 steps, then one
pass of 16 minibatches of 1024 trains on them. The environment is a stub: random tokens, some 58 per agent in the
customary buffer of 200, an episode ends at every hundredth step of an agent, and a step costs a copy.

`metta`: `rollout`, `compute_advantages` and `train_ppo` as they come; `metta_bf16` the same with `dtypes_fp16`;
`metta_no_ends` the same as `metta` where no episode ends; `metta_world` and `metta_world_bf16` the same in 64 real
worlds of 4 agents, whose share of the time is printed, and how much longer it takes than with the stub. `plain` is a
careful loop on torch's own layers: planes drawn by one scatter, the whole-sequence LSTM, which ignores episode ends
inside a sequence, fused Adam. `plain_exact` is the same with the LSTM stepped one tick at a time, so that memories
are emptied where an episode ends. All sides take turns; figures are medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from metta.agent.any_config import read_agent_config
from metta.agent.metta_agent import MettaAgent
from metta.api import (
    EnvConfig,
    ExperienceConfig,
    GameConfig,
    OptimizerConfig,
    PPOConfig,
    compute_advantages,
    make_experience_manager,
    make_optimizer,
    rollout,
    train_ppo,
)
from metta.mettagrid.objects import STANDARD_ITEMS
from metta.mettagrid.outcomes import StepBatch
from metta.mettagrid.spec import EnvSpec, feature_table
from metta.mettagrid.vec import VecEnv

NUM_AGENTS, HORIZON, MINIBATCH = 256, 64, 1024
BATCH = NUM_AGENTS * HORIZON
NUM_TOKENS = 200
END_PROBABILITY = 0.01
PHASES = ("environment", "inference", "rollout_rest", "advantage", "update")
PPO = PPOConfig()
OPTIMIZER = OptimizerConfig()

SPEC = EnvSpec(
    action_names=("attack", "change_color", "get_items", "move", "noop", "put_items", "rotate", "swap"),
    max_action_args=(8, 3, 0, 7, 0, 1, 3, 0),
    features=feature_table(STANDARD_ITEMS[:8]),
    obs_height=11,
    obs_width=11,
    num_tokens=NUM_TOKENS,
    item_names=STANDARD_ITEMS[:8],
)

NETWORK: dict[str, Any] = {
    "components": {
        "_obs_": {"layer": "ObsTokenToBoxShaper"},
        "normal": {"layer": "ObservationNormalizer", "sources": ["_obs_"]},
        "cnn1": {
            "layer": "Conv2d",
            "sources": ["normal"],
            "out_channels": 64,
            "kernel_size": 5,
            "stride": 3,
        },
        "cnn2": {"layer": "Conv2d", "sources": ["cnn1"], "out_channels": 64, "kernel_size": 3},
        "flat": {"layer": "Flatten", "sources": ["cnn2"]},
        "fc1": {"layer": "Linear", "sources": ["flat"], "out_features": 128},
        "_core_": {"layer": "LSTM", "sources": ["fc1"], "hidden_size": 128, "num_layers": 2},
        "critic_1": {"layer": "Linear", "sources": ["_core_"], "out_features": 1024},
        "_value_": {"layer": "Linear", "sources": ["critic_1"]},
        "actor_1": {"layer": "Linear", "sources": ["_core_"], "out_features": 512},
        "_action_": {"layer": "Linear", "sources": ["actor_1"]},
    },
    "egocentric": False,
    "bptt_horizon": HORIZON,
    "analyze_weights_interval": 0,
}


def random_tokens(num_rows: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """uint8 `[num_rows, 200, 3]`: at random cells walls, machines and agents, the latter with more than one token."""
    tokens = np.full((num_rows, NUM_TOKENS, 3), 255, np.uint8)
    for row, used in zip(tokens, rng.integers(48, 69, num_rows), strict=True):
        row[:used, 0] = np.sort(rng.integers(0, 11, used) * 16 + rng.integers(0, 11, used))
        row[:used, 1] = np.where(rng.random(used) < 0.5, 0, rng.integers(1, len(SPEC.features), used))
        row[:used, 2] = rng.integers(0, 9, used)
    return tokens


class StubEnv(VecEnv):
    """256 worlds of one agent that show random tokens, whatever is done in them.

    Args:
        end_probability: that an episode ends, by a terminal, at a step.
    """

    def __init__(self, end_probability: float) -> None:
        self.spec = SPEC
        self.num_worlds = self.num_agents = NUM_AGENTS
        self.agents_per_world = 1
        rng = np.random.default_rng(0)
        self._seen = [random_tokens(NUM_AGENTS, rng) for _ in range(16)]
        self._ends = rng.random((64, NUM_AGENTS)) < end_probability
        self._rewards = (rng.random((64, NUM_AGENTS)) < 0.05).astype(np.float32)
        self._never = np.zeros(NUM_AGENTS, np.bool_)
        self._time = 0
        self.observations = self._seen[0].copy()
        self.starts = np.ones(NUM_AGENTS, np.bool_)

    def step(self, actions: npt.NDArray[np.integer[Any]], worlds: slice | None = None) -> StepBatch:
        """One step of some worlds; the clock goes on with the last of them."""
        rows = worlds or slice(0, NUM_AGENTS)
        assert len(actions) == rows.stop - rows.start
        now = self._time
        if rows.stop == NUM_AGENTS:
            self._time += 1
        ends = self._ends[now % len(self._ends), rows]
        self.observations[rows] = self._seen[(now + 1) % len(self._seen)][rows]
        self.starts[rows] = ends
        final = np.flatnonzero(ends)
        return StepBatch(
            self.observations[rows],
            self._rewards[now % len(self._rewards), rows],
            ends,
            self._never[rows],
            rows.start + final,
            np.ones(len(final), np.bool_),
            self.observations[rows][final],
            [],
        )


@dataclass
class Loop:
    """A loop that can be advanced batch by batch: gives seconds by phase."""

    advance: Callable[[], dict[str, float]]


def real_worlds() -> VecEnv:
    """As many agents, with the same window and as many tokens, in worlds that are really stepped; episodes of 1000 steps."""
    game = GameConfig(num_agents=4, width=32, height=32, num_observation_tokens=NUM_TOKENS, max_steps=1000)
    return VecEnv(EnvConfig(game=game), NUM_AGENTS // 4, seed=0, stagger=True)


def metta_loop(*, half: bool = False, end_probability: float = END_PROBABILITY, real: bool = False) -> Loop:
    """The library's own functions."""
    torch.manual_seed(0)
    env = real_worlds() if real else StubEnv(end_probability)
    agent = MettaAgent(env.spec, read_agent_config({**NETWORK, "dtypes_fp16": half}))
    optimizer = make_optimizer(agent, OPTIMIZER)
    config = ExperienceConfig(
        batch_size=BATCH, minibatch_size=MINIBATCH, bptt_horizon=HORIZON, async_factor=1
    )
    experience = make_experience_manager(env, agent, config)

    def advance() -> dict[str, float]:
        start = perf_counter()
        batch = rollout(experience, agent)
        collected = perf_counter()
        compute_advantages(experience, PPO.gamma, PPO.gae_lambda)
        weighed = perf_counter()
        train_ppo(agent, optimizer, experience, PPO)
        end = perf_counter()
        return {
            "environment": batch.env_seconds,
            "inference": batch.inference_seconds,
            "rollout_rest": collected - start - batch.env_seconds - batch.inference_seconds,
            "advantage": weighed - collected,
            "update": end - weighed,
            "all": end - start,
        }

    return Loop(advance)


class PlainNetwork(nn.Module):
    """The network on torch's layers."""

    place: torch.Tensor
    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        planes = len(SPEC.features)
        self.conv = nn.Sequential(
            nn.Conv2d(planes, 64, 5, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten()
        )
        self.fc = nn.Sequential(nn.Linear(64, 128), nn.ReLU())
        self.lstm = nn.LSTM(128, 128, 2)
        self.critic = nn.Sequential(nn.Linear(128, 1024), nn.ReLU(), nn.Linear(1024, 1))
        self.actor = nn.Sequential(nn.Linear(128, 512), nn.ReLU(), nn.Linear(512, len(SPEC.legal_actions)))
        cells = 121
        # Place of a token's first number in the flat planes; padding and beyond go to a cell of their own.
        place = torch.full((256,), planes * cells)
        for row in range(11):
            for col in range(11):
                place[row * 16 + col] = row * 11 + col
        self.cells, self.rubbish = cells, planes * cells
        self.register_buffer("place", place)
        scale = torch.zeros(256)
        scale[:planes] = 1 / torch.tensor([feature.normalization for feature in SPEC.features])
        self.register_buffer("scale", scale)

    def encode(self, tokens: torch.Tensor) -> torch.Tensor:
        """uint8 `[N, K, 3]` to `[N, 128]`."""
        longest = int((tokens[..., 0] != 255).sum(1).max())
        location, feature, value = tokens[:, :longest].int().unbind(-1)
        index = (self.place[location] + feature * self.cells).clamp_(max=self.rubbish)
        planes = torch.zeros(len(tokens), self.rubbish + 1)
        planes.scatter_(1, index, value * self.scale[feature])
        image = planes[:, : self.rubbish].view(-1, self.rubbish // self.cells, 11, 11)
        return self.fc(self.conv(image))  # type: ignore[no-any-return]

    def heads(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log probabilities and values."""
        return torch.log_softmax(self.actor(x), -1), self.critic(x).squeeze(-1)


def plain_loop(*, exact: bool) -> Loop:
    """What a careful author writes; `exact`: the LSTM one tick at a time."""
    torch.manual_seed(0)
    env = StubEnv(END_PROBABILITY)
    net = PlainNetwork()
    adam = torch.optim.Adam(
        net.parameters(), OPTIMIZER.learning_rate, (OPTIMIZER.beta1, OPTIMIZER.beta2), 1e-8, fused=True
    )
    legal = torch.tensor(SPEC.legal_actions)
    observations = torch.empty(HORIZON, NUM_AGENTS, NUM_TOKENS, 3, dtype=torch.uint8)
    chosen = torch.empty(HORIZON, NUM_AGENTS, dtype=torch.int64)
    logprobs, values, rewards, ends = (torch.empty(HORIZON, NUM_AGENTS) for _ in range(4))
    memory = (torch.zeros(2, NUM_AGENTS, 128), torch.zeros(2, NUM_AGENTS, 128))
    first = memory

    def recur(x: torch.Tensor, start: tuple[torch.Tensor, torch.Tensor], done: torch.Tensor) -> torch.Tensor:
        if not exact:
            out: torch.Tensor = net.lstm(x, start)[0]
            return out
        h, c = start
        outs = []
        for t in range(HORIZON):
            tick, (h, c) = net.lstm(x[t : t + 1], (h, c))
            outs.append(tick)
            alive = (1 - done[t]).unsqueeze(-1)
            h, c = h * alive, c * alive
        return torch.cat(outs)

    def collect() -> tuple[torch.Tensor, float, float]:
        nonlocal memory, first
        first = memory
        inference = environment = 0.0
        for t in range(HORIZON):
            before = perf_counter()
            observations[t] = torch.from_numpy(env.observations)
            x, memory = net.lstm(net.encode(observations[t]).unsqueeze(0), memory)
            log_p, values[t] = net.heads(x[0])
            chosen[t] = torch.multinomial(log_p.exp(), 1).squeeze(-1)
            logprobs[t] = log_p.gather(1, chosen[t].unsqueeze(-1)).squeeze(-1)
            actions = legal[chosen[t]].numpy()
            between = perf_counter()
            batch = env.step(actions)
            after = perf_counter()
            rewards[t], ends[t] = torch.from_numpy(batch.rewards), torch.from_numpy(batch.terminals)
            alive = (1 - ends[t]).unsqueeze(-1)
            memory = (memory[0] * alive, memory[1] * alive)
            inference += perf_counter() - after + between - before
            environment += after - between
        x, _ = net.lstm(net.encode(torch.from_numpy(env.observations)).unsqueeze(0), memory)
        return net.heads(x[0])[1], inference, environment

    def weigh(last: torch.Tensor) -> torch.Tensor:
        advantages, later = torch.empty_like(rewards), torch.zeros(NUM_AGENTS)
        for t in range(HORIZON - 1, -1, -1):
            alive = 1 - ends[t]
            following = last if t == HORIZON - 1 else values[t + 1]
            later = (
                rewards[t]
                + PPO.gamma * following * alive
                - values[t]
                + PPO.gamma * PPO.gae_lambda * alive * later
            )
            advantages[t] = later
        return advantages

    def update(advantages: torch.Tensor) -> None:
        returns = advantages + values
        order = torch.randperm(NUM_AGENTS)
        for rows in torch.split(order, MINIBATCH // HORIZON):
            x = net.encode(observations[:, rows].flatten(0, 1)).view(HORIZON, len(rows), -1)
            start = (first[0][:, rows].contiguous(), first[1][:, rows].contiguous())
            log_p, value = net.heads(recur(x, start, ends[:, rows]))
            new = log_p.gather(-1, chosen[:, rows].unsqueeze(-1)).squeeze(-1)
            ratio = (new - logprobs[:, rows]).exp()
            a = advantages[:, rows]
            a = (a - a.mean()) / (a.std() + 1e-8)
            clipped = ratio.clamp(1 - PPO.clip_coef, 1 + PPO.clip_coef)
            policy_loss = -torch.min(ratio * a, clipped * a).mean()
            old, target = values[:, rows], returns[:, rows]
            near = old + (value - old).clamp(-PPO.vf_clip_coef, PPO.vf_clip_coef)
            value_loss = 0.5 * torch.max((value - target) ** 2, (near - target) ** 2).mean()
            entropy = -(log_p.exp() * log_p).sum(-1).mean()
            loss = policy_loss + PPO.vf_coef * value_loss - PPO.ent_coef * entropy
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(net.parameters(), PPO.max_grad_norm)
            adam.step()

    def advance() -> dict[str, float]:
        start = perf_counter()
        with torch.no_grad():
            last, inference, environment = collect()
            collected = perf_counter()
            advantages = weigh(last)
        weighed = perf_counter()
        update(advantages)
        end = perf_counter()
        return {
            "environment": environment,
            "inference": inference,
            "rollout_rest": collected - start - environment - inference,
            "advantage": weighed - collected,
            "update": end - weighed,
            "all": end - start,
        }

    return Loop(advance)


SIDES: dict[str, Callable[[], Loop]] = {
    "metta": metta_loop,
    "metta_no_ends": lambda: metta_loop(end_probability=0.0),
    "metta_bf16": lambda: metta_loop(half=True),
    "metta_world": lambda: metta_loop(real=True),
    "metta_world_bf16": lambda: metta_loop(half=True, real=True),
    "plain": lambda: plain_loop(exact=False),
    "plain_exact": lambda: plain_loop(exact=True),
}


def measure(threads: int, rounds: int, names: list[str]) -> dict[str, float]:
    """Medians over so many rounds, and the ratios to `plain`."""
    torch.set_num_threads(threads)
    loops = {name: SIDES[name]() for name in names}
    spent: dict[str, list[dict[str, float]]] = {name: [] for name in loops}
    for number in range(rounds + 1):
        for name, loop in loops.items():
            times = loop.advance()
            if number:  # the first round compiles and warms up
                spent[name].append(times)
    figures: dict[str, float] = {}
    for name, rows in spent.items():
        key = f"{threads}_threads/{name}"
        figures[f"{key}/steps_per_s"] = BATCH / statistics.median(row["all"] for row in rows)
        for phase in PHASES:
            figures[f"{key}/{phase}_ms"] = 1e3 * statistics.median(row[phase] for row in rows)
        share = statistics.median(row["environment"] / row["all"] for row in rows)
        figures[f"{key}/environment_share"] = share
        stub = spent.get(name.replace("_world", ""))
        if "_world" in name and stub is not None:
            longer = statistics.median(
                own["all"] / other["all"] for own, other in zip(rows, stub, strict=True)
            )
            figures[f"{key}/times_stub"] = longer
    if "plain" in loops:
        for name in loops:
            pairs = zip(spent["plain"], spent[name], strict=True)
            ratio = statistics.median(plain["all"] / own["all"] for plain, own in pairs)
            figures[f"{threads}_threads/{name}/times_plain"] = ratio
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="Steps per second, trained, of the reference network.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=5, help="batches of each side")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="torch threads")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES), help="loops to run")
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    for threads in arguments.threads:
        figures |= measure(threads, arguments.rounds, arguments.sides)
    if arguments.json:
        print(json.dumps({name: round(value, 4) for name, value in figures.items()}))
        return
    for name, value in figures.items():
        print(f"{name:50} {value:12,.2f}" if value < 100 else f"{name:50} {value:12,.0f}")


if __name__ == "__main__":
    main()
