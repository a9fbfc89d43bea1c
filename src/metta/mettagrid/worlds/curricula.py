"""Ready-made curricula."""

from __future__ import annotations

from metta.mettagrid.curriculum.base import MultiTaskCurriculum, SingleTaskCurriculum, Task
from metta.mettagrid.curriculum.bucketed import BucketedCurriculum, NamedBucket, RangeBucket
from metta.mettagrid.curriculum.learning_progress import LearningProgressCurriculum
from metta.mettagrid.worlds.arena import ARENA, ARENA_TASKS
from metta.mettagrid.worlds.navigation import terrain_rooms, training
from metta.mettagrid.worlds.newcomer import simple


def simple_curriculum() -> SingleTaskCurriculum:
    """The newcomer's world and nothing else."""
    return SingleTaskCurriculum(simple(), "/env/mettagrid/simple")


def navigation_bucketed() -> BucketedCurriculum:
    """Navigation in 16 kinds of rooms, each with few to many altars: 64 tasks, drawn by learning progress."""
    rooms = terrain_rooms()
    return BucketedCurriculum(
        training(next(iter(rooms.values()))),
        {
            "map_builder.room": NamedBucket(values=rooms),
            "map_builder.room.objects.altar": RangeBucket(range=(2, 18), bins=4),
        },
    )


def arena_random() -> MultiTaskCurriculum:
    """The fifteen tasks of the arena, each as often as the others."""
    return MultiTaskCurriculum(_arena_tasks())


def arena_learning_progress() -> LearningProgressCurriculum:
    """The fifteen tasks of the arena, drawn by learning progress."""
    return LearningProgressCurriculum(_arena_tasks())


def _arena_tasks() -> list[Task]:
    return [Task(f"{ARENA}/{name}", make()) for name, make in ARENA_TASKS.items()]
