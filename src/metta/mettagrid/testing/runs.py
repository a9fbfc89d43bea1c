"""Playing environments side by side, and the report of what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from metta.mettagrid.testing.streams import ActionStream, CheckError, Shown, Watch
from metta.mettagrid.vec import VecEnv

Run = list[list[Shown]]
"""For every reset and every step, what each world showed."""


@dataclass
class CheckReport:
    """What `check_env` found in order.

    Attributes:
        name: what was checked.
        checks: the promises that hold.
        left_out: what could not be checked, and why.
        num_worlds, num_agents: worlds that were stepped together, and agents in each.
        num_steps, num_episodes: of the main run.
    """

    name: str
    checks: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    num_worlds: int = 0
    num_agents: int = 0
    num_steps: int = 0
    num_episodes: int = 0

    def __str__(self) -> str:
        lines = [
            f"{self.name} keeps its promises: {len(self.checks)} checks over {self.num_worlds} worlds of {self.num_agents} "
            f"agents, {self.num_steps} steps, {self.num_episodes} episodes.",
            *(f"  holds: {check}" for check in self.checks),
            *(f"  not checked: {reason}" for reason in self.left_out),
        ]
        return "\n".join(lines)


def has_engine(env: VecEnv) -> bool:
    """Whether the worlds are in this process, where one can look into them."""
    return not env.num_workers


def action_seeds(seed: int, num_worlds: int) -> list[int]:
    """A seed of actions for each world, the same however many worlds there are."""
    return [1000003 * seed + world for world in range(num_worlds)]


def run(env: VecEnv, name: str, steps: int, seeds: Sequence[int]) -> Run:
    """What an environment shows when it is played with random actions, with new episodes begun half way."""
    watch = Watch(env, name, ActionStream(env.spec, env.agents_per_world, seeds))
    watch.play(steps // 2)
    watch.restart()
    watch.play(steps - steps // 2)
    return watch.shown


def compare(
    expected: Run,
    got: Run,
    worlds: Sequence[int],
    name: str,
    how: str,
    remedy: str,
) -> None:
    """See that some worlds showed the same in two runs.

    Raises:
        CheckError: they did not; `how` says when, `remedy` what to do.
    """
    step = 0
    for ours, theirs in zip(expected, got, strict=True):
        for world in worlds:
            for key, value in ours[world].items():
                if theirs[world].get(key) != value:
                    raise CheckError(
                        f"{name}: {how}, world {world} shows other {key} at step {step}; {remedy}."
                    )
        step += "rewards" in ours[0]
