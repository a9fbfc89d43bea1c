"""Nested Python values that hold tensors, as one safetensors file. Nothing is pickled.

The tensors are the file's tensors; everything around them is JSON in its header. JSON alone would turn tuples into
lists and integer keys into strings, so each such value says what it is: `{"tuple": [...]}`.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from metta.common.files import StrPath, atomic_write_bytes
from metta.common.reading import one_line, parse_json


def write_tree(path: StrPath, value: Any, *, kind: str) -> Path:
    """Write a nested value, whole or not at all.

    Args:
        path: the file.
        value: None, bool, int, float, str, list, tuple, dict, `OrderedDict`, tensors, numpy arrays and numpy
            scalars, nested as you like; dict keys may be any of the plain ones or tuples of them.
        kind: says what the file is; `read_tree` asks for it again.

    Returns:
        The path written.

    Raises:
        TypeError: the value holds something else; the message names where.
        OSError: the folder cannot be written.
    """
    tensors: dict[str, torch.Tensor] = {}
    text = json.dumps(_encode(value, "", tensors), allow_nan=False)
    return atomic_write_bytes(path, save(tensors, {"format": kind, "tree": text}))


def read_tree(path: StrPath, *, kind: str) -> Any:
    """Read what `write_tree` wrote: the same values of the same types, tensors on the CPU.

    Args:
        path: the file.
        kind: what the file should be.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or something else.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"{path} cannot be loaded: it is not a whole safetensors file ({one_line(error)})."
        ) from error
    if header.get("format") != kind:
        raise ValueError(f"{path} cannot be loaded: its format is {header.get('format')!r}, not {kind!r}.")
    try:
        return _decode(parse_json(header["tree"]), tensors)
    except (
        KeyError,
        TypeError,
        ValueError,
        IndexError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise ValueError(
            f"{path} cannot be loaded: what it holds cannot be put together ({type(error).__name__}: {one_line(error)}); the "
            "file is damaged."
        ) from error


def _encode(value: Any, where: str, tensors: dict[str, torch.Tensor]) -> Any:
    """The JSON of a value; `where` is its place, for messages."""
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if kind is list:
        return [_encode(item, f"{where}[{i}]", tensors) for i, item in enumerate(value)]
    if kind is tuple:
        return {"tuple": [_encode(item, f"{where}[{i}]", tensors) for i, item in enumerate(value)]}
    if kind in (dict, OrderedDict):
        pairs = [
            [_encode_key(key, where), _encode(item, f"{where}[{key!r}]" if where else str(key), tensors)]
            for key, item in value.items()
        ]
        return {"dict" if kind is dict else "ordered_dict": pairs}
    if isinstance(value, torch.Tensor) and value.layout == torch.strided:
        return {"tensor": _keep(value.detach(), tensors)}
    if kind is np.ndarray and value.dtype.kind in "biufc":
        data = torch.from_numpy(np.frombuffer(value.tobytes(), dtype=np.uint8).copy())
        return {"array": _keep(data, tensors), "dtype": value.dtype.str, "shape": list(value.shape)}
    if isinstance(value, np.generic) and value.dtype.kind in "biufc":
        data = torch.from_numpy(np.frombuffer(value.tobytes(), dtype=np.uint8).copy())
        return {"scalar": _keep(data, tensors), "dtype": value.dtype.str}
    raise TypeError(
        f"{where or 'the value'} is a {kind.__module__}.{kind.__qualname__}, which cannot be saved without pickling "
        "it: save numbers, text, lists, tuples, dicts, dense tensors or numpy arrays of numbers."
    )


def _encode_key(key: Any, where: str) -> Any:
    if key is None or type(key) in (bool, int, str, float):
        return _encode(key, where, {})
    if type(key) is tuple:
        return {"tuple": [_encode_key(item, where) for item in key]}
    raise TypeError(
        f"{where or 'the value'} has a key {key!r} of type {type(key).__name__}: use text or numbers as keys."
    )


def _keep(tensor: torch.Tensor, tensors: dict[str, torch.Tensor]) -> str:
    name = str(len(tensors))
    tensors[name] = tensor.cpu().clone(memory_format=torch.contiguous_format)
    return name


def _decode(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    (kind, content), *_ = value.items()
    if kind == "float":
        return float(content)
    if kind == "tuple":
        return tuple(_decode(item, tensors) for item in content)
    if kind in ("dict", "ordered_dict"):
        pairs = [(_decode(key, tensors), _decode(item, tensors)) for key, item in content]
        return dict(pairs) if kind == "dict" else OrderedDict(pairs)
    if kind == "tensor":
        return tensors[content]
    flat = np.frombuffer(tensors[content].numpy().tobytes(), dtype=np.dtype(value["dtype"]))
    return flat[0] if kind == "scalar" else flat.reshape(value["shape"]).copy()
