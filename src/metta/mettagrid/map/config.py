"""The kinds of maps, as typed values: what each builds, and how large it is.

`EnvConfig.map_builder` is one of these, told apart by `type`. They only describe; the maps are drawn by the functions
in the other modules of this package.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, NonNegativeInt, PositiveInt, Tag, model_validator

from metta.mettagrid.map.ascii import parse_ascii
from metta.mettagrid.map.kinds import Count, MapKind, PeopledMap, SolitaryMap, most

TerrainStyle = Literal["sparse", "balanced", "dense", "maze"]


def _default_objects() -> dict[str, Count]:
    return {"mine_red": 2, "generator_red": 1, "altar": 1, "wall": 5, "block": 3}


class MapBuilderConfig(PeopledMap):
    """How the map of an episode is made.

    `Random`: a walled border around an open field, over which objects and agents are scattered.
    `Ascii`: the map is written out in `ascii_map`, one character a cell (`metta.mettagrid.objects.MAP_CHARACTERS`);
    size, agents and objects are those of the drawing.
    """

    type: Literal["Random", "Ascii"] = "Random"
    """Scattered over an open field, or as drawn."""
    objects: dict[str, Count] = Field(default_factory=_default_objects)
    """How many objects of each name lie on the field."""
    ascii_map: str | None = None
    """The rows of an `Ascii` map, separated by line breaks."""

    @model_validator(mode="before")
    @classmethod
    def _sizes_of_ascii(cls, data: Any) -> Any:
        """An ASCII map states its own size and agents, so they count as given."""
        if (
            not isinstance(data, dict)
            or data.get("type") != "Ascii"
            or not isinstance(data.get("ascii_map"), str)
        ):
            return data
        grid = parse_ascii(data["ascii_map"])
        facts = {
            "width": grid.shape[1],
            "height": grid.shape[0],
            "agents": sum(str(cell).startswith("agent.") for cell in grid.flat),
        }
        for name, fact in facts.items():
            if data.get(name, fact) != fact:
                raise ValueError(
                    f"ascii_map has {name} {fact}, but {name}={data[name]} is given; drop the field."
                )
        if not facts["agents"]:
            raise ValueError(
                "the ASCII map has no agent; draw at least one, as '@' or the number of its team."
            )
        for name in ("border_width", "objects", "seed"):
            if data.get(name):
                raise ValueError(
                    f"{name}={data[name]} is given with a drawn map, which has its own; drop the field."
                )
        return {**data, **facts, "border_width": 0, "objects": {}}

    @model_validator(mode="after")
    def _check_type(self) -> Self:
        if (self.type == "Ascii") != (self.ascii_map is not None):
            raise ValueError(
                "ascii_map and type='Ascii' go together: give both for a drawn map, or neither for a random one."
            )
        return self

    @property
    def has_walls(self) -> bool:
        """Whether there is a border."""
        return self.border_width > 0

    def check_fit(self) -> None:
        """See to it that the field inside the border holds everything."""
        if self.type == "Random":
            wanted = most(self.objects) + self.num_agents
            self.check_cells(wanted, self.inner_width * self.inner_height, "inside the border")


class _Terrain(PeopledMap):
    """Walls of some style, on which agents and objects stand where they can be reached from a side.

    Agents and objects lie on empty cells with an empty neighbour, away from the outermost ring of the field. Where the
    walls leave too few of those, the terrain is drawn again with fewer walls. It may have parts that nobody can get to.
    Altars take the hiding places first that some terrains have.
    """

    def check_fit(self) -> None:
        """See to it that the field without any walls would hold everything."""
        cells = max(self.inner_width - 2, 0) * max(self.inner_height - 2, 0)
        self.check_cells(most(self.objects) + self.num_agents, cells, "away from the rim of the field")


class VariedTerrainConfig(_Terrain):
    """A field of labyrinths, obstacles, crosses, blocks and single walls; `style` says how many of which.

    `sparse`: hardly any; `balanced`: some of each; `dense`: many, and many single walls; `maze`: labyrinths above all.
    Their numbers grow with the area. Altars hide in the labyrinths' corridors.
    """

    type: Literal["VariedTerrain"] = "VariedTerrain"
    style: TerrainStyle = "balanced"
    """How many walls of which kind."""


class CylinderWorldConfig(_Terrain):
    """A field full of cylinders: two parallel walls each, 2 to 29 long, with an altar in the middle of the gap.

    There are as many cylinders as fit by chance; those beyond the number of altars are empty.
    """

    type: Literal["CylinderWorld"] = "CylinderWorld"


class MeanDistanceConfig(SolitaryMap):
    """An open field with one agent in the middle and objects at random distances around it.

    The distance of each object is drawn from a Poisson distribution, its direction uniformly.
    """

    type: Literal["MeanDistance"] = "MeanDistance"
    mean_distance: float = Field(default=10, gt=0)
    """Mean of the objects' distances from the agent, in cells, before those that fall outside are drawn again."""
    scattered: dict[str, Count] = Field(default_factory=dict)
    """How many objects of each name lie anywhere else."""

    @property
    def object_names(self) -> set[str]:
        """The objects that are placed."""
        return {*self.objects, *self.scattered}

    def check_fit(self) -> None:
        """See to it that the field holds everything and is not small beside the distance."""
        wanted = most(self.objects) + most(self.scattered) + 1
        self.check_cells(wanted, self.inner_width * self.inner_height, "inside the border")
        reach = math.hypot(self.inner_width, self.inner_height)
        if self.mean_distance > reach:
            raise ValueError(
                f"mean_distance is {self.mean_distance:g}, but the field is only {reach:.0f} cells from corner to corner; make "
                "it larger or the distance shorter."
            )


class SectorsConfig(SolitaryMap):
    """An open field in `sectors` x `sectors` equal parts; the agent and every object lie in different ones.

    The parts along the rim stay empty, so that nothing is found by following the border.
    """

    type: Literal["Sectors"] = "Sectors"
    sectors: int = Field(default=5, ge=3)
    """Parts along each side."""

    def check_fit(self) -> None:
        """See to it that there is a sector for everything, and a cell in every sector."""
        inner = (self.sectors - 2) ** 2
        if most(self.objects) + 1 > inner:
            raise ValueError(
                f"{most(self.objects)} objects and the agent do not fit into {inner} inner sectors, one each; state more "
                "sectors or fewer objects."
            )
        if min(self.inner_width, self.inner_height) < self.sectors:
            raise ValueError(
                f"a field of {self.inner_width}x{self.inner_height} cells has no {self.sectors} sectors along each side; make it "
                "larger or the sectors fewer."
            )


class MazeConfig(SolitaryMap):
    """A maze of square rooms without loops; the agent starts in the top left room, objects lie in a cleared middle."""

    type: Literal["Maze"] = "Maze"
    room_size: PositiveInt = 3
    """Cells along the side of a room."""
    wall_size: PositiveInt = 1
    """Thickness of the walls between rooms."""
    centre_width: PositiveInt = 7
    """Columns of the cleared middle."""
    centre_height: PositiveInt = 5
    """Rows of the cleared middle."""

    def check_fit(self) -> None:
        """See to it that there is a room beside the middle, and that the middle holds the objects."""
        self.check_cells(most(self.objects), self.centre_width * self.centre_height, "in the cleared middle")
        for what, inner, centre in (
            ("width", self.inner_width, self.centre_width),
            ("height", self.inner_height, self.centre_height),
        ):
            least = centre + 2 * (self.room_size + self.wall_size)
            if inner < least:
                raise ValueError(
                    f"{what} is {getattr(self, what)}, which leaves {inner} cells inside the border, but a maze around a cleared "
                    f"middle of {centre} needs {least}; make it larger or the rooms, the walls or the middle smaller."
                )


class RadialMazeConfig(SolitaryMap):
    """Corridors that run out from the agent in the middle like the spokes of a wheel; objects lie at their ends.

    The objects fill the ends in order, the first one to the right of the agent and on clockwise.
    """

    type: Literal["RadialMaze"] = "RadialMaze"
    arms: int = Field(default=4, ge=4, le=12)
    """Corridors."""
    arm_width: PositiveInt = 4
    """Cells across a corridor."""
    arm_length: PositiveInt = 8
    """Cells from the agent to the end of a corridor."""

    def check_fit(self) -> None:
        """See to it that there is an end for every object, and room for the corridors."""
        if most(self.objects) > self.arms:
            raise ValueError(
                f"{most(self.objects)} objects do not fit at the ends of {self.arms} arms, one each; state more arms or fewer "
                "objects."
            )
        if self.arms > 4 and self.arm_length == 1:
            raise ValueError(
                f"the ends of {self.arms} arms of length 1 lie beside each other, where objects hide one another; make the arms "
                "longer, or state 4."
            )
        least = 2 * self.arm_length + self.arm_width
        if min(self.inner_width, self.inner_height) < least:
            raise ValueError(
                f"arms of length {self.arm_length} and width {self.arm_width} need a field of {least}x{least} cells, but it has "
                f"{self.inner_width}x{self.inner_height}; make the map larger or the arms smaller."
            )


def _tag(value: Any) -> str:
    """The documented class comes in two types, and a mapping without a type means it."""
    kind = value.get("type", "Random") if isinstance(value, dict) else getattr(value, "type", None)
    return "MapBuilder" if kind in ("Random", "Ascii") else str(kind)


_unknown_kind = Discriminator(
    _tag,
    custom_error_type="map_type",
    custom_error_message=(
        "a map's type is Random, Ascii, VariedTerrain, CylinderWorld, MeanDistance, Sectors, Maze, RadialMaze or, for "
        "a map of several, Rooms"
    ),
)

RoomConfig = Annotated[
    Annotated[MapBuilderConfig, Tag("MapBuilder")]
    | Annotated[VariedTerrainConfig, Tag("VariedTerrain")]
    | Annotated[CylinderWorldConfig, Tag("CylinderWorld")]
    | Annotated[MeanDistanceConfig, Tag("MeanDistance")]
    | Annotated[SectorsConfig, Tag("Sectors")]
    | Annotated[MazeConfig, Tag("Maze")]
    | Annotated[RadialMazeConfig, Tag("RadialMaze")],
    _unknown_kind,
]
"""Any kind of map but `Rooms`."""


class RoomsConfig(MapKind):
    """The same kind of map several times side by side, each drawn by itself.

    `num_rooms` rooms lie in ceil(sqrt(num_rooms)) rows, with walls around all of them and, if `gap` says so, between them.
    Places in the last row that no room takes are walls.
    """

    type: Literal["Rooms"] = "Rooms"
    room: RoomConfig
    """What is built; a border of its own lies inside its size."""
    num_rooms: PositiveInt = 4
    """How many rooms there are."""
    border_width: NonNegativeInt = 6
    """Thickness of the wall around all rooms."""
    gap: NonNegativeInt = 0
    """Thickness of the walls between rooms."""
    seed: NonNegativeInt | None = None
    """A fixed seed gives the same map in every episode; None draws a new one each time."""

    @property
    def rows(self) -> int:
        """Rows of rooms."""
        return math.isqrt(self.num_rooms - 1) + 1

    @property
    def columns(self) -> int:
        """Rooms in a row."""
        return math.ceil(self.num_rooms / self.rows)

    @property
    def width(self) -> int:
        """Columns, the border included."""
        return 2 * self.border_width + self.columns * (self.room.width + self.gap) - self.gap

    @property
    def height(self) -> int:
        """Rows, the border included."""
        return 2 * self.border_width + self.rows * (self.room.height + self.gap) - self.gap

    @property
    def num_agents(self) -> int:
        """Agents on the map."""
        return self.num_rooms * self.room.num_agents

    def states(self, name: str) -> bool:
        """Whether the rooms were told, or settle by themselves, their "agents"; the size they always settle."""
        return self.room.states(name) if name == "agents" else True

    def settles(self, name: str) -> bool:
        """Whether the rooms leave no choice."""
        return self.room.settles(name) if name == "agents" else True

    def told(self, values: dict[str, Any]) -> Self:
        """A copy whose rooms have as many agents together as stated."""
        agents, rest = divmod(values["agents"], self.num_rooms)
        if rest or not agents:
            raise ValueError(
                f"num_agents is {values['agents']}, which {self.num_rooms} rooms cannot share evenly; give a multiple of "
                f"{self.num_rooms}."
            )
        return self.model_copy(update={"room": self.room.told({"agents": agents})})

    @property
    def agent_groups(self) -> dict[str, int]:
        """Agents of one room by group, where they are stated so."""
        return self.room.agent_groups

    @property
    def object_names(self) -> set[str]:
        """The objects that are placed."""
        return self.room.object_names

    @property
    def has_walls(self) -> bool:
        """Whether there are walls in or between rooms."""
        spare = self.rows * self.columns > self.num_rooms
        return self.room.has_walls or self.border_width > 0 or self.gap > 0 or spare

    def check_fit(self) -> None:
        """See to it that everything fits into each room."""
        self.room.check_fit()


MapConfig = Annotated[
    Annotated[MapBuilderConfig, Tag("MapBuilder")]
    | Annotated[VariedTerrainConfig, Tag("VariedTerrain")]
    | Annotated[CylinderWorldConfig, Tag("CylinderWorld")]
    | Annotated[MeanDistanceConfig, Tag("MeanDistance")]
    | Annotated[SectorsConfig, Tag("Sectors")]
    | Annotated[MazeConfig, Tag("Maze")]
    | Annotated[RadialMazeConfig, Tag("RadialMaze")]
    | Annotated[RoomsConfig, Tag("Rooms")],
    _unknown_kind,
]
"""Any kind of map."""
