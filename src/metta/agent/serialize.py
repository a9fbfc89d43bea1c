"""An agent on disk: one safetensors file, weights and the JSON that rebuilds the module. Nothing is pickled.

The header's metadata holds `format`, `spec` (`EnvSpec.to_json`, the world that the weights follow), `config`
(`AgentModelConfig` or `AgentGraphConfig`), `metadata` (the caller's) and, of an agent remapped to another world, that
`world`, each as JSON.
"""

from __future__ import annotations

import json
import os
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from metta.agent.any_config import read_agent_config
from metta.agent.metta_agent import MettaAgent
from metta.common.files import StrPath, atomic_write_bytes
from metta.mettagrid.spec import EnvSpec

FORMAT = "metta-agent-1"


def save_agent(agent: MettaAgent, path: StrPath, metadata: dict[str, Any]) -> None:
    """Write an agent so that `load_agent` rebuilds it anywhere; whole or not at all.

    Args:
        agent: its weights are written as they are, on whatever device.
        path: the file; parent folders are made.
        metadata: anything JSON can hold, given back on loading.

    Raises:
        ValueError: the metadata cannot be written as JSON.
    """
    try:
        text = json.dumps(metadata, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"metadata for {os.fspath(path)} cannot be written as JSON ({error}); use plain numbers and text."
        ) from error
    header = {
        "format": FORMAT,
        "spec": json.dumps(agent.trained_on.to_json()),
        "config": agent.config.model_dump_json(),
        "metadata": text,
    }
    if agent.translation is not None:
        header["world"] = json.dumps(agent.spec.to_json())
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in agent.state_dict().items()}
    atomic_write_bytes(path, save(tensors, header))


def load_agent(path: StrPath, device: torch.device | str = "cpu") -> tuple[MettaAgent, dict[str, Any]]:
    """Rebuild the agent that `save_agent` wrote.

    Returns:
        The agent on `device` and the metadata.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an agent, or is damaged.
    """
    header, tensors = _read(path)
    try:
        spec = EnvSpec.from_json(json.loads(header["spec"]))
        world = EnvSpec.from_json(json.loads(header["world"])) if "world" in header else spec
        config = read_agent_config(json.loads(header["config"]))
    except (KeyError, TypeError, ValueError) as error:
        _refuse(
            path,
            f"its description cannot be read ({type(error).__name__}: {str(error).splitlines()[0]})",
            error,
        )
    # The weights drawn here are overwritten at once; with a generator of their own the caller's random numbers
    # stay as they were.
    agent = MettaAgent(world, config, trained_on=spec, generator=torch.Generator())
    dtypes = {tensor.dtype for tensor in tensors.values()}
    if len(dtypes) == 1:
        agent.to(dtypes.pop())
    _check_tensors(agent, tensors, path)
    agent.load_state_dict(tensors)
    return agent.to(torch.device(str(device))), _metadata(header)


def load_weights(agent: MettaAgent, path: StrPath) -> dict[str, Any]:
    """Put the weights of a file into an existing agent, which must be of the same build.

    Returns:
        The metadata.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an agent or one for another world or architecture; the agent is unchanged.
    """
    tensors, metadata = read_weights(agent, path)
    agent.load_state_dict(tensors)
    return metadata


def read_weights(agent: MettaAgent, path: StrPath) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read the weights of a file that fit an agent, for its `load_state_dict`; the agent is not changed.

    Returns:
        The weights by name and the metadata.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an agent or one for another world or architecture.
    """
    header, tensors = _read(path)
    try:
        spec = EnvSpec.from_json(json.loads(header["spec"]))
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        _refuse(path, f"its description cannot be read ({type(error).__name__})", error)
    difference = _difference(spec, agent.trained_on)
    if difference:
        _refuse(
            path, f"it was trained for another world: {difference}; load it with load_agent(path) instead"
        )
    _check_tensors(agent, tensors, path)
    return tensors, _metadata(header)


def read_metadata(path: StrPath) -> dict[str, Any]:
    """The metadata alone, without reading the weights.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an agent.
    """
    return _metadata(_read(path, weights=False)[0])


def _read(path: StrPath, *, weights: bool = True) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    name = os.fspath(path)
    if not os.path.isfile(name):
        raise FileNotFoundError(
            f"There is no agent file {name}; name the file itself, for instance checkpoint_000100.pt."
        )
    try:
        with safe_open(name, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()} if weights else {}  # noqa: SIM118
    except SafetensorError as error:
        _refuse(path, f"it is not a whole safetensors file ({error})", error)
    if header.get("format") != FORMAT:
        _refuse(path, f"its format is {header.get('format')!r}, not {FORMAT!r}")
    return header, tensors


def _metadata(header: dict[str, str]) -> dict[str, Any]:
    metadata: dict[str, Any] = json.loads(header["metadata"])
    return metadata


def _check_tensors(agent: MettaAgent, tensors: dict[str, torch.Tensor], path: StrPath) -> None:
    expected = agent.state_dict()
    for name in expected.keys() | tensors.keys():
        if name not in tensors:
            _refuse(
                path,
                f"it lacks the weights {name}, which this agent has; make the agent with the config of the file",
            )
        if name not in expected:
            _refuse(
                path,
                f"it holds the weights {name}, which this agent lacks; make the agent with the config of the file",
            )
    # A layer tells more than the copy of all weights that `reference` is, so that one comes last.
    for name, tensor in sorted(expected.items(), key=lambda entry: entry[0] == "reference"):
        if tensor.shape != tensors[name].shape:
            _refuse(
                path,
                f"{name} has shape {list(tensors[name].shape)} there and {list(tensor.shape)} in this agent; "
                "make the agent with the config of the file",
            )


def _difference(found: EnvSpec, expected: EnvSpec) -> str | None:
    """The first difference that matters to a network; the number of tokens does not."""
    for name in (
        "action_names",
        "max_action_args",
        "features",
        "obs_height",
        "obs_width",
        "object_type_names",
    ):
        a, b = getattr(found, name), getattr(expected, name)
        if a == b:
            continue
        if isinstance(a, tuple) and len(a) == len(b):
            i = next(i for i in range(len(a)) if a[i] != b[i])
            return f"{name}[{i}] is {a[i]} there and {b[i]} here"
        if isinstance(a, tuple):
            return f"{name} has {len(a)} entries there and {len(b)} here"
        return f"{name} is {a} there and {b} here"
    return None


def _refuse(path: StrPath, reason: str, cause: Exception | None = None) -> NoReturn:
    raise ValueError(f"{os.fspath(path)} cannot be loaded: {reason}.") from cause
