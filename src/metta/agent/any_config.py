"""An agent's configuration from whatever a user has it in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from metta.agent.config import AgentModelConfig
from metta.agent.graph_config import AgentGraphConfig
from metta.agent.naming import close_first, refusal

AgentConfig = AgentModelConfig | AgentGraphConfig
"""Either description of a network."""


def read_agent_config(config: AgentConfig | Mapping[str, Any] | None) -> AgentConfig:
    """The typed form of an agent's configuration.

    Args:
        config: typed already; or a mapping of any kind (a dict, an OmegaConf `DictConfig`) with the fields, or with
            the one key `agent` and the fields below it. With `components` it describes a graph, otherwise the
            standard network; None = the defaults of `AgentModelConfig`.

    Raises:
        ValueError: a field is unknown, or its value not possible.
    """
    if config is None:
        return AgentModelConfig()
    if isinstance(config, AgentModelConfig | AgentGraphConfig):
        return config
    if not isinstance(config, Mapping):
        raise ValueError(
            f"config is {config!r}; pass an AgentModelConfig, an AgentGraphConfig, or a mapping with the key 'agent'."
        )
    fields = {str(key): value for key, value in config.items()}
    if "agent" in fields:
        others = sorted(key for key in fields if key != "agent")
        if others:
            raise ValueError(
                f"config has {', '.join(others)} beside 'agent', which no agent reads; put them under 'agent' or pass "
                "config['agent'] alone."
            )
        return read_agent_config(fields["agent"])
    kind = AgentGraphConfig if "components" in fields else AgentModelConfig
    # The customary file names the class of the agent; there is only one.
    if str(fields.get("_target_", "")).rpartition(".")[2] == "MettaAgent":
        del fields["_target_"]
    for key in fields:
        if key not in kind.model_fields:
            known = close_first(key, kind.model_fields)
            hint = "" if kind is AgentGraphConfig else ", or components for a graph of layers"
            raise ValueError(f"config has the unknown field {key!r}; {kind.__name__} knows {known}{hint}.")
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise ValueError(f"config cannot be used: {refusal(error)}") from error
