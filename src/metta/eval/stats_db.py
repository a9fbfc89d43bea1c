"""Evaluations in a DuckDB file: every episode of every policy, ready for SQL.

Tables, schema version 1:

    policies       policy_id, uri, name, epoch, metadata (JSON); a policy is known by its uri and epoch
    evaluations    evaluation_id, policy_id, suite, seed, deterministic, recorded_at
    simulations    evaluation_id, simulation, category, env (a registered name, or JSON), overrides (JSON),
                   num_episodes, skipped (why it was not played, NULL if it was)
    episodes       evaluation_id, simulation, episode, task, seed, score, length, truncated
    agents         evaluation_id, simulation, episode, agent, total_reward
    agent_metrics  evaluation_id, simulation, episode, agent, metric, value

Any DuckDB client opens the file while no `StatsDB` does. After a crash a `.wal` file may lie beside it, which belongs to
it until it is opened again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb

from metta.agent.policy_record import PolicyRecord
from metta.common.files import StrPath
from metta.common.reading import one_line
from metta.mettagrid.config import EnvConfig
from metta.sim.scores import Score, score_from_moments
from metta.sim.suite import SuiteResult, category_of

SCHEMA_VERSION = 1

UNNAMED = "unnamed"
"""What a policy without a record is called."""

_SCHEMA = """
CREATE TABLE metta_schema (version INTEGER NOT NULL);
CREATE TABLE policies (
    policy_id INTEGER PRIMARY KEY, uri VARCHAR NOT NULL, name VARCHAR NOT NULL, epoch BIGINT NOT NULL,
    metadata VARCHAR NOT NULL
);
CREATE TABLE evaluations (
    evaluation_id INTEGER PRIMARY KEY, policy_id INTEGER NOT NULL, suite VARCHAR NOT NULL, seed HUGEINT NOT NULL,
    deterministic BOOLEAN NOT NULL, recorded_at TIMESTAMPTZ NOT NULL
);
CREATE TABLE simulations (
    evaluation_id INTEGER NOT NULL, simulation VARCHAR NOT NULL, category VARCHAR NOT NULL, env VARCHAR NOT NULL,
    overrides VARCHAR NOT NULL, num_episodes INTEGER NOT NULL, skipped VARCHAR
);
CREATE TABLE episodes (
    evaluation_id INTEGER NOT NULL, simulation VARCHAR NOT NULL, episode INTEGER NOT NULL, task VARCHAR NOT NULL,
    seed BIGINT NOT NULL, score DOUBLE NOT NULL, length INTEGER NOT NULL, truncated BOOLEAN NOT NULL
);
CREATE TABLE agents (
    evaluation_id INTEGER NOT NULL, simulation VARCHAR NOT NULL, episode INTEGER NOT NULL, agent INTEGER NOT NULL,
    total_reward DOUBLE NOT NULL
);
CREATE TABLE agent_metrics (
    evaluation_id INTEGER NOT NULL, simulation VARCHAR NOT NULL, episode INTEGER NOT NULL, agent INTEGER NOT NULL,
    metric VARCHAR NOT NULL, value DOUBLE NOT NULL
);
"""


@dataclass(frozen=True)
class ScoreRow:
    """The score of one policy in one simulation of one evaluation.

    Attributes:
        evaluation: number of the evaluation, the order of recording.
        policy: the policy's name.
        uri: the policy's address, "" for a policy without a record.
        epoch: the policy's epoch.
        suite: name of the suite.
        simulation: `category/name`.
        score: mean over the episodes, with its 95 % t-interval.
    """

    evaluation: int
    policy: str
    uri: str
    epoch: int
    suite: str
    simulation: str
    score: Score

    @property
    def category(self) -> str:
        """The first part of the simulation's name."""
        return category_of(self.simulation)


class StatsDB:
    """A DuckDB file of evaluations. An existing file is opened and added to; close it, or use it in a `with` block.

    Args:
        path: the file; missing folders are made.

    Raises:
        ValueError: the file is not a database, or one of something else or of another version.
        RuntimeError: another process has it open.
        OSError: the file cannot be opened for another reason.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = _connect(self.path)
        try:
            self._check_schema()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; more than once does no harm."""
        self._connection.close()

    def record(self, result: SuiteResult, policy: PolicyRecord | None = None) -> int:
        """Add an evaluation: all of it or, if anything goes wrong or the process dies, nothing.

        Args:
            result: what was played.
            policy: whose evaluation it is; None: a policy that is called "unnamed".

        Returns:
            The number of the evaluation.
        """
        connection = self._connection
        connection.execute("BEGIN")
        try:
            number = self._add(result, policy)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        return number

    def scores(
        self, *, suite: str | None = None, policy: str | None = None, category: str | None = None
    ) -> list[ScoreRow]:
        """Score of every recorded simulation, in the order of recording and of the names; skipped ones have none.

        Args:
            suite: only this suite.
            policy: only policies of this name or uri.
            category: only simulations of this category.
        """
        rows = self._read(
            """
            SELECT e.evaluation_id, p.name, p.uri, p.epoch, v.suite, e.simulation,
                   avg(e.score), stddev_samp(e.score), count(*)
            FROM episodes e JOIN evaluations v USING (evaluation_id) JOIN policies p USING (policy_id)
            WHERE ($1 IS NULL OR v.suite = $1) AND ($2 IS NULL OR p.name = $2 OR p.uri = $2)
              AND ($3 IS NULL OR split_part(e.simulation, '/', 1) = $3)
            GROUP BY ALL ORDER BY e.evaluation_id, e.simulation
            """,
            (suite, policy, category),
        )
        return [
            ScoreRow(evaluation, name, uri, epoch, its_suite, simulation, score_from_moments(*moments))
            for evaluation, name, uri, epoch, its_suite, simulation, *moments in rows
        ]

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run any SQL over the tables.

        Args:
            sql: one statement; `$1`, `$2`, ... stand for the parameters.
            parameters: their values.
        """
        return self._connection.execute(sql, list(parameters)).fetchall()

    def _read(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a query of ours, which only a damaged file can make fail."""
        try:
            return self.query(sql, parameters)
        except duckdb.Error as error:
            raise _damaged(self.path, error) from error

    def _check_schema(self) -> None:
        tables = {row[0] for row in self._read("SELECT table_name FROM duckdb_tables()")}
        if not tables:
            self._connection.execute(
                f"BEGIN; {_SCHEMA} INSERT INTO metta_schema VALUES ({SCHEMA_VERSION}); COMMIT;"
            )
            return
        if "metta_schema" not in tables:
            raise ValueError(
                f"{self.path} is a DuckDB file of something else (it holds {', '.join(sorted(tables)[:3])}); "
                "give evaluations a file of their own."
            )
        versions = self._read("SELECT version FROM metta_schema")
        version = versions[0][0] if versions else None
        if version != SCHEMA_VERSION:
            raise ValueError(
                f"{self.path} holds evaluations in schema version {version}, and this Metta reads and writes version "
                f"{SCHEMA_VERSION}; give it a new file, or use the Metta that wrote this one."
            )

    def _add(self, result: SuiteResult, policy: PolicyRecord | None) -> int:
        number: int = self.query("SELECT coalesce(max(evaluation_id), 0) + 1 FROM evaluations")[0][0]
        suite = result.suite
        policy_id = self._policy_id(policy)
        self._connection.execute(
            "INSERT INTO evaluations VALUES (?, ?, ?, ?, ?, now())",
            [number, policy_id, suite.name, result.seed, result.deterministic],
        )
        self._insert(
            "simulations",
            (
                (
                    number,
                    name,
                    category_of(name),
                    simulation.env.model_dump_json()
                    if isinstance(simulation.env, EnvConfig)
                    else simulation.env,
                    json.dumps(simulation.overrides, default=str),
                    simulation.num_episodes,
                    result.skipped.get(name),
                )
                for name, simulation in suite.simulations.items()
            ),
        )
        keys = [(number, record.simulation, record.episode) for record in result.episodes]
        self._insert(
            "episodes",
            (
                (*key, record.task, record.seed, record.score, record.length, record.truncated)
                for key, record in zip(keys, result.episodes, strict=True)
            ),
        )
        self._insert(
            "agents",
            (
                (*key, agent, reward)
                for key, record in zip(keys, result.episodes, strict=True)
                for agent, reward in enumerate(record.returns)
            ),
        )
        self._insert(
            "agent_metrics",
            (
                (*key, agent, metric, value)
                for key, record in zip(keys, result.episodes, strict=True)
                for agent, stats in enumerate(record.agent_stats)
                for metric, value in stats.items()
            ),
        )
        return number

    def _policy_id(self, policy: PolicyRecord | None) -> int:
        """The row of this policy; what is recorded last about it is what counts."""
        uri, name, epoch = ("", UNNAMED, 0) if policy is None else (policy.uri, policy.name, policy.epoch)
        metadata = json.dumps({} if policy is None else policy.metadata)
        found = self.query("SELECT policy_id FROM policies WHERE uri = $1 AND epoch = $2", (uri, epoch))
        if found:
            policy_id: int = found[0][0]
            self._connection.execute(
                "UPDATE policies SET name = ?, metadata = ? WHERE policy_id = ?", [name, metadata, policy_id]
            )
            return policy_id
        policy_id = self.query("SELECT coalesce(max(policy_id), 0) + 1 FROM policies")[0][0]
        self._connection.execute(
            "INSERT INTO policies VALUES (?, ?, ?, ?, ?)", [policy_id, uri, name, epoch, metadata]
        )
        return policy_id

    def _insert(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Add rows column by column, which is a hundred times faster than one by one."""
        columns = [list(column) for column in zip(*rows, strict=True)]
        if columns:
            marks = ", ".join("unnest(?)" for _ in columns)
            self._connection.execute(f"INSERT INTO {table} SELECT {marks}", columns)


def _connect(path: Path) -> duckdb.DuckDBPyConnection:
    try:
        return duckdb.connect(os.fspath(path))
    except duckdb.Error as error:
        text = str(error)
        if isinstance(error, duckdb.IOException) and "lock" in text:
            raise RuntimeError(
                f"{path} is open in another process; close that one, or give this evaluation a file of its own."
            ) from error
        if "not a valid DuckDB database" in text:
            raise ValueError(
                f"{path} is not a DuckDB database; give evaluations a file of their own, for instance stats.duckdb."
            ) from error
        if isinstance(error, duckdb.IOException) and "enough bytes" not in text:
            raise OSError(f"{path} cannot be opened as a database: {one_line(text)}") from error
        raise _damaged(path, error) from error


def _damaged(path: Path, error: duckdb.Error) -> ValueError:
    return ValueError(
        f"{path} is damaged: {one_line(error)}; take a copy of it, or give evaluations a new file."
    )
