"""Made-up evaluations for the tests of what is kept of them."""

from __future__ import annotations

from metta.mettagrid.config import EnvConfig, GameConfig
from metta.sim.config import Simulation, SimulationSuite
from metta.sim.suite import EpisodeRecord, SuiteResult

SUITE = SimulationSuite(
    name="made up",
    simulations={
        "field/near": Simulation(env="/env/mettagrid/simple", num_episodes=3, overrides={"max_steps": 7}),
        "field/far": Simulation(env=EnvConfig(game=GameConfig(num_agents=2)), num_episodes=2),
        "other/one": Simulation(env="/env/mettagrid/simple"),
        "other/strange": Simulation(env="/env/mettagrid/simple"),
    },
)


def record(simulation: str, episode: int, returns: tuple[float, ...]) -> EpisodeRecord:
    return EpisodeRecord(
        simulation=simulation,
        episode=episode,
        task=f"task of {simulation}",
        seed=(1 << 31) + 5,
        score=sum(returns) / len(returns),
        returns=returns,
        length=10 + episode,
        truncated=episode % 2 == 1,
        agent_stats=tuple({"heart.get": value, "action.move.success": 3.0} for value in returns),
    )


def made_up_result(shift: float = 0.0, *, seed: int = 4) -> SuiteResult:
    """Near scores 1, 2, 6; far 4, 5; one 7 (all plus `shift`); strange is skipped."""
    return SuiteResult(
        suite=SUITE,
        seed=seed,
        deterministic=False,
        episodes=(
            record("field/near", 0, (0.5 + shift, 1.5 + shift)),
            record("field/near", 1, (2.0 + shift, 2.0 + shift)),
            record("field/near", 2, (12.0 + shift, 0.0 + shift)),
            record("field/far", 0, (4.0 + shift, 4.0 + shift)),
            record("field/far", 1, (5.0 + shift, 5.0 + shift)),
            record("other/one", 0, (7.0 + shift,)),
        ),
        skipped={"other/strange": "no action is common to both."},
    )
