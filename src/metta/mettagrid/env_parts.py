"""The parts of an environment's configuration: game, objects, actions. The map's are in `metta.mettagrid.map.config`.

They are put together, checked against each other and compiled by `metta.mettagrid.config.EnvConfig`.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from metta.common.config import Config
from metta.common.reading import repeated
from metta.mettagrid.objects import STANDARD_ITEMS
from metta.mettagrid.recipes import STANDARD_RECIPES, Recipe

ActionKind = Literal[
    "noop", "move", "rotate", "put_items", "get_items", "attack", "swap", "change_color", "change_glyph"
]
ObjectKind = Literal["mine", "generator", "converter", "wall"]

ITEM_COLOURS = ("red", "blue", "green")


class ObjectConfig(Config):
    """One type of object.

    The recipe fields default to the standard recipe of that name (`metta.mettagrid.recipes`), or of that kind
    and colour word: a `mine` called `mine_red` yields `ore_red`, a `generator` called `generator_blue`
    makes `battery_blue` from `ore_blue`. A converter with a name of your own states its recipe.
    """

    type: ObjectKind
    """What it is: a wall, or one of the kinds that convert items."""
    name: str = Field(min_length=1)
    """What maps, statistics and replays call it; the standard names bring their recipes."""
    color: int = Field(default=0, ge=0, le=255)
    """Colour index that agents see on anything but a wall; a player's eye tells 0 to 15 apart."""
    input_resources: dict[str, NonNegativeInt] | None = None
    """Items that one conversion uses up; None: as the standard recipe."""
    output_resources: dict[str, NonNegativeInt] | None = None
    """Items that one conversion yields; None: as the standard recipe."""
    max_output: int | None = Field(default=None, ge=-1, le=32767)
    """No new conversion starts while the outputs held sum to this or more; -1: no limit."""
    max_conversions: int | None = Field(default=None, ge=-1, le=32767)
    """Conversions in an episode; -1: no limit."""
    conversion_ticks: int | None = Field(default=None, ge=0, le=65535)
    """Steps that a conversion takes."""
    cooldown: int | None = Field(default=None, ge=0, le=65535)
    """Steps of rest after a conversion."""
    initial_resource_count: int | None = Field(default=None, ge=0, le=255)
    """How many of each output item lie ready when an episode starts."""
    swappable: bool | None = None
    """Walls only: whether an agent can change places with it; None: true for a `block`."""

    @model_validator(mode="after")
    def _check_fields(self) -> Self:
        recipe_fields = set(Recipe.model_fields) & self.model_fields_set
        given = sorted(name for name in recipe_fields if getattr(self, name) is not None)
        if self.type == "wall" and given:
            raise ValueError(
                f"object '{self.name}' is a wall, so it has no {', '.join(given)}; make it a converter."
            )
        if self.type != "wall" and self.swappable is not None:
            raise ValueError(
                f"object '{self.name}' is a {self.type}, and only walls can be swappable; drop the field."
            )
        return self

    def used_items(self) -> set[str]:
        """The items that the object takes or gives."""
        if self.type == "wall":
            return set()
        recipe = self.recipe()
        return set(recipe.input_resources) | set(recipe.output_resources)

    def recipe(self) -> Recipe:
        """The complete recipe: the fields given here over the standard one.

        Raises:
            ValueError: there is no standard recipe to fall back on and an input or output list is missing.
        """
        standard = STANDARD_RECIPES.get(self.name)
        if standard is None:
            standard = _recipe_by_colour(self.type, self.name)
        if standard is None:
            if self.output_resources is None:
                raise ValueError(
                    f"object '{self.name}' has no standard recipe: give it output_resources (and input_resources), "
                    f"or one of the names {', '.join(sorted(STANDARD_RECIPES))}."
                )
            standard = Recipe()
        given = {name: value for name in Recipe.model_fields if (value := getattr(self, name)) is not None}
        return standard.model_copy(update=given)


def _recipe_by_colour(kind: str, name: str) -> Recipe | None:
    """The standard mine or generator of the colour that a name such as `big_mine_blue` ends with."""
    colour = name.rsplit("_", 1)[-1]
    if kind in ("mine", "generator") and colour in ITEM_COLOURS:
        return STANDARD_RECIPES[f"{kind}_{colour}"]
    return None


class ActionConfig(Config):
    """One action that agents can take; an agent's action ids follow the alphabetical order of the keys.

    `type` is one of the nine kinds of the world's rules, or `gift` (put down only `item`) or `use` (take
    only from objects called `use`). `delta`, `item` and `use` narrow an action, so a world can offer
    several actions of one kind under different keys.
    """

    type: ActionKind | Literal["gift", "use"]
    """What it does, by the rules of the world."""
    key: str = Field(min_length=1)
    """Name of the action: in `action_names`, statistics and replays."""
    delta: int | None = None
    """Rotations only: turn by this many quarter turns clockwise, instead of to a facing named by the argument."""
    item: str | None = None
    """Putting and taking: move only this item."""
    use: str | None = None
    """Putting and taking: works only on objects of this name."""
    required_resources: dict[str, int] | None = None
    """Items that an agent must hold; None: those that the action consumes."""
    consumed_resources: dict[str, int] | None = None
    """Items that a success uses up; None: one laser for an attack, nothing otherwise."""
    defense_resources: dict[str, int] | None = None
    """Attacks only: items that a target loses instead of being hit; None: one armor."""
    number_of_glyphs: int | None = Field(default=None, ge=0, le=255)
    """Glyph changes only: how many glyphs there are; None: 4."""

    @model_validator(mode="after")
    def _check_fields(self) -> Self:
        def refuse(field: str, kinds: str) -> None:
            if getattr(self, field) is not None:
                raise ValueError(
                    f"action '{self.key}' is of type '{self.type}', and {field} is for {kinds}; drop it."
                )

        moves_items = ("put_items", "get_items", "gift", "use")
        if self.type != "rotate":
            refuse("delta", "rotations")
        if self.type not in moves_items:
            refuse("item", "actions that move items")
            refuse("use", "actions that move items")
        if self.type != "attack":
            refuse("defense_resources", "attacks")
        if self.type != "change_glyph":
            refuse("number_of_glyphs", "glyph changes")
        if self.type == "gift" and self.item is None:
            raise ValueError(f"action '{self.key}' is a gift of nothing; name its item.")
        if self.type == "use" and self.use is None:
            raise ValueError(f"action '{self.key}' uses nothing; name the object in its field use.")
        return self

    @property
    def kind(self) -> ActionKind:
        """The rule behind this action."""
        if self.type == "gift":
            return "put_items"
        if self.type == "use":
            return "get_items"
        return self.type


class GameConfig(Config):
    """The mechanics of a game. All rewards are per agent; see `EnvConfig` for the map."""

    max_steps: NonNegativeInt = 1000
    """Length of an episode in steps: reaching it is an end of the task (terminal). 0: no such end."""
    time_punishment: float = -0.0001
    """Added to every agent's reward at every step, after sharing."""
    episode_lifetime: NonNegativeInt = 10000
    """The longest that a world lives before it is cut off (truncation, so its value is bootstrapped),
    when `max_steps` has not ended it before. 0: never."""

    num_agents: PositiveInt = 64
    """Agents in a world."""
    width: PositiveInt = 64
    """Columns of the map, the border included."""
    height: PositiveInt = 64
    """Rows of the map, the border included."""

    observation_width: int = 11
    """Columns of an agent's window; odd, 3 to 15."""
    observation_height: int = 11
    """Rows of an agent's window; odd, 3 to 15."""
    num_observation_tokens: PositiveInt = 200
    """Tokens in an observation; what does not fit, farthest objects first, is not seen."""

    default_item_max: int = Field(default=50, ge=0, le=255)
    """How many of each item an agent can hold, hearts apart."""
    heart_max: int = Field(default=255, ge=0, le=255)
    """How many hearts an agent can hold."""
    item_max: dict[str, int] = Field(default_factory=dict)
    """Limits of single items, over the two above."""
    freeze_duration: int = Field(default=10, ge=0, le=255)
    """Steps that a hit agent cannot act."""

    action_failure_penalty: float = Field(default=0, ge=0)
    """Taken from an agent's reward for each action that fails or is invalid."""
    ore_red_reward: float = 0.01
    """Worth of each red ore held: paid when the holding grows, taken back when it shrinks."""
    battery_red_reward: float = 0.02
    """Worth of each red battery held."""
    heart_reward: float = 1
    """Worth of each heart held."""
    ore_red_max: int = 10
    """The most reward that the red ore held can be worth."""
    battery_red_max: int = 10
    """The most reward that the red batteries held can be worth."""
    heart_max_reward: int = 1000
    """The most reward that the hearts held can be worth."""
    item_rewards: dict[str, float] = Field(default_factory=dict)
    """Worth of each other of the standard items held, for instance `{"laser": 0.5}`; `<item>_max`, a whole number, caps
    what all that are held are worth."""
    stat_rewards: dict[str, float] = Field(default_factory=dict)
    """Reward per unit of an agent's statistic, for instance `{"battery_red.get": 0.1}`; `<name>_max` caps it."""

    inventory_item_names: list[str] = Field(default_factory=lambda: list(STANDARD_ITEMS))
    """The items of the game; the order gives their ids."""

    diversity_bonus_enabled: bool = False
    """On the last step of an episode each agent gets its episode reward times
    (similarity_coef * s + diversity_coef * d): s in (0, 1] says how close its reward is to the mean of its group,
    d in [0, 1) how far from the means of the other groups."""
    similarity_coef: float = 0.5
    """How much being like its own group earns an agent."""
    diversity_coef: float = 0.5
    """How much being unlike the other groups earns an agent."""

    groups: dict[str, dict[str, Any]] = Field(default={"agent": {}})
    """Agent groups by name. A group may have `id` (default: its place, from 0), `group_reward_pct` and `props`,
    which replace the game's agent settings key by key."""
    reward_sharing_groups: dict[str, Any] = Field(default_factory=dict)
    """Group name to the fraction of each reward (0 to 1) that its members pool and divide among themselves."""

    episode_truncates: bool = False
    """Whether `max_steps` truncates the episode instead of ending it."""
    recipe_details_obs: bool = False
    """Whether agents see what converters take and give."""
    track_movement_metrics: bool = False
    """Whether statistics count directions and rotations."""

    @field_validator("observation_width", "observation_height")
    @classmethod
    def _odd_window(cls, value: int) -> int:
        if value not in range(3, 16, 2):
            raise ValueError(
                f"an observation window of {value} cells has no middle or is out of range: use 3, 5, ... 15."
            )
        return value

    @field_validator("inventory_item_names")
    @classmethod
    def _distinct_items(cls, value: list[str]) -> list[str]:
        twice = repeated(value)
        if twice:
            raise ValueError(
                f"inventory_item_names has {', '.join(twice)} more than once; name each item once."
            )
        return value

    @model_validator(mode="after")
    def _used(self) -> Self:
        if not self.diversity_bonus_enabled:
            self.refuse_idle(("similarity_coef", "diversity_coef"), "diversity_bonus_enabled is False")
        if self.max_steps == 0:
            self.refuse_idle(("episode_truncates",), "max_steps is 0")
        for item in ("ore_red", "battery_red", "heart"):
            if item not in self.inventory_item_names and getattr(self, f"{item}_reward"):
                self.refuse_idle((f"{item}_reward",), f"inventory_item_names has no {item}")
        if "heart" not in self.inventory_item_names:
            self.refuse_idle(("heart_max",), "inventory_item_names has no heart")
        return self

    @model_validator(mode="after")
    def _known_names(self) -> Self:
        unknown = sorted(set(self.reward_sharing_groups) - set(self.groups))
        if unknown:
            raise ValueError(
                f"reward_sharing_groups names {', '.join(unknown)}, but the groups are {', '.join(self.groups)}."
            )
        own = sorted(
            {name.removesuffix("_max") for name in self.item_rewards} & {"ore_red", "battery_red", "heart"}
        )
        if own:
            raise ValueError(
                f"item_rewards names {', '.join(own)}, which has a reward of its own in the game; state {own[0]}_reward."
            )
        unknown = sorted(
            {name.removesuffix("_max") for name in self.item_rewards} - set(self.inventory_item_names)
        )
        if unknown:
            raise ValueError(
                f"item_rewards names {', '.join(unknown)}, not in inventory_item_names; add or drop it."
            )
        unknown = sorted({name.removesuffix("_max") for name in self.item_rewards} - set(STANDARD_ITEMS))
        if unknown:
            raise ValueError(
                f"item_rewards names {', '.join(unknown)}, which is no standard item ({', '.join(STANDARD_ITEMS)}); reward "
                f"what is got of it, stat_rewards={{'{unknown[0]}.gained': ...}}."
            )
        unknown = sorted(set(self.item_max) - set(self.inventory_item_names))
        if unknown:
            raise ValueError(
                f"item_max names {', '.join(unknown)}, not in inventory_item_names; add or drop it."
            )
        return self

    @property
    def longest_episode(self) -> int:
        """Steps after which an episode is over at the latest; 0: it may go on for ever."""
        return min((steps for steps in (self.max_steps, self.episode_lifetime) if steps), default=0)

    def group_blocks(self) -> dict[str, dict[str, Any]]:
        """The groups in the engine's schema: ids filled in, shares from `reward_sharing_groups`.

        Raises:
            ValueError: a share is not a number from 0 to 1, or a group has two shares.
        """
        blocks: dict[str, dict[str, Any]] = {}
        for place, (name, given) in enumerate(self.groups.items()):
            block = {"id": place, **given}
            if name in self.reward_sharing_groups:
                share = self.reward_sharing_groups[name]
                if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
                    raise ValueError(
                        f"reward_sharing_groups['{name}'] is {share!r}; give a fraction from 0 to 1."
                    )
                if block.get("group_reward_pct", share) != share:
                    raise ValueError(
                        f"group '{name}' shares {block['group_reward_pct']} in groups and {share} in "
                        "reward_sharing_groups; keep one of them."
                    )
                block["group_reward_pct"] = share
            blocks[name] = block
        return blocks
