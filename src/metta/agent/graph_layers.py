"""The layers of a component graph: modules, and the sizes that follow from their sources."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from metta.agent.facing import TurnToFacing
from metta.agent.graph_config import (
    ActivationConfig,
    AddConfig,
    ComponentConfig,
    ConcatConfig,
    Conv2dConfig,
    FlattenConfig,
    LayerNormConfig,
    LinearConfig,
    Nonlinearity,
)
from metta.agent.layers import convolution, dense
from metta.agent.paths import ComputePath
from metta.agent.tokens import PlaneTable, TokenLayer, Window, draw_planes

Shape = tuple[int, ...]
"""Shape of one row of a component's output: `(features,)` or `(channels, height, width)`."""

NONLINEARITIES: dict[Nonlinearity, Callable[[torch.Tensor], torch.Tensor]] = {
    "ReLU": torch.relu,
    "Tanh": torch.tanh,
    "Sigmoid": torch.sigmoid,
    "GELU": nn.functional.gelu,
    "SiLU": nn.functional.silu,
    "ELU": nn.functional.elu,
}

GAINS: dict[Nonlinearity | None, float] = {"ReLU": 2**0.5, "GELU": 2**0.5, "SiLU": 2**0.5, "Tanh": 5 / 3}
"""Scale of the weights before a nonlinearity; 1 where none is listed."""


class Planes(nn.Module):
    """Observation tokens `[N, K, 3]` to planes `[N, planes, height, width]` of the turned window."""

    plane: torch.Tensor
    amount: torch.Tensor
    like: torch.Tensor

    def __init__(self, table: PlaneTable, window: Window, turn: TurnToFacing) -> None:
        super().__init__()
        self.window = window
        self.turn = turn
        self.num_planes = len(table.names)
        self.register_buffer("plane", torch.from_numpy(table.plane), persistent=False)
        self.register_buffer("amount", torch.from_numpy(table.amount), persistent=False)
        # Follows the weights of the agent in its dtype, which the amounts, kept exact, do not.
        self.register_buffer("like", torch.empty(0), persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Draw the planes."""
        return draw_planes(
            self.turn(tokens), self.plane, self.amount, self.num_planes, self.window, dtype=self.like.dtype
        )


class TokenConv2d(TokenLayer):
    """A convolution of the token planes, and its ReLU: `[N, K, 3]` to `[N, channels, positions, positions]`."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Apply the layer, without drawing planes where the compiled loops can be used."""
        return self._as_image(super().forward(tokens))

    def prepared(self, *, half: bool) -> Callable[[torch.Tensor], torch.Tensor]:
        """See `TokenLayer.prepared`."""
        apply = super().prepared(half=half)
        return lambda tokens: self._as_image(apply(tokens))

    def _as_image(self, seen: torch.Tensor) -> torch.Tensor:
        return seen.transpose(1, 2).view(-1, self.num_channels, *self.window.positions)


class Concat(nn.Module):
    """Its inputs one behind the other, along features or channels."""

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """`[N, a, ...]`, `[N, b, ...]` to `[N, a + b, ...]`."""
        return torch.cat(inputs, 1)


class Add(nn.Module):
    """The sum of its inputs."""

    def forward(self, first: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        """All of one shape."""
        for other in others:
            first = first + other
        return first


def in_words(shape: Shape) -> str:
    """`64 x 3 x 3`."""
    return " x ".join(map(str, shape))


def make_token_convolution(
    component: Conv2dConfig,
    title: str,
    table: PlaneTable,
    size: tuple[int, int],
    turn: TurnToFacing,
    path: ComputePath,
) -> tuple[TokenConv2d, Shape]:
    """A convolution directly over the planes of observations.

    Args:
        component: its sizes.
        title: how messages call it.
        table: the planes.
        size: rows and columns of the window.
        turn: how the window is turned.
        path: how the layer computes.

    Raises:
        ValueError: sizes do not fit.
    """
    kernel, positions = _positions(component, title, (len(table.names), *size))
    window = Window(*size, kernel, component.stride, positions, (component.padding,) * 4)
    relu = component.nonlinearity == "ReLU"
    layer = TokenConv2d(table, window, turn, component.out_channels, path, relu=relu)
    return layer, (component.out_channels, *positions)


def make_layer(
    component: ComponentConfig, title: str, sources: Sequence[Shape], path: ComputePath = "auto"
) -> tuple[nn.Module, Shape]:
    """The module of an ordinary layer, its weights not yet drawn, and the shape that it gives.

    Args:
        component: a layer that reads other components; its own sizes are complete.
        title: how messages call it.
        sources: what its sources give.
        path: how convolutions compute.

    Raises:
        ValueError: sizes do not fit.
    """
    shape = sources[0]
    match component:
        case Conv2dConfig():
            kernel, positions = _positions(component, title, shape)
            layer = convolution(
                shape[0], component.out_channels, kernel, component.stride, component.padding, path
            )
            return layer, (component.out_channels, *positions)
        case LinearConfig():
            num_inputs = flat_size(title, shape, "in_features", component.in_features)
            if component.out_features is None:
                raise ValueError(f"{title} has no out_features; state how many numbers it gives.")
            return dense(num_inputs, component.out_features), (component.out_features,)
        case FlattenConfig():
            return nn.Flatten(), (torch.Size(shape).numel(),)
        case LayerNormConfig():
            return nn.LayerNorm(shape), shape
        case ActivationConfig():
            return nn.Identity(), shape
        case ConcatConfig():
            if any(other[1:] != shape[1:] for other in sources):
                _refuse_shapes(
                    title, "side by side, apart from their number of features or channels", sources
                )
            return Concat(), (sum(other[0] for other in sources), *shape[1:])
        case AddConfig():
            if any(other != shape for other in sources):
                _refuse_shapes(title, "added up", sources)
            return Add(), shape
        case _:
            raise AssertionError(f"{title} is not an ordinary layer")


def flat_size(title: str, shape: Shape, field: str, stated: int | None) -> int:
    """Features of a source that has to be flat, checked against what the component states.

    Raises:
        ValueError: it is not flat, or not of that size.
    """
    if len(shape) != 1:
        raise ValueError(
            f"{title} reads flat features, but its source gives {in_words(shape)}; put a Flatten between."
        )
    _check_stated(title, field, stated, shape[0])
    return shape[0]


def _check_stated(title: str, field: str, stated: int | None, found: int) -> None:
    if stated is not None and stated != found:
        raise ValueError(f"{title} states {field}={stated}, but its source gives {found}; leave {field} out.")


def _positions(component: Conv2dConfig, title: str, shape: Shape) -> tuple[tuple[int, int], tuple[int, int]]:
    """The kernel as a pair, and how often it fits."""
    if len(shape) != 3:
        raise ValueError(
            f"{title} reads channels x height x width, but its source gives {in_words(shape)} numbers; read from "
            "planes or another Conv2d."
        )
    _check_stated(title, "in_channels", component.in_channels, shape[0])
    size = component.kernel_size
    kernel = (size, size) if isinstance(size, int) else size
    height, width = (length + 2 * component.padding for length in shape[1:])
    if kernel[0] > height or kernel[1] > width:
        raise ValueError(
            f"{title} has a kernel of {in_words(kernel)}, but its source with padding {component.padding} is only "
            f"{in_words((height, width))} cells; choose a smaller kernel_size or stride before it, or more padding."
        )
    rows, cols = (
        (length - k) // component.stride + 1 for length, k in zip((height, width), kernel, strict=True)
    )
    return kernel, (rows, cols)


def _refuse_shapes(title: str, how: str, sources: Sequence[Shape]) -> None:
    shapes = ", ".join(map(in_words, sources))
    raise ValueError(f"{title} has sources of {shapes}, but only equal shapes can be {how}.")
