"""The order in which agents act: a 32-bit Mersenne twister and the shuffle of the GNU C++ library.

Generator: M. Matsumoto and T. Nishimura, "Mersenne Twister", ACM TOMACS 8 (1998), the 32-bit variant with
period 2^19937 - 1. Bounded integers: D. Lemire, "Fast Random Integer Generation in an Interval", ACM TOMACS 29
(2019). Every world owns one generator and uses it for nothing else.
"""

from __future__ import annotations

from metta.mettagrid.engine.compile import hot_rule, rule
from metta.mettagrid.engine.state import NUM_AGENTS, ORDER, RNG_AT, State

BLOCK = 624
MAX_AGENTS = 32767
"""Above this, the products of the shuffle would leave 63 bits."""

_MASK = 0xFFFFFFFF


@rule
def seed_random(state: State, w: int, seed: int) -> None:
    """Start a world's generator from a 32-bit seed."""
    word = seed & _MASK
    state.random[w, 0] = word
    for i in range(1, BLOCK):
        word = (1812433253 * (word ^ (word >> 30)) + i) & _MASK
        state.random[w, i] = word
    state.worlds[w, RNG_AT] = BLOCK


@rule
def refill_random(state: State, w: int) -> None:
    """Replace the used-up block of 624 words by the next one."""
    block = state.random[w]
    for i in range(BLOCK):
        following = i + 1 if i + 1 < BLOCK else 0
        distant = i + 397 if i + 397 < BLOCK else i + 397 - BLOCK
        y = (int(block[i]) & 0x80000000) | (int(block[following]) & 0x7FFFFFFF)
        word = int(block[distant]) ^ (y >> 1)
        if y & 1:
            word ^= 0x9908B0DF
        block[i] = word
    state.worlds[w, RNG_AT] = 0


@hot_rule
def next_random(state: State, w: int) -> int:
    """The next 32 random bits."""
    at = int(state.worlds[w, RNG_AT])
    if at >= BLOCK:
        refill_random(state, w)
        at = 0
    state.worlds[w, RNG_AT] = at + 1
    y = int(state.random[w, at])
    y ^= y >> 11
    y ^= (y << 7) & 0x9D2C5680
    y ^= (y << 15) & 0xEFC60000
    return y ^ (y >> 18)


@hot_rule
def bounded_random(state: State, w: int, bound: int) -> int:
    """A uniform integer in [0, bound), bound < 2^31; redraws the few words that would favour some results."""
    product = next_random(state, w) * bound
    low = product & _MASK
    if low < bound:
        threshold = (_MASK + 1 - bound) % bound
        while low < threshold:
            product = next_random(state, w) * bound
            low = product & _MASK
    return product >> 32


@hot_rule
def draw_order(state: State, w: int) -> None:
    """Shuffle the agents of a world for one step; one draw places two agents."""
    agents = state.agents
    count = int(state.worlds[w, NUM_AGENTS])
    for k in range(count):
        agents[w, k, ORDER] = k
    if count < 2:
        return
    i = 1
    if count % 2 == 0:
        _swap(state, w, 1, bounded_random(state, w, 2))
        i = 2
    while i < count:
        choices = i + 1
        both = bounded_random(state, w, choices * (choices + 1))
        _swap(state, w, i, both // (choices + 1))
        _swap(state, w, i + 1, both % (choices + 1))
        i += 2


@hot_rule
def _swap(state: State, w: int, i: int, j: int) -> None:
    agents = state.agents
    kept = agents[w, i, ORDER]
    agents[w, i, ORDER] = agents[w, j, ORDER]
    agents[w, j, ORDER] = kept
