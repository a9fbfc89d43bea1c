"""Bytes per world."""

from __future__ import annotations

from dataclasses import replace

from metta.bench.cases import Case, make_env

MANY = 4096


def bytes_per_world(case: Case) -> dict[str, int]:
    """Bytes that a world of a case takes in the engine, by array, after an episode in it."""
    env, _ = make_env(replace(case, num_worlds=4))
    with env:
        return env.engine.bytes_per_world


def memory_lines(sizes: dict[str, dict[str, int]]) -> list[str]:
    """A table of the largest arrays of each case, and what many worlds take.

    Args:
        sizes: `bytes_per_world` by case.
    """
    names = sorted({name for case in sizes.values() for name in case}, key=lambda name: -_most(sizes, name))
    lines = [f"{'bytes per world':20}" + "".join(f"{'case ' + case:>12}" for case in sizes)]
    for name in names:
        lines.append(f"{name:20}" + "".join(f"{arrays.get(name, 0):>12,}" for arrays in sizes.values()))
    totals = [sum(arrays.values()) for arrays in sizes.values()]
    lines.append(f"{'all':20}" + "".join(f"{total:>12,}" for total in totals))
    lines.append(
        f"{f'{MANY:,} worlds, MiB':20}" + "".join(f"{MANY * total / 2**20:>12,.0f}" for total in totals)
    )
    return lines


def _most(sizes: dict[str, dict[str, int]], name: str) -> int:
    return max(arrays.get(name, 0) for arrays in sizes.values())
