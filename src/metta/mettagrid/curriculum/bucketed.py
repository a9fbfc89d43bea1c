"""A curriculum over every combination of some values of an environment."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, PositiveInt, ValidationError, model_validator

from metta.common.config import Config
from metta.mettagrid.config import EnvConfig
from metta.mettagrid.curriculum.base import Task
from metta.mettagrid.curriculum.learning_progress import LearningProgressConfig, LearningProgressCurriculum
from metta.mettagrid.dotted import with_values
from metta.mettagrid.world_config import explain

DRAWN = ("objects", "scattered")
"""The mappings of a map whose counts may be ranges."""


MOST_TASKS = 4096
"""Combinations that a curriculum may have; each is an environment of its own."""


class RangeBucket(Config):
    """A range of counts, cut into bins; each bin is a value, and every episode draws a count from its bin.

    Bin i of n over [lo, hi] holds the integers that are drawn by rounding down numbers from
    lo + (hi - lo) i / n to lo + (hi - lo) (i + 1) / n, the upper end excluded: [2, 18] in 4 bins is 2-5, 6-9, 10-13 and 14-17.
    Where bins do not end at integers they overlap by one.
    """

    range: tuple[int, int]
    """Lowest count, and one more than the highest."""
    bins: PositiveInt = 1

    @model_validator(mode="after")
    def _check(self) -> RangeBucket:
        low, high = self.range
        if low < 0 or high - low < self.bins:
            raise ValueError(
                f"the range from {low} up to {high}, which is not drawn itself, has no {self.bins} bins of counts; give a wider "
                "range from 0 on or fewer bins"
            )
        return self

    def counts(self) -> list[tuple[int, int]]:
        """Lowest and highest count of each bin."""
        low, high = self.range
        edges = [
            low * self.bins + (high - low) * i for i in range(self.bins + 1)
        ]  # times bins, to stay exact
        return [(edges[i] // self.bins, math.ceil(edges[i + 1] / self.bins) - 1) for i in range(self.bins)]


class NamedBucket(Config):
    """Values with names, for those that are too long to be part of a task's name."""

    values: dict[str, Any] = Field(min_length=1)


Bucket = Sequence[Any] | Mapping[str, Any] | RangeBucket | NamedBucket
"""A list of values, {"range": [low, high], "bins": n}, or {"values": {name: value}}."""


class BucketedCurriculum(LearningProgressCurriculum):
    """Every combination of the buckets' values is a task, drawn by learning progress.

    Args:
        base: the environment that the values are set in.
        buckets: dotted path (see `with_values`) to its bucket. Tasks come in the order of the buckets, the last one
            varying fastest; their names tell the values. Ranges are for counts of objects on the map.
        config: how learning progress is measured.

    Raises:
        ValueError: no buckets, an empty one, a path that leads nowhere, or a value that does not fit.
    """

    def __init__(
        self, base: EnvConfig, buckets: Mapping[str, Bucket], config: LearningProgressConfig | None = None
    ) -> None:
        super().__init__(bucketed_tasks(base, buckets), config)


def bucketed_tasks(base: EnvConfig, buckets: Mapping[str, Bucket]) -> list[Task]:
    """The tasks of `BucketedCurriculum`."""
    if not buckets:
        raise ValueError("a bucketed curriculum has no buckets; name at least one path and its values.")
    labels = _labels(list(buckets))
    for path, bucket in buckets.items():
        _check_bins(path, bucket)
    choices = [_choices(path, bucket) for path, bucket in buckets.items()]
    if (number := math.prod(map(len, choices))) > MOST_TASKS:
        raise ValueError(
            f"a bucketed curriculum of {number} combinations is too large; {MOST_TASKS} are possible, so list fewer values."
        )
    tasks = []
    for combination in itertools.product(*choices):
        values = {path: value for path, (_, value) in zip(buckets, combination, strict=True)}
        name = ";".join(f"{label}={text}" for label, (text, _) in zip(labels, combination, strict=True))
        try:
            tasks.append(Task(name, with_values(base, values)))
        except ValueError as error:
            raise ValueError(f"task '{name}' of a bucketed curriculum: {error}") from None
    return tasks


def _check_bins(path: str, bucket: Bucket) -> None:
    """Refuse more bins than there can be tasks before they are counted out."""
    bins = (
        bucket.bins
        if isinstance(bucket, RangeBucket)
        else bucket.get("bins")
        if isinstance(bucket, Mapping)
        else 0
    )
    if isinstance(bins, int) and bins > MOST_TASKS:
        raise ValueError(
            f"the bucket of '{path}' has {bins} bins; a curriculum has at most {MOST_TASKS} tasks."
        )


def _choices(path: str, bucket: Bucket) -> list[tuple[str, Any]]:
    """What each value is called, and the value."""
    if isinstance(bucket, Mapping):
        kind = NamedBucket if "values" in bucket else RangeBucket
        try:
            bucket = kind.model_validate(dict(bucket))
        except ValidationError as error:
            raise ValueError(explain(error, f"the bucket of '{path}'")) from None
    if isinstance(bucket, NamedBucket):
        return list(bucket.values.items())
    if isinstance(bucket, RangeBucket):
        parts = path.split(".")
        if parts[0] != "map_builder" or parts[-2] not in DRAWN:
            raise ValueError(
                f"the bucket of '{path}' is a range, but only counts of objects on the map are drawn anew for every episode; "
                "list the values instead."
            )
        return [(f"{low}-{high}" if low < high else f"{low}", (low, high)) for low, high in bucket.counts()]
    if isinstance(bucket, str) or not bucket:
        raise ValueError(f"the bucket of '{path}' is {bucket!r}; list at least one value.")
    return [(str(value), value) for value in bucket]


def _labels(paths: list[str]) -> list[str]:
    """As many last parts of every path as tell all of them apart."""

    def labels(length: int) -> list[str]:
        return [".".join(path.split(".")[-length:]) for path in paths]

    return next(labels(n) for n in itertools.count(1) if len(set(labels(n))) == len(paths))
