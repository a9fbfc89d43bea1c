"""Everything that the threads of an engine work on, and what there is to do."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metta.mettagrid.engine.atomics import add_to_word, give_way, pause, read_word, replace_word, write_word
from metta.mettagrid.engine.bundle import Array, opener
from metta.mettagrid.engine.compile import ENGINE_SECONDS, kernel, rule
from metta.mettagrid.engine.maps import Cells2, Cells3, draw_map, open_plans
from metta.mettagrid.engine.reset import reset_world
from metta.mettagrid.engine.state import (
    HEIGHT,
    INVALID_USED,
    MARGIN,
    REWARD,
    RULE,
    STRIDE,
    TERMINAL,
    TRUNCATION,
    WIDTH,
    Int3,
    Ints,
    Rules,
    State,
    open_rules,
    open_state,
)
from metta.mettagrid.engine.step import step_world
from metta.mettagrid.engine.streams import Long1, Long2, Longs, next_word

Float2 = Annotated[NDArray[np.float32], Array("float32", 2)]
Flag2 = Annotated[NDArray[np.bool_], Array("bool", 2)]

STEP, PLAY, BEGIN = range(3)
"""What can be asked for: step worlds; step worlds and keep account of their episodes; begin episodes."""

# Columns of Board.begins.
WORLD, RULE_SET, PLAN, SEED, MAP_HEIGHT, MAP_WIDTH, MAP_MARGIN, MAP_STRIDE = range(8)
BEGIN_COLUMNS = 8
GIVEN = -1
"""The plan of a map that is there already; its seed is, too."""

GOES_ON, ENDED, CUT = 0, 1, 2
"""Entries of Episodes.ended."""

GROW = 1 << 32
"""Added to a result for every world whose table of invalid actions is getting full."""

# Words that threads share, each in a cache line of its own, and then a ticket for each thread: its parts of the job
# that are still to be done, as number of the job, first part and one past the last part in 32, 16 and 16 bits.
DONE, RESULT, RECALL, JOB, FIRST, LAST, SIZE, NUMBER, THREADS, ALONE, CAUTION = (
    0,
    8,
    16,
    24,
    25,
    26,
    27,
    28,
    29,
    30,
    31,
)
TICKETS = 32
LINE = 8

PARTS = 8
"""Parts into which a job is cut for every thread, at least: the first to be done takes from what is left of the others."""

PART_AGENTS = 256
"""The most agents of a part, where a world has no more. A part takes some tens of microseconds then, and who waits for the last
part of another thread never waits for long."""

_MOST_PARTS = 0xFFFF

YIELD_AFTER = 4096
"""Pauses after which a thread that waits for the others lets the system run something else."""

LEAST_ALONE, MOST_ALONE = 32, 8192
"""Jobs that the caller then does by itself if it waited for a good part of what the whole job takes, since somebody else seems to
need the cores: twice as many each time, and one fewer for every job that goes well."""

ALONE_AGENTS = 1 << 20
"""The most agents that are stepped like that before it is tried again: some tenths of a second."""


class Episodes(NamedTuple):
    """What becomes of the episodes that the worlds play; all arrays stay where they are in memory."""

    actions: Int3  # [B, A, 2] (action id, argument) of each agent
    rewards: Float2  # [B, A] of the last step
    terminals: Flag2  # [B, A] of the last step
    truncations: Flag2  # [B, A] of the last step, cuts included
    returns: Float2  # [B, A] sum of the rewards
    lengths: Long1  # [B] steps so far
    cut_at: Long1  # [B] the step at which the episode is cut off, 0: not at all
    starts: Flag2  # [B, A] whether the observation is the first of an episode
    ended: Long1  # [B] GOES_ON, ENDED or CUT, in the last step; wide, so that threads write to lines of their own


class Board(NamedTuple):
    """What a job is done on."""

    rules: Annotated[Any, Array("int64", 1)]  # from `describe`
    state: Annotated[Any, Array("int64", 1)]
    episodes: Annotated[Any, Array("int64", 1)]
    plans: Annotated[Any, Array("int64", 1)]
    maps: Cells3  # [B, height, width] codes of the cells: 0 or less empty, then groups, then objects
    begins: Long2  # [B, BEGIN_COLUMNS] episodes to begin
    streams: Long2  # [B, STREAM_COLUMNS] what their maps are drawn from
    fields: Cells2  # [threads, cells] scratch


open_board = opener(Board)
open_episodes = opener(Episodes)


def allocate_episodes(worlds: int, agents: int) -> Episodes:
    """Arrays for so many worlds and agents, all zero."""
    return Episodes(
        actions=np.zeros((worlds, agents, 2), np.int32),
        rewards=np.zeros((worlds, agents), np.float32),
        terminals=np.zeros((worlds, agents), np.bool_),
        truncations=np.zeros((worlds, agents), np.bool_),
        returns=np.zeros((worlds, agents), np.float32),
        lengths=np.zeros(worlds, np.int64),
        cut_at=np.zeros(worlds, np.int64),
        starts=np.zeros((worlds, agents), np.bool_),
        ended=np.zeros(worlds, np.int64),
    )


@partial(kernel, seconds=ENGINE_SECONDS)
def do_job(
    board_table: Any,
    shared: Longs,
    words: Ints,
    thread: int,
    job: int,
    first: int,
    last: int,
    patience: int,
) -> int:
    """Do a job together with the other threads; or, with a thread number above 0, help until there is nothing to do.

    Args:
        board_table: from `describe`.
        shared: int64 `[TICKETS + LINE * threads]`, what the threads tell each other.
        words: the actions of the stepped agents, int32 `[R, 2]`, or int64 seen as int32 `[R, 4]`.
        thread: 0 for whoever has the job done.
        job: STEP, PLAY or BEGIN.
        first: first world, or first row of `Board.begins`.
        last: one past the last.
        patience: how many pauses a helper waits for the next job.

    Returns:
        for a job, how many episodes ended, and GROW for every world that asks for it.
    """
    board = open_board(board_table)
    if thread > 0:
        help_out(board, shared, thread, patience)
        return 0
    if job != BEGIN:
        episodes = open_episodes(board.episodes)
        take_actions(episodes.actions, words, first, last)
    if shared[ALONE] > 0:
        shared[ALONE] -= 1
        return do_part(board, 0, job, first, last)
    if shared[THREADS] == 1:
        return do_part(board, 0, job, first, last)
    return share_job(board, shared, job, first, last)


@rule
def take_actions(actions: Ints, words: Ints, first: int, last: int) -> None:
    """Write down the actions of some worlds.

    int32 extremes are merely invalid actions; numbers beyond them must not wrap round into valid ones.
    """
    row = 0
    wide = words.shape[1] == 4
    for w in range(first, last):
        for a in range(actions.shape[1]):
            for k in range(2):
                if wide:
                    low, high = words[row, 2 * k], words[row, 2 * k + 1]
                    if high != low >> 31:
                        low = -(2**31) if high < 0 else 2**31 - 1
                    actions[w, a, k] = low
                else:
                    actions[w, a, k] = words[row, k]
            row += 1


@rule
def share_job(board: Board, shared: Longs, job: int, first: int, last: int) -> int:
    """Hand the parts of a job out, do one's own, then what others have left over, and wait for the rest."""
    threads = int(shared[THREADS])
    agents = 1 if job == BEGIN else open_episodes(board.episodes).actions.shape[1]
    size = max(1, min((last - first) // (threads * PARTS), PART_AGENTS // agents))
    size = max(size, (last - first + _MOST_PARTS - 1) // _MOST_PARTS)
    parts = (last - first + size - 1) // size
    shared[JOB] = job
    shared[FIRST] = first
    shared[LAST] = last
    shared[SIZE] = size
    number = (int(shared[NUMBER]) + 1) & 0x3FFFFFFF
    shared[NUMBER] = number
    write_word(shared, DONE, 0)
    write_word(shared, RESULT, 0)
    for i in range(threads - 1, -1, -1):
        ticket = number << 32 | (parts * i // threads) << 16 | parts * (i + 1) // threads
        write_word(shared, TICKETS + LINE * i, ticket)
    do_parts(board, shared, 0)
    waited = 0
    while read_word(shared, DONE) < parts:
        pause()
        waited += 1
        if waited > YIELD_AFTER:
            give_way()
    if waited > YIELD_AFTER + (last - first) * agents:  # stepping an agent takes a few pauses
        shared[CAUTION] = min(2 * max(int(shared[CAUTION]), LEAST_ALONE), MOST_ALONE)
        shared[ALONE] = min(int(shared[CAUTION]), ALONE_AGENTS // ((last - first) * agents))
    elif shared[CAUTION] > 0:
        shared[CAUTION] -= 1
    return read_word(shared, RESULT)


@rule
def help_out(board: Board, shared: Longs, thread: int, patience: int) -> None:
    """Do parts of jobs until none has come for a while, or the threads are called off."""
    place = TICKETS + LINE * thread
    last = -1
    waited = 0
    while waited < patience and read_word(shared, RECALL) == 0:
        ticket = read_word(shared, place)
        if ticket != last:
            do_parts(board, shared, thread)
            last = read_word(shared, place)
            waited = 0
        pause()
        waited += 1


@rule
def do_parts(board: Board, shared: Longs, thread: int) -> None:
    """Do one's own parts of the job, from the first on, then those of others, from the last on."""
    threads = int(shared[THREADS])
    done = 0
    result = 0
    for k in range(threads):
        owner = (thread + k) % threads
        part = take_part(shared, owner, k == 0)
        while part >= 0:
            # The job does not change before all its parts are done.
            first = int(shared[FIRST]) + part * int(shared[SIZE])
            last = min(first + int(shared[SIZE]), int(shared[LAST]))
            result += do_part(board, thread, int(shared[JOB]), first, last)
            done += 1
            part = take_part(shared, owner, k == 0)
    if done > 0:
        # Once, not for every part: a word that another core wrote last takes a tenth of a microsecond to come.
        add_to_word(shared, RESULT, result)
        add_to_word(shared, DONE, done)


@rule
def take_part(shared: Longs, owner: int, from_front: bool) -> int:
    """Take one of a thread's parts, -1 if none is left."""
    place = TICKETS + LINE * owner
    while True:
        ticket = read_word(shared, place)
        front, back = ticket >> 16 & 0xFFFF, ticket & 0xFFFF
        if front >= back:
            return -1
        if from_front:
            if replace_word(shared, place, ticket, ticket + 0x10000):
                return front
        elif replace_word(shared, place, ticket, ticket - 1):
            return back - 1


@rule
def do_part(board: Board, thread: int, job: int, first: int, last: int) -> int:
    """Do a job for some worlds."""
    rules = open_rules(board.rules)
    state = open_state(board.state)
    episodes = open_episodes(board.episodes)
    result = 0
    for i in range(first, last):
        if job == BEGIN:
            begin_episode(board, rules, state, episodes, i, thread)
            continue
        step_world(rules, state, episodes.actions, i)
        # A step adds at most one row per agent; the table is to stay sparse.
        used = int(state.worlds[i, INVALID_USED]) + state.values.shape[2]
        if 4 * used > 3 * state.invalid.shape[1]:
            result += GROW
        if job == PLAY and keep_account(episodes, state, i):
            result += 1
    return result


@rule
def keep_account(episodes: Episodes, state: State, w: int) -> bool:
    """Note what a step gave, and whether the episode goes on; returns whether it does not."""
    ended = False
    for a in range(episodes.rewards.shape[1]):
        reward = state.values[REWARD, w, a]
        terminal = state.flags[TERMINAL, w, a]
        truncation = state.flags[TRUNCATION, w, a]
        episodes.rewards[w, a] = reward
        episodes.returns[w, a] += reward
        episodes.terminals[w, a] = terminal
        episodes.truncations[w, a] = truncation
        episodes.starts[w, a] = False
        ended = ended or terminal or truncation
    episodes.lengths[w] += 1
    how = ENDED if ended else GOES_ON
    if not ended and episodes.lengths[w] == episodes.cut_at[w]:
        how = CUT
        for a in range(episodes.rewards.shape[1]):
            episodes.truncations[w, a] = True
    episodes.ended[w] = how
    return how != GOES_ON


@rule
def begin_episode(board: Board, rules: Rules, state: State, episodes: Episodes, i: int, thread: int) -> None:
    """Begin the episode in a row of `Board.begins`."""
    begins = board.begins
    w = int(begins[i, WORLD])
    if begins[i, PLAN] != GIVEN:
        plan = int(begins[i, PLAN])
        draw_map(open_plans(board.plans), plan, board.streams, i, board.maps, w, board.fields, thread)
        begins[i, SEED] = next_word(board.streams, i)
    for a in range(episodes.actions.shape[1]):
        episodes.actions[w, a, 0] = 0
        episodes.actions[w, a, 1] = 0
        episodes.returns[w, a] = 0
        episodes.starts[w, a] = True
    episodes.lengths[w] = 0
    state.worlds[w, RULE] = begins[i, RULE_SET]
    state.worlds[w, HEIGHT] = begins[i, MAP_HEIGHT]
    state.worlds[w, WIDTH] = begins[i, MAP_WIDTH]
    state.worlds[w, MARGIN] = begins[i, MAP_MARGIN]
    state.worlds[w, STRIDE] = begins[i, MAP_STRIDE]
    reset_world(rules, state, episodes.actions, board.maps, w, int(begins[i, SEED]))
