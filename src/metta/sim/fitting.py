"""A policy in the world that it is to play."""

from __future__ import annotations

from metta.agent.metta_agent import MettaAgent
from metta.agent.policy import Policy
from metta.agent.remap import remap
from metta.mettagrid.spec import EnvSpec


def fit_policy(policy: Policy, world: EnvSpec, place: str) -> Policy:
    """The policy itself where ids and shapes mean the same to it and the world, else a copy fitted by names (`remap`).

    Args:
        policy: from whatever world.
        world: the one to play.
        place: what an error calls it, for instance "task 'maze'".

    Raises:
        ValueError: it cannot be fitted.
    """
    if _speaks(policy.spec, world):
        return policy
    if not isinstance(policy, MettaAgent):
        raise ValueError(
            f"the policy cannot play {place}: its actions or features are not those of this world, and a "
            f"{type(policy).__name__} cannot be fitted by name; pass the MettaAgent itself."
        )
    try:
        return remap(policy, world)
    except ValueError as error:
        raise ValueError(f"the policy cannot play {place}: {error}") from error


def _speaks(policy: EnvSpec, world: EnvSpec) -> bool:
    """Whether a policy can play as it is; it need not know all that the world shows."""
    return (
        policy.action_names == world.action_names
        and policy.max_action_args == world.max_action_args
        and (policy.obs_height, policy.obs_width) == (world.obs_height, world.obs_width)
        and set(policy.features) <= set(world.features)
        and policy.object_type_names == world.object_type_names
    )
