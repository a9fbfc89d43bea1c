"""Saved policies: a folder of them, and finding one by its address."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.request import url2pathname

import torch

from metta.agent.metta_agent import MettaAgent
from metta.agent.policy_record import PolicyRecord
from metta.agent.serialize import load_agent, read_metadata, save_agent
from metta.common.files import StrPath

Selector = Literal["latest", "top", "all"]


def policy_file_name(epoch: int) -> str:
    """`checkpoint_000100.pt` for epoch 100."""
    return f"checkpoint_{epoch:06d}.pt"


class PolicyStore:
    """Finds, saves and loads policies.

    The folders are the truth: policies that others put there are found, and so are those of an earlier run. Every
    policy is one file that appears whole, so a store may be read while a run writes into it.

    Args:
        directory: where `save` puts policies and `records` looks; it is made when the first policy is saved.
    """

    def __init__(self, directory: StrPath = ".") -> None:
        self.directory = Path(directory)
        self._elsewhere: list[Path] = []

    def save(
        self,
        agent: MettaAgent,
        epoch: int = 0,
        metadata: dict[str, Any] | None = None,
        *,
        file_name: str | None = None,
    ) -> PolicyRecord:
        """Write an agent into the folder, replacing one of the same name.

        Args:
            agent: the agent.
            epoch: batches it has been trained on.
            metadata: anything JSON can hold; `epoch` is added.
            file_name: None: by the epoch, `checkpoint_000100.pt`.

        Raises:
            ValueError: `epoch` is negative, or the metadata cannot be written.
        """
        if epoch < 0:
            raise ValueError(f"epoch={epoch}; count the epochs of a checkpoint from 0.")
        path = self.directory / (policy_file_name(epoch) if file_name is None else file_name)
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
        place = record.path.resolve()
        inside = place.parent == self.directory.resolve()
        if not inside and place not in [known.resolve() for known in self._elsewhere]:
            self._elsewhere.append(record.path)
        return record

    def records(self) -> list[PolicyRecord]:
        """The policies of the store's own folder and those added to it, the oldest first: by epoch, then by name.

        Raises:
            ValueError: a file called `*.pt` in the folder is not a policy.
        """
        return _in_order(_read_all([*_files(self.directory), *self._elsewhere]))

    def latest(self) -> PolicyRecord | None:
        """The record of the highest epoch, None in an empty store."""
        records = self.records()
        return records[-1] if records else None

    def policy_records(
        self,
        uri: StrPath | None = None,
        selector: Selector = "latest",
        n: int = 1,
        metric: str = "score",
    ) -> list[PolicyRecord]:
        """Find policies by their address.

        Args:
            uri: a file or a folder of policies: a path, or `file://` before one. Relative to the current folder.
                None: the store's own policies.
            selector: which of a folder's policies. `latest`: those of the highest epochs, the latest first. `top`: those
                with the highest `metric`, the best first, the later one where two are equal; policies saved
                without it do not take part. `all`: every one, the oldest first.
            n: how many, for `latest` and `top`; fewer where there are fewer.
            metric: name of a number in the policies' metadata, for `top`.

        Returns:
            At least one.

        Raises:
            FileNotFoundError: there is no such file or folder, or no policy in it.
            ValueError: the address is of an unknown kind, a file is not a policy, no policy has the metric, or an
                argument is out of range.
        """
        if selector not in get_args(Selector):
            raise ValueError(f"selector is {selector!r}; use one of {', '.join(get_args(Selector))}.")
        if n < 1:
            raise ValueError(f"n is {n}; ask for at least one policy.")
        place = self.directory if uri is None else path_of(uri)
        if place.is_file():
            return [_read_record(place)]
        if uri is not None and not place.is_dir():
            raise FileNotFoundError(
                f"There is no file or folder {place}; name a saved policy or a folder of them."
            )
        records = self.records() if uri is None else _in_order(_read_all(_files(place)))
        if not records:
            inner = place / "checkpoints"
            hint = f"did you mean {inner}?" if inner.is_dir() else "policies are files called *.pt."
            raise FileNotFoundError(f"There is no policy in {place}; {hint}")
        if selector == "all":
            return records
        records.reverse()
        return records[:n] if selector == "latest" else _best(records, metric, place)[:n]

    def policy_record(
        self, uri: StrPath | None = None, selector: Literal["latest", "top"] = "latest", metric: str = "score"
    ) -> PolicyRecord:
        """Find the one policy that an address means; see `policy_records`."""
        return self.policy_records(uri, selector, 1, metric)[0]

    def load(self, record: PolicyRecord, device: torch.device | str = "cpu") -> MettaAgent:
        """Rebuild the agent of a record.

        Raises:
            FileNotFoundError: the file is gone.
            ValueError: the file is damaged.
        """
        return load_agent(record.path, device)[0]


def path_of(uri: StrPath) -> Path:
    """The path that an address means: `file:///home/me/run`, `file://runs/mine` or simply the path.

    Raises:
        ValueError: the address is of another kind.
    """
    text = str(uri)
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text)
    if scheme is None:
        return Path(uri)
    if scheme[1].lower() != "file":
        raise ValueError(
            f"{text} cannot be opened: {scheme[1]}:// is unknown here; use a path, or file:// before one."
        )
    rest = url2pathname(text[scheme.end() :])
    return Path(rest.removeprefix("localhost") if rest.startswith("localhost/") else rest)


def _best(records: list[PolicyRecord], metric: str, place: Path) -> list[PolicyRecord]:
    measured = [(record.metrics[metric], record) for record in records if metric in record.metrics]
    if not measured:
        known = sorted({name for record in records for name in record.metrics})
        raise ValueError(
            f"no policy in {place} was saved with a number called {metric!r}; there are {', '.join(known)}."
        )
    return [record for _, record in sorted(measured, key=lambda pair: -pair[0])]


def _in_order(records: list[PolicyRecord]) -> list[PolicyRecord]:
    return sorted(records, key=lambda record: (record.epoch, len(record.name), record.name))


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.pt") if not path.name.startswith(".")]


def _read_all(files: list[Path]) -> list[PolicyRecord]:
    records = []
    for path in files:
        try:
            records.append(_read_record(path))
        except FileNotFoundError:
            continue  # removed by someone else since it was found
    return records


def _read_record(path: Path) -> PolicyRecord:
    metadata = read_metadata(path)
    return PolicyRecord(path, int(metadata.get("epoch", 0)), metadata)
