"""The order of one step."""

from __future__ import annotations

import numpy as np

from metta.mettagrid.engine.actions import perform, punish
from metta.mettagrid.engine.compile import hot_rule, rule
from metta.mettagrid.engine.converters import run_converters
from metta.mettagrid.engine.observe import observe
from metta.mettagrid.engine.random import draw_order
from metta.mettagrid.engine.rewards import (
    end_episode,
    reward_diversity,
    reward_statistics,
    reward_time,
    share_rewards,
    sum_episode_rewards,
)
from metta.mettagrid.engine.state import (
    INVALID_ARG,
    INVALID_COUNT,
    INVALID_KEY,
    INVALID_TYPE,
    INVALID_USED,
    KIND,
    MAX_ARG,
    NUM_AGENTS,
    ORDER,
    PRIORITY,
    REWARD,
    ROTATE,
    RULE,
    S_NUM_ACTIONS,
    S_NUM_TRACKED,
    S_STAT_TRACKED,
    S_TOP_PRIORITY,
    STAT_INVALID_ARG,
    STAT_INVALID_TYPE,
    STEP,
    SUCCESS,
    Ints,
    Rules,
    State,
)

ONE = np.float32(1)
WRONG_TYPE, WRONG_ARG = 0, 1


@hot_rule
def step_world(rules: Rules, state: State, actions: Ints, w: int) -> None:
    """Do one step of one world."""
    change_world(rules, state, actions, w)
    observe(rules, state, actions, w)
    reward_agents(rules, state, w)


@hot_rule
def change_world(rules: Rules, state: State, actions: Ints, w: int) -> None:
    """The part of a step before anybody looks."""
    begin_step(state, w)
    run_converters(rules, state, w)
    draw_order(state, w)
    run_actions(rules, state, actions, w)


@hot_rule
def reward_agents(rules: Rules, state: State, w: int) -> None:
    """The part of a step after everybody looked."""
    reward_statistics(rules, state, w)
    sum_episode_rewards(state, w)
    ended = end_episode(rules, state, w)
    share_rewards(rules, state, w)
    if ended:
        reward_diversity(rules, state, w)
    reward_time(rules, state, w)


@hot_rule
def begin_step(state: State, w: int) -> None:
    """Advance the clock and forget rewards and successes; the flags of ended episodes stay."""
    state.worlds[w, STEP] += 1
    for a in range(state.worlds[w, NUM_AGENTS]):
        state.values[REWARD, w, a] = np.float32(0)
        state.flags[SUCCESS, w, a] = False


@hot_rule
def run_actions(rules: Rules, state: State, actions: Ints, w: int) -> None:
    """Let all agents act, in the order drawn for this step, actions of higher priority first.

    A wrong action type belongs to no priority and is dealt with in every pass.
    """
    r = state.worlds[w, RULE]
    num_actions = rules.scalars[r, S_NUM_ACTIONS]
    for priority in range(rules.scalars[r, S_TOP_PRIORITY], -1, -1):
        for k in range(state.worlds[w, NUM_AGENTS]):
            a = int(state.agents[w, k, ORDER])
            action = int(actions[w, a, 0])
            arg = int(actions[w, a, 1])
            if action < 0 or action >= num_actions:
                refuse_action(rules, state, w, a, WRONG_TYPE, action, arg)
            elif rules.actions[r, action, PRIORITY] == priority:
                if is_legal(rules, r, action, arg):
                    state.flags[SUCCESS, w, a] = perform(rules, state, w, a, action, arg)
                else:
                    refuse_action(rules, state, w, a, WRONG_ARG, action, arg)


@hot_rule
def is_legal(rules: Rules, r: int, action: int, arg: int) -> bool:
    """Whether an argument may be given to an action; negative ones may, except as a direction."""
    if arg < 0 and rules.actions[r, action, KIND] == ROTATE:
        return False
    return bool(arg <= rules.actions[r, action, MAX_ARG])


@rule
def refuse_action(rules: Rules, state: State, w: int, a: int, wrong: int, action: int, arg: int) -> None:
    """Count an invalid action and punish it."""
    state.agent_stats[w, a, STAT_INVALID_TYPE if wrong == WRONG_TYPE else STAT_INVALID_ARG] += ONE
    punish(rules, state, w, a)
    state.flags[SUCCESS, w, a] = False
    r = state.worlds[w, RULE]
    tracked = rules.tracked
    for i in range(rules.scalars[r, S_NUM_TRACKED]):
        if tracked[r, i, 0] == wrong and tracked[r, i, 1] == action and tracked[r, i, 2] == arg:
            state.agent_stats[w, a, rules.scalars[r, S_STAT_TRACKED] + i] += ONE
            return
    count_invalid(state, w, 1 + 2 * a + wrong, action, arg, 1)


@rule
def count_invalid(state: State, w: int, key: int, action: int, arg: int, count: int) -> None:
    """Add to the count of one particular invalid action; the caller keeps rows free."""
    table = state.invalid
    rows = table.shape[1]
    row = ((key * 0x9E3779B1 + action * 0x85EBCA6B + arg * 0xC2B2AE35) & 0xFFFFFFFF) * rows >> 32
    while table[w, row, INVALID_KEY] != 0:
        if (
            table[w, row, INVALID_KEY] == key
            and table[w, row, INVALID_TYPE] == action
            and table[w, row, INVALID_ARG] == arg
        ):
            table[w, row, INVALID_COUNT] += count
            return
        row = row + 1 if row + 1 < rows else 0
    table[w, row, INVALID_KEY] = key
    table[w, row, INVALID_TYPE] = action
    table[w, row, INVALID_ARG] = arg
    table[w, row, INVALID_COUNT] = count
    state.worlds[w, INVALID_USED] += 1
