"""What agents do: one function per kind of action, and what all actions have in common.

A function of an action returns whether it succeeded; it changes nothing if it did not.
"""

from __future__ import annotations

import numpy as np

from metta.mettagrid.engine.compile import hot_rule, rule
from metta.mettagrid.engine.converters import change_stock
from metta.mettagrid.engine.grid import (
    agent_in,
    cell_ahead,
    cell_at,
    clamped_col,
    clamped_row,
    col_of_step,
    converter_in,
    exchange,
    row_of_step,
    wall_in,
)
from metta.mettagrid.engine.inventory import change_items, consume_items, holds_required_items
from metta.mettagrid.engine.looks import show_converter
from metta.mettagrid.engine.state import (
    ATTACK,
    CHANGE_COLOR,
    CHANGE_GLYPH,
    CHANGED,
    COL,
    COLOR,
    DEFENSE,
    DOWN,
    FACING,
    FREEZE,
    FROZEN,
    GET_ITEMS,
    GLYPH,
    GOT,
    GROUP,
    HAS_DEFENSE,
    INPUT,
    KIND,
    LAST_KIND,
    LEFT,
    MOVE,
    NEEDS_ITEMS,
    NO_TURN,
    NOOP,
    OBJECT,
    ONLY_ITEM,
    ONLY_OBJECT,
    OUTPUT,
    PENALTY,
    PUT,
    PUT_ITEMS,
    REWARD,
    RIGHT,
    ROTATE,
    ROW,
    RULE,
    S_METRICS,
    S_NUM_ITEMS,
    S_STAT_BLOCKED,
    S_STAT_HIT,
    S_STAT_HIT_BY,
    S_STAT_ITEMS,
    S_STAT_STOLEN,
    S_STAT_SWAPPED,
    STAT_ACTIONS,
    STAT_FAILURE_PENALTY,
    STAT_FRIENDLY_FIRE,
    STAT_FROZEN,
    STAT_MOVED,
    STAT_SEQUENTIAL,
    STAT_TURNED,
    STAT_WASTED,
    SWAP,
    SWAPPABLE,
    TURN,
    UP,
    Rules,
    State,
)

ONE = np.float32(1)


@hot_rule
def perform(rules: Rules, state: State, w: int, a: int, action: int, arg: int) -> bool:
    """Let an agent do one valid action: frozen agents thaw, others need the items, succeed or fail."""
    agents = state.agents
    stats = state.agent_stats
    if agents[w, a, FROZEN] != 0:
        stats[w, a, STAT_FROZEN] += ONE
        agents[w, a, FROZEN] -= 1
        agents[w, a, CHANGED] = 1
        return False
    r = state.worlds[w, RULE]
    needs_items = rules.actions[r, action, NEEDS_ITEMS] != 0
    success = True
    if needs_items:
        success = holds_required_items(rules, state, w, a, action)
    if success:
        success = act(rules, state, w, a, action, arg)
    if success:
        agents[w, a, LAST_KIND] = rules.actions[r, action, KIND]
        stats[w, a, STAT_ACTIONS + 2 * action] += ONE
        if needs_items:
            consume_items(rules, state, w, a, action)
    else:
        stats[w, a, STAT_ACTIONS + 2 * action + 1] += ONE
        stats[w, a, STAT_FAILURE_PENALTY] += ONE
        punish(rules, state, w, a)
    return success


@hot_rule
def punish(rules: Rules, state: State, w: int, a: int) -> None:
    """Subtract an agent's failure penalty from its reward."""
    state.values[REWARD, w, a] -= rules.group_reals[state.worlds[w, RULE], state.agents[w, a, GROUP], PENALTY]


@hot_rule
def act(rules: Rules, state: State, w: int, a: int, action: int, arg: int) -> bool:
    """Do what the action's kind says."""
    kind = rules.actions[state.worlds[w, RULE], action, KIND]
    if kind == MOVE:
        return move(rules, state, w, a, arg)
    if kind == ROTATE:
        return rotate(rules, state, w, a, action, arg)
    if kind == GET_ITEMS:
        return get_items(rules, state, w, a, action)
    if kind == PUT_ITEMS:
        return put_items(rules, state, w, a, action)
    if kind == ATTACK:
        return attack(rules, state, w, a, action, arg)
    if kind == SWAP:
        return swap(rules, state, w, a)
    if kind == CHANGE_COLOR:
        return change_color(state, w, a, arg)
    if kind == CHANGE_GLYPH:
        return change_glyph(state, w, a, arg)
    return bool(kind == NOOP)


@hot_rule
def move(rules: Rules, state: State, w: int, a: int, arg: int) -> bool:
    """One cell forwards, or backwards with argument 1, if nothing is there; the facing stays."""
    direction = int(state.agents[w, a, FACING])
    if arg == 1:
        direction ^= 1  # up and down, left and right differ in the last bit
    cell = cell_ahead(state, w, a, direction)
    if state.cells[w, cell] != 0:
        return False
    exchange(state, w, a, cell)
    if rules.scalars[state.worlds[w, RULE], S_METRICS]:
        state.agent_stats[w, a, STAT_MOVED + direction] += ONE
    return True


@hot_rule
def rotate(rules: Rules, state: State, w: int, a: int, action: int, arg: int) -> bool:
    """Face the direction that the argument names, or turn by what the action says."""
    r = state.worlds[w, RULE]
    agents = state.agents
    turn = int(rules.actions[r, action, TURN])
    facing = arg
    if turn != NO_TURN:
        facing = turned(int(agents[w, a, FACING]), turn)
    agents[w, a, FACING] = facing
    agents[w, a, CHANGED] = 1
    if rules.scalars[r, S_METRICS]:
        state.agent_stats[w, a, STAT_TURNED + facing] += ONE
        if agents[w, a, LAST_KIND] == ROTATE:
            state.agent_stats[w, a, STAT_SEQUENTIAL] += ONE
    return True


@hot_rule
def turned(facing: int, quarters: int) -> int:
    """The direction after some quarter turns clockwise."""
    for _ in range(quarters):
        if facing == UP:
            facing = RIGHT
        elif facing == RIGHT:
            facing = DOWN
        elif facing == DOWN:
            facing = LEFT
        else:
            facing = UP
    return facing


@rule
def change_color(state: State, w: int, a: int, arg: int) -> bool:
    """Shift the colour by 1 or 63 up or down; a negative argument leaves it."""
    shift = 0
    if arg == 0:
        shift = 1
    elif arg == 1:
        shift = -1
    elif arg == 2:
        shift = 63
    elif arg == 3:
        shift = -63
    state.agents[w, a, COLOR] = (int(state.agents[w, a, COLOR]) + shift) & 255
    state.agents[w, a, CHANGED] = 1
    return True


@rule
def change_glyph(state: State, w: int, a: int, arg: int) -> bool:
    """Set the glyph to the argument, modulo 256."""
    state.agents[w, a, GLYPH] = arg & 255
    state.agents[w, a, CHANGED] = 1
    return True


@rule
def converter_ahead(rules: Rules, state: State, w: int, a: int, action: int) -> int:
    """The converter that an agent faces and the action may use, or -1."""
    c = converter_in(state, w, cell_ahead(state, w, a, int(state.agents[w, a, FACING])))
    if c >= 0:
        only = rules.actions[state.worlds[w, RULE], action, ONLY_OBJECT]
        if only >= 0 and state.converters[w, c, OBJECT] != only:
            return -1
    return c


@rule
def put_items(rules: Rules, state: State, w: int, a: int, action: int) -> bool:
    """Put at most one recipe's worth of input into the converter ahead."""
    c = converter_ahead(rules, state, w, a, action)
    if c < 0:
        return False
    r = state.worlds[w, RULE]
    kind = state.converters[w, c, OBJECT]
    only = rules.actions[r, action, ONLY_ITEM]
    moved = False
    for item in range(rules.scalars[r, S_NUM_ITEMS]):
        amount = min(int(rules.recipes[r, kind, item, INPUT]), int(state.agent_items[w, a, item]))
        if amount <= 0 or (only >= 0 and item != only):
            continue
        gain = change_stock(rules, state, w, c, item, amount)
        if gain > 0:
            change_items(rules, state, w, a, item, -gain)
            state.agent_stats[w, a, rules.scalars[r, S_STAT_ITEMS] + 4 * item + PUT] += np.float32(gain)
            moved = True
    show_converter(rules, state, w, c)
    return moved


@rule
def get_items(rules: Rules, state: State, w: int, a: int, action: int) -> bool:
    """Take as much of the output of the converter ahead as the agent can hold."""
    c = converter_ahead(rules, state, w, a, action)
    if c < 0:
        return False
    r = state.worlds[w, RULE]
    kind = state.converters[w, c, OBJECT]
    only = rules.actions[r, action, ONLY_ITEM]
    moved = False
    for item in range(rules.scalars[r, S_NUM_ITEMS]):
        count = int(state.converter_items[w, c, item])
        if count == 0 or rules.recipes[r, kind, item, OUTPUT] == 0 or (only >= 0 and item != only):
            continue
        gain = change_items(rules, state, w, a, item, count)
        if gain > 0:
            state.agent_stats[w, a, rules.scalars[r, S_STAT_ITEMS] + 4 * item + GOT] += np.float32(gain)
            change_stock(rules, state, w, c, item, -gain)
            moved = True
    show_converter(rules, state, w, c)
    return moved


@rule
def swap(rules: Rules, state: State, w: int, a: int) -> bool:
    """Change places with the swappable wall or the frozen agent ahead."""
    r = state.worlds[w, RULE]
    cell = cell_ahead(state, w, a, int(state.agents[w, a, FACING]))
    column = rules.scalars[r, S_STAT_SWAPPED]
    wall = wall_in(state, w, cell)
    other = agent_in(state, w, cell)
    if wall >= 0 and rules.objects[r, wall, SWAPPABLE]:
        column += 1 + wall
    elif other < 0 or state.agents[w, other, FROZEN] == 0:
        return False
    state.agent_stats[w, a, column] += ONE
    exchange(state, w, a, cell)
    return True


@rule
def attack(rules: Rules, state: State, w: int, a: int, action: int, arg: int) -> bool:
    """Hit the arg-th agent of the nine cells in front: it loses its defence, or its items and its freedom."""
    target = find_target(state, w, a, arg)
    if target < 0:
        return False
    r = state.worlds[w, RULE]
    own = state.agents[w, a, GROUP]
    other = state.agents[w, target, GROUP]
    stats = state.agent_stats
    if rules.actions[r, action, HAS_DEFENSE] and defended(rules, state, w, target, action):
        stats[w, a, rules.scalars[r, S_STAT_BLOCKED] + other] += ONE
        return True
    was_frozen = state.agents[w, target, FROZEN] > 0
    state.agents[w, target, FROZEN] = rules.groups[r, other, FREEZE]
    state.agents[w, target, CHANGED] = 1
    if was_frozen:
        stats[w, a, STAT_WASTED] += ONE
        return True
    rob(rules, state, w, a, target)
    if own == other:
        stats[w, a, STAT_FRIENDLY_FIRE] += ONE
    else:
        stats[w, a, rules.scalars[r, S_STAT_HIT] + other] += ONE
        stats[w, target, rules.scalars[r, S_STAT_HIT_BY] + own] += ONE
    return True


@rule
def find_target(state: State, w: int, a: int, arg: int) -> int:
    """The arg-th agent met in front, the last one if there are fewer or arg is negative, -1 if none.

    Cells are scanned by distance 1, 2, 3; at each distance straight ahead, then one to the left, then one to
    the right. Rows and columns stop at the edge of the map, where a cell can be met more than once.
    """
    agents = state.agents
    facing = int(agents[w, a, FACING])
    rows = row_of_step(facing)
    cols = col_of_step(facing)
    last = -1
    met = 0
    for distance in range(1, 4):
        for side in (0, 1, -1):
            # A quarter turn anticlockwise of (rows, cols) is (-cols, rows).
            row = clamped_row(state, w, int(agents[w, a, ROW]) + distance * rows - side * cols)
            col = clamped_col(state, w, int(agents[w, a, COL]) + distance * cols + side * rows)
            other = agent_in(state, w, cell_at(state, w, row, col))
            if other >= 0:
                last = other
                if met == arg:
                    return other
                met += 1
    return last


@rule
def defended(rules: Rules, state: State, w: int, target: int, action: int) -> bool:
    """Whether the target holds the whole defence; if so it is used up."""
    r = state.worlds[w, RULE]
    items = rules.scalars[r, S_NUM_ITEMS]
    for item in range(items):
        if state.agent_items[w, target, item] < rules.action_items[r, action, DEFENSE, item]:
            return False
    for item in range(items):
        amount = int(rules.action_items[r, action, DEFENSE, item])
        if amount >= 0:
            change_items(rules, state, w, target, item, -amount)
    return True


@rule
def rob(rules: Rules, state: State, w: int, a: int, target: int) -> None:
    """Take all that the target holds, as far as the attacker can hold it."""
    r = state.worlds[w, RULE]
    items = int(rules.scalars[r, S_NUM_ITEMS])
    stolen = int(rules.scalars[r, S_STAT_STOLEN]) + int(state.agents[w, target, GROUP]) * items
    for item in range(items):
        count = int(state.agent_items[w, target, item])
        if count < 0:
            continue
        gain = change_items(rules, state, w, a, item, count)
        change_items(rules, state, w, target, item, -gain)
        if gain > 0:
            state.agent_stats[w, a, stolen + item] += np.float32(gain)
