from pathlib import Path

import pytest
import torch

from metta.agent.config import AgentModelConfig
from metta.agent.metta_agent import MettaAgent
from metta.agent.policy_store import PolicyStore
from metta.mettagrid.spec import EnvSpec, feature_table

SPEC = EnvSpec(("noop", "move"), (0, 1), feature_table(("ore",)), 3, 3, 4)


def make_agent(seed: int = 0) -> MettaAgent:
    config = AgentModelConfig(hidden_dim=8, backbone="mlp")
    return MettaAgent(SPEC, config, generator=torch.Generator().manual_seed(seed))


def test_an_empty_store_has_no_latest_and_makes_no_folder(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path / "policies")
    assert store.records() == []
    assert store.latest() is None
    assert not (tmp_path / "policies").exists()


def test_saved_policies_are_found_in_order_of_their_epochs_and_loaded(tmp_path: Path) -> None:
    store, agents = PolicyStore(tmp_path / "policies"), {}
    for epoch in (20, 3, 100):
        agents[epoch] = make_agent(epoch)
        record = store.save(agents[epoch], epoch, {"score": epoch / 2})
        assert (
            record == store.records()[[3, 20, 100].index(epoch) if epoch == 100 else -1 if epoch == 20 else 0]
        )
    again = PolicyStore(tmp_path / "policies")
    assert [record.epoch for record in again.records()] == [3, 20, 100]
    latest = again.latest()
    assert latest is not None
    assert latest.name == "checkpoint_000100"
    assert latest.uri == (tmp_path / "policies" / "checkpoint_000100.pt").resolve().as_uri()
    assert latest.metadata == {"score": 50.0, "epoch": 100}
    for record in again.records():
        loaded = again.load(record)
        for name, tensor in agents[record.epoch].state_dict().items():
            assert torch.equal(tensor, loaded.state_dict()[name])


def test_policies_from_elsewhere_join_once(tmp_path: Path) -> None:
    here, there = PolicyStore(tmp_path / "here"), PolicyStore(tmp_path / "there")
    here.save(make_agent(), 2)
    path = there.save(make_agent(), 1).path
    for _ in range(2):
        here.add(path)
        here.add(tmp_path / "here" / "checkpoint_000002.pt")
    assert [record.epoch for record in here.records()] == [1, 2]


def test_what_is_not_a_policy_is_refused(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nothing\.pt"):
        store.add(tmp_path / "nothing.pt")
    with pytest.raises(ValueError, match="epoch=-1"):
        store.save(make_agent(), -1)
    (tmp_path / "foreign.pt").write_bytes(b"something")
    with pytest.raises(ValueError, match="foreign"):
        store.records()
