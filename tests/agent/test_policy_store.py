import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from metta.agent.config import AgentModelConfig
from metta.agent.metta_agent import MettaAgent
from metta.agent.policy_record import PolicyRecord
from metta.agent.policy_store import PolicyStore, path_of
from metta.mettagrid.spec import EnvSpec, feature_table

SPEC = EnvSpec(("noop", "move"), (0, 1), feature_table(("ore",)), 3, 3, 4)


def make_agent(seed: int = 0) -> MettaAgent:
    config = AgentModelConfig(hidden_dim=8, backbone="mlp")
    return MettaAgent(SPEC, config, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """A folder of five policies; the score of one is missing, two are equally good."""
    store, agent = PolicyStore(tmp_path / "scored runs"), make_agent()
    for epoch, metadata in enumerate([{"score": 1.5}, {"score": 3}, {}, {"score": 3.0}, {"score": -2.0}]):
        store.save(agent, epoch, {**metadata, "kind": "test", "final": epoch == 4})
    return store.directory


def epochs(records: list[PolicyRecord]) -> list[int]:
    return [record.epoch for record in records]


def test_an_empty_store_has_no_latest_and_makes_no_folder(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path / "policies")
    assert store.records() == []
    assert store.latest() is None
    assert not (tmp_path / "policies").exists()
    with pytest.raises(FileNotFoundError, match=r"There is no policy in .*policies; policies are files"):
        store.policy_records()


def test_saved_policies_are_found_in_order_of_their_epochs_and_loaded(tmp_path: Path) -> None:
    store, agents = PolicyStore(tmp_path / "policies"), {}
    for epoch in (20, 3, 100):
        agents[epoch] = make_agent(epoch)
        record = store.save(agents[epoch], epoch, {"score": epoch / 2})
        assert record in store.records()
    again = PolicyStore(tmp_path / "policies")
    assert epochs(again.records()) == [3, 20, 100]
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
    assert epochs(here.records()) == [1, 2]
    assert epochs(here.policy_records(selector="all")) == [1, 2]
    assert here.policy_record().epoch == 2


def test_policies_from_elsewhere_are_read_as_they_are_now(tmp_path: Path) -> None:
    here, there = PolicyStore(tmp_path / "here"), PolicyStore(tmp_path / "there")
    path = there.save(make_agent(), 1).path
    here.add(path)
    there.save(make_agent(), 1, {"score": 2.0})
    assert here.policy_record(selector="top").metadata["score"] == 2.0
    path.unlink()
    assert here.records() == []


def test_what_is_not_a_policy_is_refused(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nothing\.pt"):
        store.add(tmp_path / "nothing.pt")
    with pytest.raises(ValueError, match="epoch=-1"):
        store.save(make_agent(), -1)
    (tmp_path / "foreign.pt").write_bytes(b"something")
    with pytest.raises(ValueError, match="foreign"):
        store.records()


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({}, [4]),
        ({"n": 3}, [4, 3, 2]),
        ({"n": 9}, [4, 3, 2, 1, 0]),
        ({"selector": "top"}, [3]),
        ({"selector": "top", "n": 9}, [3, 1, 0, 4]),
        ({"selector": "top", "metric": "epoch", "n": 2}, [4, 3]),
        ({"selector": "all", "n": 1}, [0, 1, 2, 3, 4]),
    ],
)
def test_selectors(scored: Path, selection, expected) -> None:
    elsewhere = PolicyStore(scored / "unrelated")
    assert epochs(elsewhere.policy_records(scored, **selection)) == expected
    assert epochs(PolicyStore(scored).policy_records(**selection)) == expected


def test_addresses_of_a_file_and_a_folder(scored: Path, monkeypatch) -> None:
    store, file = PolicyStore(), scored / "checkpoint_000001.pt"
    monkeypatch.chdir(scored.parent)
    for uri in (
        file,
        str(file),
        f"file://{file}",
        file.as_uri(),
        f"file://localhost{file}",
        "scored runs/checkpoint_000001.pt",
        "file://scored runs/checkpoint_000001.pt",
        "file://./scored%20runs/checkpoint_000001.pt",
        "FILE://scored runs/checkpoint_000001.pt",
    ):
        record = store.policy_record(uri)
        assert record.epoch == 1
        assert record.metadata["kind"] == "test"
        assert store.policy_record(record.uri) == PolicyRecord(file, 1, record.metadata)
        assert isinstance(store.load(record, "cpu"), MettaAgent)
    for uri in (scored, scored.as_uri(), "scored runs", "file://scored runs/"):
        assert store.policy_record(uri).epoch == 4
        assert store.policy_record(uri, "top").epoch == 3
        assert store.policy_record(uri, "top", metric="epoch").epoch == 4
    assert path_of("100%25") == Path("100%25"), "a plain path is taken as it is"


@pytest.mark.parametrize(
    ("uri", "options", "error", "message"),
    [
        (
            "wandb://run/metta",
            {},
            ValueError,
            r"wandb://run/metta cannot be opened: wandb:// is unknown.*file://",
        ),
        ("s3://bucket/x.pt", {}, ValueError, r"s3:// is unknown"),
        ("nowhere", {}, FileNotFoundError, r"There is no file or folder nowhere; name a saved policy"),
        ("empty", {}, FileNotFoundError, r"There is no policy in empty; policies are files called \*\.pt"),
        ("home", {}, FileNotFoundError, r"There is no policy in home; did you mean home/checkpoints\?"),
        ("scored runs", {"selector": "best"}, ValueError, "selector is 'best'; use one of latest, top, all"),
        ("scored runs", {"n": 0}, ValueError, "n is 0"),
        (
            "scored runs",
            {"selector": "top", "metric": "reward"},
            ValueError,
            r"no policy in scored runs was saved with a number called 'reward'; there are epoch, score\.",
        ),
        ("scored runs", {"selector": "top", "metric": "kind"}, ValueError, "called 'kind'"),
        ("scored runs", {"selector": "top", "metric": "final"}, ValueError, "called 'final'"),
    ],
)
def test_mistakes_are_told(scored: Path, monkeypatch, uri, options, error, message) -> None:
    monkeypatch.chdir(scored.parent)
    Path("empty").mkdir()
    Path("home/checkpoints").mkdir(parents=True)
    with pytest.raises(error, match=message):
        PolicyStore().policy_records(uri, **options)


def test_a_policy_removed_while_the_folder_is_read_is_left_out(scored: Path, monkeypatch) -> None:
    listed = Path.glob

    def glob_then_lose(self: Path, pattern: str):
        found = list(listed(self, pattern))
        (scored / "checkpoint_000002.pt").unlink()
        return iter(found)

    monkeypatch.setattr(Path, "glob", glob_then_lose)
    assert epochs(PolicyStore(scored).records()) == [0, 1, 3, 4]


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from metta.agent.policy_store import PolicyStore
from test_policy_store import make_agent
store, number = PolicyStore(sys.argv[2]), 0
while True:
    agent = make_agent()
    agent.value_head.layers[-1].bias.data.fill_(number)
    store.save(agent, number % 3, {"score": float(number)})
    number += 1
"""


def test_read_while_another_process_writes_and_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(Path(__file__).parent), str(folder)])
    store, seen = PolicyStore(folder), set()
    try:
        end = time.monotonic() + 60
        while len(seen) < 12 and time.monotonic() < end:
            for record in store.records():
                agent = store.load(record)  # it may be a later one than the record's, but a whole one
                bias = agent.value_head.layers[-1].bias.item()
                assert bias >= record.metadata["score"]
                assert bias % 3 == record.epoch
                seen.add(bias)
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
    assert len(seen) >= 12
    assert epochs(store.records()) == [0, 1, 2]
    assert all(store.load(record) for record in store.records())


def test_a_torn_file_is_refused_by_name_even_if_its_header_is_whole(scored: Path) -> None:
    torn = scored / "checkpoint_000002.pt"
    torn.write_bytes(torn.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"checkpoint_000002.*not a whole"):
        PolicyStore(scored).records()
