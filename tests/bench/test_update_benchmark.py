"""The benchmark of a minibatch: all its sides compute the same, each in its own way."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from benchmarks import update
from metta.agent.compiled import CompiledFunction
from metta.agent.row_parallel import RowThreads


def test_the_sides_are_one_function_computed_in_three_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    compiled = CompiledFunction.__call__

    def counted(self: CompiledFunction, *arguments: Any) -> Any:
        calls.append("compiled")
        return compiled(self, *arguments)

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    monkeypatch.setattr(CompiledFunction, "__call__", counted)
    sides = [update.Update("auto", 3, 16), update.Update("plain", 3, 16), update.Update("auto", 3, 16)]
    for side, judge in zip(
        sides, (update.Update.judge, update.Update.judge, update.Update.judge_compiled), strict=True
    ):
        judge(side)
    assert calls == ["compiled"]
    for side in sides[1:]:
        for ours, theirs in zip(sides[0].agent.parameters(), side.agent.parameters(), strict=True):
            assert ours.grad is not None
            torch.testing.assert_close(theirs.grad, ours.grad, atol=1e-5, rtol=1e-4)
    figures = update.paths(1, rows=2, width=8)
    assert set(figures) == {"compiling_cpu_s", "loops_ms", "plain_ms", "compiled_ms"}
    assert len(calls) == 1 + 3
    assert "compiled_ms" not in update.paths(1, compiled=False, rows=2, width=8)
    torch._dynamo.reset()


def test_the_ways_of_sharing_differ_in_what_is_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are shared on both sides; outside, torch's optimizer has the threads that it had before."""
    seen = []

    class Watched(torch.optim.Adam):
        def step(self, *arguments: Any, **options: Any) -> Any:
            seen.append(torch.get_num_threads())
            return super().step(*arguments, **options)

    monkeypatch.setattr(torch.optim, "Adam", Watched)
    monkeypatch.setattr("metta.agent.row_parallel.WORK_PER_PART", 1)
    runs = []
    run = RowThreads.run
    monkeypatch.setattr(RowThreads, "run", lambda self, calls: runs.append(len(calls)) or run(self, calls))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert set(update.sharing(1, rows=4, width=8)) == {"inside_ms", "outside_ms"}
    finally:
        torch.set_num_threads(before)
    assert seen == ([1] * update.IN_A_TURN + [2] * update.IN_A_TURN) * 2
    assert set(runs) == {2}
