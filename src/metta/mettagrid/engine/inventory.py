"""What agents hold, and what holding it is worth."""

from __future__ import annotations

import numpy as np

from metta.mettagrid.engine.compile import hot_rule, rule
from metta.mettagrid.engine.exact import times
from metta.mettagrid.engine.state import (
    CAP,
    CHANGED,
    CONSUMED_ITEMS,
    GAINED,
    GROUP,
    LIMITS,
    LOST,
    RATE,
    REQUIRED,
    REWARD,
    RULE,
    S_NUM_ITEMS,
    S_STAT_ITEMS,
    Rules,
    State,
)


@rule
def change_items(rules: Rules, state: State, w: int, a: int, item: int, delta: int) -> int:
    """Change how many of an item an agent holds, within 0 and its limit; returns the actual change.

    The reward follows the holding: rate * count, at most the cap. An entry that reaches 0 disappears.
    """
    r = state.worlds[w, RULE]
    group = state.agents[w, a, GROUP]
    entry = int(state.agent_items[w, a, item])
    old = max(entry, 0)
    limit = int(rules.groups[r, group, LIMITS + item])
    new = min(max(old + delta, 0), limit)
    kept = new if new > 0 else -1
    if kept != entry:
        state.agent_items[w, a, item] = kept
        state.agents[w, a, CHANGED] = 1
    change = new - old
    if change == 0:
        return 0
    column = rules.scalars[r, S_STAT_ITEMS] + 4 * item
    if change > 0:
        state.agent_stats[w, a, column + GAINED] += np.float32(change)
    else:
        state.agent_stats[w, a, column + LOST] += np.float32(-change)
    rate = rules.item_rewards[r, group, item, RATE]
    if rate != np.float32(0):
        cap = rules.item_rewards[r, group, item, CAP]
        before = min(times(rate, np.float32(old)), cap)
        after = min(times(rate, np.float32(new)), cap)
        state.values[REWARD, w, a] += after - before
    return change


@hot_rule
def holds_required_items(rules: Rules, state: State, w: int, a: int, action: int) -> bool:
    """Whether an agent holds what an action requires.

    Looking for an item of which the agent has no entry leaves an entry that holds nothing, and such entries
    are seen. The search ends at the first item that is short.
    """
    r = state.worlds[w, RULE]
    for item in range(rules.scalars[r, S_NUM_ITEMS]):
        amount = int(rules.action_items[r, action, REQUIRED, item])
        if amount < 0:
            continue
        if state.agent_items[w, a, item] < 0:
            state.agent_items[w, a, item] = 0
            state.agents[w, a, CHANGED] = 1
        if state.agent_items[w, a, item] < amount:
            return False
    return True


@rule
def consume_items(rules: Rules, state: State, w: int, a: int, action: int) -> None:
    """Take what a successful action uses up; amounts of 0 count, they clear entries that hold nothing."""
    r = state.worlds[w, RULE]
    for item in range(rules.scalars[r, S_NUM_ITEMS]):
        amount = int(rules.action_items[r, action, CONSUMED_ITEMS, item])
        if amount >= 0:
            change_items(rules, state, w, a, item, -amount)
