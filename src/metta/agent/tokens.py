"""From observation tokens to the network's first layer.

A token is (location, feature, value). Read as an image, the tokens of one observation are planes over the
window and the first layer is a convolution of them. That image is almost empty: a few dozen tokens against
some ten thousand numbers. The same function is therefore computed as a sum over tokens: each adds the
kernel's row for its plane and its place under the kernel, times its amount, to the few output positions that
see its cell.

`TokenLayer` holds the one weight table and both ways to compute: `plain` draws the planes and convolves them
with torch on any device, `fast` sums rows in compiled loops on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.autograd.function import once_differentiable

from metta.agent.config import AgentSettings, observation_type
from metta.agent.facing import TurnToFacing
from metta.agent.paths import ComputePath, split_rows, use_fast
from metta.mettagrid.objects import FIRST_CUSTOM_TYPE
from metta.mettagrid.spec import PADDING, EnvSpec, Feature

COUNT_EDGES: tuple[int, ...] = (1, 2, 3, 4, 8, 16)
"""Smallest count of each bucket; the last one is open."""

MAX_GROUPS = 8
NUM_ORIENTATIONS = 4
NUM_REWARD_BITS = 8


@dataclass(frozen=True)
class PlaneTable:
    """Which planes a token draws on, and how strongly.

    A value that merely names something (`type_id`, a group, a direction, an action) gets one plane per name, 1
    where it holds: as a number, type 8 would be "eight times type 1" and the agent, type 0, invisible. Counts
    get a plane of the normalised number and, because 1 of 100 is hardly a signal and recipes ask for exactly
    1, 2 or 3 of something, one plane per bucket of `COUNT_EDGES`. A set of flags (`resource_rewards`) gets one
    plane per flag, and every other feature one of its normalised number.

    Attributes:
        names: name of each plane.
        plane: int32 `[features, 256, slots]`, plane per feature id, value and slot, -1 after the last one.
        amount: float64 of the same shape, what is drawn there.
    """

    names: tuple[str, ...]
    plane: npt.NDArray[np.int32]
    amount: npt.NDArray[np.float64]


def _num_categories(feature: Feature, spec: EnvSpec) -> int | None:
    """How many values of a feature have a name of their own; None where the value is a number."""
    return {
        "type_id": max(len(spec.object_type_names), FIRST_CUSTOM_TYPE),
        "agent:group": MAX_GROUPS,
        "agent:orientation": NUM_ORIENTATIONS,
        "last_action": len(spec.action_names),
        "last_action_arg": max(spec.max_action_args, default=0) + 1,
    }.get(feature.name)


def _is_count(feature: Feature) -> bool:
    return feature.name.startswith(("inv:", "input:", "output:")) or feature.name in (
        "last_reward",
        "agent:color",
        "agent:glyph",
    )


def _hidden(feature: Feature, config: AgentSettings) -> bool:
    if feature.name in ("last_action", "last_action_arg") and not config.use_prev_action:
        return True
    if feature.name == "last_reward" and not config.use_prev_reward:
        return True
    return observation_type(feature.name) not in config.observation_types


def make_plane_table(spec: EnvSpec, config: AgentSettings) -> PlaneTable:
    """The planes that `config` lets the network see of a world of `spec`.

    Raises:
        ValueError: there are none.
    """
    names: list[str] = []
    slots = 1 + NUM_REWARD_BITS
    num_features = 1 + max((f.id for f in spec.features), default=0)
    plane = np.full((num_features, 256, slots), -1, np.int32)
    amount = np.zeros((num_features, 256, slots), np.float64)

    def add_plane(name: str) -> int:
        names.append(name)
        return len(names) - 1

    for feature in spec.features:
        if _hidden(feature, config):
            continue
        f = feature.id
        numbers = np.arange(256) * config.obs_scale / feature.normalization
        categories = _num_categories(feature, spec)
        if categories is not None:
            categories = min(categories, 256)
            for value in range(categories):
                plane[f, value, 0] = add_plane(f"{feature.name}={value}")
            if categories < 256:
                plane[f, categories:, 0] = add_plane(f"{feature.name}>={categories}")
            amount[f, :, 0] = config.obs_scale
        elif feature.name == "resource_rewards":
            for bit in range(NUM_REWARD_BITS):
                index = add_plane(f"{feature.name} bit {bit}")
                for value in range(256):
                    if value >> bit & 1:
                        slot = int((plane[f, value] >= 0).sum())
                        plane[f, value, slot] = index
                        amount[f, value, slot] = config.obs_scale
        else:
            plane[f, 1:, 0] = add_plane(feature.name)  # a zero draws nothing: no work for it
            amount[f, :, 0] = numbers
            if _is_count(feature):
                for low, high in zip(COUNT_EDGES, (*COUNT_EDGES[1:], 256), strict=True):
                    plane[f, low:high, 1] = add_plane(f"{feature.name} {low}..{high - 1}")
                    amount[f, low:high, 1] = config.obs_scale
    _check_seen(names, spec, config)
    return PlaneTable(tuple(names), plane, amount)


def make_box_table(spec: EnvSpec, config: AgentSettings, *, normalized: bool) -> PlaneTable:
    """One plane per feature that `config` lets the network see, holding its value as a number.

    Args:
        spec: the world.
        config: what is seen of it.
        normalized: whether values are divided by the feature's normalisation.

    Raises:
        ValueError: nothing is seen.
    """
    features = [feature for feature in spec.features if not _hidden(feature, config)]
    _check_seen([feature.name for feature in features], spec, config)
    num_features = 1 + max(feature.id for feature in features)
    plane = np.full((num_features, 256, 1), -1, np.int32)
    amount = np.zeros((num_features, 256, 1), np.float64)
    for index, feature in enumerate(features):
        plane[feature.id, 1:, 0] = index
        divisor = feature.normalization if normalized else 1.0
        amount[feature.id, :, 0] = np.arange(256) * config.obs_scale / divisor
    return PlaneTable(tuple(feature.name for feature in features), plane, amount)


def _check_seen(names: list[str], spec: EnvSpec, config: AgentSettings) -> None:
    if not names:
        shown = {observation_type(feature.name): None for feature in spec.features}
        raise ValueError(
            f"the network would see nothing of this world: observation_types is {config.observation_types} with "
            f"use_prev_action={config.use_prev_action} and use_prev_reward={config.use_prev_reward}, and the world's "
            f"features are of the types {', '.join(shown) or 'none'}; choose more of those."
        )


@dataclass(frozen=True)
class Window:
    """How a kernel covers the observation window.

    Attributes:
        height: rows of the window; width: columns.
        kernel: rows and columns of the kernel.
        stride: step between two positions of the kernel.
        positions: rows and columns of positions.
        padding: empty columns left, right, and rows above, below the window, so that every cell is covered
            (the order of `torch.nn.functional.pad`).
        pooled: the kernel is one cell, the mean of all cells.
    """

    height: int
    width: int
    kernel: tuple[int, int]
    stride: int
    positions: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    pooled: bool = False

    @classmethod
    def cover(cls, height: int, width: int, kernel: int, stride: int) -> Window:
        """The fewest positions of a square kernel that see every cell; a too large kernel is cut down."""
        sizes, counts, pads = [], [], []
        for length in (height, width):
            size = min(kernel, length)
            count = -(-(length - size) // stride) + 1
            extra = (count - 1) * stride + size - length
            sizes.append(size)
            counts.append(count)
            pads.append((extra // 2, extra - extra // 2))
        return cls(height, width, (sizes[0], sizes[1]), stride, (counts[0], counts[1]), (*pads[1], *pads[0]))

    @classmethod
    def whole(cls, height: int, width: int, *, pooled: bool) -> Window:
        """One position that sees the whole window, cell by cell or (`pooled`) only its mean."""
        return cls(height, width, (1, 1) if pooled else (height, width), 1, (1, 1), pooled=pooled)

    @property
    def num_positions(self) -> int:
        """Positions of the kernel."""
        return self.positions[0] * self.positions[1]

    @property
    def num_taps(self) -> int:
        """Cells of the kernel."""
        return self.kernel[0] * self.kernel[1]

    def sightings(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Who sees each cell.

        Returns:
            first: int32 `[257]`; the sightings of location byte `b` are `first[b]` to `first[b + 1]`. Bytes
                outside the window have none.
            where: int32 `[sightings, 2]`, position of the kernel and cell under it.
        """
        first = np.zeros(257, np.int32)
        where: list[tuple[int, int]] = []
        left, _, top, _ = self.padding
        for location in range(256):
            row, col = divmod(location, 16)
            if location == PADDING or row >= self.height or col >= self.width:
                pass
            elif self.pooled:
                where.append((0, 0))
            else:
                for pr in range(self.positions[0]):
                    for pc in range(self.positions[1]):
                        tr, tc = row + top - pr * self.stride, col + left - pc * self.stride
                        if 0 <= tr < self.kernel[0] and 0 <= tc < self.kernel[1]:
                            where.append((pr * self.positions[1] + pc, tr * self.kernel[1] + tc))
            first[location + 1] = len(where)
        return first, np.array(where, np.int32).reshape(-1, 2)


def draw_planes(
    tokens: torch.Tensor,
    plane: torch.Tensor,
    amount: torch.Tensor,
    num_planes: int,
    window: Window,
    *,
    dtype: torch.dtype,
) -> torch.Tensor:
    """The planes of observations; two tokens at one place add up.

    Args:
        tokens: uint8 `[N, K, 3]`, already turned.
        plane: as in `PlaneTable`; so is `amount`.
        amount: floating.
        num_planes: planes of the table.
        window: its size, and whether it is pooled.
        dtype: of the result.

    Returns:
        `[N, planes, height, width]`; of a pooled window, whose one cell is the mean, `[N, planes, 1, 1]`.
    """
    location, feature, value = tokens.long().unbind(-1)
    row, col = location // 16, location % 16
    num_features = plane.shape[0]
    lit = (location == PADDING).cumsum(-1) == 0
    lit &= (row < window.height) & (col < window.width) & (feature < num_features)
    cells = 1 if window.pooled else window.height * window.width
    cell = (row * window.width + col).clamp_(max=cells - 1)
    feature = feature.clamp(max=num_features - 1)
    index = plane[feature, value].long()
    lit_slots = lit.unsqueeze(-1) & (index >= 0)
    drawn = amount[feature, value].to(dtype) * lit_slots
    place = index.clamp(min=0) * cells + cell.unsqueeze(-1)
    planes = drawn.new_zeros(tokens.shape[0], num_planes * cells)
    planes.scatter_add_(1, place.flatten(1), drawn.flatten(1))
    return planes.view(-1, num_planes, *((1, 1) if window.pooled else (window.height, window.width)))


class TokenLayer(nn.Module):
    """Convolution of the token planes of the turned window, and its ReLU (unless `relu` is False).

    Attributes:
        weight: `[planes, taps, channels]`, the kernel, one row per plane and cell under it.
        bias: `[channels]`.
    """

    weight: nn.Parameter
    bias: nn.Parameter
    plane: torch.Tensor
    amount: torch.Tensor
    first: torch.Tensor
    where: torch.Tensor

    def __init__(
        self,
        table: PlaneTable,
        window: Window,
        turn: TurnToFacing,
        num_channels: int,
        path: ComputePath = "auto",
        *,
        relu: bool = True,
    ) -> None:
        super().__init__()
        self.relu = relu
        self.turn = turn
        self.window = window
        self.num_planes = len(table.names)
        self.num_channels = num_channels
        self.path: ComputePath = path
        self.weight = nn.Parameter(torch.empty(self.num_planes, window.num_taps, num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))
        first, where = window.sightings()
        # A pooled window counts every cell with its share of the mean.
        cells = window.height * window.width
        scaled = table.amount / cells if window.pooled else table.amount
        # Derived from spec and config, so no checkpoint carries them. The amounts are kept in double precision
        # and rounded where they are used, so that a fresh agent made `.double()` is exact.
        for name, array in (("plane", table.plane), ("amount", scaled), ("first", first), ("where", where)):
            self.register_buffer(name, torch.from_numpy(array), persistent=False)

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw the kernel.

        The planes are sparse, so the usual fan-in (every plane of every cell) would make the output vanish.
        About one plane per cell is lit; the variance is that of He et al. (2015) for that many inputs.
        """
        window = self.window
        cells = window.height * window.width
        std = (2.0 * cells) ** 0.5 if window.pooled else (2.0 / window.num_taps) ** 0.5
        nn.init.normal_(self.weight, 0.0, std, generator=generator)
        nn.init.zeros_(self.bias)

    @property
    def sums_rows(self) -> bool:
        """Whether the layer is computed as a sum over tokens, and not as a convolution."""
        return self.relu and use_fast(self.path, self.weight)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Apply the layer.

        Args:
            tokens: uint8 `[N, K, 3]`. A row ends at its first token with location 255. Locations outside the
                window and feature ids outside the table count for nothing.

        Returns:
            `[N, positions, channels]` in the weights' dtype, after the ReLU.
        """
        if self.sums_rows:
            tables = (self.turn.turned, self.plane, self.amount, self.first, self.where)
            positions = self.window.num_positions
            return _TokenSum.apply(tokens, self.weight, self.bias, positions, self.turn.own_facing, *tables)  # type: ignore[no-untyped-call, no-any-return]
        out = self._convolve(self.draw(self.turn(tokens)))
        return torch.relu(out) if self.relu else out

    def prepared(self, *, half: bool) -> Callable[[torch.Tensor], torch.Tensor]:
        """The sum of rows without a graph, for many calls with weights that stay; its result in bfloat16 if `half`."""
        from metta.agent.kernels import sum_rows

        like, own_facing = self.weight.detach(), self.turn.own_facing
        positions, channels = self.window.num_positions, self.num_channels
        tables = (self.turn.turned, self.plane, self.amount, self.first, self.where, like, self.bias.detach())
        arrays = [tensor.numpy() for tensor in tables]

        def apply(tokens: torch.Tensor) -> torch.Tensor:
            out = like.new_empty(tokens.shape[0], positions, channels)
            seen, sums = tokens.contiguous().numpy(), out.numpy()
            split_rows(len(seen), lambda rows: sum_rows(seen[rows], sums[rows], own_facing, *arrays))
            return out.bfloat16() if half else out

        return apply

    def draw(self, tokens: torch.Tensor) -> torch.Tensor:
        """The planes of the observations; see `draw_planes`."""
        return draw_planes(
            tokens, self.plane, self.amount, self.num_planes, self.window, dtype=self.weight.dtype
        )

    def _convolve(self, planes: torch.Tensor) -> torch.Tensor:
        kernel = self.weight.view(self.num_planes, *self.window.kernel, self.num_channels).permute(3, 0, 1, 2)
        padded = nn.functional.pad(planes, self.window.padding)
        out = nn.functional.conv2d(padded, kernel, self.bias, stride=self.window.stride)
        return out.flatten(2).transpose(1, 2)


class _TokenSum(torch.autograd.Function):
    """`TokenLayer` as a sum of weight rows, forward and backward in compiled loops."""

    @staticmethod
    def forward(
        ctx: Any,
        tokens: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        num_positions: int,
        own_facing: tuple[int, int],
        *tables: torch.Tensor,
    ) -> torch.Tensor:
        from metta.agent.kernels import sum_rows

        tokens = tokens.contiguous()
        out = weight.new_empty(tokens.shape[0], num_positions, bias.shape[0])
        rows_in, rows_out = tokens.numpy(), out.numpy()
        arrays = [tensor.detach().numpy() for tensor in (*tables, weight, bias)]
        split_rows(len(rows_in), lambda rows: sum_rows(rows_in[rows], rows_out[rows], own_facing, *arrays))
        ctx.save_for_backward(tokens, *tables, weight, out)
        ctx.own_facing = own_facing
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        from metta.agent.kernels import add_row_gradients

        tokens, *tables, weight, out = ctx.saved_tensors
        rows_in, *arrays = (tensor.numpy() for tensor in (tokens, *tables))
        own_facing = ctx.own_facing
        rows_out, rows_grad = out.detach().numpy(), grad.contiguous().numpy()

        def add_up(rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
            grad_weight, grad_bias = torch.zeros_like(weight), weight.new_zeros(weight.shape[-1])
            sums = (grad_weight.numpy(), grad_bias.numpy())
            add_row_gradients(rows_in[rows], rows_out[rows], rows_grad[rows], *sums, own_facing, *arrays)
            return grad_weight, grad_bias

        (grad_weight, grad_bias), *others = split_rows(len(rows_in), add_up)
        for more_weight, more_bias in others:
            grad_weight += more_weight
            grad_bias += more_bias
        return None, grad_weight, grad_bias, None, None, *(None for _ in range(5))
