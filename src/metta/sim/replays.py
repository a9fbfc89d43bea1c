"""One episode of a policy, recorded."""

from __future__ import annotations

import difflib
from pathlib import Path

import torch

from metta.agent.policy import Policy
from metta.mettagrid.curriculum.base import Curriculum, SingleTaskCurriculum
from metta.mettagrid.env import MettaGridEnv
from metta.mettagrid.replay import ReplayRecorder
from metta.mettagrid.vec import VecEnv, as_vec_env
from metta.sim.fitting import fit_policy
from metta.sim.simulation import EVALUATION_SEED
from metta.viewer.page import write_replay_page


def record_replay(
    agent: Policy,
    env: MettaGridEnv | VecEnv | Curriculum,
    path: str | Path,
    *,
    task: str | None = None,
    seed: int = EVALUATION_SEED,
    deterministic: bool = False,
    max_steps: int = 10_000,
) -> Path:
    """Let a policy play one episode and write it as a replay file, with a page beside it that plays it.

    Args:
        agent: the policy of every agent; one from another world is fitted to this one by names.
        env: whose tasks are played, in a world of its own; `env` is left as it was. Or the tasks themselves.
        path: the replay file, `something.json.z`; the page is called `something.html`.
        task: name of the task to play; None: the one that the seed draws.
        seed: of the episode and of the sampled actions.
        deterministic: take the likeliest action instead of sampling.
        max_steps: stop recording here if the episode has no end before.

    Returns:
        The path of the page.

    Raises:
        ValueError: there is no such task (the sentence lists close matches), or the policy cannot be fitted.
    """
    tasks = as_vec_env(env).curriculum if isinstance(env, MettaGridEnv | VecEnv) else env
    worlds = VecEnv(_choose(tasks.for_evaluation(), task), 1, seed=seed)
    agent = fit_policy(agent, worlds.spec, f"task '{worlds.task_name(0)}'")
    engine = worlds.engine
    game = next(task.config.game for task in worlds.curriculum.tasks if task.name == worlds.task_name(0))
    height, width = engine.map_size(0)
    blocks = game.group_blocks()
    groups = sorted(blocks, key=lambda name: int(blocks[name]["id"]))
    recorder = ReplayRecorder.for_spec(
        worlds.spec,
        num_agents=worlds.num_agents,
        map_size=(width, height),
        group_names=groups,
        label=worlds.task_name(0),
        episode_limit=game.max_steps,
        reward_sharing=[float(blocks[name].get("group_reward_pct", 0)) for name in groups],
    )
    recorder.record(0, engine.grid_objects(0))
    generator = torch.Generator(device=agent.device).manual_seed(seed)
    state = agent.initial_state(worlds.num_agents)
    was_training = agent.training
    agent.eval()
    try:
        with torch.no_grad():
            for step in range(1, max_steps + 1):
                observations = torch.from_numpy(worlds.observations).to(agent.device)
                output = agent.act(observations, state, deterministic=deterministic, generator=generator)
                state = output.state
                actions = output.actions.cpu().numpy().astype("int32")
                # The engine is stepped without the automatic reset, so that the last state can be seen.
                engine.step(actions[None])
                recorder.record(
                    step,
                    engine.grid_objects(0, fixed=False),
                    actions,
                    engine.action_success[0].copy(),
                    engine.rewards[0].copy(),
                )
                if engine.terminals[0].any() or engine.truncations[0].any():
                    break
    finally:
        agent.train(was_training)
    replay = recorder.save(path)
    page = replay.with_name(replay.name.removesuffix(".z").removesuffix(".json") + ".html")
    return write_replay_page(replay, page)


def _choose(tasks: Curriculum, name: str | None) -> Curriculum:
    """Only the named task, or all of them."""
    if name is None:
        return tasks
    configs = {task.name: task.config for task in tasks.tasks}
    if name not in configs:
        close = difflib.get_close_matches(name, configs, n=3, cutoff=0.3) or list(configs)[:3]
        raise ValueError(f"no task is called '{name}'; did you mean {' or '.join(close)}?")
    return SingleTaskCurriculum(configs[name], name)
