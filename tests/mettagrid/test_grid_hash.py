"""The fingerprint of a map, on known answers and at every length where its rules change."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from metta.mettagrid.grid_hash import grid_hash, wyhash


def test_known_answers(traces: Path) -> None:
    checked = 0
    for path in traces.glob("*.npz"):
        with np.load(path) as data:
            assert grid_hash(data["map"].tolist()) == int(data["initial_grid_hash"])
            checked += 1
    assert checked > 0


def test_maps_of_one_cell() -> None:
    # 0,0:<name>; is 5 characters and the name: below, at and above the 16 bytes where the rule changes.
    assert len({grid_hash([["a" * n]]) for n in range(1, 70)}) == 69


def test_lengths_around_every_rule_are_told_apart() -> None:
    hashes = [wyhash(bytes(range(n))) for n in range(200)]
    assert len(set(hashes)) == 200
    assert all(0 <= value < 2**64 for value in hashes)


def test_every_byte_counts() -> None:
    for length in (1, 3, 4, 8, 16, 17, 48, 49, 64, 100):
        message = bytearray(length)
        plain = wyhash(bytes(message))
        for i in range(length):
            message[i] = 1
            assert wyhash(bytes(message)) != plain, f"byte {i} of {length}"
            message[i] = 0
