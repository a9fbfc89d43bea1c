from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_cases import SPEC, make_spec, observation, random_tokens, token
from metta.agent.config import AgentModelConfig
from metta.agent.encoder import CNN_KERNEL, CNN_STRIDE
from metta.agent.facing import TurnToFacing
from metta.agent.paths import split_rows
from metta.agent.tokens import PlaneTable, TokenLayer, Window, make_plane_table
from metta.mettagrid.spec import EnvSpec, feature_table

WINDOWS = [(11, 11), (3, 3), (5, 9), (7, 13), (15, 15), (9, 5)]


def plane_named(table: PlaneTable, name: str) -> int:
    return table.names.index(name)


def make_window(spec: EnvSpec, kind: str) -> Window:
    if kind == "cnn":
        return Window.cover(spec.obs_height, spec.obs_width, CNN_KERNEL, CNN_STRIDE)
    return Window.whole(spec.obs_height, spec.obs_width, pooled=kind == "pooled")


def make_layer(spec: EnvSpec, kind: str, path: str, seed: int = 0, *, turn: bool = False) -> TokenLayer:
    window = make_window(spec, kind)
    table, facing = make_plane_table(spec, AgentModelConfig()), TurnToFacing(spec, active=turn)
    layer = TokenLayer(table, window, facing, 5, path)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    layer.init_weights(generator)
    with torch.no_grad():
        layer.bias.normal_(generator=generator)
    return layer.double()


def lit_planes(table: PlaneTable, feature: int, value: int) -> list[tuple[int, float]]:
    if feature >= len(table.plane):
        return []
    slots = zip(table.plane[feature, value].tolist(), table.amount[feature, value].tolist(), strict=True)
    return [(plane, amount) for plane, amount in slots if plane >= 0]


def oracle(spec: EnvSpec, layer: TokenLayer, kind: str, tokens: torch.Tensor) -> np.ndarray:
    """The layer by the definition of a convolution over planes, in plain Python."""
    table = make_plane_table(spec, AgentModelConfig())
    height, width = spec.obs_height, spec.obs_width
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    image = np.zeros((len(table.names), height, width))
    for location, feature, value in tokens.tolist():
        if location == 255:
            break
        row, col = location // 16, location % 16
        if row < height and col < width:
            for plane, amount in lit_planes(table, feature, value):
                image[plane, row, col] += amount
    if kind == "pooled":
        return np.maximum(np.einsum("p,pc->c", image.mean((1, 2)), weight[:, 0]) + bias, 0)[None]
    if kind == "mlp":
        return np.maximum(np.einsum("pt,ptc->c", image.reshape(len(image), -1), weight) + bias, 0)[None]
    size_r, size_c = min(height, 5), min(width, 5)
    out = []
    # Positions are three cells apart; where they do not fit evenly the overhang is shared by both sides.
    count_r, count_c = -(-(height - size_r) // 3) + 1, -(-(width - size_c) // 3) + 1
    top = ((count_r - 1) * 3 + size_r - height) // 2
    left = ((count_c - 1) * 3 + size_c - width) // 2
    for position_r in range(count_r):
        for position_c in range(count_c):
            total = bias.copy()
            for tap_r in range(size_r):
                for tap_c in range(size_c):
                    row, col = position_r * 3 + tap_r - top, position_c * 3 + tap_c - left
                    if 0 <= row < height and 0 <= col < width:
                        total = total + image[:, row, col] @ weight[:, tap_r * size_c + tap_c]
            out.append(np.maximum(total, 0))
    return np.stack(out)


def test_a_world_that_shows_nothing_to_the_network_is_refused() -> None:
    only_recipes = AgentModelConfig(observation_types=["recipe"])
    with pytest.raises(
        ValueError,
        match=r"see nothing of this world: observation_types is \['recipe'\] .* object, agent, global",
    ):
        make_plane_table(replace(SPEC, features=feature_table(("ore",))), only_recipes)
    hidden = AgentModelConfig(observation_types=["global"], use_prev_reward=False)
    rewards = replace(SPEC, features=tuple(f for f in SPEC.features if f.name == "last_reward"))
    with pytest.raises(
        ValueError, match="use_prev_reward=False, and the world's features are of the types global;"
    ):
        make_plane_table(rewards, hidden)


@pytest.mark.parametrize("path", ["fast", "plain"])
def test_features_are_known_by_their_ids_not_their_places(path: str) -> None:
    """A part of the table, backwards: its features are read as ever, the others are not seen."""
    kept = SPEC.features[:1:-3]
    assert [f.id for f in kept] != list(range(len(kept)))
    part = make_layer(replace(SPEC, features=kept), "cnn", path)
    whole = make_layer(SPEC, "cnn", path)
    planes, full = (
        make_plane_table(s, AgentModelConfig()).names for s in (replace(SPEC, features=kept), SPEC)
    )
    with torch.no_grad():
        part.bias.copy_(whole.bias)
        part.weight.copy_(whole.weight[[full.index(name) for name in planes]])
        seen = [index for index, name in enumerate(full) if name in planes]
        unseen = torch.ones(len(full), dtype=torch.bool)
        unseen[seen] = False
        whole.weight[unseen] = 0
    tokens = random_tokens(np.random.default_rng(4), 10)
    torch.testing.assert_close(part(tokens), whole(tokens))


@pytest.mark.parametrize("path", ["fast", "plain"])
@pytest.mark.parametrize("kind", ["cnn", "mlp", "pooled"])
@pytest.mark.parametrize(("height", "width"), WINDOWS)
def test_a_token_at_every_cell_lands_where_the_definition_says(
    height: int, width: int, kind: str, path: str
) -> None:
    spec = make_spec(height, width)
    layer = make_layer(spec, kind, path)
    features = [(f.id, v) for f in spec.features for v in (1, 3)]
    rows = [
        observation([row * 16 + col, *features[(row * 31 + col) % len(features)]], spec=spec)
        for row in range(height)
        for col in range(width)
    ]
    tokens = torch.cat(rows)
    found = layer(tokens).detach().numpy()
    expected = np.stack([oracle(spec, layer, kind, row) for row in tokens])
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("path", ["fast", "plain"])
@pytest.mark.parametrize("kind", ["cnn", "mlp", "pooled"])
def test_whole_observations_follow_the_definition(kind: str, path: str) -> None:
    layer = make_layer(SPEC, kind, path)
    tokens = random_tokens(np.random.default_rng(3), 20, wild=True)
    expected = np.stack([oracle(SPEC, layer, kind, row) for row in tokens])
    np.testing.assert_allclose(layer(tokens).detach().numpy(), expected, atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["cnn", "mlp", "pooled"]),
    size=st.sampled_from(WINDOWS),
    num_rows=st.integers(1, 9),
    turn=st.booleans(),
)
def test_both_paths_agree_with_their_gradients(
    seed: int, kind: str, size: tuple[int, int], num_rows: int, turn: bool
) -> None:
    spec = make_spec(*size)
    rng = np.random.default_rng(seed)
    tokens = random_tokens(rng, num_rows, spec, wild=True)
    facings = [
        token(spec.obs_height // 2, spec.obs_width // 2, "agent:orientation", v, spec) for v in (1, 2, 3, 9)
    ]
    for i in np.flatnonzero(rng.random(num_rows) < 0.8):
        tokens[i, rng.integers(spec.num_tokens)] = torch.tensor(facings[rng.integers(4)], dtype=torch.uint8)
    results = {}
    for path in ("fast", "plain"):
        layer = make_layer(spec, kind, path, seed, turn=turn)
        out = layer(tokens)
        out.backward(torch.from_numpy(np.random.default_rng(seed).normal(size=out.shape)))
        single = layer.float()(tokens)
        results[path] = (out.detach(), layer.weight.grad, layer.bias.grad, single.detach())
        assert single.dtype == torch.float32
    for fast, plain, tolerance in zip(*results.values(), (1e-10, 1e-10, 1e-10, 1e-5), strict=True):
        torch.testing.assert_close(fast, plain, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("path", ["fast", "plain"])
def test_two_tokens_of_one_feature_in_one_cell_add_up(path: str) -> None:
    layer = make_layer(SPEC, "cnn", path)
    wall, block = token(2, 3, "type_id", 1), token(2, 3, "type_id", 2)
    with torch.no_grad():
        layer.bias.fill_(100.0)  # far from the ReLU's corner, so that effects add
        base, one, other, both = layer(
            torch.cat([observation(), observation(wall), observation(block), observation(wall, block)])
        )
        twice = layer(observation(wall, wall))[0]
    assert not torch.equal(one, base)
    torch.testing.assert_close(both - base, (one - base) + (other - base))
    torch.testing.assert_close(twice - base, 2 * (one - base))


@pytest.mark.parametrize("path", ["fast", "plain"])
def test_what_is_no_token_counts_for_nothing(path: str) -> None:
    layer = make_layer(SPEC, "cnn", path)
    wall, ore = token(5, 5, "type_id", 1), token(4, 4, "inv:ore_red", 2)
    plain = observation(wall, ore)
    outside_row, outside_column = [11 * 16 + 2, 0, 1], [2 * 16 + 11, 0, 1]
    unknown = [2 * 16 + 2, len(SPEC.features), 1]
    assert torch.equal(layer(observation(wall, outside_row, outside_column, unknown, ore)), layer(plain))
    after_the_end = observation(wall, ore, [255, 255, 255], token(5, 6, "type_id", 2))
    assert torch.equal(layer(after_the_end), layer(plain))
    assert not torch.equal(layer(observation(wall)), layer(plain))


@pytest.mark.parametrize("path", ["fast", "plain"])
def test_the_memory_layout_of_tokens_does_not_matter(path: str) -> None:
    layer = make_layer(SPEC, "cnn", path)
    tokens = random_tokens(np.random.default_rng(0), 6)
    strided = tokens.transpose(0, 1).contiguous().transpose(0, 1)
    assert not strided.is_contiguous()
    assert torch.equal(layer(strided), layer(tokens))
    assert torch.equal(layer(tokens[::2]), layer(tokens)[::2])


@pytest.mark.parametrize("kind", ["cnn", "mlp"])
@pytest.mark.parametrize(("height", "width"), WINDOWS)
def test_every_cell_is_seen(height: int, width: int, kind: str) -> None:
    first, where = make_window(make_spec(height, width), kind).sightings()
    for location in range(256):
        inside = location // 16 < height and location % 16 < width
        assert (first[location + 1] > first[location]) == inside
    assert len(where) == first[256]


def test_names_get_planes_of_their_own_and_numbers_are_normalised() -> None:
    table = make_plane_table(SPEC, AgentModelConfig())
    ids = {f.name: f.id for f in SPEC.features}
    for value in range(3):
        assert lit_planes(table, ids["type_id"], value) == [(plane_named(table, f"type_id={value}"), 1.0)]
    assert lit_planes(table, ids["type_id"], 200) == [(plane_named(table, "type_id>=16"), 1.0)]
    assert lit_planes(table, ids["agent:orientation"], 0) == [
        (plane_named(table, "agent:orientation=0"), 1.0)
    ]
    assert lit_planes(table, ids["last_action"], 6) == [(plane_named(table, "last_action=6"), 1.0)]
    ore = plane_named(table, "inv:ore_red")
    assert lit_planes(table, ids["inv:ore_red"], 0) == []
    three = plane_named(table, "inv:ore_red 3..3")
    assert lit_planes(table, ids["inv:ore_red"], 3) == [(ore, 0.03), (three, 1.0)]
    many = plane_named(table, "inv:ore_red 16..255")
    assert lit_planes(table, ids["inv:ore_red"], 255) == [(ore, 2.55), (many, 1.0)]
    completion = plane_named(table, "episode_completion_pct")
    assert lit_planes(table, ids["episode_completion_pct"], 51) == [(completion, 0.2)]
    flags = [plane_named(table, f"resource_rewards bit {bit}") for bit in (0, 7)]
    assert lit_planes(table, ids["resource_rewards"], 129) == [(flags[0], 1.0), (flags[1], 1.0)]


def test_obs_scale_multiplies_every_amount() -> None:
    once = make_plane_table(SPEC, AgentModelConfig())
    thrice = make_plane_table(SPEC, AgentModelConfig(obs_scale=3))
    np.testing.assert_allclose(thrice.amount, 3 * once.amount)


def test_types_that_the_world_names_are_told_apart() -> None:
    names = tuple(f"thing_{i}" for i in range(40))
    spec = EnvSpec(("noop",), (0,), SPEC.features, 5, 5, 10, object_type_names=names)
    table = make_plane_table(spec, AgentModelConfig())
    planes = {int(table.plane[0, value, 0]) for value in range(40)}
    assert len(planes) == 40


def test_asking_for_the_impossible_is_an_error() -> None:
    layer = make_layer(SPEC, "cnn", "fast").to(torch.bfloat16)
    with pytest.raises(ValueError, match=r"path is 'fast' but the agent is torch\.bfloat16 on cpu"):
        layer(observation())


@pytest.mark.parametrize("num_rows", [1, 1023, 1024, 2000])
def test_threads_share_the_rows_without_changing_anything(num_rows: int) -> None:
    tokens = random_tokens(np.random.default_rng(4), num_rows, make_spec(5, 5, 12), wild=True)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            layer = make_layer(make_spec(5, 5, 12), "cnn", "fast")
            out = layer(tokens)
            (out * torch.linspace(0, 1, num_rows, dtype=torch.float64)[:, None, None]).sum().backward()
            results.append((out.detach(), layer.weight.grad, layer.bias.grad))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0][0], results[1][0])
    for one, several in zip(*results, strict=True):
        torch.testing.assert_close(one, several, atol=1e-9, rtol=1e-9)


def test_rows_are_split_completely_and_in_order() -> None:
    before = torch.get_num_threads()
    try:
        for threads, num_rows, parts in ((1, 5000, 1), (4, 5000, 4), (4, 1100, 2), (4, 100, 1), (2, 0, 1)):
            torch.set_num_threads(threads)
            slices = split_rows(num_rows, lambda rows: rows)
            assert [row for part in slices for row in range(num_rows)[part]] == list(range(num_rows))
            assert len(slices) == parts
    finally:
        torch.set_num_threads(before)


def test_an_error_in_a_thread_is_not_lost() -> None:
    def work(rows: slice) -> None:
        if rows.start > 0:
            raise RuntimeError("in another thread")

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(RuntimeError, match="in another thread"):
            split_rows(2048, work)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("path", ["fast", "plain"])
@pytest.mark.parametrize(("facing", "ahead"), [(0, (4, 5)), (1, (6, 5)), (2, (5, 4)), (3, (5, 6))])
def test_what_is_ahead_looks_the_same_from_every_facing(
    path: str, facing: int, ahead: tuple[int, int]
) -> None:
    layer = make_layer(SPEC, "cnn", path, turn=True)
    still = make_layer(SPEC, "cnn", path)
    up = token(5, 5, "agent:orientation", 0)
    mine, own = token(*ahead, "type_id", 2), token(5, 5, "agent:orientation", facing)
    with torch.no_grad():
        for one in (layer, still):
            one.bias.fill_(100.0)
    reference = still(observation(up, token(4, 5, "type_id", 2))) - still(observation(up))
    torch.testing.assert_close(layer(observation(own, mine)) - layer(observation(own)), reference)
