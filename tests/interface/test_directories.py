"""Folders, configuration and device of a run; several processes are tested in tests/rl/test_distributed.py."""

import re
import time
from pathlib import Path

import pytest
import torch
import yaml

from metta.agent.config import AgentModelConfig
from metta.interface import directories
from metta.interface.directories import (
    DeviceSetup,
    save_experiment_config,
    setup_device_and_distributed,
    setup_distributed_vars,
    setup_run_directories,
)
from metta.rl.trainer_config import PPOConfig, TrainerConfig


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch, tmp_path: Path) -> None:
    for name in ("METTA_RUN", "METTA_DATA_DIR", "WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_folders_are_made_and_found_again(tmp_path: Path) -> None:
    dirs = setup_run_directories("first", tmp_path / "data")
    assert dirs.run_name == "first"
    assert dirs.run_dir == tmp_path / "data" / "first"
    for folder in (dirs.run_dir, dirs.checkpoint_dir, dirs.replay_dir, dirs.stats_dir):
        assert folder.is_dir()
        assert folder == dirs.run_dir or folder.parent == dirs.run_dir
    (dirs.checkpoint_dir / "kept").write_text("x")
    assert setup_run_directories("first", tmp_path / "data") == dirs
    assert (dirs.checkpoint_dir / "kept").read_text() == "x"


def test_the_name_comes_from_the_argument_then_the_environment_then_the_clock(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(directories, "strftime", lambda form: time.strftime(form, time.gmtime(0)))
    names = [setup_run_directories().run_name for _ in range(3)]
    assert names == ["19700101-000000", "19700101-000000-2", "19700101-000000-3"], (
        "runs of one second are mixed up"
    )
    assert (tmp_path / "runs" / names[2] / "checkpoints").is_dir()
    monkeypatch.setenv("METTA_RUN", "from_environment")
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path / "elsewhere"))
    assert setup_run_directories().run_dir == tmp_path / "elsewhere" / "from_environment"
    assert setup_run_directories("stated", "here").run_dir == Path("here/stated")


@pytest.mark.parametrize("name", ["", "  ", ".", "..", "a/b", "../up", "a\\b"])
def test_names_that_are_no_folder_are_refused(name, monkeypatch, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=re.escape(f"run_name is {name!r}, which cannot be the name of a folder")
    ):
        setup_run_directories(name)
    monkeypatch.setenv("METTA_RUN", name)
    with pytest.raises(ValueError, match="the environment variable METTA_RUN is"):
        setup_run_directories()
    assert list(tmp_path.iterdir()) == []


def test_the_whole_configuration_can_be_read_back(tmp_path: Path) -> None:
    dirs = setup_run_directories("run", tmp_path)
    trainer, agent = (
        TrainerConfig(total_timesteps=5, ppo=PPOConfig(gamma=0.5)),
        AgentModelConfig(hidden_dim=8),
    )
    file = save_experiment_config(
        dirs,
        setup_device_and_distributed("cpu"),
        trainer,
        agent=agent,
        seed=7,
        env={"name": "/env/x", "paths": [tmp_path]},
    )
    assert file == dirs.config_file == tmp_path / "run" / "config.yaml"
    content = yaml.safe_load(file.read_text())
    assert content["run"] == "run"
    assert content["device"] == "cpu"
    assert content["world_size"] == 1
    assert content["versions"]["torch"] == torch.__version__
    assert content["seed"] == 7
    assert content["env"] == {"name": "/env/x", "paths": [str(tmp_path)]}
    assert TrainerConfig.model_validate(content["trainer"]) == trainer
    assert AgentModelConfig.model_validate(content["agent"]) == agent
    assert content["trainer"]["ppo"]["gamma"] == 0.5
    assert content["trainer"]["minibatch_size"] == trainer.minibatch_size, "defaults are written too"


def test_earlier_configurations_are_kept(tmp_path: Path) -> None:
    dirs = setup_run_directories("run", tmp_path)

    def save(seed: int) -> list[tuple[str, int]]:
        save_experiment_config(dirs, "cpu", TrainerConfig(), seed=seed)
        files = sorted(dirs.run_dir.glob("config*"))
        assert all(re.fullmatch(r"config(\.\d+)?\.yaml", file.name) for file in files)
        return [(file.name, yaml.safe_load(file.read_text())["seed"]) for file in files]

    assert save(1) == [("config.yaml", 1)]
    assert save(1) == [("config.yaml", 1)]
    assert save(2) == [("config.1.yaml", 1), ("config.yaml", 2)]
    assert save(2) == [("config.1.yaml", 1), ("config.yaml", 2)]
    assert save(1) == [("config.1.yaml", 1), ("config.2.yaml", 2), ("config.yaml", 1)]
    for seed in range(3, 13):
        last = save(seed)
    assert len(last) == 13
    assert {seed for _, seed in last} == set(range(1, 13))


def test_killed_between_keeping_and_replacing_nothing_is_lost_or_doubled(tmp_path: Path, monkeypatch) -> None:
    dirs = setup_run_directories("run", tmp_path)
    save_experiment_config(dirs, "cpu", {}, seed=1)
    write = directories.atomic_write_bytes

    def write_or_die(path: Path, data: bytes) -> None:
        if path == dirs.config_file:
            raise KeyboardInterrupt
        write(path, data)

    monkeypatch.setattr(directories, "atomic_write_bytes", write_or_die)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            save_experiment_config(dirs, "cpu", {}, seed=2)
    monkeypatch.undo()
    assert "seed: 1" in dirs.config_file.read_text()
    save_experiment_config(dirs, "cpu", {}, seed=2)
    assert "seed: 2" in dirs.config_file.read_text()
    assert [file.name for file in dirs.run_dir.glob("config.*.yaml")] == ["config.1.yaml"]


def test_what_yaml_cannot_hold_is_refused_and_nothing_written(tmp_path: Path) -> None:
    dirs = setup_run_directories("run", tmp_path)
    with pytest.raises(TypeError, match="the configuration cannot be written as YAML"):
        save_experiment_config(dirs, "cpu", {"odd": object()})
    assert not dirs.config_file.exists()


def test_the_device_serves_all_three_documented_uses() -> None:
    setup = setup_device_and_distributed("cpu")
    assert setup[0] == torch.device("cpu")
    device, is_master, world_size, rank = setup
    assert (device, is_master, world_size, rank) == (torch.device("cpu"), True, 1, 0) == setup
    assert str(setup) == f"{setup}" == "cpu"
    assert torch.device(str(setup)) == setup.device
    assert setup == setup_device_and_distributed(torch.device("cpu")) == setup_device_and_distributed(setup)
    assert setup != DeviceSetup(torch.device("cpu"), False, 2, 1)
    assert (setup.is_master, setup.world_size, setup.rank) == setup_distributed_vars()


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert str(setup_device_and_distributed()) == "cpu"
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert [str(setup_device_and_distributed(name)) for name in ("auto", "cuda", "cuda:1")] == [
        "cuda:0",
        "cuda:0",
        "cuda:1",
    ]
    assert chosen == [0, 0, 1]
    assert str(directories._choose_device("cuda", 1)) == "cuda:1", "each process of a machine gets its own"
    with pytest.raises(ValueError, match="there is no GPU 2 for process 2 of this machine, only 2"):
        directories._choose_device("cuda", 2)
    with pytest.raises(ValueError, match="no GPU 5 for device 'cuda:5', only 2"):
        setup_device_and_distributed("cuda:5")
    with pytest.raises(ValueError, match=r"device is 'cuda:0', one GPU for .* say cuda"):
        directories._choose_device("cuda:0", 0)


def test_devices_that_are_not_there_are_told(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("cuda", "cuda:1"):
        with pytest.raises(
            ValueError, match=f"device is '{name}', but torch finds no usable NVIDIA GPU here: use cpu"
        ):
            setup_device_and_distributed(name)
    with pytest.raises(ValueError, match=r"device is 'vulkan', but this torch cannot use one .*: use cpu"):
        setup_device_and_distributed("vulkan")
    with pytest.raises(ValueError, match="device is 'abacus', which torch does not know"):
        setup_device_and_distributed("abacus")
