"""From one world's ids to another's: what has the same name is the same thing."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from metta.agent.tokens import NUM_REWARD_BITS
from metta.mettagrid.spec import EnvSpec

NEVER = -1e4
"""Log probability of what cannot be done: finite, so that zero times it is zero, and its exponential is exactly 0."""


class Translation(nn.Module):
    """Lets weights that follow the ids of one world act in another.

    Features, items, kinds of objects and actions are matched by name. What the weights know nothing of is not seen.
    An action that the world lacks has probability 0, and the others share its part in proportion; an action that only
    the world has is never chosen.

    Args:
        known: the world that the weights know.
        world: the world to act in.

    Attributes:
        feature: uint8 `[256, 256]`, feature id of the known world by feature and value of a token.
        value: uint8 `[256, 256]`, its value.
        pairs: int64 `[choices, 2]`, (action id, argument) in the world, by place among the known world's legal actions;
            (0, 0) where the world has none.
        possible: bool `[choices]`, whether it has.
        place: int64 `[legal]`, place among the known legal actions, by place among the world's; `choices` where unknown.
        source: int64 `[choices]`, the other way round; 0 where the world has none.

    Raises:
        ValueError: the windows differ, or no action is common to both.
    """

    feature: torch.Tensor
    value: torch.Tensor
    pairs: torch.Tensor
    possible: torch.Tensor
    place: torch.Tensor
    source: torch.Tensor

    def __init__(self, known: EnvSpec, world: EnvSpec) -> None:
        super().__init__()
        window, other = (f"{s.obs_height} x {s.obs_width}" for s in (known, world))
        if window != other:
            raise ValueError(
                f"the agent sees a window of {window} cells and this world shows {other}; a window cannot be translated: "
                "set observation_height and observation_width of the world to the agent's."
            )
        choices = _actions_by_name(known)
        legal = _actions_by_name(world)
        if not choices.keys() & legal.keys():
            raise ValueError(
                f"the agent knows the actions {', '.join(known.action_names)} and this world has "
                f"{', '.join(world.action_names)}; there is none in common to act with."
            )
        feature, value = _token_tables(known, world)
        pairs = [legal.get(name, (-1, (0, 0))) for name in choices]
        tables = {
            "feature": feature,
            "value": value,
            "pairs": np.array([pair for _, pair in pairs], np.int64),
            "possible": np.array([place >= 0 for place, _ in pairs]),
            "source": np.array([max(place, 0) for place, _ in pairs], np.int64),
            "place": np.array(
                [choices[name][0] if name in choices else len(choices) for name in legal], np.int64
            ),
        }
        for name, table in tables.items():
            self.register_buffer(name, torch.from_numpy(table), persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens `[..., 3]` of the world, uint8, as the known world would write them."""
        location, feature, value = tokens.unbind(-1)
        index = feature.long(), value.long()
        return torch.stack([location, self.feature[index], self.value[index]], -1)

    def only_possible(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits `[..., choices]` without the actions that the world lacks."""
        return logits.masked_fill(~self.possible, NEVER)

    def in_known_order(self, allowed: torch.Tensor) -> torch.Tensor:
        """What the world allows, bool `[..., legal]`, as `[..., choices]`; where that is nothing of it, all that is possible."""
        known = allowed.index_select(-1, self.source) & self.possible
        return known | (self.possible & ~known.any(-1, keepdim=True))

    def in_world_order(self, logprobs: torch.Tensor) -> torch.Tensor:
        """Log probabilities `[..., choices]` as `[..., legal]`, in the order of the world's legal actions."""
        unknown = torch.full_like(logprobs[..., :1], NEVER)
        return torch.cat([logprobs, unknown], -1)[..., self.place]


def _actions_by_name(spec: EnvSpec) -> dict[tuple[str, int], tuple[int, tuple[int, int]]]:
    """Place among the legal actions and ids, by action name and argument."""
    return {
        (spec.action_names[action], arg): (place, (action, arg))
        for place, (action, arg) in enumerate(spec.legal_actions)
    }


def _token_tables(known: EnvSpec, world: EnvSpec) -> tuple[np.ndarray, np.ndarray]:
    """Feature and value in the known world, by feature and value in the world."""
    ids = {feature.name: feature.id for feature in known.features}
    # A feature id that no table has: such tokens are not seen.
    unseen = min(set(range(256)) - set(ids.values()))
    feature = np.full((256, 256), unseen, np.uint8)
    value = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    for shown in world.features:
        if shown.name not in ids:
            continue
        feature[shown.id] = ids[shown.name]
        values = _values(shown.name, known, world)
        for given, meant in values.items():
            if meant is None:
                feature[shown.id, given] = unseen
            else:
                value[shown.id, given] = meant
    return feature, value


def _values(feature: str, known: EnvSpec, world: EnvSpec) -> dict[int, int | None]:
    """What the values of a feature mean in the known world, None = nothing; all others mean themselves."""
    if feature == "type_id":
        return _by_name(world.object_type_names, known.object_type_names)
    if feature == "last_action":
        return _by_name(world.action_names, known.action_names)
    if feature == "resource_rewards":
        return _reward_flags(known.item_names, world.item_names)
    return {}


def _by_name(world: tuple[str, ...], known: tuple[str, ...]) -> dict[int, int | None]:
    if not known or not world:  # a world without names has the standard ids
        return {}
    ids = {name: i for i, name in enumerate(known) if name}
    return {i: ids.get(name) for i, name in enumerate(world) if name}


def _reward_flags(known: tuple[str, ...], world: tuple[str, ...]) -> dict[int, int | None]:
    """Bit 7 - i stands for item i, for the first eight items."""
    bits = {item: 1 << (7 - i) for i, item in enumerate(known[:NUM_REWARD_BITS])}
    result: dict[int, int | None] = {}
    for given in range(256):
        result[given] = sum(
            bits.get(item, 0) for i, item in enumerate(world[:NUM_REWARD_BITS]) if given >> (7 - i) & 1
        )
    return result
