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

from metta.agent.any_config import AgentConfig, read_agent_config
from metta.agent.config import AgentModelConfig
from metta.agent.metta_agent import MettaAgent
from metta.common.files import StrPath, atomic_write_bytes
from metta.common.reading import one_line, parse_json
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
        FloatingPointError: a weight is not finite; what the file held before is kept.
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
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise FloatingPointError(
                f"the weights {name} are not all finite, so {os.fspath(path)} was not written: go on from a policy that was "
                "saved before."
            )
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
        spec = EnvSpec.from_json(parse_json(header["spec"]))
        world = EnvSpec.from_json(parse_json(header["world"])) if "world" in header else spec
        described = parse_json(header["config"])
        if isinstance(described, dict):
            described.setdefault("mask_actions", False)  # of a file that was written before there was a mask
        config = read_agent_config(described)
        metadata = _metadata(header, path)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        _refuse(path, f"its description cannot be read ({type(error).__name__}: {one_line(error)})", error)
    _check_size(config, tensors, path)
    # The weights drawn here are overwritten at once; with a generator of their own the caller's random numbers
    # stay as they were.
    try:
        agent = MettaAgent(world, config, trained_on=spec, generator=torch.Generator())
    except (ValueError, RuntimeError, MemoryError) as error:
        _refuse(path, f"no agent can be made as it describes ({one_line(error)})", error)
    dtypes = {tensor.dtype for tensor in tensors.values()}
    if len(dtypes) == 1 and (dtype := dtypes.pop()).is_floating_point:
        agent.to(dtype)
    _check_tensors(agent, tensors, path)
    agent.load_state_dict(tensors)
    return agent.to(torch.device(str(device))), metadata


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
        spec = EnvSpec.from_json(parse_json(header["spec"]))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        _refuse(path, f"its description cannot be read ({type(error).__name__}: {one_line(error)})", error)
    difference = _difference(spec, agent.trained_on)
    if difference:
        _refuse(
            path, f"it was trained for another world: {difference}; load it with load_agent(path) instead"
        )
    _check_tensors(agent, tensors, path)
    return tensors, _metadata(header, path)


def read_metadata(path: StrPath) -> dict[str, Any]:
    """The metadata alone, without reading the weights.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an agent.
    """
    return _metadata(_read(path, weights=False)[0], path)


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
        _refuse(path, f"it is not a whole safetensors file ({one_line(error)})", error)
    if header.get("format") != FORMAT:
        _refuse(path, f"its format is {header.get('format')!r}, not {FORMAT!r}")
    return header, tensors


def _metadata(header: dict[str, str], path: StrPath) -> dict[str, Any]:
    try:
        metadata = parse_json(header["metadata"])
    except (KeyError, ValueError) as error:
        _refuse(path, f"its metadata cannot be read ({type(error).__name__}: {one_line(error)})", error)
    if not isinstance(metadata, dict):
        _refuse(path, f"its metadata is {one_line(repr(metadata))}, not a JSON object")
    return metadata


def _check_size(config: AgentConfig, tensors: dict[str, torch.Tensor], path: StrPath) -> None:
    """Refuse a description of more weights than the file holds before memory is taken for them."""
    held = sum(tensor.numel() for tensor in tensors.values())
    if isinstance(config, AgentModelConfig):
        square = config.hidden_dim**2
        least = max(config.hidden_dim, 4 * square * config.lstm_layers if config.forward_lstm else 0)
        least = max(least, 2 * square * (config.mlp_layers - 1))
    else:
        least = max(_numbers(config.model_dump(mode="json")["components"]), default=0)
    if least > held:
        _refuse(path, f"it describes an agent of {least:,} weights at least and holds {held:,}")


def _numbers(value: Any) -> list[int]:
    """The whole numbers in a description; no layer has fewer weights than one of its sizes says."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return [number for entry in inner for number in _numbers(entry)]
    return [value] if type(value) is int else []


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
