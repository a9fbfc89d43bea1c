"""The window turned so that the observer faces up.

Moving, taking, putting and attacking all concern the cell ahead. In the world's own orientation "a mine is
ahead" is one of four conjunctions of a facing and a place, each to be learned by itself; turned, it is one place.
Turning is exact: cells move to cells, and nothing is lost, since the observer's own facing stays a token.
"""

from __future__ import annotations

import torch
from torch import nn

from metta.mettagrid.spec import PADDING, EnvSpec

UP, DOWN, LEFT, RIGHT = range(4)
ORIENTATION = "agent:orientation"


class TurnToFacing(nn.Module):
    """Rewrites the locations of tokens; everything else stays as it is.

    Windows that are not square cannot be turned and are left alone, as are worlds that do not show facings; with
    `active` False nothing is turned.
    """

    turned: torch.Tensor

    def __init__(self, spec: EnvSpec, *, active: bool = True) -> None:
        super().__init__()
        size = spec.obs_height
        ids = [feature.id for feature in spec.features if feature.name == ORIENTATION]
        self.active = active and size == spec.obs_width and bool(ids)
        self.feature = ids[0] if ids else 0
        self.center = (size // 2) * 16 + size // 2
        turned = torch.arange(256, dtype=torch.uint8).repeat(4, 1)
        if self.active:
            for row in range(size):
                for col in range(size):
                    down, right = row - size // 2, col - size // 2
                    ways = {
                        UP: (down, right),
                        DOWN: (-down, -right),
                        LEFT: (right, -down),
                        RIGHT: (-right, down),
                    }
                    for facing, (new_down, new_right) in ways.items():
                        place = (new_down + size // 2) * 16 + new_right + size // 2
                        turned[facing, row * 16 + col] = place
        self.register_buffer("turned", turned, persistent=False)

    @property
    def own_facing(self) -> tuple[int, int]:
        """Location and feature id of the observer's facing; feature -1 where windows are not turned."""
        return self.center, self.feature if self.active else -1

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Turn observations.

        Args:
            tokens: uint8 `[N, K, 3]`. The observer's own facing is the first orientation token of the middle
                cell.

        Returns:
            uint8 `[N, K, 3]` with new locations; observations without such a token are as they were.
        """
        if not self.active:
            return tokens
        location, feature, value = tokens.unbind(-1)
        own = (feature == self.feature) & (location == self.center) & ((location == PADDING).cumsum(-1) == 0)
        first = own.to(torch.uint8).argmax(-1, keepdim=True)
        facing = value.gather(1, first).clamp(max=3) * own.any(-1, keepdim=True)
        places = self.turned[facing.long(), location.long()]
        return torch.stack([places, feature, value], -1)
