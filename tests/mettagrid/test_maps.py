"""Maps: drawn and random."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metta.mettagrid.config import EnvConfig, GameConfig, MapBuilderConfig
from metta.mettagrid.map.ascii import parse_ascii
from metta.mettagrid.map.builder import agent_order, make_map_builder
from metta.mettagrid.map.random import build_random
from metta.mettagrid.rules import compile_rules


def test_ascii_map_is_read_cell_by_cell() -> None:
    grid = parse_ascii("""
        ####
        #@m#
        ####
    """)
    assert grid.tolist() == [["wall"] * 4, ["wall", "agent.agent", "mine_red", "wall"], ["wall"] * 4]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "no rows"),
        ("@.\n@", "row 1 of the ASCII map has 1 cells but row 0 has 2"),
        ("@?", "Unknown character: \\? in row 0"),
    ],
)
def test_bad_ascii_maps_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse_ascii(text)


@given(
    height=st.integers(3, 20),
    width=st.integers(3, 20),
    border=st.integers(0, 2),
    counts=st.lists(st.integers(0, 4), min_size=1, max_size=4),
    seed=st.integers(0, 2**32 - 1),
)
def test_random_maps_hold_exactly_what_they_should(
    height: int, width: int, border: int, counts: list[int], seed: int
) -> None:
    room = max(height - 2 * border, 0) * max(width - 2 * border, 0)
    objects = [(code + 2, count) for code, count in enumerate(counts)]

    def build() -> np.ndarray:
        rng = np.random.default_rng(seed)
        return build_random(height=height, width=width, border_width=border, objects=objects, wall=1, rng=rng)

    if sum(counts) > room:
        with pytest.raises(ValueError, match=f"do not fit on the {room} cells"):
            build()
        return
    grid = build()
    assert grid.shape == (height, width)
    assert np.array_equal(grid, build())
    for code, count in objects:
        assert (grid == code).sum() == count
    inside = np.zeros_like(grid, dtype=bool)
    inside[border : height - border, border : width - border] = True
    assert (grid[~inside] == 1).all()
    assert (grid[inside] != 1).all()


def builder_of(config: EnvConfig):
    return make_map_builder(config, compile_rules(config.to_world_config()).cell_codes)


def test_a_fixed_seed_fixes_the_map_and_none_draws_anew() -> None:
    fresh = builder_of(EnvConfig(game=GameConfig(num_agents=3, width=14, height=14)))
    fixed = builder_of(
        EnvConfig(game=GameConfig(num_agents=3, width=14, height=14), map_builder=MapBuilderConfig(seed=5))
    )
    rng = np.random.default_rng(0)
    assert np.array_equal(fixed(rng), fixed(rng))
    assert not np.array_equal(fresh(rng), fresh(rng))


def test_agents_are_shared_out_among_groups() -> None:
    groups = {"red": {}, "blue": {}, "green": {}}
    even = EnvConfig(game=GameConfig(num_agents=8, groups=groups))
    assert Counter(agent_order(even)) == {"red": 3, "blue": 3, "green": 2}
    stated = EnvConfig(
        game=GameConfig(groups=groups), map_builder=MapBuilderConfig(agents={"red": 1, "green": 4})
    )
    assert Counter(agent_order(stated)) == {"red": 1, "green": 4}
    assert stated.game.num_agents == 5


def test_an_unknown_cell_of_a_drawn_map_is_refused() -> None:
    config = EnvConfig(map_builder=MapBuilderConfig(type="Ascii", ascii_map="@T"))
    with pytest.raises(ValueError, match="a cell 'temple'"):
        builder_of(config)


def test_a_drawing_is_read_before_the_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    build = builder_of(EnvConfig(map_builder=MapBuilderConfig(type="Ascii", ascii_map="#@#\n#.#")))
    monkeypatch.setattr("metta.mettagrid.map.builder.parse_ascii", None)
    assert build(np.random.default_rng(0)).shape == (2, 3)
