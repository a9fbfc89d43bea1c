"""Conversion of items and its clock."""

from __future__ import annotations

import numpy as np

from metta.mettagrid.engine.compile import rule
from metta.mettagrid.engine.looks import show_converter
from metta.mettagrid.engine.state import (
    ADDED,
    COMPLETED,
    CONSUMED,
    CONVERTER_ITEMS,
    CONVERTING,
    COOLDOWN,
    COOLING,
    DUE,
    IDLE,
    INPUT,
    MAX_CONVERSIONS,
    MAX_COUNT,
    MAX_OUTPUT,
    NEVER,
    NEXT_DUE,
    NUM_CONVERTERS,
    OBJECT,
    OUTPUT,
    PHASE,
    PRODUCED,
    REMOVED,
    RULE,
    S_NUM_ITEMS,
    STAT_COMPLETED,
    STAT_COOLED,
    STAT_COOLING,
    STAT_FULL,
    STAT_INSUFFICIENT,
    STAT_STARTED,
    STAT_STOPPED,
    STAT_TYPE_PRODUCED,
    STAT_UNKNOWN_CONSUMED,
    STEP,
    TICKS,
    Rules,
    State,
)

ONE = np.float32(1)


@rule
def change_stock(rules: Rules, state: State, w: int, c: int, item: int, delta: int) -> int:
    """Change how many of an item a converter holds, as agents do; returns the actual change."""
    old = int(state.converter_items[w, c, item])
    new = min(max(old + delta, 0), MAX_COUNT)
    state.converter_items[w, c, item] = new
    change = new - old
    column = CONVERTER_ITEMS + 4 * item
    if change > 0:
        state.converter_stats[w, c, column + ADDED] += np.float32(change)
    elif change < 0:
        state.converter_stats[w, c, column + REMOVED] += np.float32(-change)
    start_conversion(rules, state, w, c)
    return change


@rule
def start_conversion(rules: Rules, state: State, w: int, c: int) -> None:
    """Start converting if the converter rests, may go on, has room for output, and holds its input."""
    if state.converters[w, c, PHASE] != IDLE:
        return
    r = state.worlds[w, RULE]
    kind = state.converters[w, c, OBJECT]
    stats = state.converter_stats
    most = rules.objects[r, kind, MAX_CONVERSIONS]
    if most >= 0 and state.converters[w, c, COMPLETED] >= most:
        stats[w, c, STAT_STOPPED] += ONE
        return
    items = rules.scalars[r, S_NUM_ITEMS]
    room = int(rules.objects[r, kind, MAX_OUTPUT])
    if room >= 0:
        held = 0
        for item in range(items):
            if rules.recipes[r, kind, item, OUTPUT] > 0:
                held += int(state.converter_items[w, c, item])
        if held >= room:
            stats[w, c, STAT_FULL] += ONE
            return
    for item in range(items):
        if state.converter_items[w, c, item] < rules.recipes[r, kind, item, INPUT]:
            stats[w, c, STAT_INSUFFICIENT] += ONE
            return
    step = int(state.worlds[w, STEP])
    for item in range(items):
        amount = rules.recipes[r, kind, item, INPUT]
        if amount > 0:
            state.converter_items[w, c, item] -= amount
            # While the world is built, a converter has no item names yet and counts under a stand-in.
            column = CONVERTER_ITEMS + 4 * item + CONSUMED if step > 0 else STAT_UNKNOWN_CONSUMED
            stats[w, c, column] += np.float32(amount)
    stats[w, c, STAT_STARTED] += ONE
    enter_phase(state, w, c, CONVERTING, step + int(rules.objects[r, kind, TICKS]))


@rule
def enter_phase(state: State, w: int, c: int, phase: int, due: int) -> None:
    """Put a converter into a phase that ends at step `due`."""
    state.converters[w, c, PHASE] = phase
    state.converters[w, c, DUE] = due
    if due < state.worlds[w, NEXT_DUE]:
        state.worlds[w, NEXT_DUE] = due


@rule
def finish_conversion(rules: Rules, state: State, w: int, c: int) -> None:
    """Yield the output, then rest or start again."""
    r = state.worlds[w, RULE]
    kind = state.converters[w, c, OBJECT]
    stats = state.converter_stats
    state.converters[w, c, PHASE] = IDLE
    stats[w, c, STAT_COMPLETED] += ONE
    if rules.objects[r, kind, MAX_CONVERSIONS] >= 0:
        state.converters[w, c, COMPLETED] += 1
    for item in range(rules.scalars[r, S_NUM_ITEMS]):
        amount = int(rules.recipes[r, kind, item, OUTPUT])
        if amount > 0:
            held = int(state.converter_items[w, c, item])
            state.converter_items[w, c, item] = min(held + amount, MAX_COUNT)
            stats[w, c, CONVERTER_ITEMS + 4 * item + PRODUCED] += np.float32(amount)
    cooldown = int(rules.objects[r, kind, COOLDOWN])
    if cooldown > 0:
        stats[w, c, STAT_COOLING] += ONE
        enter_phase(state, w, c, COOLING, int(state.worlds[w, STEP]) + cooldown)
    else:
        start_conversion(rules, state, w, c)
    stats[w, c, STAT_TYPE_PRODUCED] += ONE


@rule
def run_converters(rules: Rules, state: State, w: int) -> None:
    """Process everything that is due at this step, including what becomes due by doing so."""
    step = state.worlds[w, STEP]
    if step < state.worlds[w, NEXT_DUE]:
        return
    state.worlds[w, NEXT_DUE] = NEVER
    for c in range(state.worlds[w, NUM_CONVERTERS]):
        if state.converters[w, c, PHASE] == IDLE:
            continue
        if state.converters[w, c, DUE] <= step:
            while state.converters[w, c, PHASE] != IDLE and state.converters[w, c, DUE] <= step:
                if state.converters[w, c, PHASE] == CONVERTING:
                    finish_conversion(rules, state, w, c)
                else:
                    state.converters[w, c, PHASE] = IDLE
                    state.converter_stats[w, c, STAT_COOLED] += ONE
                    start_conversion(rules, state, w, c)
            show_converter(rules, state, w, c)
        if state.converters[w, c, PHASE] != IDLE and state.converters[w, c, DUE] < state.worlds[w, NEXT_DUE]:
            state.worlds[w, NEXT_DUE] = state.converters[w, c, DUE]
