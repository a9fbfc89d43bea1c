"""Rewards after the actions: statistics, the end of the episode, sharing within groups, and our extensions."""

from __future__ import annotations

import math

import numpy as np

from metta.mettagrid.engine.compile import hot_rule, rule
from metta.mettagrid.engine.exact import exponential, times, times64
from metta.mettagrid.engine.state import (
    CAP,
    DIVERSITY,
    ENDED,
    EPISODE_REWARD,
    GROUP,
    GROUP_ID,
    NUM_AGENTS,
    NUM_STAT_REWARDS,
    RATE,
    REWARD,
    RULE,
    S_DIVERSITY,
    S_LIFETIME,
    S_MAX_STEPS,
    S_NUM_GROUP_IDS,
    S_TRUNCATES,
    SHARE,
    SIMILARITY,
    STAT_REWARD,
    STEP,
    STEP_REWARD,
    TERMINAL,
    TRUNCATION,
    Rules,
    State,
)

ZERO = np.float32(0)


@hot_rule
def reward_statistics(rules: Rules, state: State, w: int) -> None:
    """Pay each agent the change of what its statistics are worth."""
    r = state.worlds[w, RULE]
    for a in range(state.worlds[w, NUM_AGENTS]):
        group = state.agents[w, a, GROUP]
        count = rules.groups[r, group, NUM_STAT_REWARDS]
        if count == 0:
            continue
        worth = ZERO
        for i in range(count):
            value = ZERO
            for j in range(rules.stat_slots.shape[3]):
                slot = rules.stat_slots[r, group, i, j]
                if slot >= 0:
                    value += state.agent_stats[w, a, slot]
            if value != ZERO:
                worth += min(
                    times(value, rules.stat_rates[r, group, i, RATE]), rules.stat_rates[r, group, i, CAP]
                )
        delta = worth - state.values[STAT_REWARD, w, a]
        if delta != ZERO:
            state.values[REWARD, w, a] += delta
            state.values[STAT_REWARD, w, a] = worth


@hot_rule
def sum_episode_rewards(state: State, w: int) -> None:
    """Add the rewards so far to the episode's, before anything is shared."""
    for a in range(state.worlds[w, NUM_AGENTS]):
        state.values[EPISODE_REWARD, w, a] += state.values[REWARD, w, a]


@hot_rule
def end_episode(rules: Rules, state: State, w: int) -> bool:
    """Set the flags of an episode whose time is over; returns whether it ended at this very step."""
    r = state.worlds[w, RULE]
    step = state.worlds[w, STEP]
    max_steps = rules.scalars[r, S_MAX_STEPS]
    lifetime = rules.scalars[r, S_LIFETIME]
    flag = -1
    if max_steps > 0 and step >= max_steps:
        flag = TRUNCATION if rules.scalars[r, S_TRUNCATES] else TERMINAL
    elif lifetime > 0 and step >= lifetime:
        flag = TRUNCATION
    if flag < 0:
        return False
    for a in range(state.worlds[w, NUM_AGENTS]):
        state.flags[flag, w, a] = True
    first = bool(state.worlds[w, ENDED] == 0)
    state.worlds[w, ENDED] = 1
    return first


@hot_rule
def share_rewards(rules: Rules, state: State, w: int) -> None:
    """Spread each agent's shared part evenly over its group, the agent itself included."""
    r = state.worlds[w, RULE]
    sums = state.group_sums
    rewards = state.values
    for g in range(rules.scalars[r, S_NUM_GROUP_IDS]):
        sums[w, g] = ZERO
    any_reward = False
    for a in range(state.worlds[w, NUM_AGENTS]):
        reward = rewards[REWARD, w, a]
        if reward != ZERO:
            any_reward = True
            group = state.agents[w, a, GROUP]
            g = rules.groups[r, group, GROUP_ID]
            part = times(reward, rules.group_reals[r, group, SHARE])
            rewards[REWARD, w, a] = reward - part
            sums[w, g] += part / np.float32(state.group_sizes[w, g])
    if any_reward:
        for a in range(state.worlds[w, NUM_AGENTS]):
            g = rules.groups[r, state.agents[w, a, GROUP], GROUP_ID]
            rewards[REWARD, w, a] += sums[w, g]


@rule
def reward_diversity(rules: Rules, state: State, w: int) -> None:
    """At the end of an episode, reward being like one's own group and unlike the others.

    Worked out in double precision and rounded once per agent.
    """
    r = state.worlds[w, RULE]
    if rules.scalars[r, S_DIVERSITY] == 0:
        return
    totals = state.values
    count = int(state.worlds[w, NUM_AGENTS])
    mean = 0.0
    for a in range(count):
        mean += float(totals[EPISODE_REWARD, w, a])
    mean /= count
    variance = 0.0
    for a in range(count):
        away = float(totals[EPISODE_REWARD, w, a]) - mean
        variance += times64(away, away)
    scale = math.sqrt(variance / count)
    for a in range(count):
        x = float(totals[EPISODE_REWARD, w, a])
        similar = 1.0
        different = 0.0
        if scale > 0.0:
            own = rules.groups[r, state.agents[w, a, GROUP], GROUP_ID]
            distance = 0.0
            others = 0
            for g in range(rules.scalars[r, S_NUM_GROUP_IDS]):
                if state.group_sizes[w, g] == 0:
                    continue
                away = abs(x - group_mean(rules, state, w, g))
                if g == own:
                    similar = exponential(-away / scale)
                else:
                    distance += away
                    others += 1
            if others > 0:
                different = 1.0 - exponential(-(distance / others) / scale)
        weight = times64(float(rules.reals[r, SIMILARITY]), similar)
        weight += times64(float(rules.reals[r, DIVERSITY]), different)
        bonus = times64(x, weight)
        totals[REWARD, w, a] += np.float32(bonus)


@rule
def group_mean(rules: Rules, state: State, w: int, g: int) -> float:
    """The mean episode reward of a group that has agents."""
    total = 0.0
    for a in range(state.worlds[w, NUM_AGENTS]):
        if rules.groups[state.worlds[w, RULE], state.agents[w, a, GROUP], GROUP_ID] == g:
            total += float(state.values[EPISODE_REWARD, w, a])
    return total / float(state.group_sizes[w, g])


@hot_rule
def reward_time(rules: Rules, state: State, w: int) -> None:
    """Add the reward of every step, which is negative where time is punished."""
    reward = rules.reals[state.worlds[w, RULE], STEP_REWARD]
    if reward != ZERO:
        for a in range(state.worlds[w, NUM_AGENTS]):
            state.values[REWARD, w, a] += reward
