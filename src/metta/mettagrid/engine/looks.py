"""What things look like: the observation tokens of every thing, without their location.

A look changes rarely and is read by many observers, so it is kept ready and renewed when its thing changes.
The tokens of a thing are in the order in which observations show them.
"""

from __future__ import annotations

from metta.mettagrid.engine.compile import hot_rule, rule
from metta.mettagrid.engine.state import (
    CHANGED,
    COLOR,
    F_COLOR,
    F_CONVERTING,
    F_FACING,
    F_FROZEN,
    F_GLYPH,
    F_GROUP,
    F_ITEMS,
    F_SWAPPABLE,
    F_TYPE,
    FACING,
    FROZEN,
    GLYPH,
    GROUP,
    GROUP_ID,
    IDLE,
    INPUT,
    LONG_LOOK_BYTES,
    LOOK_HEAD,
    NUM_AGENTS,
    NUM_CONVERTERS,
    OBJECT,
    OBJECT_COLOR,
    OUTPUT,
    PADDING_WORD,
    PHASE,
    RULE,
    S_NUM_ITEMS,
    S_RECIPES,
    SHORT_LOOK,
    SHORT_LOOK_BYTES,
    SWAPPABLE,
    TYPE_ID,
    Rules,
    State,
)
from metta.mettagrid.engine.words import write_word


@hot_rule
def pack_token(feature: int, value: int) -> int:
    """A token as a number with location 0."""
    return int(feature) << 8 | (int(value) & 255) << 16


@hot_rule
def put_token(state: State, w: int, code: int, length: int, feature: int, value: int) -> int:
    """Append a token to a look; returns the new length."""
    write_word(state.looks[w, code], LOOK_HEAD + 3 * length, pack_token(feature, value) | PADDING_WORD)
    return length + 1


@rule
def finish_look(state: State, w: int, code: int, length: int) -> None:
    """Note how many tokens a look has, and clear what is read of it in any case."""
    state.looks[w, code, 0] = length
    last_copy = (3 * length - 1) // LONG_LOOK_BYTES * LONG_LOOK_BYTES if length > SHORT_LOOK else 0
    for at in range(LOOK_HEAD + 3 * length, LOOK_HEAD + last_copy + SHORT_LOOK_BYTES, 8):
        write_word(state.looks[w, code], at, -1)


@rule
def show_agent(rules: Rules, state: State, w: int, a: int) -> None:
    """Renew the look of an agent."""
    r = state.worlds[w, RULE]
    code = a + 1
    agents = state.agents
    group = agents[w, a, GROUP]
    n = put_token(state, w, code, 0, F_TYPE, 0)
    n = put_token(state, w, code, n, F_GROUP, int(rules.groups[r, group, GROUP_ID]))
    n = put_token(state, w, code, n, F_FROZEN, 1 if agents[w, a, FROZEN] > 0 else 0)
    n = put_token(state, w, code, n, F_FACING, int(agents[w, a, FACING]))
    n = put_token(state, w, code, n, F_COLOR, int(agents[w, a, COLOR]))
    if agents[w, a, GLYPH] != 0:
        n = put_token(state, w, code, n, F_GLYPH, int(agents[w, a, GLYPH]))
    for item in range(rules.scalars[r, S_NUM_ITEMS]):
        count = int(state.agent_items[w, a, item])
        if count >= 0:
            n = put_token(state, w, code, n, F_ITEMS + item, count)
    finish_look(state, w, code, n)
    agents[w, a, CHANGED] = 0


@rule
def show_converter(rules: Rules, state: State, w: int, c: int) -> None:
    """Renew the look of a converter."""
    r = state.worlds[w, RULE]
    code = state.worlds[w, NUM_AGENTS] + c + 1
    kind = state.converters[w, c, OBJECT]
    items = rules.scalars[r, S_NUM_ITEMS]
    n = put_token(state, w, code, 0, F_TYPE, int(rules.objects[r, kind, TYPE_ID]))
    n = put_token(state, w, code, n, F_COLOR, int(rules.objects[r, kind, OBJECT_COLOR]))
    n = put_token(state, w, code, n, F_CONVERTING, 1 if state.converters[w, c, PHASE] != IDLE else 0)
    for item in range(items):
        count = int(state.converter_items[w, c, item])
        if count > 0:
            n = put_token(state, w, code, n, F_ITEMS + item, count)
    if rules.scalars[r, S_RECIPES]:
        for side in (INPUT, OUTPUT):
            for item in range(items):
                amount = int(rules.recipes[r, kind, item, side])
                if amount > 0:
                    n = put_token(state, w, code, n, F_ITEMS + (1 + side) * items + item, amount)
    finish_look(state, w, code, n)


@rule
def show_wall(rules: Rules, state: State, w: int, kind: int) -> None:
    """Set the look of a kind of wall."""
    r = state.worlds[w, RULE]
    code = state.worlds[w, NUM_AGENTS] + state.worlds[w, NUM_CONVERTERS] + 1 + kind
    n = put_token(state, w, code, 0, F_TYPE, int(rules.objects[r, kind, TYPE_ID]))
    if rules.objects[r, kind, SWAPPABLE]:
        n = put_token(state, w, code, n, F_SWAPPABLE, 1)
    finish_look(state, w, code, n)
