"""Random numbers for maps, exactly as numpy draws them: one stream for each episode, as plain numbers in an array.

A stream is what `numpy.random.default_rng(numpy.random.SeedSequence(seed, spawn_key=(world, episode)))` holds. Making
and using one here takes a hundredth of the time, and needs no Python. 128-bit numbers are four limbs of 32 bits, least
significant first, so that the same code runs interpreted and compiled.

Generator: M. O'Neill, "PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms for Random Number
Generation" (2014), the variant XSL-RR 128/64. Bounded integers: D. Lemire, "Fast Random Integer Generation in an
Interval", ACM TOMACS 29 (2019). Seeding: M. O'Neill, "Developing a seed_seq Alternative" (2015).
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from metta.mettagrid.engine.bundle import Array
from metta.mettagrid.engine.compile import kernel, rule

Longs = NDArray[np.int64]
Long1 = Annotated[Longs, Array("int64", 1)]
Long2 = Annotated[Longs, Array("int64", 2)]

# Columns of a stream.
STATE = 0  # four limbs
INCREMENT = 4  # four limbs
HAS_HALF = 8  # whether half of the last 64 bits is still to be used
HALF = 9
STREAM_COLUMNS = 10

POOL = 4
"""Words that seeds are mixed into; shorter seeds are filled up with zeros."""

_MASK = 0xFFFFFFFF
_M0, _M1, _M2, _M3 = 0x9FCCF645, 0x4385DF64, 0x1FC65DA4, 0x2360ED05


def seed_words(seed: int) -> Longs:
    """A number >= 0 as 32-bit words, least significant first, at least as many as are mixed."""
    words = [seed & _MASK]
    while seed := seed >> 32:
        words.append(seed & _MASK)
    return np.array(words + [0] * (POOL - len(words)), np.int64)


@kernel
def open_streams(words: Longs, worlds: Longs, episodes: Longs, streams: Longs) -> None:
    """Begin the streams of some episodes.

    Args:
        words: the seed, from `seed_words`.
        worlds: int64 `[n]`.
        episodes: int64 `[n]`.
        streams: int64 `[n, STREAM_COLUMNS]`, written.
    """
    pool = np.zeros(POOL, np.int64)
    for i in range(worlds.size):
        mix_seed(words, int(worlds[i]), int(episodes[i]), pool)
        start_stream(pool, streams, i)


@rule
def mix_seed(words: Longs, world: int, episode: int, pool: Longs) -> None:
    """Mix seed, world and episode into the pool."""
    factor = 0x43B0D7E5
    for i in range(POOL):
        pool[i], factor = _hashed(int(words[i]), factor)
    for source in range(POOL):
        for i in range(POOL):
            if i != source:
                word, factor = _hashed(int(pool[source]), factor)
                pool[i] = _mixed(int(pool[i]), word)
    for k in range(POOL, words.size):
        factor = _stir(pool, int(words[k]), factor)
    for number in (world, episode):
        factor = _stir(pool, number & _MASK, factor)
        if number >> 32:
            factor = _stir(pool, number >> 32, factor)


@rule
def _stir(pool: Longs, word: int, factor: int) -> int:
    for i in range(POOL):
        hashed, factor = _hashed(word, factor)
        pool[i] = _mixed(int(pool[i]), hashed)
    return factor


@rule
def _hashed(word: int, factor: int) -> tuple[int, int]:
    word ^= factor
    factor = factor * 0x931E8875 & _MASK
    word = word * factor & _MASK
    return word ^ (word >> 16), factor


@rule
def _mixed(one: int, other: int) -> int:
    word = (0xCA01F9DD * one - 0x4973F715 * other) & _MASK
    return word ^ (word >> 16)


@rule
def start_stream(pool: Longs, streams: Longs, i: int) -> None:
    """Seed the generator from the pool."""
    factor = 0x8B51F9DD
    for k in range(8):
        word = int(pool[k % POOL]) ^ factor
        factor = factor * 0x58F38DED & _MASK
        word = word * factor & _MASK
        # Pairs of words make 64 bits, low word first, and pairs of these 128 bits, high half first.
        streams[i, k ^ 2] = word ^ (word >> 16)
    low = 1
    for k in range(INCREMENT, INCREMENT + 4):
        limb = int(streams[i, k])
        streams[i, k] = (limb << 1 | low) & _MASK
        low = limb >> 31
    # From state 0: a step, which leaves the increment, then the seed is added, then a step.
    carry = 0
    for k in range(4):
        total = int(streams[i, STATE + k]) + int(streams[i, INCREMENT + k]) + carry
        streams[i, STATE + k] = total & _MASK
        carry = total >> 32
    step_stream(streams, i)
    streams[i, HAS_HALF] = 0
    streams[i, HALF] = 0


@rule
def step_stream(streams: Longs, i: int) -> None:
    """Go on to the next 128 bits of state."""
    s0, s1, s2, s3 = next_state(
        int(streams[i, 0]),
        int(streams[i, 1]),
        int(streams[i, 2]),
        int(streams[i, 3]),
        int(streams[i, 4]),
        int(streams[i, 5]),
        int(streams[i, 6]),
        int(streams[i, 7]),
    )
    streams[i, 0] = s0
    streams[i, 1] = s1
    streams[i, 2] = s2
    streams[i, 3] = s3


@rule
def next_state(
    s0: int, s1: int, s2: int, s3: int, i0: int, i1: int, i2: int, i3: int
) -> tuple[int, int, int, int]:
    """Multiply a state and add an increment, modulo 2^128."""
    p00, p01, p10 = s0 * _M0, s0 * _M1, s1 * _M0
    p02, p11, p20 = s0 * _M2, s1 * _M1, s2 * _M0
    t0 = (p00 & _MASK) + i0
    t1 = (t0 >> 32) + (p00 >> 32 & _MASK) + (p01 & _MASK) + (p10 & _MASK) + i1
    t2 = (t1 >> 32) + (p01 >> 32 & _MASK) + (p10 >> 32 & _MASK) + i2
    t2 += (p02 & _MASK) + (p11 & _MASK) + (p20 & _MASK)
    t3 = (t2 >> 32) + (p02 >> 32 & _MASK) + (p11 >> 32 & _MASK) + (p20 >> 32 & _MASK) + i3
    t3 += s0 * _M3 + s1 * _M2 + s2 * _M1 + s3 * _M0
    return t0 & _MASK, t1 & _MASK, t2 & _MASK, t3 & _MASK


@rule
def two_words(s0: int, s1: int, s2: int, s3: int) -> tuple[int, int]:
    """The 64 bits that a state gives, low half first."""
    low, high = s2 ^ s0, s3 ^ s1
    turn = s3 >> 26
    if turn >= 32:
        low, high = high, low
        turn -= 32
    return (low >> turn | high << (32 - turn)) & _MASK, (high >> turn | low << (32 - turn)) & _MASK


@rule
def next_word(streams: Longs, i: int) -> int:
    """The next 32 random bits; 64 are drawn at a time."""
    if streams[i, HAS_HALF]:
        streams[i, HAS_HALF] = 0
        return int(streams[i, HALF])
    step_stream(streams, i)
    low, high = two_words(int(streams[i, 0]), int(streams[i, 1]), int(streams[i, 2]), int(streams[i, 3]))
    streams[i, HAS_HALF] = 1
    streams[i, HALF] = high
    return low


@rule
def draw_below(streams: Longs, i: int, bound: int) -> int:
    """A uniform integer in [0, bound), bound from 1 to 2^31; one that has no choice draws nothing."""
    if bound == 1:
        return 0
    product = next_word(streams, i) * bound
    if product & _MASK < bound:
        threshold = (_MASK + 1 - bound) % bound
        while product & _MASK < threshold:
            product = next_word(streams, i) * bound
    return (product >> 32) & _MASK


@rule
def shuffle(streams: Longs, i: int, cells: NDArray[np.int16], size: int) -> None:
    """Shuffle the first cells of an array, last one first, each with one up to itself."""
    s0, s1 = int(streams[i, 0]), int(streams[i, 1])
    s2, s3 = int(streams[i, 2]), int(streams[i, 3])
    i0, i1 = int(streams[i, 4]), int(streams[i, 5])
    i2, i3 = int(streams[i, 6]), int(streams[i, 7])
    has_half, half = int(streams[i, HAS_HALF]), int(streams[i, HALF])
    mask = 1
    while mask < size - 1:
        mask = mask << 1 | 1
    k = size - 1
    while k > 0:
        while mask >> 1 >= k:
            mask >>= 1
        # The stream goes on as in `next_word`, but in variables, which is twice as fast.
        if has_half:
            has_half = 0
            other = half & mask
        else:
            s0, s1, s2, s3 = next_state(s0, s1, s2, s3, i0, i1, i2, i3)
            word, half = two_words(s0, s1, s2, s3)
            has_half = 1
            other = word & mask
        if other <= k:
            kept = cells[k]
            cells[k] = cells[other]
            cells[other] = kept
            k -= 1
    streams[i, 0] = s0
    streams[i, 1] = s1
    streams[i, 2] = s2
    streams[i, 3] = s3
    streams[i, HAS_HALF] = has_half
    streams[i, HALF] = half


def as_generator(stream: Longs) -> np.random.Generator:
    """A numpy generator that goes on from where a stream, int64 `[STREAM_COLUMNS]`, is."""
    bits = np.random.PCG64(0)
    limbs = stream.tolist()
    bits.state = {
        "bit_generator": "PCG64",
        "state": {
            "state": sum(limb << 32 * k for k, limb in enumerate(limbs[STATE:INCREMENT])),
            "inc": sum(limb << 32 * k for k, limb in enumerate(limbs[INCREMENT:HAS_HALF])),
        },
        "has_uint32": limbs[HAS_HALF],
        "uinteger": limbs[HALF],
    }
    return np.random.Generator(bits)


def save_stream(generator: np.random.Generator, stream: Longs) -> None:
    """Write where a generator from `as_generator` has come to into its stream."""
    state = generator.bit_generator.state
    numbers = state["state"]["state"], state["state"]["inc"]
    limbs = [number >> 32 * k & _MASK for number in numbers for k in range(4)]
    stream[:] = [*limbs, state["has_uint32"], state["uinteger"]]
