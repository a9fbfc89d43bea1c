"""Evaluation, replays: a policy in whatever form, played, scored, recorded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from metta.agent.policy import Policy
from metta.agent.policy_record import PolicyRecord
from metta.agent.policy_store import PolicyStore
from metta.common.files import StrPath
from metta.eval.stats_db import StatsDB
from metta.interface.directories import DeviceSetup
from metta.mettagrid.config import EnvConfig
from metta.mettagrid.registry import SIMPLE
from metta.rl.distributed import DistributedAgent, unwrap_agent
from metta.sim.config import ReplayConfig, Simulation, SimulationSuite
from metta.sim.replays import record_replay
from metta.sim.simulation import eval_policy
from metta.sim.suite import OnMisfit, SuiteResult, run_suite

__all__ = [
    "ReplayConfig",
    "ReplayFiles",
    "Simulation",
    "SimulationSuite",
    "SuiteResult",
    "create_evaluation_config_suite",
    "create_replay_config",
    "eval_policy",
    "evaluate_policy_suite",
    "generate_replay_simple",
]

STANDARD_SIMULATIONS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "navigation": (
        "/env/mettagrid/navigation/evals",
        (
            "emptyspace_withinsight",
            "emptyspace_outofsight",
            "emptyspace_sparse",
            "emptyspace_sparse_medium",
            "walls_withinsight",
            "walls_outofsight",
            "walls_sparse",
            "labyrinth",
            "radialmaze",
        ),
    ),
    "arena": ("/env/mettagrid/arena", ("basic", "combat", "advanced", "tag", "advanced_poor")),
}
"""The standard simulations: folder of their environments and their names, by category."""


class ReplayFiles(NamedTuple):
    """What a recorded episode leaves on disk.

    Attributes:
        replay: the `.json.z` file.
        page: the HTML page that plays it, in any browser and offline.
    """

    replay: Path
    page: Path


def create_evaluation_config_suite(
    num_episodes: int = 10,
    *,
    categories: Sequence[str] = ("navigation", "arena"),
    simulations: Mapping[str, Simulation] | None = None,
    overrides: Mapping[str, Any] | None = None,
    name: str = "evaluation",
) -> SimulationSuite:
    """The standard suite: how well a policy finds its way (`navigation`) and how it fares among others (`arena`).

    Args:
        num_episodes: of each standard simulation; with one the intervals are unknown.
        categories: which of the standard simulations.
        simulations: further ones, or others in the place of standard ones, by name `category/name`.
        overrides: values that the environments of all standard simulations take, for instance `{"max_steps": 100}`.
        name: what reports and databases call the suite.

    Raises:
        ValueError: an unknown category, a name without a category, or nothing to play.
    """
    chosen: dict[str, Simulation] = {}
    for category in [categories] if isinstance(categories, str) else categories:
        if category not in STANDARD_SIMULATIONS:
            raise ValueError(
                f"categories contains '{category}', but the standard ones are {', '.join(STANDARD_SIMULATIONS)}; "
                "add your own with simulations={'category/name': Simulation(...)}."
            )
        folder, names = STANDARD_SIMULATIONS[category]
        for own in names:
            chosen[f"{category}/{own}"] = Simulation(
                env=f"{folder}/{own}", num_episodes=num_episodes, overrides=dict(overrides or {})
            )
    return SimulationSuite(name=name, simulations={**chosen, **(simulations or {})})


def create_replay_config(
    env: str | EnvConfig | Mapping[str, Any] = SIMPLE,
    *,
    task: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
    deterministic: bool = False,
    max_steps: int = 10_000,
) -> ReplayConfig:
    """Which episode to record.

    Args:
        env: name of a registered environment or curriculum, or an environment, typed or as a mapping of its fields.
        task: which task of a curriculum to play; None: the one that the seed draws.
        overrides: single values of the environment by field name, for instance `{"max_steps": 100}`.
        seed: decides the map, the order of the agents and the sampled actions.
        deterministic: take the likeliest action instead of sampling.
        max_steps: stop recording here if the episode has no end before.

    Raises:
        ValueError: a value is out of its range, or the mapping is no environment.
    """
    return ReplayConfig(
        env=env if isinstance(env, str | EnvConfig) else EnvConfig.model_validate(env),
        task=task,
        overrides=dict(overrides or {}),
        seed=seed,
        deterministic=deterministic,
        max_steps=max_steps,
    )


def evaluate_policy_suite(
    policy: Policy | PolicyRecord | StrPath,
    suite: SimulationSuite | None = None,
    *,
    policy_store: PolicyStore | None = None,
    device: torch.device | str | DeviceSetup = "cpu",
    seed: int = 0,
    deterministic: bool = False,
    on_misfit: OnMisfit = "raise",
    stats_path: StrPath | None = None,
    record: PolicyRecord | None = None,
    num_threads: int = 1,
) -> SuiteResult:
    """Let a policy play a suite; scores with intervals, and rows in a DuckDB file.

    The result is a function of policy, suite and seed. See `metta.sim.suite.run_suite`.

    Args:
        policy: a policy at hand, a record, or the address of a saved one or of a folder of them, the latest of which is meant.
        suite: what to play; None: `create_evaluation_config_suite()`.
        policy_store: finds and loads what is not at hand; None: one of its own, which understands paths and `file://`.
        device: where a policy that has to be loaded goes; one at hand stays where it is.
        seed: decides maps, agent order and sampled actions.
        deterministic: take the likeliest action instead of sampling.
        on_misfit: what to do about a simulation whose world the policy cannot play: `raise`, or `skip` it; then
            `result.skipped` says which and why.
        stats_path: DuckDB file that gets the rows (`metta.eval.stats_db`); None: nothing is written.
        record: what the rows say about a policy at hand; one that is loaded brings its own.
        num_threads: threads that step worlds side by side; changes nothing but the speed.

    Raises:
        FileNotFoundError: there is no such policy.
        ValueError: the policy cannot be loaded, the suite cannot be played, or `stats_path` holds something else.
        RuntimeError: another process has the DuckDB file open.
    """
    player, own = _find_policy(policy, policy_store, device)
    suite = create_evaluation_config_suite() if suite is None else suite
    options: dict[str, Any] = {
        "seed": seed,
        "deterministic": deterministic,
        "on_misfit": on_misfit,
        "num_threads": num_threads,
    }
    if stats_path is None:
        return run_suite(player, suite, **options)
    with StatsDB(stats_path):
        pass  # a file that cannot take the rows is better refused now than after the episodes
    result = run_suite(player, suite, **options)
    with StatsDB(stats_path) as database:
        database.record(result, record or own)
    return result


def generate_replay_simple(
    policy: Policy | PolicyRecord | StrPath,
    replay_config: ReplayConfig | None = None,
    replay_dir: StrPath = "replays",
    *,
    policy_store: PolicyStore | None = None,
    device: torch.device | str | DeviceSetup = "cpu",
    name: str | None = None,
) -> ReplayFiles:
    """Record one episode: a replay file and a page that plays it, side by side.

    Args:
        policy: a policy at hand, a record, or the address of a saved one or of a folder of them, the latest of which is meant.
        replay_config: which episode; None: `create_replay_config()`.
        replay_dir: folder of the files; it is made.
        policy_store: see `evaluate_policy_suite`.
        device: where a policy that has to be loaded goes.
        name: of the files, without ending; None: made of the policy's name (where it has one) and the environment's.

    Raises:
        FileNotFoundError: there is no such policy.
        ValueError: the policy cannot be loaded or does not fit the world, or there is no such environment or task.
    """
    player, own = _find_policy(policy, policy_store, device)
    config = create_replay_config() if replay_config is None else replay_config
    tasks = config.curriculum()
    place = config.env.rstrip("/").rsplit("/", 1)[-1] if isinstance(config.env, str) else "replay"
    stem = name or (f"{own.name}-{place}" if own else place)
    replay = Path(replay_dir) / f"{stem}.json.z"
    page = record_replay(
        player,
        tasks,
        replay,
        task=config.task,
        seed=config.seed,
        deterministic=config.deterministic,
        max_steps=config.max_steps,
    )
    return ReplayFiles(replay, page)


def _find_policy(
    policy: Policy | PolicyRecord | StrPath,
    store: PolicyStore | None,
    device: torch.device | str | DeviceSetup,
) -> tuple[Policy, PolicyRecord | None]:
    """The policy itself, and its record where it has to be loaded."""
    if not isinstance(policy, PolicyRecord | str | os.PathLike):
        # Alone, the agent needs no word with the other processes of a distributed run.
        return (unwrap_agent(policy) if isinstance(policy, DistributedAgent) else policy), None
    store = PolicyStore() if store is None else store
    record = policy if isinstance(policy, PolicyRecord) else store.policy_record(policy)
    return store.load(record, torch.device(str(device))), record
