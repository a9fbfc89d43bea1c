"""Whether observations are well-formed tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metta.mettagrid.spec import PADDING, EnvSpec

GLOBAL_FEATURES = (
    "episode_completion_pct",
    "last_action",
    "last_action_arg",
    "last_reward",
    "resource_rewards",
)
"""What an agent sees of itself and the episode rather than of a cell; these tokens come first."""

MOST_VALUES = {"agent:frozen": 1, "agent:orientation": 3, "converting": 1, "swappable": 1}
"""The largest value of the features that cannot be anything."""


def find_problem(observations: NDArray[np.uint8], spec: EnvSpec) -> tuple[int, str] | None:
    """The first thing that is wrong with some observations.

    Args:
        observations: uint8 `[R, K, 3]`.
        spec: what they follow.

    Returns:
        The row and what is wrong there, as the rest of a sentence; None: all of them are well formed.
    """
    locations, features, values = (observations[:, :, part].astype(np.int64) for part in range(3))
    used = locations != PADDING
    ids = {feature.name: feature.id for feature in spec.features}
    known = np.zeros(256, np.bool_)
    known[list(ids.values())] = True
    is_global = np.zeros(256, np.bool_)
    is_global[[ids[name] for name in GLOBAL_FEATURES if name in ids]] = True
    overall = used & is_global[features]
    ordinary = used & ~overall
    center = 16 * (spec.obs_height // 2) + spec.obs_width // 2
    rank = _ranks(spec)[locations]
    new_cell = ordinary.copy()
    new_cell[:, 1:] &= ~ordinary[:, :-1] | (locations[:, 1:] != locations[:, :-1])

    def find(wrong: NDArray[np.bool_], text: str) -> tuple[int, str] | None:
        if not wrong.any():
            return None
        row, token = (int(n) for n in np.argwhere(wrong)[0])
        return row, f"token {token} {observations[row, token].tolist()} {text}"

    def follows(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.bool_]:
        result = np.zeros(one.shape, np.bool_)
        result[:, 1:] = other[:, :-1] & one[:, 1:]
        return result

    repeated = np.zeros(used.shape, np.bool_)
    keys = np.where(used, locations * 256 + features, 2**16 + np.arange(used.shape[1]))
    order = np.argsort(keys, axis=1, kind="stable")
    again = np.diff(np.take_along_axis(keys, order, 1), axis=1) == 0
    np.put_along_axis(repeated, order[:, 1:], again, 1)
    farther = np.maximum.accumulate(np.where(ordinary, rank, -1), axis=1)
    checks = [
        find(
            ~used & (observations != PADDING).any(axis=2), f"is padding, all of whose bytes must be {PADDING}"
        ),
        find(follows(used, ~used), "follows padding; tokens come first, padding only behind the last"),
        find(
            used & (rank < 0),
            f"lies outside the window of {spec.obs_height} rows and {spec.obs_width} columns; a location is 16 * row + column",
        ),
        find(
            used & ~known[features], "has a feature id that the spec does not list; add it to spec.features"
        ),
        find(
            overall & (locations != center),
            f"is about the observer itself and has to lie in the middle of the window, at {center}",
        ),
        find(
            follows(overall, ordinary), "is about the episode and has to come before what lies in the cells"
        ),
        find(ordinary & (rank < farther), "is nearer than one before it; cells are listed nearest first"),
        find(repeated, "repeats a feature of its cell; a cell shows each feature once"),
    ]
    if "type_id" in ids:
        checks.append(
            find(
                new_cell & (features != ids["type_id"]),
                "opens a cell, and the first thing said there is type_id",
            )
        )
        types = np.array([bool(name) for name in spec.object_type_names] or [True] * 256)
        odd_type = ordinary & (features == ids["type_id"])
        odd_type &= ~np.pad(types, (0, 256 - len(types)))[values]
        checks.append(find(odd_type, "is of a type that spec.object_type_names does not list"))
    for name, most in MOST_VALUES.items():
        if name in ids:
            wrong = ordinary & (features == ids[name]) & (values > most)
            checks.append(find(wrong, f"gives {name} a value over {most}"))
    return next((check for check in checks if check is not None), None)


def values_of(observations: NDArray[np.uint8], spec: EnvSpec, name: str) -> NDArray[np.int64]:
    """int64 `[R]`: the value of the first token of a feature in each observation, -1 where there is none."""
    found: Any = next((feature.id for feature in spec.features if feature.name == name), None)
    if found is None:
        return np.full(len(observations), -1, np.int64)
    match = (observations[:, :, 1] == found) & (observations[:, :, 0] != PADDING)
    first = match.argmax(axis=1)
    values = observations[np.arange(len(observations)), first, 2].astype(np.int64)
    return np.where(match.any(axis=1), values, -1)


def _ranks(spec: EnvSpec) -> NDArray[np.int64]:
    """Place of each location in the order of cells, nearest first; -1 outside the window."""
    rows, cols = spec.obs_height // 2, spec.obs_width // 2
    cells = sorted(
        (abs(dr) + abs(dc), dr, dc) for dr in range(-rows, rows + 1) for dc in range(-cols, cols + 1)
    )
    ranks = np.full(256, -1, np.int64)
    for place, (_, dr, dc) in enumerate(cells):
        ranks[16 * (rows + dr) + cols + dc] = place
    return ranks
