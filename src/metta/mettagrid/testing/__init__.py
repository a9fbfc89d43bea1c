"""Checks for people who add objects, actions, maps or curricula, and for our own tests.

`check_env` holds a whole environment to its promises; `check_curriculum`, `check_world` and `check_batch_independence` are for
the parts. Whatever they find, they raise AssertionError with one sentence.
"""

from metta.mettagrid.testing.curricula import check_curriculum
from metta.mettagrid.testing.environment import check_env
from metta.mettagrid.testing.runs import CheckReport
from metta.mettagrid.testing.streams import CheckError
from metta.mettagrid.testing.worlds import Episode, check_batch_independence, check_world, observable

__all__ = [
    "CheckError",
    "CheckReport",
    "Episode",
    "check_batch_independence",
    "check_curriculum",
    "check_env",
    "check_world",
    "observable",
]
