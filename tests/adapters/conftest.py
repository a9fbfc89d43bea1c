"""Names for the worlds that the adapters are tried on."""

from functools import partial

import pytest

from adapter_cases import MIXED_ALONE, MIXED_TEAM, mixed
from metta.mettagrid.registry import register_curriculum


@pytest.fixture(scope="session", autouse=True)
def _mixed_curricula() -> None:
    register_curriculum(MIXED_ALONE, partial(mixed, 1))
    register_curriculum(MIXED_TEAM, partial(mixed, 3))
