"""Every array of a batch of worlds: name, shape, dtype, meaning.

Sizes: B worlds, A agents (the most in any world), C converters (likewise), I items, K tokens, R rule sets.
Worlds with less use the first rows. Integer facts of one kind of thing share one array; the constants
below name its columns.

Cells hold a *code*: 0 empty, then one code per agent, one per converter, and one per kind of wall,
because walls of one kind are never told apart by the rules. No cell ever holds two things.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metta.mettagrid.engine.bundle import Array, opener

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Longs = NDArray[np.int64]

Int2 = Annotated[Ints, Array("int32", 2)]
Int3 = Annotated[Ints, Array("int32", 3)]
Int4 = Annotated[Ints, Array("int32", 4)]
Float2 = Annotated[Floats, Array("float32", 2)]
Float3 = Annotated[Floats, Array("float32", 3)]
Float4 = Annotated[Floats, Array("float32", 4)]
Count3 = Annotated[NDArray[np.int16], Array("int16", 3)]
Code2 = Annotated[NDArray[np.uint16], Array("uint16", 2)]
Word2 = Annotated[NDArray[np.uint32], Array("uint32", 2)]
Byte3 = Annotated[Bytes, Array("uint8", 3)]
Word3 = Annotated[NDArray[np.uint32], Array("uint32", 3)]
Flag3 = Annotated[NDArray[np.bool_], Array("bool", 3)]

# Directions, as observations show them.
UP, DOWN, LEFT, RIGHT = 0, 1, 2, 3

# Kinds of actions; alphabetical.
ATTACK, CHANGE_COLOR, CHANGE_GLYPH, GET_ITEMS, MOVE, NOOP, PUT_ITEMS, ROTATE, SWAP = range(9)
ACTION_KINDS = (
    "attack",
    "change_color",
    "change_glyph",
    "get_items",
    "move",
    "noop",
    "put_items",
    "rotate",
    "swap",
)

# Columns of State.worlds.
RULE = 0  # row in the rule tables
HEIGHT = 1
WIDTH = 2
STEP = 3  # steps done in this episode; also the clock of the converters
NUM_AGENTS = 4
NUM_CONVERTERS = 5
NEXT_DUE = 6  # no converter has anything to do before this step
RNG_AT = 7  # position in the generator's current block
INVALID_USED = 8  # rows used in State.invalid
ENDED = 9  # whether the episode has ended
MARGIN = 10  # empty cells around the map, so that windows never leave the grid
STRIDE = 11  # cells per row of the grid, margins included
WORLD_COLUMNS = 12

# Columns of State.agents.
ROW = 0
COL = 1
FACING = 2
FROZEN = 3  # steps left
COLOR = 4
GLYPH = 5
GROUP = 6  # row in the group tables (not the group's id)
LAST_KIND = 7  # kind of the last successful action, -1 before any
CHANGED = 8  # whether its look is out of date
TOKENS_USED = 9  # tokens in its observation
ORDER = 10  # row k holds the agent that acts k-th in this step
AGENT_OBJECT_ID = 11
AGENT_COLUMNS = 12

# Columns of State.converters.
CONVERTER_ROW = 0
CONVERTER_COL = 1
OBJECT = 2  # row in the object tables
PHASE = 3  # IDLE, CONVERTING or COOLING
COMPLETED = 4  # conversions, where their number is limited
DUE = 5  # step at which the phase ends
CONVERTER_OBJECT_ID = 6
CONVERTER_COLUMNS = 7

IDLE, CONVERTING, COOLING = 0, 1, 2
NEVER = 2**31 - 1

# Rows of State.values and State.flags.
REWARD, EPISODE_REWARD, STAT_REWARD = 0, 1, 2
TERMINAL, TRUNCATION, SUCCESS = 0, 1, 2

# Columns of State.invalid: an open-addressing table of invalid actions by agent, kind and numbers.
INVALID_KEY = 0  # 0 free, else 1 + 2 * agent + (0 for a wrong type, 1 for a wrong argument)
INVALID_TYPE = 1
INVALID_ARG = 2
INVALID_COUNT = 3
INVALID_COLUMNS = 4

# Columns of State.game_stats; then one per kind of object on the map.
TOKENS_WRITTEN, TOKENS_DROPPED, TOKENS_FREE = 0, 1, 2
GAME_OBJECTS = 3

# Columns of State.agent_stats; where the families after these begin is in Rules.scalars.
STAT_INVALID_TYPE = 0
STAT_INVALID_ARG = 1
STAT_FAILURE_PENALTY = 2
STAT_FROZEN = 3
STAT_MOVED = 4  # + direction
STAT_TURNED = 8  # + direction
STAT_SEQUENTIAL = 12
STAT_FRIENDLY_FIRE = 13
STAT_WASTED = 14
STAT_ACTIONS = 15  # + 2 * action (success), + 1 (failed)

# Columns of State.converter_stats; then four per item.
STAT_STARTED = 0
STAT_COMPLETED = 1
STAT_STOPPED = 2
STAT_FULL = 3
STAT_INSUFFICIENT = 4
STAT_COOLING = 5
STAT_COOLED = 6
STAT_TYPE_PRODUCED = 7
STAT_UNKNOWN_CONSUMED = 8
CONVERTER_ITEMS = 9  # + 4 * item: added, removed, consumed, produced
ADDED, REMOVED, CONSUMED, PRODUCED = 0, 1, 2, 3
GAINED, LOST, GOT, PUT = 0, 1, 2, 3

# Columns of Rules.scalars.
S_NUM_AGENTS = 0
S_MAX_STEPS = 1
S_TRUNCATES = 2
S_LIFETIME = 3
S_NUM_ACTIONS = 4
S_TOP_PRIORITY = 5
S_NUM_ITEMS = 6
S_NUM_TOKENS = 7
S_WINDOW = 8  # row in the tables of windows
S_CENTER = 9  # location byte of the observer
S_SHOW_COMPLETION = 10
S_SHOW_ACTION = 11
S_SHOW_REWARD = 12
S_SHOW_RESOURCES = 13
S_RECIPES = 14
S_METRICS = 15
S_NUM_GROUPS = 16  # rows of the group tables
S_NUM_GROUP_IDS = 17
S_DIVERSITY = 18
S_NUM_OBJECTS = 19
S_NUM_TRACKED = 20  # invalid actions that some reward counts
S_STAT_ITEMS = 21  # agent_stats column of item 0: gained, lost, got, put; four per item
S_STAT_BLOCKED = 22  # + group of the target
S_STAT_HIT = 23  # + group of the target
S_STAT_HIT_BY = 24  # + group of the attacker
S_STAT_STOLEN = 25  # + group of the target * items + item
S_STAT_SWAPPED = 26  # 0 for agents, 1 + object for walls
S_STAT_TRACKED = 27  # + row in Rules.tracked
S_WINDOW_ROWS = 28
S_WINDOW_COLS = 29
S_WINDOW_PARTS = 30  # pairs of words that hold a bit for every cell of the window
SCALARS = 31

# Columns of Rules.reals.
STEP_REWARD, SIMILARITY, DIVERSITY = 0, 1, 2

# Columns of Rules.actions.
KIND = 0
MAX_ARG = 1
PRIORITY = 2
NEEDS_ITEMS = 3  # whether it requires or consumes anything
HAS_DEFENSE = 4
TURN = 5  # quarter turns clockwise, or NO_TURN
ONLY_ITEM = 6  # item that it moves, or -1 for all
ONLY_OBJECT = 7  # object that it uses, or -1 for all
ACTION_COLUMNS = 8
NO_TURN = -1

# Third index of Rules.action_items: amounts, -1 for items that are not named.
REQUIRED, CONSUMED_ITEMS, DEFENSE = 0, 1, 2

# Columns of Rules.groups; then the limit of each item.
GROUP_ID = 0
FREEZE = 1
RESOURCE_BYTE = 2
NUM_STAT_REWARDS = 3
LIMITS = 4

# Columns of Rules.group_reals.
PENALTY, SHARE = 0, 1

# Last index of Rules.item_rewards and Rules.stat_rates.
RATE, CAP = 0, 1

# Columns of Rules.objects.
IS_CONVERTER = 0
TYPE_ID = 1
SWAPPABLE = 2
MAX_OUTPUT = 3
MAX_CONVERSIONS = 4
TICKS = 5
COOLDOWN = 6
INITIAL = 7
OBJECT_COLOR = 8
OBJECT_COLUMNS = 9

# Last index of Rules.recipes: amounts, 0 for items that are not named.
INPUT, OUTPUT = 0, 1

# Columns of Rules.window.
DISTANCE = 0  # from the observer's cell in the grid
LOCATIONS = 4  # four words: the location byte in every third of 32 bytes
WINDOW_COLUMNS = 8  # a cache line

# Observation features, by id.
F_TYPE, F_GROUP, F_HP, F_FROZEN, F_FACING, F_COLOR, F_CONVERTING, F_SWAPPABLE = range(8)
F_COMPLETION, F_LAST_ACTION, F_LAST_ARG, F_LAST_REWARD, F_GLYPH, F_RESOURCES, F_ITEMS = range(8, 15)

PADDING = 255
PADDING_WORD = -1 << 24  # what follows a token in a word
LOOK_HEAD = 8  # bytes of a look before its tokens
SHORT_LOOK = 10  # tokens of a look that are copied without asking how many there are
SHORT_LOOK_BYTES = 32  # which takes four words
LONG_LOOK_BYTES = 24  # longer looks are copied in such steps, which is a whole number of words and of tokens
RANK_BITS = 63  # cells of a window per word of Rules.ranks; one bit less than there are keeps words positive
MAX_COUNT = 255  # items that a converter can hold of a kind


class Rules(NamedTuple):
    """The rules of every world in a batch; the first index is the rule set."""

    scalars: Annotated[Ints, Array("int32", 2, SCALARS)]  # [R, SCALARS]
    reals: Annotated[Floats, Array("float32", 2, 3)]  # [R, 3]
    window: Annotated[Longs, Array("int64", 3, WINDOW_COLUMNS)]  # [windows, cells, WINDOW_COLUMNS]
    ranks: Annotated[Longs, Array("int64", 4, 2)]  # [windows, parts * rows, bits, 2] see `window_tables`
    actions: Annotated[Ints, Array("int32", 3, ACTION_COLUMNS)]  # [R, actions, ACTION_COLUMNS]
    action_items: Int4  # [R, actions, 3, I]
    groups: Int3  # [R, groups, LIMITS + I]
    group_reals: Annotated[Floats, Array("float32", 3, 2)]  # [R, groups, 2]
    item_rewards: Annotated[Floats, Array("float32", 4, 2)]  # [R, groups, I, 2]
    stat_slots: Int4  # [R, groups, stat rewards, slots] columns of agent_stats whose sum counts; -1 for none
    stat_rates: Annotated[Floats, Array("float32", 4, 2)]  # [R, groups, stat rewards, 2]
    objects: Annotated[Ints, Array("int32", 3, OBJECT_COLUMNS)]  # [R, objects, OBJECT_COLUMNS]
    recipes: Annotated[Ints, Array("int32", 4, 2)]  # [R, objects, I, 2]
    tracked: Annotated[
        Ints, Array("int32", 3, 3)
    ]  # [R, tracked, 3] wrong type 0 or wrong argument 1, action type, argument


class State(NamedTuple):
    """Everything that a batch of worlds is; the first index is the world."""

    worlds: Annotated[Ints, Array("int32", 2, WORLD_COLUMNS)]  # [B, WORLD_COLUMNS]
    cells: Code2  # [B, grid] codes
    occupied: (
        Word3  # [B, rows, words] word k of a row: whether columns 16 * k - 16 to 16 * k + 15 hold anything
    )
    object_ids: Int2  # [B, grid] number of the thing in each cell, from 1
    agents: Annotated[Ints, Array("int32", 3, AGENT_COLUMNS)]  # [B, A, AGENT_COLUMNS]
    agent_items: Count3  # [B, A, I] -1 no entry, 0 an entry that holds nothing
    converters: Annotated[Ints, Array("int32", 3, CONVERTER_COLUMNS)]  # [B, C, CONVERTER_COLUMNS]
    converter_items: Count3  # [B, C, I] 0 no entry
    looks: Byte3  # [B, codes, LOOK_HEAD + L] by code: number of tokens; then the tokens at location 0, then padding
    group_sizes: Int2  # [B, group ids] agents on the map
    group_sums: Float2  # [B, group ids] shared reward of this step
    random: Word2  # [B, 624] block of the agent-order generator
    agent_stats: Float3  # [B, A, columns]
    converter_stats: Float3  # [B, C, columns]
    game_stats: Float2  # [B, columns]
    invalid: Annotated[Ints, Array("int32", 3, INVALID_COLUMNS)]  # [B, rows, INVALID_COLUMNS]
    values: Float3  # [3, B, A] rewards, episode rewards, what statistics have paid so far
    flags: Flag3  # [3, B, A] terminals, truncations, action success
    observations: Byte3  # [B, A, K * 3]


open_rules = opener(Rules)
open_state = opener(State)


def allocate(shape: dict[str, int]) -> State:
    """Arrays for a batch of these sizes, all zero, observations all padding.

    Args:
        shape: sizes by name: worlds, rows and columns of the grid, agents, converters, items, codes, look, group_ids,
            agent_stats, converter_stats, game_stats, invalid, tokens.
    """
    b, a, c = shape["worlds"], shape["agents"], shape["converters"]

    def zeros(dtype: Any, *size: int) -> Any:
        return np.zeros((b, *size), dtype)

    return State(
        worlds=zeros(np.int32, WORLD_COLUMNS),
        cells=zeros(np.uint16, shape["rows"] * shape["columns"]),
        occupied=zeros(np.uint32, shape["rows"], shape["columns"] // 16 + 2),
        object_ids=zeros(np.int32, shape["rows"] * shape["columns"]),
        agents=zeros(np.int32, a, AGENT_COLUMNS),
        agent_items=zeros(np.int16, a, shape["items"]),
        converters=zeros(np.int32, c, CONVERTER_COLUMNS),
        converter_items=zeros(np.int16, c, shape["items"]),
        looks=zeros(np.uint8, shape["codes"], look_size(shape["look"])),
        group_sizes=zeros(np.int32, shape["group_ids"]),
        group_sums=zeros(np.float32, shape["group_ids"]),
        random=zeros(np.uint32, 624),
        agent_stats=zeros(np.float32, a, shape["agent_stats"]),
        converter_stats=zeros(np.float32, c, shape["converter_stats"]),
        game_stats=zeros(np.float32, shape["game_stats"]),
        invalid=zeros(np.int32, shape["invalid"], INVALID_COLUMNS),
        values=np.zeros((3, b, a), np.float32),
        flags=np.zeros((3, b, a), np.bool_),
        observations=np.full((b, a, shape["tokens"] * 3), PADDING, np.uint8),
    )


def look_size(tokens: int) -> int:
    """Bytes of a look of so many tokens; copies and padding reach beyond them by up to 46 bytes."""
    return LOOK_HEAD + 3 * tokens // 8 * 8 + 48
