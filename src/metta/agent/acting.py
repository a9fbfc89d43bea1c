"""Acting: one tick of the network where nothing but its results is wanted.

A tick of a few hundred rows is short: what surrounds its matrix products takes longer than they do. So for acting each
layer gives a plain function, made from its weights once and called for many ticks: without a graph, with the weights in
the precision of the products, and with its nonlinearity. The functions follow one another as the layers do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import nn

from metta.agent.layers import Convolution
from metta.agent.state import PolicyState
from metta.agent.tokens import TokenLayer

T = TypeVar("T")

Layer = Callable[..., torch.Tensor]
"""What a layer does where no gradient is wanted."""

Tick = Callable[[torch.Tensor, PolicyState, PolicyState], tuple[torch.Tensor, torch.Tensor]]
"""From observations uint8 `[B, K, 3]` and the memory before them to logits `[B, choices]` and values `[B]`. The memory
after them is written into the last argument."""


_held: ContextVar[dict[nn.Module, Any] | None] = ContextVar("held_weights", default=None)


@contextmanager
def holding_weights() -> Iterator[None]:
    """Within, what an agent makes of its weights in order to act is kept from one call to the next.

    Outside, each call of `act` makes it anew, which for a network in bfloat16 means to convert every weight. Do not change
    weights within: it would count from the end of the block on. That they changed cannot be told cheaply: torch does not
    count what fused optimizers, `weight.data` and arrays that share a weight's memory do to it.
    """
    token = _held.set({})
    try:
        yield
    finally:
        _held.reset(token)


def of_weights(module: nn.Module, make: Callable[[], T]) -> T:
    """What `make` makes of the weights of a module, or what it made before within the same `holding_weights`."""
    held = _held.get()
    if held is None:
        return make()
    if module not in held:
        held[module] = make()
    made: T = held[module]
    return made


def is_watched(module: nn.Module) -> bool:
    """Whether somebody wants to be called when a part of a module is: then it has to be."""
    return any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def prepare_dense(
    weight: torch.Tensor, bias: torch.Tensor | None, *, half: bool, relu: bool = False
) -> Layer:
    """A linear layer, `[B, inputs]` to `[B, outputs]`.

    Args:
        weight: `[outputs, inputs]`.
        bias: `[outputs]` or None.
        half: whether the product, and what comes of it, is in bfloat16.
        relu: whether a ReLU follows.
    """
    if half:
        weight, bias = weight.bfloat16(), None if bias is None else bias.bfloat16()
    dtype, columns = weight.dtype, weight.t()

    def apply(x: torch.Tensor) -> torch.Tensor:
        x = x.to(dtype)
        out = torch.mm(x, columns) if bias is None else torch.addmm(bias, x, columns)
        return out.relu_() if relu else out

    return apply


def prepare_layer(
    layer: nn.Module, *, half: bool, nonlinearity: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> Layer:
    """Any layer but the core, and the nonlinearity that follows it.

    Args:
        layer: gives one tensor.
        half: whether its products are in bfloat16.
        nonlinearity: None: none.
    """
    relu = nonlinearity is torch.relu
    if type(layer) is nn.Linear:  # what is derived from it may do something else
        apply = prepare_dense(layer.weight, layer.bias, half=half, relu=relu)
    elif isinstance(layer, Convolution):
        apply = _prepare_convolution(layer, half=half, relu=relu)
    else:
        apply, relu = _prepare_other(layer, half=half), False
    if relu or nonlinearity is None:
        return apply
    return lambda *inputs: nonlinearity(apply(*inputs))


def _prepare_convolution(layer: Convolution, *, half: bool, relu: bool) -> Layer:
    product = prepare_dense(layer.flat(layer.weight), layer.bias, half=half, relu=relu)
    other = _prepare_other(layer, half=half)

    def apply(x: torch.Tensor) -> torch.Tensor:
        if layer.fits_once(x):
            out = product(layer.flat(x))
            return out.view(*out.shape, 1, 1)
        out = other(x)
        return out.relu_() if relu else out

    return apply


def _prepare_other(layer: nn.Module, *, half: bool) -> Layer:
    if isinstance(layer, TokenLayer) and layer.sums_rows:
        return layer.prepared(half=half)
    if not half or not any(True for _ in layer.parameters()):
        return layer

    def apply(*inputs: torch.Tensor) -> torch.Tensor:
        with torch.autocast(inputs[0].device.type, dtype=torch.bfloat16):
            return layer(*inputs)  # type: ignore[no-any-return]

    return apply
