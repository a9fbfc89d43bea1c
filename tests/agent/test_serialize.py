import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from agent_cases import PLAIN_GRAPH, RICH_GRAPH, SPEC, make_agent, make_spec, random_tokens
from metta.agent.serialize import load_agent, load_weights, read_metadata, save_agent

METADATA = {"epoch": 3, "total_steps": 10**12, "note": "ünïcode", "nested": {"list": [1, 2.5, None, True]}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "deep" / "checkpoint_000003.pt"
    save_agent(make_agent(seed=1), path, METADATA)
    return path


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"backbone": "mlp", "lstm_layers": 2},
        {"forward_lstm": False, "clip_range": 0.5},
        {"components": RICH_GRAPH, "obs_scale": 2},
        {"components": PLAIN_GRAPH, "egocentric": False},
    ],
)
def test_a_loaded_agent_acts_identically(tmp_path: Path, config: dict[str, object]) -> None:
    agent = make_agent(seed=1, **config)
    path = tmp_path / "agent.pt"
    save_agent(agent, path, METADATA)
    torch.manual_seed(0)
    expected_random = torch.rand(2)
    torch.manual_seed(0)
    loaded, metadata = load_agent(path)
    assert torch.equal(torch.rand(2), expected_random), "loading must not use up random numbers"
    assert metadata == METADATA
    assert loaded.spec == agent.spec
    assert loaded.config == agent.config
    obs = random_tokens(np.random.default_rng(0), 20)
    acts = [
        a.act(obs, a.initial_state(20), generator=torch.Generator().manual_seed(0)) for a in (agent, loaded)
    ]
    for name in ("actions", "logprobs", "values"):
        assert torch.equal(*(getattr(act, name) for act in acts))
    assert torch.equal(acts[0].state.h, acts[1].state.h)
    assert torch.equal(loaded.l2_init_loss(), agent.l2_init_loss())


def test_double_precision_survives(tmp_path: Path) -> None:
    agent = make_agent().double()
    save_agent(agent, tmp_path / "agent.pt", {})
    loaded, _ = load_agent(tmp_path / "agent.pt")
    obs = random_tokens(np.random.default_rng(0), 5)
    assert torch.equal(loaded.value(obs, loaded.initial_state(5)), agent.value(obs, agent.initial_state(5)))


def test_weights_go_into_an_existing_agent(file: Path) -> None:
    agent = make_agent(seed=2)
    assert load_weights(agent, file) == METADATA
    for ours, theirs in zip(agent.parameters(), make_agent(seed=1).parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_metadata_is_read_without_weights(file: Path) -> None:
    assert read_metadata(file) == METADATA


def test_nothing_is_left_beside_the_file(file: Path) -> None:
    assert [p.name for p in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (make_spec(9, 11), r"trained for another world: obs_height is 11 there and 9 here"),
        (
            replace(SPEC, action_names=(*SPEC.action_names[:-1], "jump")),
            r"action_names\[6\] is swap there and jump here",
        ),
        (replace(SPEC, features=SPEC.features[:-1]), r"features has 23 entries there and 22 here"),
    ],
)
def test_weights_for_another_world_are_refused(file: Path, spec: object, message: str) -> None:
    agent = make_agent(spec)  # type: ignore[arg-type]
    before = [p.detach().clone() for p in agent.parameters()]
    with pytest.raises(ValueError, match=message):
        load_weights(agent, file)
    assert all(torch.equal(p, q) for p, q in zip(agent.parameters(), before, strict=True))


def test_another_number_of_tokens_is_the_same_world(file: Path) -> None:
    assert load_weights(make_agent(replace(SPEC, num_tokens=10)), file) == METADATA


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"hidden_dim": 25},
            r"has shape \[.*\] there and \[.*\] in this agent; make the agent with the config of the file",
        ),
        ({"lstm_layers": 2}, r"lacks the weights core\.layers\.1\."),
        ({"forward_lstm": False}, r"holds the weights core\.layers\.0\."),
        ({"components": RICH_GRAPH}, r"(lacks|holds) the weights "),
    ],
)
def test_weights_of_another_architecture_are_refused(
    file: Path, config: dict[str, object], message: str
) -> None:
    agent = make_agent(**config)
    before = [p.detach().clone() for p in agent.parameters()]
    with pytest.raises(ValueError, match=message):
        load_weights(agent, file)
    assert all(torch.equal(p, q) for p, q in zip(agent.parameters(), before, strict=True))


@pytest.mark.parametrize("load", [load_agent, read_metadata, lambda path: load_weights(make_agent(), path)])
def test_files_that_are_no_agents_are_refused(tmp_path: Path, file: Path, load: object) -> None:
    assert callable(load)
    with pytest.raises(FileNotFoundError, match=r"There is no agent file .*nowhere\.pt"):
        load(tmp_path / "nowhere.pt")
    cut = tmp_path / "cut.pt"
    cut.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"cut\.pt cannot be loaded: it is not a whole safetensors file"):
        load(cut)
    other = tmp_path / "other.pt"
    save_file({"x": torch.zeros(1)}, other)
    with pytest.raises(
        ValueError, match=r"other\.pt cannot be loaded: its format is None, not 'metta-agent-1'"
    ):
        load(other)


@pytest.mark.parametrize("spoil", ["spec", "config"])
def test_a_spoilt_description_is_refused(tmp_path: Path, spoil: str) -> None:
    agent = make_agent()
    header = {
        "format": "metta-agent-1",
        "spec": json.dumps(SPEC.to_json()),
        "config": agent.config.model_dump_json(),
        "metadata": "{}",
    }
    header[spoil] = '{"unknown": 1}'
    path = tmp_path / "agent.pt"
    save_file({k: v.contiguous() for k, v in agent.state_dict().items()}, path, header)
    with pytest.raises(ValueError, match=r"agent\.pt cannot be loaded: its description cannot be read"):
        load_agent(path)


@pytest.mark.parametrize("components", [{}, {"components": PLAIN_GRAPH}])
def test_a_policy_from_before_there_was_a_mask_acts_as_it_did(
    tmp_path: Path, components: dict[str, object]
) -> None:
    agent = make_agent(seed=1, mask_actions=False, **components)
    spec = SPEC.to_json()
    del spec["action_kinds"]
    header = {
        "format": "metta-agent-1",
        "spec": json.dumps(spec),
        "config": json.dumps(agent.config.model_dump(mode="json", exclude={"mask_actions"})),
        "metadata": "{}",
    }
    path = tmp_path / "agent.pt"
    save_file({k: v.contiguous() for k, v in agent.state_dict().items()}, path, header)
    loaded, _ = load_agent(path)
    assert loaded.config == agent.config
    assert loaded.legality is None
    save_agent(make_agent(seed=1, **components), path, {})
    assert load_agent(path)[0].config.mask_actions


@pytest.mark.parametrize("metadata", [{"x": float("nan")}, {"x": torch.zeros(1)}])
def test_metadata_that_json_cannot_hold_is_refused(tmp_path: Path, metadata: dict[str, object]) -> None:
    path = tmp_path / "agent.pt"
    with pytest.raises(ValueError, match=r"metadata for .*agent\.pt cannot be written as JSON"):
        save_agent(make_agent(), path, metadata)
    assert not path.exists()


def test_another_width_is_told_by_a_layer(tmp_path: Path) -> None:
    path = tmp_path / "wide.pt"
    save_agent(make_agent(hidden_dim=24), path, {})
    with pytest.raises(
        ValueError, match=r"(encoder|core|head)\S* has shape \[.*24.*\] there and \[.*16.*\] in"
    ):
        load_weights(make_agent(hidden_dim=16), path)
