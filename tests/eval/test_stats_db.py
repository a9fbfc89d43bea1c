"""The database of evaluations: what goes in comes out, files of others are refused, a crash loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from eval_cases import made_up_result
from metta.agent.policy_record import PolicyRecord
from metta.eval.stats_db import SCHEMA_VERSION, StatsDB
from metta.sim.scores import mean_score

POLICY = PolicyRecord(Path("/runs/a/checkpoint_000012.pt"), 12, {"epoch": 12, "note": "naïve"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "stats.duckdb"


def test_everything_that_was_recorded_comes_out_again(path: Path) -> None:
    result = made_up_result()
    with StatsDB(path) as database:
        assert database.record(result, POLICY) == 1
    with StatsDB(path) as database:
        assert database.query("SELECT uri, name, epoch, metadata FROM policies") == [
            (POLICY.uri, "checkpoint_000012", 12, json.dumps(POLICY.metadata))
        ]
        assert database.query("SELECT suite, seed, deterministic FROM evaluations") == [("made up", 4, False)]
        simulations = database.query(
            "SELECT simulation, category, env, overrides, num_episodes, skipped FROM simulations"
        )
        assert simulations[0] == ("field/near", "field", "/env/mettagrid/simple", '{"max_steps": 7}', 3, None)
        assert json.loads(simulations[1][2])["game"]["num_agents"] == 2
        assert [row[5] for row in simulations] == [None, None, None, "no action is common to both."]
        rows = database.query(
            "SELECT simulation, episode, task, seed, score, length, truncated FROM episodes"
        )
        assert rows == [
            (r.simulation, r.episode, r.task, r.seed, r.score, r.length, r.truncated) for r in result.episodes
        ]
        rows = database.query("SELECT simulation, episode, agent, total_reward FROM agents")
        assert rows == [
            (r.simulation, r.episode, a, reward)
            for r in result.episodes
            for a, reward in enumerate(r.returns)
        ]
        rows = database.query("SELECT simulation, episode, agent, metric, value FROM agent_metrics")
        assert rows == [
            (r.simulation, r.episode, a, metric, value)
            for r in result.episodes
            for a, stats in enumerate(r.agent_stats)
            for metric, value in stats.items()
        ]


def test_scores_are_those_of_the_result(path: Path) -> None:
    first, second = made_up_result(), made_up_result(1.0)
    with StatsDB(path) as database:
        assert database.scores() == []
        database.record(first, POLICY)
        database.record(second)
        rows = database.scores()
        assert [(row.evaluation, row.simulation) for row in rows] == [
            (number, name) for number in (1, 2) for name in ("field/far", "field/near", "other/one")
        ]
        for row in rows:
            expected = (first if row.evaluation == 1 else second).simulation_scores[row.simulation]
            assert row.score.mean == pytest.approx(expected.mean)
            assert row.score.half_interval == pytest.approx(expected.half_interval)
            assert row.score.num_episodes == expected.num_episodes
            assert row.category == row.simulation.split("/")[0]
        assert rows[1].score.half_interval == pytest.approx(mean_score([1, 2, 6]).half_interval)
        assert rows[2].score.half_interval is None
        assert [row.policy for row in rows] == ["checkpoint_000012"] * 3 + ["unnamed"] * 3
        assert {row.evaluation for row in database.scores(policy="unnamed")} == {2}
        assert {row.evaluation for row in database.scores(policy=POLICY.uri)} == {1}
        assert {row.simulation for row in database.scores(category="other")} == {"other/one"}
        assert len(database.scores(suite="made up", policy="checkpoint_000012", category="field")) == 2
        assert database.scores(suite="another") == []


def test_a_policy_is_one_row_however_often_it_is_evaluated(path: Path) -> None:
    with StatsDB(path) as database:
        database.record(made_up_result(), POLICY)
        database.record(made_up_result(), replace(POLICY, metadata={"score": 3}))
        database.record(made_up_result(), replace(POLICY, epoch=13))
        assert database.query("SELECT policy_id, epoch, metadata FROM policies ORDER BY 1") == [
            (1, 12, '{"score": 3}'),
            (2, 13, json.dumps(POLICY.metadata)),
        ]
        assert database.query("SELECT policy_id FROM evaluations ORDER BY evaluation_id") == [
            (1,),
            (1,),
            (2,),
        ]


def test_an_evaluation_that_cannot_be_added_leaves_no_trace(path: Path) -> None:
    result = made_up_result()
    broken = replace(result, episodes=(*result.episodes, replace(result.episodes[0], length="long")))
    with StatsDB(path) as database:
        database.record(result, POLICY)
        with pytest.raises(duckdb.Error):
            database.record(broken, replace(POLICY, epoch=99))
        assert database.query("SELECT count(*) FROM policies") == [(1,)]
        assert database.query("SELECT count(*) FROM simulations") == [(4,)]
        assert database.record(result, POLICY) == 2


def content(path: Path) -> list[tuple[int, ...]]:
    tables = "policies", "evaluations", "simulations", "episodes", "agents", "agent_metrics"
    with StatsDB(path) as database:
        return [database.query(f"SELECT count(*) FROM {table}")[0] for table in tables]


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from eval_cases import made_up_result
from metta.eval import stats_db

database = stats_db.StatsDB({path!r})
calls = 0
insert = stats_db.StatsDB._insert

def deadly(self, table, rows):
    global calls
    insert(self, table, rows)
    calls += 1
    if calls == {calls}:
        os.kill(os.getpid(), signal.SIGKILL)

stats_db.StatsDB._insert = deadly
database.record(made_up_result(5.0))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("calls", [4, 99])
def test_a_process_killed_while_writing_leaves_all_or_nothing(path: Path, calls: int) -> None:
    with StatsDB(path) as database:
        database.record(made_up_result(), POLICY)
    before = content(path)
    code = KILLED.format(tests=str(Path(__file__).parent), path=str(path), calls=calls)
    died = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    # Killed within the transaction: as before. Killed right after it, the file still open: all of it is there.
    after = content(path)
    if calls == 99:
        assert after == [(2,), (2,), (8,), (12,), (22,), (44,)]
    else:
        assert after == before
    with StatsDB(path) as database:
        assert database.record(made_up_result(), POLICY) == (3 if calls == 99 else 2)


def test_another_process_that_has_the_file_open_is_named(path: Path) -> None:
    code = textwrap.dedent(
        f"""
        import sys, duckdb
        connection = duckdb.connect({os.fspath(path)!r})
        print("open", flush=True)
        sys.stdin.read()
        """
    )
    path.parent.mkdir()
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(RuntimeError, match=r"stats\.duckdb is open in another process; close that one"):
            StatsDB(path)
        other.communicate("")
    with StatsDB(path):
        pass


@pytest.mark.parametrize("found", [b"", b"not a database, whatever its name may say" * 200])
def test_a_file_of_another_kind_is_refused_and_kept(tmp_path: Path, found: bytes) -> None:
    path = tmp_path / "stats.duckdb"
    path.write_bytes(found)
    with pytest.raises(ValueError, match=r"stats\.duckdb is not a DuckDB database; give evaluations a file"):
        StatsDB(path)
    assert path.read_bytes() == found


def test_a_folder_cannot_be_a_database(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot be opened as a database"):
        StatsDB(tmp_path)


def test_a_database_of_something_else_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "shop.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE orders (number INTEGER)")
    before = path.read_bytes()
    with pytest.raises(
        ValueError, match=r"shop\.duckdb is a DuckDB file of something else \(it holds orders\)"
    ):
        StatsDB(path)
    assert path.read_bytes() == before


def test_another_schema_version_is_refused(path: Path) -> None:
    with StatsDB(path) as database:
        database.query(f"UPDATE metta_schema SET version = {SCHEMA_VERSION + 1}")
    with pytest.raises(
        ValueError, match=f"schema version {SCHEMA_VERSION + 1}, and this Metta .* {SCHEMA_VERSION};"
    ):
        StatsDB(path)


def test_closing_twice_does_no_harm(path: Path) -> None:
    database = StatsDB(path)
    database.close()
    database.close()
