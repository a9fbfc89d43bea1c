"""One world of a case, stepped for a while: `NUMBA_DISABLE_JIT=1 python -m metta.bench.interpreted c 1.0`.

Prints agent-steps per second. A process of its own, because whether the engine is compiled is settled when it is imported.
"""

from __future__ import annotations

import json
import sys
import time

from metta.bench.cases import CASES, RandomActions
from metta.mettagrid.engine.compile import is_interpreted
from metta.mettagrid.vec import VecEnv


def main(name: str, seconds: float) -> float:
    """Agent-steps per second of the engine alone."""
    if not is_interpreted():
        raise RuntimeError("the engine is compiled here; set NUMBA_DISABLE_JIT=1.")
    case = CASES[name]
    with VecEnv(case.config(), 1) as env:
        actions = RandomActions(env.spec, env.num_agents)
        steps = 0
        start = now = time.perf_counter()
        while now - start < seconds:
            env.engine.step(actions.batch().reshape(1, case.agents, 2))
            steps += 1
            now = time.perf_counter()
    return steps * case.agents / (now - start)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], float(sys.argv[2]))))
