"""All that an agent may know of an environment: shapes, dtypes, action names, feature table.

An `EnvSpec` is a plain value. It travels on the observation space (`ObservationSpace.spec`), into
the policy's checkpoint as JSON, and nowhere does an agent hold the environment itself.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from metta.mettagrid.objects import STANDARD_ITEMS

PADDING = 255
"""Value of all three bytes of an unused observation token."""

MOST_ACTIONS = 1000
"""Actions that a saved spec may have."""

BASE_FEATURES: tuple[tuple[str, float], ...] = (
    ("type_id", 1.0),
    ("agent:group", 10.0),
    ("hp", 30.0),
    ("agent:frozen", 1.0),
    ("agent:orientation", 1.0),
    ("agent:color", 255.0),
    ("converting", 1.0),
    ("swappable", 1.0),
    ("episode_completion_pct", 255.0),
    ("last_action", 10.0),
    ("last_action_arg", 10.0),
    ("last_reward", 100.0),
    ("agent:glyph", 255.0),
    ("resource_rewards", 255.0),
)
"""Name and normalisation of the features that every world has; the position is the feature id."""

ITEM_NORMALIZATION = 100.0


@dataclass(frozen=True)
class Feature:
    """One observation feature: the second byte of a token is its `id`, the third its value."""

    id: int
    name: str
    normalization: float


@dataclass(frozen=True)
class EnvSpec:
    """What a policy is built from.

    Attributes:
        action_names: name of each action, by action id.
        max_action_args: largest legal argument of each action, by action id.
        features: the features shown, each known by its `id`; a world's own table holds all of them in order of id, an
            agent's may be a part of it.
        obs_height: rows of the observation window.
        obs_width: columns of the observation window.
        num_tokens: tokens per observation; an observation is uint8 `[num_tokens, 3]` of
            (location = row * 16 + column, feature id, value), unused tokens are 255, 255, 255.
        object_type_names: name by type id, "" where unused.
        item_names: inventory items, by item id.
        action_kinds: what each action does, by action id, where it may have a name of its own; empty: what its name says.
    """

    action_names: tuple[str, ...]
    max_action_args: tuple[int, ...]
    features: tuple[Feature, ...]
    obs_height: int
    obs_width: int
    num_tokens: int
    object_type_names: tuple[str, ...] = ()
    item_names: tuple[str, ...] = ()
    action_kinds: tuple[str, ...] = ()

    @property
    def legal_actions(self) -> tuple[tuple[int, int], ...]:
        """Every legal (action id, argument) pair, in ascending order."""
        return tuple((a, arg) for a, most in enumerate(self.max_action_args) for arg in range(most + 1))

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready copy; `from_json` rebuilds an equal spec from it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> EnvSpec:
        """Rebuild a spec from `to_json`.

        Raises:
            TypeError: the data does not hold the fields of an `EnvSpec`.
            ValueError: a field is not what it should be; the sentence names it.
        """
        fields = dict(data)
        fields["features"] = tuple(Feature(**f) for f in fields["features"])
        fields.setdefault("action_kinds", fields["action_names"])  # saved before kinds were
        for name in ("action_names", "max_action_args", "object_type_names", "item_names", "action_kinds"):
            fields[name] = tuple(fields[name])
        spec = cls(**fields)
        spec._check()
        return spec

    def _check(self) -> None:
        """See that every field is of its type and within what a token can say."""
        names: tuple[Any, ...] = (
            *self.action_names,
            *self.object_type_names,
            *self.item_names,
            *self.action_kinds,
            *(f.name for f in self.features),
        )
        sizes: tuple[tuple[str, tuple[Any, ...], int, int], ...] = (
            ("max_action_args", self.max_action_args, 0, PADDING),
            ("feature ids", tuple(feature.id for feature in self.features), 0, PADDING),
            ("obs_height and obs_width", (self.obs_height, self.obs_width), 1, 15),
            ("num_tokens", (self.num_tokens,), 1, 2**24),
        )
        for name, values, low, high in sizes:
            for value in values:
                if type(value) is not int or not low <= value <= high:
                    raise ValueError(
                        f"{name} has {value!r:.40}, but a whole number from {low} to {high} is needed"
                    )
        if odd := [name for name in names if not isinstance(name, str)]:
            raise ValueError(f"a name is {odd[0]!r:.40}, which is no text")
        for feature in self.features:
            if type(feature.normalization) not in (int, float) or not 0 < feature.normalization < 1e9:
                raise ValueError(
                    f"the normalization of {feature.name!r:.40} is {feature.normalization!r:.40}"
                )
        ids = [feature.id for feature in self.features]
        if ids != sorted(set(ids)):
            raise ValueError("the feature ids are not in ascending order")
        if not len(self.action_names) == len(self.max_action_args) <= MOST_ACTIONS or not self.action_names:
            raise ValueError(
                f"there are {len(self.action_names)} action names and {len(self.max_action_args)} largest arguments"
            )
        if self.action_kinds and len(self.action_kinds) != len(self.action_names):
            raise ValueError(
                f"there are {len(self.action_names)} action names and {len(self.action_kinds)} action kinds"
            )

    @property
    def observation_space(self) -> ObservationSpace:
        """The space of one agent's observation; carries this spec."""
        return ObservationSpace(self)

    @property
    def action_space(self) -> gym.spaces.MultiDiscrete:
        """`MultiDiscrete([number of actions, largest argument + 1])`, int32."""
        sizes = [len(self.action_names), max(self.max_action_args) + 1]
        int32: Any = np.int32  # gymnasium takes every integer type and annotates only one
        return gym.spaces.MultiDiscrete(sizes, dtype=int32)


class ObservationSpace(gym.spaces.Box):
    """`Box(0, 255, (tokens, 3), uint8)` of one agent's tokens, with the `EnvSpec` they follow."""

    def __init__(self, spec: EnvSpec) -> None:
        super().__init__(0, 255, (spec.num_tokens, 3), np.uint8)
        self.spec = spec


def feature_table(item_names: tuple[str, ...], recipe_details: bool = False) -> tuple[Feature, ...]:
    """The features of a world with these items, by id.

    Args:
        item_names: inventory items in order.
        recipe_details: whether converters also show their recipes (`input:*`, `output:*`).
    """
    names = list(BASE_FEATURES)
    prefixes = ("inv", "input", "output") if recipe_details else ("inv",)
    for prefix in prefixes:
        names += [(f"{prefix}:{item}", ITEM_NORMALIZATION) for item in item_names]
    return tuple(Feature(i, name, norm) for i, (name, norm) in enumerate(names))


def standard_spec(observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> EnvSpec:
    """The spec behind a pair of spaces.

    An `ObservationSpace` carries its own. A bare `Box` of shape `(tokens, 3)` is read with the standard
    feature table and an 11 by 11 window, and every pair of the action space counts as legal.

    Raises:
        ValueError: the spaces are not those of a token world.
    """
    if isinstance(observation_space, ObservationSpace):
        return observation_space.spec
    if (
        not isinstance(observation_space, gym.spaces.Box)
        or len(observation_space.shape) != 2
        or observation_space.shape[1] != 3
    ):
        raise ValueError(
            f"observation_space is {observation_space}, but a policy reads tokens: pass "
            "env.single_observation_space or a Box of shape (tokens, 3)."
        )
    if not isinstance(action_space, gym.spaces.MultiDiscrete) or action_space.shape != (2,):
        raise ValueError(
            f"action_space is {action_space}, but an action is a pair (action id, argument): pass "
            "env.single_action_space or MultiDiscrete([actions, largest argument + 1])."
        )
    num_actions, num_args = (int(n) for n in action_space.nvec)
    return EnvSpec(
        action_names=tuple(f"action_{i}" for i in range(num_actions)),
        max_action_args=(num_args - 1,) * num_actions,
        features=feature_table(STANDARD_ITEMS),
        obs_height=11,
        obs_width=11,
        num_tokens=observation_space.shape[0],
        item_names=STANDARD_ITEMS,
    )
