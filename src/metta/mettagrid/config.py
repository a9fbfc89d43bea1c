"""The typed description of an environment, and how it becomes the rules of a world.

`EnvConfig` is what users write: a game, its objects and actions, and a map builder. `to_world_config`
turns it into `WorldConfig`, the engine's own schema, in which every number that the rules need is
explicit. Nothing is looked up elsewhere: the same `EnvConfig` is always the same world.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Any, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from metta.common.config import Config
from metta.common.reading import repeated
from metta.mettagrid.env_parts import ActionConfig, ActionKind, GameConfig, ObjectConfig
from metta.mettagrid.map.ascii import MOST_CELLS
from metta.mettagrid.map.config import MapBuilderConfig, MapConfig
from metta.mettagrid.objects import FIRST_CUSTOM_TYPE, OBJECT_TYPE_IDS
from metta.mettagrid.world_config import WorldConfig, explain

__all__ = ["ActionConfig", "EnvConfig", "GameConfig", "MapBuilderConfig", "ObjectConfig"]


def default_objects() -> list[ObjectConfig]:
    """The objects of a new environment: walls, blocks, and the chain from red ore to hearts, armor and lasers."""
    return [
        ObjectConfig(type="wall", name="wall"),
        ObjectConfig(type="wall", name="block"),
        ObjectConfig(type="mine", name="mine_red"),
        ObjectConfig(type="generator", name="generator_red"),
        ObjectConfig(type="converter", name="altar"),
        ObjectConfig(type="converter", name="armory"),
        ObjectConfig(type="converter", name="lasery"),
    ]


def default_actions() -> list[ActionConfig]:
    """The customary actions: everything but changing colour and glyph."""
    kinds: tuple[ActionKind, ...] = ("noop", "move", "rotate", "put_items", "get_items", "attack", "swap")
    return [ActionConfig(type=kind, key=kind) for kind in kinds]


SHARED_FIELDS = (("num_agents", "agents"), ("width", "width"), ("height", "height"))
"""What both the game and the map builder state: (name in the game, name in the map builder)."""


MOST_OBSERVATION_BYTES = 2**28
"""Bytes of the observations of one world."""

_MAP: TypeAdapter[MapConfig] = TypeAdapter(MapConfig)


class EnvConfig(Config):
    """A complete environment: game, objects, actions and map, which is of any kind in `metta.mettagrid.map.config`.

    Size and number of agents appear in the game and in the map builder. Whichever states one counts for both; if both
    state it they must agree, and some kinds of maps settle it by themselves. Defaults give way to what is stated: a game
    without lasers has no attack and no lasery, a world without walls no border, and the map's default objects are those
    that the world has.
    """

    game: GameConfig = Field(default_factory=GameConfig)
    """The mechanics: length, rewards, what agents see and hold."""
    objects: list[ObjectConfig] = Field(default_factory=default_objects)
    """The types of objects that there are."""
    actions: list[ActionConfig] = Field(default_factory=default_actions)
    """What agents can do."""
    map_builder: MapConfig = Field(default_factory=MapBuilderConfig)
    """How maps are made: a `MapBuilderConfig`, or one of the other kinds."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        game: dict[str, Any] = {}
        builder: dict[str, Any] = {}
        for in_game, in_builder in SHARED_FIELDS:
            ours = getattr(self.game, in_game)
            theirs = getattr(self.map_builder, in_game)
            if ours == theirs:
                continue
            if not self.map_builder.states(in_builder):
                builder[in_builder] = ours
            elif in_game not in self.game.model_fields_set:
                game[in_game] = theirs
            else:
                remedy = (
                    f"a map of type '{self.map_builder.type}' settles it by itself, so leave game.{in_game} out"
                    if self.map_builder.settles(in_builder)
                    else "state one, or the same twice"
                )
                raise ValueError(
                    f"game.{in_game} is {ours} but map_builder.{in_game} gives {theirs}; {remedy}."
                )
        self._fit_defaults(builder)
        # What is settled here does not count as stated: a change of what it follows takes it along.
        if game:
            settled = self.game.model_copy(update=game)
            settled.model_fields_set.difference_update(game)
            object.__setattr__(self, "game", settled)
        if builder:
            object.__setattr__(self, "map_builder", self.map_builder.told(builder))
        self._check_extent()
        self.map_builder.check_fit()
        self._check_names()
        self._check_rules()
        return self

    def _check_extent(self) -> None:
        """Refuse a world that no machine can hold before anything is made of its size."""
        width, height = self.map_builder.width, self.map_builder.height
        if width * height > MOST_CELLS:
            raise ValueError(
                f"a map of {width} x {height} cells is too large; it has at most {MOST_CELLS} cells."
            )
        shown = 3 * self.game.num_agents * self.game.num_observation_tokens
        if shown > MOST_OBSERVATION_BYTES:
            raise ValueError(
                f"{self.game.num_agents} agents with {self.game.num_observation_tokens} tokens each see {shown} bytes at a step; "
                f"it may be {MOST_OBSERVATION_BYTES}, so lower num_agents or num_observation_tokens."
            )

    def _fit_defaults(self, builder: dict[str, Any]) -> None:
        """Leave out of the defaults what does not fit the stated rest: only what someone stated can be wrong."""
        items = set(self.game.inventory_item_names)
        if "objects" not in self.model_fields_set:
            object.__setattr__(self, "objects", [obj for obj in self.objects if obj.used_items() <= items])
        if "actions" not in self.model_fields_set:
            fitting = [a for a in self.actions if set(action_costs(a)["consumed_resources"]) <= items]
            object.__setattr__(self, "actions", fitting)
        names = {obj.name for obj in self.objects}
        if not isinstance(self.map_builder, MapBuilderConfig):
            return
        stated = self.map_builder.model_fields_set
        if "objects" not in stated and not set(self.map_builder.objects) <= names:
            builder["objects"] = {name: n for name, n in self.map_builder.objects.items() if name in names}
        if "border_width" not in stated and self.map_builder.border_width and "wall" not in names:
            builder["border_width"] = 0

    def _check_rules(self) -> None:
        """Refuse here, not when a world is made, what the rules cannot express."""
        # Imported late: describing an environment should not load the engine before there is one to check.
        from metta.mettagrid.resolve import resolve
        from metta.mettagrid.stat_names import rewardable_names

        try:
            resolved = resolve(self.to_world_config())
        except ValidationError as error:
            raise ValueError(explain(error, "the environment")) from None
        if not self.game.stat_rewards:
            return
        known = rewardable_names(resolved)
        for name in self.game.stat_rewards:
            base = name.removesuffix("_max")
            if base not in known:
                close = difflib.get_close_matches(base, sorted(known), n=3)
                hint = (
                    f"did you mean {' or '.join(close)}?"
                    if close
                    else "an item's are called like 'ITEM.get'."
                )
                raise ValueError(
                    f"stat_rewards names '{name}', but no agent has such a statistic in this world; {hint}"
                )
            if base not in self.game.stat_rewards:
                raise ValueError(f"stat_rewards caps '{base}' without paying for it; give '{base}' a reward.")

    def _check_names(self) -> None:
        if not self.actions:
            raise ValueError(
                "actions is empty, so agents could do nothing; name at least one, for instance a noop."
            )
        names = [o.name for o in self.objects]
        keys = [a.key for a in self.actions]
        for what, values in (("objects", names), ("actions", keys)):
            twice = repeated(values)
            if twice:
                raise ValueError(f"{what} has {', '.join(twice)} more than once; give each its own name.")
        unknown = sorted(self.map_builder.object_names - set(names))
        if unknown:
            raise ValueError(
                f"map_builder places {', '.join(unknown)}, but the objects are {', '.join(names)}; add it to objects."
            )
        unknown = sorted(set(self.map_builder.agent_groups) - set(self.game.groups))
        if unknown:
            raise ValueError(
                f"map_builder.agents names {', '.join(unknown)}, but the groups are {', '.join(self.game.groups)}."
            )
        items = set(self.game.inventory_item_names)
        for action in self.actions:
            used = {action.item} if action.item else set()
            used |= set(action_costs(action)["consumed_resources"]) | set(action.required_resources or {})
            used |= set(action.defense_resources or {})
            if missing := sorted(used - items):
                raise ValueError(
                    f"action '{action.key}' needs {', '.join(missing)}, not in game.inventory_item_names; add the item, "
                    "state other resources for the action, or drop the action."
                )
            if action.use is not None and action.use not in names:
                raise ValueError(
                    f"action '{action.key}' uses '{action.use}', but the objects are {', '.join(names)}."
                )
        for obj in self.objects:
            if missing := sorted(obj.used_items() - items):
                raise ValueError(
                    f"object '{obj.name}' works with {', '.join(missing)}, not in game.inventory_item_names; add the item "
                    "or drop the object."
                )

    def with_overrides(self, **overrides: Any) -> EnvConfig:
        """A copy with single values replaced by their field name, wherever in the configuration the name belongs.

        `num_agents`, `width` and `height` change game and map together; `map_objects` are the map builder's `objects`
        (`objects` alone are the types of the environment); `game` and `map_builder` replace those parts as a whole, before
        single values are set.

        Raises:
            ValueError: a name belongs to no part of the configuration.
        """
        kind = _MAP.validate_python(overrides.pop("map_builder", self.map_builder))
        builder = kind.model_dump(exclude_unset=True)
        room = builder.get("room", builder)  # of several rooms, their one description
        stated = GameConfig.model_validate(overrides.pop("game", self.game))
        game = stated.model_dump(exclude_unset=True)
        explicit = set(overrides) | (set() if stated is self.game else stated.model_fields_set)
        whole: dict[str, Any] = {
            name: getattr(self, name) for name in self.model_fields_set & {"objects", "actions"}
        }
        shared = dict(SHARED_FIELDS)
        for name, value in overrides.items():
            if name in shared:
                game[name] = value
                (room if name == "num_agents" else builder).pop(shared[name], None)
            elif name in GameConfig.model_fields:
                game[name] = value
            elif name == "map_objects":
                room["objects"] = value
            elif name in EnvConfig.model_fields:
                whole[name] = value
            elif name in type(kind).model_fields:
                builder[name] = value
            else:
                parts = {*GameConfig.model_fields, *type(kind).model_fields, *EnvConfig.model_fields}
                known = sorted({*parts, "map_objects"} - {"agents", "seed"})
                raise ValueError(
                    f"'{name}' is no setting of an environment; the settings are {', '.join(known)}."
                )
        self.follow(game, builder, explicit)
        return EnvConfig(**{"game": game, "map_builder": builder, **whole})

    def follow(self, game: dict[str, Any], builder: dict[str, Any], explicit: Collection[str]) -> None:
        """Have a changed game take over the size and agents that a changed map states, and keep those that it leaves open.

        Args:
            game: fields of the game, changed in place.
            builder: fields of the map builder.
            explicit: fields of the game that were set on purpose and stay.
        """
        kind = _MAP.validate_python(builder)
        for in_game, in_builder in SHARED_FIELDS:
            if in_game in explicit:
                continue
            if kind.states(in_builder):
                game.pop(in_game, None)
            else:
                game.setdefault(in_game, getattr(self.game, in_game))

    def to_world_config(self) -> WorldConfig:
        """The same environment in the engine's schema.

        Raises:
            ValueError: a reward share or a recipe is not usable; the sentence says which.
        """
        game = self.game
        items = game.inventory_item_names
        rewards = {
            "ore_red": (game.ore_red_reward, game.ore_red_max),
            "battery_red": (game.battery_red_reward, game.battery_red_max),
            "heart": (game.heart_reward, game.heart_max_reward),
        }
        inventory_rewards: dict[str, float] = {**game.item_rewards}
        for item, (worth, most) in rewards.items():
            if item in items and worth != 0:
                inventory_rewards[item] = worth
                inventory_rewards[f"{item}_max"] = most
        limits = {"heart": game.heart_max} if "heart" in items else {}
        diversity = (
            {"similarity_coef": game.similarity_coef, "diversity_coef": game.diversity_coef}
            if game.diversity_bonus_enabled
            else None
        )
        return WorldConfig.model_validate(
            {
                "inventory_item_names": items,
                "num_agents": game.num_agents,
                "max_steps": game.max_steps,
                "episode_truncates": game.episode_truncates,
                "obs_width": game.observation_width,
                "obs_height": game.observation_height,
                "num_observation_tokens": game.num_observation_tokens,
                "agent": {
                    "default_resource_limit": game.default_item_max,
                    "resource_limits": {**limits, **game.item_max},
                    "freeze_duration": game.freeze_duration,
                    "action_failure_penalty": game.action_failure_penalty,
                    "rewards": {"inventory": inventory_rewards, "stats": game.stat_rewards},
                },
                "groups": game.group_blocks(),
                "actions": {},
                "named_actions": {action.key: _action_block(action) for action in self.actions},
                "objects": self._object_blocks(),
                "recipe_details_obs": game.recipe_details_obs,
                "track_movement_metrics": game.track_movement_metrics,
                "step_reward": game.time_punishment,
                "lifetime": game.episode_lifetime,
                "diversity": diversity,
            }
        )

    def _object_blocks(self) -> dict[str, dict[str, Any]]:
        blocks: dict[str, dict[str, Any]] = {}
        next_type = FIRST_CUSTOM_TYPE
        for obj in self.objects:
            type_id = OBJECT_TYPE_IDS.get(obj.name)
            if type_id is None:
                type_id, next_type = next_type, next_type + 1
            if obj.type == "wall":
                swappable = obj.name == "block" if obj.swappable is None else obj.swappable
                blocks[obj.name] = {"type_id": type_id, "swappable": swappable}
            else:
                blocks[obj.name] = {**obj.recipe().model_dump(), "type_id": type_id, "color": obj.color}
        return blocks


def action_costs(action: ActionConfig) -> dict[str, dict[str, int]]:
    """Consumed and defense resources of an action, defaults filled in."""
    attack = action.kind == "attack"
    consumed = (
        ({"laser": 1} if attack else {}) if action.consumed_resources is None else action.consumed_resources
    )
    defense = (
        ({"armor": 1} if attack else {}) if action.defense_resources is None else action.defense_resources
    )
    return {"consumed_resources": consumed, "defense_resources": defense}


def _action_block(action: ActionConfig) -> dict[str, Any]:
    block: dict[str, Any] = {"kind": action.kind, **action_costs(action)}
    if action.kind == "change_glyph":
        block["number_of_glyphs"] = 4 if action.number_of_glyphs is None else action.number_of_glyphs
    for name in ("required_resources", "delta", "item", "use"):
        if (value := getattr(action, name)) is not None:
            block[name] = value
    return block
