"""A policy in a world whose ids are not those that it was trained on."""

from __future__ import annotations

from metta.agent.metta_agent import MettaAgent
from metta.mettagrid.spec import EnvSpec


def remap(agent: MettaAgent, spec: EnvSpec) -> MettaAgent:
    """A copy of an agent that acts in another world, where the same names may have other ids.

    Features, items, kinds of objects and actions are matched by their names. The agent does not see features and kinds
    that it does not know, gives probability 0 to its actions that the world lacks (the rest share it in proportion) and
    never takes those that only the world has. Draws from one generator are the same as in the agent's own world.

    The copy can be trained and saved like any agent. Its weights keep the order of `trained_on`, so training does not
    teach it the features and actions that it did not know.

    Args:
        agent: any agent, a remapped one included; it is not changed.
        spec: the world to act in.

    Returns:
        The copy, on the agent's device.

    Raises:
        ValueError: the observation windows differ, or no action is common to both.
    """
    return agent.rebuilt_for(spec)
