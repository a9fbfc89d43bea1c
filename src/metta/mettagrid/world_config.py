"""The rules of one world as people write them: a validated, serialisable description.

`WorldConfig` is the schema that recorded traces use, plus a few extensions of ours that do nothing
unless they are set. `metta.mettagrid.rules` turns it into the numeric tables that the engine reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError

from metta.common.reading import one_line

WindowSize = Literal[3, 5, 7, 9, 11, 13, 15]
"""Rows or columns of an observation window; a location byte holds coordinates up to 14."""

ActionKind = Literal[
    "attack", "change_color", "change_glyph", "get_items", "move", "noop", "put_items", "rotate", "swap"
]
"""The nine things that an action can do."""


class WorldModel(BaseModel):
    """Base of every model here: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class InventoryRewards(WorldModel):
    """Reward per held item, and the most that all held items of that kind are worth together.

    The reward follows the holding: losing an item takes its reward back.
    """

    ore_red: float | None = None
    ore_red_max: int | None = None
    ore_blue: float | None = None
    ore_blue_max: int | None = None
    ore_green: float | None = None
    ore_green_max: int | None = None
    battery_red: float | None = None
    battery_red_max: int | None = None
    battery_blue: float | None = None
    battery_blue_max: int | None = None
    battery_green: float | None = None
    battery_green_max: int | None = None
    heart: float | None = None
    heart_max: int | None = None
    armor: float | None = None
    armor_max: int | None = None
    laser: float | None = None
    laser_max: int | None = None
    blueprint: float | None = None
    blueprint_max: int | None = None


class Rewards(WorldModel):
    """What an agent is rewarded for.

    Attributes:
        inventory: rewards of held items.
        stats: statistic name to reward per unit; `<name>_max` caps that statistic's reward.
    """

    inventory: InventoryRewards = InventoryRewards()
    stats: dict[str, float | None] = {}


def _nest_flat_rewards(value: Any) -> Any:
    """Accept the older form in which item rewards stand directly under `rewards`."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        return value
    flat = {key: amount for key, amount in value.items() if key not in ("inventory", "stats")}
    nested = {key: amount for key, amount in value.items() if key in ("inventory", "stats")}
    if flat:
        inventory = nested.get("inventory", {})
        if isinstance(inventory, InventoryRewards):
            inventory = inventory.model_dump(exclude_unset=True)
        if isinstance(inventory, dict):
            nested["inventory"] = {**flat, **inventory}
    return nested


class AgentConfig(WorldModel):
    """What an agent can carry, what it is rewarded for, and how long it stays frozen.

    Attributes:
        default_resource_limit: most that an agent holds of an item that `resource_limits` does not name.
        resource_limits: most that an agent holds, by item name.
        freeze_duration: steps that a hit agent stays frozen; the engine takes 0 to 255.
        rewards: rewards for items held and for statistics.
        action_failure_penalty: subtracted from the reward for every failed action.
    """

    default_resource_limit: int = Field(default=0, ge=0)
    resource_limits: dict[str, int] = {}
    freeze_duration: int = Field(default=0, ge=-1)
    rewards: Annotated[Rewards, BeforeValidator(_nest_flat_rewards)] = Rewards()
    action_failure_penalty: float = Field(default=0, ge=0)


class GroupConfig(WorldModel):
    """A group of agents; its cell name in a map is `agent.<group name>`.

    Attributes:
        id: number of the group, as observations show it; the ids of a world are 0, 1, 2, ... without gaps.
        sprite: for viewers only.
        group_reward_pct: share of each member's reward that is spread evenly over the group.
        props: keys given here replace those of the world's `agent` block for this group.
    """

    id: int
    sprite: int | None = None
    group_reward_pct: float = Field(default=0, ge=0, le=1)
    props: AgentConfig = AgentConfig()


class ActionConfig(WorldModel):
    """One action.

    Attributes:
        enabled: whether the world has this action.
        required_resources: items that an agent must hold; by default those that are consumed.
        consumed_resources: items that a successful action uses up.
    """

    enabled: bool
    required_resources: dict[str, int] | None = None
    consumed_resources: dict[str, int] = {}


class AttackActionConfig(ActionConfig):
    """The attack; a target that holds all of `defense_resources` loses those instead of being hit."""

    defense_resources: dict[str, int] = {}


class ChangeGlyphActionConfig(ActionConfig):
    """The action that sets an agent's glyph to one of `number_of_glyphs`."""

    number_of_glyphs: int = Field(default=0, ge=0, le=255)


class ActionsConfig(WorldModel):
    """The nine actions; one that is left out or null is not in the world."""

    noop: ActionConfig | None = None
    move: ActionConfig | None = None
    rotate: ActionConfig | None = None
    put_items: ActionConfig | None = None
    get_items: ActionConfig | None = None
    attack: AttackActionConfig | None = None
    swap: ActionConfig | None = None
    change_color: ActionConfig | None = None
    change_glyph: ChangeGlyphActionConfig | None = None


class NamedAction(WorldModel):
    """An action under a name of its own that does what one of the nine kinds does.

    Attributes:
        kind: what the action does.
        required_resources, consumed_resources, defense_resources, number_of_glyphs: as for that kind.
        delta: for kind "rotate": the action takes no argument and turns the agent by this many quarter
            turns clockwise from where it faces.
        item: for kinds "put_items" and "get_items": only this item is moved.
        use: for kinds "put_items" and "get_items": only objects with this cell name are used.
    """

    kind: ActionKind
    required_resources: dict[str, int] | None = None
    consumed_resources: dict[str, int] = {}
    defense_resources: dict[str, int] = {}
    number_of_glyphs: int = Field(default=0, ge=0, le=255)
    delta: int | None = None
    item: str | None = None
    use: str | None = None


class GlobalObsConfig(WorldModel):
    """Which facts about itself an agent sees at the start of its observation."""

    episode_completion_pct: bool = True
    last_action: bool = True
    last_reward: bool = True
    resource_rewards: bool = False


class WallConfig(WorldModel):
    """A thing that stands in the way; agents can change places with it if it is `swappable`."""

    type_id: int
    swappable: bool = False


class ConverterConfig(WorldModel):
    """A thing that turns input items into output items.

    Attributes:
        type_id: what agents see it as, 0 to 255.
        input_resources: items that one conversion uses up; none makes a source.
        output_resources: items that one conversion yields.
        max_output: stops converting while it holds this many output items; -1 means never.
        max_conversions: stops for good after this many conversions; negative means never.
        conversion_ticks: steps that a conversion takes.
        cooldown: steps of rest after a conversion.
        initial_resource_count: output items of each kind that it holds at the start.
        color: what agents see as its colour.
    """

    type_id: int = Field(default=0, ge=0, le=255)
    input_resources: dict[str, int] = {}
    output_resources: dict[str, int] = {}
    max_output: int = Field(ge=-1)
    max_conversions: int = -1
    conversion_ticks: int = Field(ge=0)
    cooldown: int = Field(ge=0)
    initial_resource_count: int = Field(ge=0)
    color: int = Field(default=0, ge=0, le=255)


_CONVERTER_KEYS = frozenset(ConverterConfig.model_fields) - {"type_id", "color"}


def _object_tag(value: Any) -> str:
    """A converter is known by its keys, so that a mistake in one is not also reported as a bad wall."""
    if isinstance(value, dict):
        return "converter" if _CONVERTER_KEYS & value.keys() else "wall"
    return "converter" if isinstance(value, ConverterConfig) else "wall"


ObjectConfig = Annotated[
    Annotated[ConverterConfig, Tag("converter")] | Annotated[WallConfig, Tag("wall")],
    Discriminator(_object_tag),
]


class DiversityRule(WorldModel):
    """A bonus at the end of an episode for being like one's group and unlike the other groups.

    With x the episode rewards of the agents and scale their standard deviation, agent i of group g gets
    `x_i * (similarity_coef * s_i + diversity_coef * d_i)`, where `s_i = exp(-|x_i - mean_g| / scale)` and
    `d_i = 1 - exp(-(mean over the other groups h of |x_i - mean_h|) / scale)`. A scale of 0 makes s 1 and
    d 0; d is 0 too where there is no other group.
    """

    similarity_coef: float = 0
    diversity_coef: float = 0


class WorldConfig(WorldModel):
    """All rules of one world.

    Attributes:
        inventory_item_names: the items; the position is the item id.
        num_agents: agents that every map of this world holds.
        max_steps: step at which an episode ends; 0 means never.
        episode_truncates: whether that end counts as a truncation instead of a terminal.
        obs_width, obs_height: size of the window that an agent sees.
        num_observation_tokens: tokens per observation.
        agent: rules of every agent, unless its group says otherwise.
        groups: groups of agents by name.
        actions: the actions of the world.
        global_obs: facts that agents see about themselves.
        recipe_details_obs: whether agents see the recipes of converters.
        objects: walls and converters by cell name.
        track_movement_metrics: whether statistics count directions of movement.
        params, map_builder: ignored; accepted because recorded configs may carry them.
        step_reward: added to every reward at the very end of every step; negative is a time punishment.
        lifetime: step at which an episode is truncated if `max_steps` did not end it; 0 means never.
        diversity: a bonus at the end of an episode.
        named_actions: further actions by name.
    """

    inventory_item_names: list[str]
    num_agents: int = Field(ge=1)
    max_steps: int = Field(ge=0)
    episode_truncates: bool = False
    obs_width: WindowSize
    obs_height: WindowSize
    num_observation_tokens: int = Field(ge=1)
    agent: AgentConfig
    groups: dict[str, GroupConfig] = Field(min_length=1)
    actions: ActionsConfig
    global_obs: GlobalObsConfig = GlobalObsConfig()
    recipe_details_obs: bool = False
    objects: dict[str, ObjectConfig]
    track_movement_metrics: bool = False
    params: Any = None
    map_builder: Any = None

    step_reward: float = 0
    lifetime: int = Field(default=0, ge=0)
    diversity: DiversityRule | None = None
    named_actions: dict[str, NamedAction] = {}


def error_fields(error: ValidationError) -> list[str]:
    """Every complaint as `location:error type`, with dots in the location and without union noise."""
    fields = []
    for entry in error.errors(include_url=False, include_context=False, include_input=False):
        fields.append(f"{_location(entry['loc'])}:{entry['type']}")
    return fields


def explain(error: ValidationError, source: str = "the world's config") -> str:
    """One sentence about the first complaint: where, what is wrong, and the value.

    Where the complaint is a sentence of ours, which names the value and the remedy, it stands as it is.
    """
    entries = error.errors(include_url=False)
    first = entries[0]
    where = f" at {_location(first['loc'])}" if first["loc"] else ""
    more = f" ({len(entries) - 1} more problems follow)" if len(entries) > 1 else ""
    if first["type"] == "value_error":
        return f"{source} is wrong{where}: {one_line(first['ctx']['error'], 1000).rstrip('.')}{more}."
    return f"{source} has a wrong entry{where}: {one_line(first['msg'], 500)}, got {one_line(repr(first['input']))}{more}."


def _location(loc: Iterable[int | str]) -> str:
    parts = [str(part) for part in loc]
    if len(parts) > 2 and parts[0] == "objects" and parts[2] in ("converter", "wall"):
        del parts[2]
    return one_line(".".join(parts))
