"""A folder of saved policies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from metta.agent.metta_agent import MettaAgent
from metta.agent.policy_record import PolicyRecord
from metta.agent.serialize import load_agent, read_metadata, save_agent
from metta.common.files import StrPath


def policy_file_name(epoch: int) -> str:
    """`checkpoint_000100.pt` for epoch 100."""
    return f"checkpoint_{epoch:06d}.pt"


class PolicyStore:
    """Finds, saves and loads the policies of a folder.

    The folder is the truth: policies that others put there are found, and so are those of an earlier run.

    Args:
        directory: the folder; it is made when the first policy is saved.
    """

    def __init__(self, directory: StrPath) -> None:
        self.directory = Path(directory)
        self._elsewhere: list[PolicyRecord] = []

    def save(self, agent: MettaAgent, epoch: int = 0, metadata: dict[str, Any] | None = None) -> PolicyRecord:
        """Write an agent into the folder, replacing one of the same epoch.

        Args:
            agent: the agent.
            epoch: batches it has been trained on; names the file.
            metadata: anything JSON can hold; `epoch` is added.

        Raises:
            ValueError: `epoch` is negative, or the metadata cannot be written.
        """
        if epoch < 0:
            raise ValueError(f"epoch={epoch}; count the epochs of a checkpoint from 0.")
        path = self.directory / policy_file_name(epoch)
        content = {**(metadata or {}), "epoch": epoch}
        save_agent(agent, path, content)
        return PolicyRecord(path, epoch, content)

    def add(self, path: StrPath) -> PolicyRecord:
        """Make a policy that lies elsewhere one of this store's records.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is not a policy.
        """
        record = _read_record(Path(path))
        inside = record.path.resolve().parent == self.directory.resolve()
        if not inside and record.path not in [known.path for known in self._elsewhere]:
            self._elsewhere.append(record)
        return record

    def records(self) -> list[PolicyRecord]:
        """All policies, the oldest first: by epoch, then by name.

        Raises:
            ValueError: a file called `*.pt` in the folder is not a policy.
        """
        inside = [_read_record(path) for path in self.directory.glob("*.pt") if not path.name.startswith(".")]
        return sorted(inside + self._elsewhere, key=lambda record: (record.epoch, record.path.name))

    def latest(self) -> PolicyRecord | None:
        """The record of the highest epoch, None in an empty store."""
        records = self.records()
        return records[-1] if records else None

    def load(self, record: PolicyRecord, device: torch.device | str = "cpu") -> MettaAgent:
        """Rebuild the agent of a record.

        Raises:
            FileNotFoundError: the file is gone.
            ValueError: the file is damaged.
        """
        return load_agent(record.path, device)[0]


def _read_record(path: Path) -> PolicyRecord:
    metadata = read_metadata(path)
    return PolicyRecord(path, int(metadata.get("epoch", 0)), metadata)
