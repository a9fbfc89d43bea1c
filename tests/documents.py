"""Running the blocks of a document as a reader would: as text, in one namespace, with only the gaps filled in."""

import textwrap
from typing import Any

import torch

GRAPH = """{
    "components": {
        "_obs_": {"layer": "TokenPlanes"},
        "cnn": {"layer": "Conv2d", "sources": ["_obs_"], "out_channels": 16, "kernel_size": 5, "stride": 3},
        "flat": {"layer": "Flatten", "sources": ["cnn"]},
        "fc": {"layer": "Linear", "sources": ["flat"], "out_features": 32},
        "_core_": {"layer": "LSTM", "sources": ["fc"], "hidden_size": 32, "num_layers": 2},
        "_value_": {"layer": "Linear", "sources": ["_core_"], "out_features": 1},
        "_action_": {"layer": "Linear", "sources": ["_core_"]},
    }
}"""
"""What stands for the `...` of `DictConfig({"agent": {...}})`."""

ON_THIS_MACHINE = {} if torch.cuda.is_available() else {'"cuda")': '"cpu")'}
"""Replaces a device that is not there."""


def run(
    block: str, namespace: dict[str, Any] | None = None, gaps: dict[str, str] | None = None
) -> dict[str, Any]:
    """Run a block as a script; each text in `gaps` must stand in it exactly once, and is replaced."""
    text = textwrap.dedent(block)
    for old, new in (gaps or {}).items():
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the block"
        text = text.replace(old, new)
    space = namespace if namespace is not None else {}
    exec(compile(text, "<documented block>", "exec"), space)
    return space
