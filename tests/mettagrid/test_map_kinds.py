"""Open fields, mazes and rooms; ranges of counts; how a map and a game agree on size and agents."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from metta.mettagrid.config import EnvConfig, GameConfig, MapBuilderConfig, ObjectConfig
from metta.mettagrid.curriculum.base import make_curriculum
from metta.mettagrid.map.builder import agent_order, build_map
from metta.mettagrid.map.config import (
    CylinderWorldConfig,
    MapConfig,
    MazeConfig,
    MeanDistanceConfig,
    RadialMazeConfig,
    RoomsConfig,
    SectorsConfig,
    VariedTerrainConfig,
)
from metta.mettagrid.vec import VecEnv

CODES = {"wall": 7, "altar": 3, "mine_red": 4, "block": 5}
AGENT = 1
SEEDS = st.integers(0, 2**32 - 1)


def draw(config: MapConfig, seed: int = 0) -> np.ndarray:
    """A map, after the promises that every kind makes were checked."""
    config.check_fit()
    agents = [AGENT] * config.num_agents
    grid = build_map(config, CODES, agents, np.random.default_rng(seed))
    assert np.array_equal(grid, build_map(config, CODES, agents, np.random.default_rng(seed)))
    assert grid.shape == (config.height, config.width)
    assert grid.dtype == np.int16
    assert set(np.unique(grid)) <= {0, AGENT, *CODES.values()}
    assert (grid == AGENT).sum() == config.num_agents
    inside = np.zeros_like(grid, dtype=bool)
    border = config.border_width
    inside[border : config.height - border, border : config.width - border] = True
    assert (grid[~inside] == CODES["wall"]).all()
    return grid


def reached(grid: np.ndarray) -> np.ndarray:
    """Cells that the first agent can get to if only walls stop it."""
    seen = np.zeros_like(grid, dtype=bool)
    path = [tuple(np.argwhere(grid == AGENT)[0])]
    seen[path[0]] = True
    while path:
        row, col = path.pop()
        for cell in ((row + 1, col), (row - 1, col), (row, col + 1), (row, col - 1)):
            inside = 0 <= cell[0] < grid.shape[0] and 0 <= cell[1] < grid.shape[1]
            if inside and not seen[cell] and grid[cell] != CODES["wall"]:
                seen[cell] = True
                path.append(cell)
    return seen


@given(seed=SEEDS, side=st.integers(8, 40), distance=st.floats(0.5, 6), walls=st.integers(0, 6))
@settings(max_examples=50, deadline=None)
def test_mean_distance(seed: int, side: int, distance: float, walls: int) -> None:
    config = MeanDistanceConfig(
        width=side,
        height=side + 2,
        border_width=1,
        mean_distance=distance,
        objects={"altar": 3},
        scattered={"block": walls} if walls else {},
    )
    grid = draw(config, seed)
    assert grid[1 + side // 2, 1 + (side - 2) // 2] == AGENT
    assert ((grid == 3).sum(), (grid == 5).sum()) == (3, walls)


def test_mean_distance_is_the_mean_distance() -> None:
    config = MeanDistanceConfig(width=200, height=200, border_width=0, mean_distance=12, objects={"altar": 1})
    offsets = np.array([np.argwhere(draw(config, seed) == 3)[0] - 100 for seed in range(300)])
    distances = np.hypot(*offsets.T)
    assert abs(distances.mean() - 12) < 0.7
    assert abs(distances.std() - math.sqrt(12)) < 0.5
    assert (abs(offsets.mean(axis=0)) < 2).all()  # no direction is preferred


@given(seed=SEEDS, sectors=st.integers(4, 7), side=st.integers(20, 60))
@settings(max_examples=40, deadline=None)
def test_sectors_hold_one_thing_each_and_the_rim_none(seed: int, sectors: int, side: int) -> None:
    config = SectorsConfig(
        sectors=sectors, width=side + 2, height=side + 4, border_width=1, objects={"altar": 3}
    )
    grid = draw(config, seed)
    inner = grid[1:-1, 1:-1]
    height, width = inner.shape
    rows = [height * edge // sectors for edge in range(sectors + 1)]
    cols = [width * edge // sectors for edge in range(sectors + 1)]
    counts = np.array(
        [
            [np.count_nonzero(inner[rows[r] : rows[r + 1], cols[c] : cols[c + 1]]) for c in range(sectors)]
            for r in range(sectors)
        ]
    )
    assert counts.sum() == 4
    assert counts.max() == 1
    assert counts[1:-1, 1:-1].sum() == 4


@given(seed=SEEDS, room=st.integers(1, 4), wall=st.integers(1, 2), extra=st.integers(0, 30))
@settings(max_examples=50, deadline=None)
def test_mazes_are_connected_and_lead_to_the_altars(seed: int, room: int, wall: int, extra: int) -> None:
    least = 7 + 2 * (room + wall) + 2
    config = MazeConfig(
        width=least + extra,
        height=least + extra // 2,
        border_width=1,
        room_size=room,
        wall_size=wall,
        objects={"altar": 3},
    )
    grid = draw(config, seed)
    assert grid[1 + room // 2, 1 + room // 2] == AGENT
    assert ((grid == 7) | reached(grid)).all()
    altars = np.argwhere(grid == 3)
    assert len(altars) == 3
    top, left = 1 + (config.inner_height - 5) // 2, 1 + (config.inner_width - 7) // 2
    assert ((altars >= (top, left)) & (altars < (top + 5, left + 7))).all()
    assert (grid[top : top + 5, left : left + 7] != 7).all()


@pytest.mark.parametrize(("width", "height"), [(300, 20), (20, 300)])
def test_long_mazes_are_whole(width: int, height: int) -> None:
    config = MazeConfig(width=width, height=height, border_width=1, objects={"altar": 1}, wall_size=2)
    grid = draw(config)
    assert (reached(grid) == (grid != CODES["wall"])).all()
    assert (grid[-9:, -9:] != CODES["wall"]).any()


def test_mazes_have_no_loops() -> None:
    """Each further room is opened by exactly one passage: free cells = rooms + passages, where both are one cell."""
    config = MazeConfig(
        width=33,
        height=33,
        border_width=1,
        room_size=1,
        wall_size=1,
        centre_width=1,
        centre_height=1,
        objects={},
    )
    for seed in range(20):
        assert (draw(config, seed) != 7).sum() in (2 * 16**2 - 1, 2 * 16**2)  # the middle may clear one more
    assert len({draw(config, seed).tobytes() for seed in range(20)}) == 20


@pytest.mark.parametrize("arms", range(4, 13))
@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_radial_mazes_have_an_altar_at_each_end(arms: int, width: int) -> None:
    side = 2 * 12 + width + 2
    config = RadialMazeConfig(
        width=side,
        height=side,
        border_width=1,
        arms=arms,
        arm_width=width,
        arm_length=12,
        objects={"altar": arms},
    )
    grid = draw(config)
    middle = np.argwhere(grid == AGENT)[0]
    assert (middle == side // 2).all()
    altars = np.argwhere(grid == 3)
    assert len(altars) == arms
    distances = np.hypot(*(altars - middle).T)
    assert (abs(distances - 12) < 1.5).all()
    assert reached(grid)[grid == 3].all()


@given(
    number=st.integers(1, 7),
    gap=st.integers(0, 3),
    border=st.integers(0, 3),
    side=st.integers(4, 9),
    seed=SEEDS,
)
@settings(max_examples=50, deadline=None)
def test_rooms_lie_side_by_side(number: int, gap: int, border: int, side: int, seed: int) -> None:
    room = MapBuilderConfig(width=side, height=side + 1, border_width=0, agents=2, objects={"altar": 1})
    config = RoomsConfig(room=room, num_rooms=number, gap=gap, border_width=border)
    grid = draw(config, seed)
    rows = math.ceil(math.sqrt(number))
    columns = math.ceil(number / rows)
    assert (config.rows, config.columns) == (rows, columns)
    covered = np.zeros_like(grid, dtype=bool)
    for place in range(number):
        top = border + (place // columns) * (side + 1 + gap)
        left = border + (place % columns) * (side + gap)
        part = grid[top : top + side + 1, left : left + side]
        assert ((part == AGENT).sum(), (part == 3).sum(), (part == 7).sum()) == (2, 1, 0)
        covered[top : top + side + 1, left : left + side] = True
    assert (grid[~covered] == 7).all()


def test_rooms_differ_and_a_seed_fixes_them() -> None:
    room = {"width": 20, "height": 20, "agents": 1, "objects": {"altar": 4}, "type": "VariedTerrain"}
    grid = draw(RoomsConfig(room=room, border_width=0))
    parts = {grid[r : r + 20, c : c + 20].tobytes() for r in (0, 20) for c in (0, 20)}
    assert len(parts) == 4
    fixed = RoomsConfig(room=room, seed=4)
    assert np.array_equal(draw(fixed, 0), draw(fixed, 1))
    assert len({draw(RoomsConfig(room=room), seed).tobytes() for seed in range(3)}) == 3


def test_ranges_are_drawn_anew_with_both_ends() -> None:
    config = MapBuilderConfig(width=12, height=12, agents=1, objects={"altar": (2, 5), "mine_red": 3})
    grids = [draw(config, seed) for seed in range(100)]
    assert {int((grid == 3).sum()) for grid in grids} == {2, 3, 4, 5}
    assert {int((grid == 4).sum()) for grid in grids} == {3}
    with pytest.raises(ValidationError, match=r"the range \(5, 2\) ends before it begins"):
        MapBuilderConfig(objects={"altar": (5, 2)})
    with pytest.raises(ValidationError, match="objects"):
        MapBuilderConfig(objects={"altar": -1})


def test_agents_of_rooms_go_to_the_groups_in_turn() -> None:
    game = GameConfig(groups={"red": {}, "blue": {}, "green": {}})
    room = MapBuilderConfig(width=8, height=8, agents=2, objects={})
    config = EnvConfig(game=game, map_builder=RoomsConfig(room=room, num_rooms=4))
    assert agent_order(config) == ["red", "blue", "green", "red", "blue", "green", "red", "blue"]
    room = MapBuilderConfig(width=8, height=8, agents={"blue": 2, "red": 1}, objects={})
    config = EnvConfig(game=game, map_builder=RoomsConfig(room=room, num_rooms=2))
    assert agent_order(config) == ["blue", "blue", "red"] * 2
    assert config.game.num_agents == 6


TERRAIN = {"width": 30, "height": 30, "agents": 2, "objects": {"altar": 3}}
ROOMS = {"room": {"type": "Random", "width": 9, "height": 9, "agents": 1, "objects": {"altar": 2}}}
FIELD = {"width": 30, "height": 30, "objects": {"altar": 3}}
KINDS: dict[type[Any], dict[str, Any]] = {
    VariedTerrainConfig: TERRAIN,
    CylinderWorldConfig: TERRAIN,
    MeanDistanceConfig: FIELD,
    SectorsConfig: FIELD,
    MazeConfig: FIELD,
    RadialMazeConfig: FIELD,
    RoomsConfig: ROOMS,
}

# Maps in which not everything fits, and what is said about them.
IMPOSSIBLE = {
    "random": (
        MapBuilderConfig(width=8, height=8, agents=2, objects={"altar": (1, 15)}),
        "17 objects and agents",
    ),
    "terrain": (
        VariedTerrainConfig(width=9, height=9, agents=10),
        "10 objects and agents do not fit on the 9",
    ),
    "cylinders": (
        CylinderWorldConfig(width=5, height=5, agents=1),
        "1 objects and agents do not fit on the 0",
    ),
    "distance": (MeanDistanceConfig(width=14, height=14, mean_distance=15), "mean_distance is 15"),
    "crowded": (MeanDistanceConfig(width=6, height=6, objects={"altar": 4}), "5 objects and agents"),
    "sectors": (SectorsConfig(sectors=3, objects={"altar": 1}), "do not fit into 1 inner sectors"),
    "small sectors": (SectorsConfig(sectors=9, width=10, height=40), "no 9 sectors along each side"),
    "maze": (MazeConfig(width=18, height=30), "width is 18, which leaves 14 cells"),
    "maze middle": (MazeConfig(objects={"altar": 36}), "do not fit on the 35 cells in the cleared middle"),
    "arms": (RadialMazeConfig(width=20, height=20), "need a field of 20x20 cells, but it has 16x16"),
    "arm ends": (RadialMazeConfig(objects={"altar": 5}), "5 objects do not fit at the ends of 4 arms"),
    "short arms": (RadialMazeConfig(arms=5, arm_length=1), "5 arms of length 1 lie beside each other"),
    "room": (RoomsConfig(room=MapBuilderConfig(width=5, height=5, agents=2)), "14 objects and agents"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_maps_are_refused_with_the_environment(name: str) -> None:
    config, sentence = IMPOSSIBLE[name]
    with pytest.raises(ValueError, match=sentence):
        EnvConfig(map_builder=config)


def test_maps_without_walls_are_needed_where_there_are_none() -> None:
    altar = ObjectConfig(type="converter", name="altar")
    config = EnvConfig(objects=[altar], map_builder=VariedTerrainConfig(agents=1))
    with pytest.raises(ValueError, match="no object is called 'wall'"):
        VecEnv(config)


def test_kinds_are_told_apart_by_type() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(MapConfig)
    for kind, base in KINDS.items():
        name = kind.model_fields["type"].default
        config = adapter.validate_python({"type": name, **base})
        assert type(config) is kind
        assert adapter.validate_json(config.model_dump_json()) == config
        assert adapter.validate_python(kind(**base).model_dump(exclude_unset=True)) == config
    assert type(adapter.validate_python({"width": 9})) is MapBuilderConfig
    with pytest.raises(ValidationError, match="a map's type is Random, Ascii, VariedTerrain"):
        adapter.validate_python({"type": "Labyrinth"})
    with pytest.raises(ValidationError, match="a map's type is"):
        adapter.validate_python(3)


def test_open_sizes_follow_the_game_and_settled_ones_decide() -> None:
    game = GameConfig(num_agents=4, width=40, height=30)
    config = EnvConfig(game=game, map_builder=VariedTerrainConfig(style="maze"))
    assert (config.map_builder.num_agents, config.map_builder.width, config.map_builder.height) == (4, 40, 30)
    room = MapBuilderConfig(width=10, height=12, objects={})
    config = EnvConfig(game=GameConfig(num_agents=8), map_builder=RoomsConfig(room=room))
    assert (config.game.num_agents, config.map_builder.room.agents) == (8, 2)
    assert (config.game.width, config.game.height) == (32, 36)
    config = EnvConfig(map_builder=MazeConfig())
    assert (config.game.num_agents, config.game.width) == (1, 64)


def test_overrides_of_other_maps() -> None:
    room = VariedTerrainConfig(width=20, height=20, agents=1, objects={"altar": 2})
    rooms = EnvConfig(map_builder=RoomsConfig(room=room))
    more = rooms.with_overrides(num_agents=8, map_objects={"altar": 5}, max_steps=7)
    assert (more.game.num_agents, more.game.max_steps) == (8, 7)
    assert more.map_builder.room.objects == {"altar": 5}
    assert more.map_builder.room.style == "balanced"
    assert rooms.with_overrides(gap=3).game.width == 55
    with pytest.raises(ValueError, match="num_agents is 6, which 4 rooms cannot share evenly"):
        rooms.with_overrides(num_agents=6)
    with pytest.raises(
        ValueError,
        match="gives 52; a map of type 'Rooms' settles it by itself",
    ):
        rooms.with_overrides(width=40)
    terrain = EnvConfig(map_builder=room).with_overrides(num_agents=3, width=25)
    assert (terrain.map_builder.agents, terrain.map_builder.width) == (3, 25)
    with pytest.raises(ValueError, match="a map of type 'Maze' settles it by itself"):
        EnvConfig(map_builder=MazeConfig()).with_overrides(num_agents=2)
    with pytest.raises(ValueError, match="'ascii_map' is no setting"):
        rooms.with_overrides(ascii_map="@")


def test_scenes_of_every_kind() -> None:
    """Every kind of map is a scene for an environment, whose rules it keeps; those for one agent need a game for one."""
    field = {"width": 20, "height": 20, "border_width": 1}
    objects = {"altar": 2, "mine_red": 1}
    scenes = [
        VariedTerrainConfig(objects=objects, **field),
        CylinderWorldConfig(objects=objects, **field),
        RoomsConfig(room=MapBuilderConfig(objects=objects, **{**field, "border_width": 0})),
        MapBuilderConfig(**field),
    ]
    curriculum = make_curriculum(scenes=scenes)
    assert {task.config.game.num_agents for task in curriculum.tasks} == {4}
    assert {task.config.game.max_steps for task in curriculum.tasks} == {200}
    env = VecEnv(curriculum, 12)
    assert {env.task_name(world) for world in range(12)} == {task.name for task in curriculum.tasks}
    lonely = [MeanDistanceConfig(**field), SectorsConfig(**field), MazeConfig(**field)]
    lonely = [scene.model_copy(update={"objects": objects}) for scene in lonely]
    assert VecEnv(make_curriculum("/env/mettagrid/simple", lonely), 6).num_agents == 6
