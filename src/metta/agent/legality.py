"""Which actions can have an effect, by what the agent sees.

Most of what an agent may try in a cell fails and changes nothing: walking into a wall, taking from an empty machine,
attacking where nobody stands. A policy that has to learn this by trying spends most of its first million steps on it,
while the few actions that matter are drawn too rarely to be found good. All of it can be read from the observation, so a
policy may leave out what would fail (`AgentSettings.mask_actions`).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from metta.agent.facing import DOWN, LEFT, ORIENTATION, RIGHT, UP
from metta.agent.paths import ComputePath, split_rows, use_fast
from metta.mettagrid.spec import PADDING, EnvSpec

OWN, AHEAD, BEHIND, IN_RANGE = 1, 2, 4, 8
"""Parts of the window that matter: the observer's cell, its neighbours, and the nine cells that an attack reaches."""

THING, AGENT, CONVERTER, ITEM, LOOSE, FACING = range(1, 7)
"""What a feature tells of a cell: something is there, that it is an agent, that it is a converter, that it holds an item, that
it can be swapped, or where it faces."""

ALWAYS, FORWARD, BACKWARD, TAKE, GIVE, SWAP, ATTACK = range(7)
"""What an action needs; `ATTACK + n` needs more than `n` agents in range."""

ROLES = {
    "type_id": THING,
    "agent:group": AGENT,
    "converting": CONVERTER,
    "swappable": LOOSE,
    "agent:frozen": LOOSE,
    ORIENTATION: FACING,
}
STEPS = {UP: (-1, 0), DOWN: (1, 0), LEFT: (0, -1), RIGHT: (0, 1)}
NEEDS = {"get_items": TAKE, "put_items": GIVE, "swap": SWAP}
RANGE = 3


class Legality(nn.Module):
    """Reads off an observation which actions can have an effect in this step, as far as the observer can know.

    An action is ruled out only by what is seen: a fixed thing stands in the way (an agent may still step aside), there is no
    converter ahead or nothing in it, the observer has nothing to give, nothing ahead can be swapped, or no agent is in range
    of an attack. An attack whose argument counts more agents than are in range hits the last of them, as a smaller argument
    does, and is ruled out, too. Not seen is whether a converter accepts or gives what an action moves, what an action costs,
    and what happens before the observer's turn: a converter yields something, an agent comes near. At the edge of a map
    without walls an attack would also reach cells beside the observer; it is judged as anywhere. Everything is allowed where
    the observer's facing is not shown, where the buffer is full, so that things may be missing, and where nothing would be
    left.

    Args:
        spec: the world that observations and actions follow.
        path: how the layer computes; see `ComputePath`.

    Attributes:
        need: int64 `[choices]`, what each legal action needs.
        zone: uint8 `[4, 256]`, parts of the window (flags) by the observer's facing and a location.
        role: uint8 `[256]`, by feature id.
    """

    need: torch.Tensor
    zone: torch.Tensor
    role: torch.Tensor

    def __init__(self, spec: EnvSpec, path: ComputePath = "auto") -> None:
        super().__init__()
        self.path: ComputePath = path
        rows, cols = spec.obs_height, spec.obs_width
        self.center = rows // 2 * 16 + cols // 2
        role = np.zeros(256, np.uint8)
        for feature in spec.features:
            role[feature.id] = ITEM if feature.name.startswith("inv:") else ROLES.get(feature.name, 0)
        reaches = (min(rows, cols) - 1) // 2 >= RANGE
        kinds = spec.action_kinds or spec.action_names
        need = np.array([_need(kinds[action], arg, reaches) for action, arg in spec.legal_actions], np.int64)
        if not {*ROLES.values(), ITEM} <= set(role.tolist()) or min(rows, cols) < 3:
            need[:] = ALWAYS  # not the tokens of MettaGrid, or nothing but the own cell
        zone = np.zeros((4, 256), np.uint8)
        for facing, (down, right) in STEPS.items():
            zone[facing, self.center] = OWN
            for distance in range(1, RANGE + 1):
                for aside in (-1, 0, 1):
                    row = rows // 2 + distance * down + aside * right
                    col = cols // 2 + distance * right + aside * down
                    if 0 <= row < rows and 0 <= col < cols:
                        zone[facing, row * 16 + col] = IN_RANGE
            zone[facing, self.center + 16 * down + right] |= AHEAD
            zone[facing, self.center - 16 * down - right] |= BEHIND
        self._most_targets = (
            int(need.max()) - ATTACK + 1
        )  # asked of the buffer, a GPU would have to be waited for
        for name, array in (("need", need), ("zone", zone), ("role", role)):
            self.register_buffer(name, torch.from_numpy(array), persistent=False)

    @property
    def limits(self) -> bool:
        """Whether there is any action that can be ruled out."""
        return bool((self.need != ALWAYS).any())

    def forward(self, tokens: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Judge observations.

        Args:
            tokens: uint8 `[N, K, 3]`, in the world's own orientation.
            like: decides by its device and dtype, with `path`, how this is computed.

        Returns:
            bool `[N, choices]`, False where an action would fail.
        """
        if not use_fast(self.path, like):
            return self._plain(tokens)
        from metta.agent.kernels import judge

        allowed = torch.empty(len(tokens), len(self.need), dtype=torch.bool)
        given, out = tokens.contiguous().numpy(), allowed.numpy()
        tables = (self.center, self.need.numpy(), self.zone.numpy(), self.role.numpy())
        split_rows(len(tokens), lambda part: judge(given[part], out[part], *tables))
        return allowed

    def _plain(self, tokens: torch.Tensor) -> torch.Tensor:
        location, feature, value = (column.long() for column in tokens.unbind(-1))
        padding = location == PADDING
        shown = padding.cumsum(-1) == 0
        role = self.role[feature] * shown
        own = (role == FACING) & (location == self.center)
        facing = value.gather(1, own.byte().argmax(-1, keepdim=True)).clamp(max=3)
        zone = self.zone[facing, location]

        def count(part: int, what: int) -> torch.Tensor:
            return (((zone & part) > 0) & (role == what)).sum(-1)

        def any_positive(part: int, what: int) -> torch.Tensor:
            return (((zone & part) > 0) & (role == what) & (value > 0)).any(-1)

        converter = count(AHEAD, CONVERTER) > 0
        targets = count(IN_RANGE, AGENT)
        facts = [
            torch.ones_like(converter),
            count(AHEAD, THING) <= count(AHEAD, AGENT),
            count(BEHIND, THING) <= count(BEHIND, AGENT),
            converter & any_positive(AHEAD, ITEM),
            converter & any_positive(OWN, ITEM),
            any_positive(AHEAD, LOOSE),
            *(targets > n for n in range(self._most_targets)),
        ]
        allowed = torch.stack(facts, -1)[:, self.need]
        unsure = ~own.any(-1) | ~padding.any(-1) | ~allowed.any(-1)
        return allowed | unsure.unsqueeze(-1)


def _need(kind: str, arg: int, reaches: bool) -> int:
    """What an action needs; `reaches`: the window shows all the cells that an attack reaches."""
    if kind == "move":
        return BACKWARD if arg == 1 else FORWARD
    if kind == "attack":
        return ATTACK + arg if reaches else ALWAYS
    return NEEDS.get(kind, ALWAYS)
