"""What the kinds of maps have in common: size, border, agents, objects; and what an environment asks of each."""

from __future__ import annotations

from typing import Annotated, Any, Self

import numpy as np
from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, model_validator

from metta.common.config import Config


def _ascending(value: int | tuple[int, int]) -> int | tuple[int, int]:
    if isinstance(value, tuple) and value[0] > value[1]:
        raise ValueError(f"the range {value} ends before it begins; give (lowest, highest)")
    return value


Count = Annotated[NonNegativeInt | tuple[NonNegativeInt, NonNegativeInt], AfterValidator(_ascending)]
"""How many objects: a number, or (lowest, highest), from which every episode draws anew, both ends included."""

Agents = PositiveInt | dict[str, PositiveInt]
"""Number of agents: shared out evenly among the game's groups, or stated group by group."""


def most(objects: dict[str, Count]) -> int:
    """The most objects that an episode can draw."""
    return sum(count if isinstance(count, int) else count[1] for count in objects.values())


def draw_counts(objects: dict[str, Count], rng: np.random.Generator) -> dict[str, int]:
    """How many objects an episode gets; only ranges take numbers from the generator."""
    return {
        name: count if isinstance(count, int) else int(rng.integers(count[0], count[1] + 1))
        for name, count in objects.items()
    }


class MapKind(Config):
    """What the environment asks of every kind of map; size and number of agents are attributes of each."""

    @model_validator(mode="after")
    def _state_type(self) -> Self:
        """A map that is written out without its defaults still says what kind it is."""
        self.model_fields_set.add("type")
        return self

    def states(self, name: str) -> bool:
        """Whether the map was told, or settles by itself, its "agents", "width" or "height"."""
        return name in self.model_fields_set or self.settles(name)

    def settles(self, name: str) -> bool:
        """Whether the kind leaves no choice of "agents", "width" or "height"."""
        return name not in type(self).model_fields

    def told(self, values: dict[str, Any]) -> Self:
        """A copy with these values for what it was not told; they do not count as stated."""
        copy = self.model_copy(update=values)
        copy.model_fields_set.difference_update(values)
        return copy

    @property
    def agent_groups(self) -> dict[str, int]:
        """Agents by group, where they are stated so; of one room, where there are several."""
        return {}

    @property
    def object_names(self) -> set[str]:
        """The objects that it places, walls of its own aside."""
        return set()

    @property
    def has_walls(self) -> bool:
        """Whether it places objects called "wall" by itself."""
        return True

    def check_fit(self) -> None:
        """See to it that everything fits in every episode.

        Raises:
            ValueError: it does not; the sentence says what to change.
        """


class FieldMap(MapKind):
    """A field inside a border of walls."""

    width: PositiveInt = 64
    """Columns, the border included."""
    height: PositiveInt = 64
    """Rows, the border included."""
    border_width: NonNegativeInt = 2
    """Thickness of the wall around the field."""
    seed: NonNegativeInt | None = None
    """A fixed seed gives the same map in every episode; None draws a new one each time."""
    objects: dict[str, Count] = Field(default_factory=dict)
    """How many objects of each name lie on the field."""

    @property
    def object_names(self) -> set[str]:
        """The objects that are placed."""
        return set(self.objects)

    @property
    def inner_width(self) -> int:
        """Columns inside the border."""
        return max(self.width - 2 * self.border_width, 0)

    @property
    def inner_height(self) -> int:
        """Rows inside the border."""
        return max(self.height - 2 * self.border_width, 0)

    def check_cells(self, wanted: int, cells: int, where: str) -> None:
        """Refuse more things than there are cells for them."""
        if wanted > cells:
            raise ValueError(
                f"{wanted} objects and agents do not fit on the {cells} cells {where} of a {self.width}x{self.height} map; "
                "make the map larger, the border thinner or the objects fewer."
            )


class PeopledMap(FieldMap):
    """A field with any number of agents."""

    agents: Agents = 64
    """Number of agents: shared out evenly among the game's groups, or stated group by group."""

    @property
    def num_agents(self) -> int:
        """Agents on the map."""
        return self.agents if isinstance(self.agents, int) else sum(self.agents.values())

    @property
    def agent_groups(self) -> dict[str, int]:
        """Agents by group, where they are stated so."""
        return {} if isinstance(self.agents, int) else self.agents


class SolitaryMap(FieldMap):
    """A field with one agent."""

    @property
    def num_agents(self) -> int:
        """Agents on the map."""
        return 1
