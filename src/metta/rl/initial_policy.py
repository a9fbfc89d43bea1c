"""Starting a run from a policy that exists."""

from __future__ import annotations

import torch

from metta.agent.metta_agent import MettaAgent
from metta.agent.policy_store import PolicyStore
from metta.agent.remap import remap
from metta.mettagrid.spec import EnvSpec
from metta.rl.trainer_config import InitialPolicyConfig


def load_initial_policy(
    config: InitialPolicyConfig,
    device: torch.device | str,
    spec: EnvSpec,
    policy_store: PolicyStore | None = None,
) -> MettaAgent | None:
    """The agent that a run starts with, if it is to be a saved one.

    Args:
        config: which one.
        device: where it is to lie.
        spec: of the run's environment; an agent of another world is translated with `metta.agent.remap.remap`.
        policy_store: opens the address; None: a `PolicyStore` of the current folder.

    Returns:
        The agent, ready to be trained; None where the config names none.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is damaged, has no such metric, or its world has too little in common with this one.
    """
    if config.uri is None:
        return None
    store = PolicyStore() if policy_store is None else policy_store
    agent = store.load(store.policy_record(config.uri, config.type, config.metric), torch.device(str(device)))
    return agent if agent.spec == spec else remap(agent, spec)
