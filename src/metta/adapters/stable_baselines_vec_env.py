"""Many worlds as one vector environment of Stable-Baselines3: every agent is a row."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from metta.adapters.gymnasium_vector import GymnasiumVectorEnv
from metta.adapters.missing import missing
from metta.mettagrid.tasks import EnvLike

try:
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import VecEnv
except ModuleNotFoundError as error:
    raise missing(error, "Stable-Baselines3") from error

Array = npt.NDArray[Any]


class StableBaselinesVecEnv(VecEnv):  # type: ignore[misc] # it is Any to a type checker, whether it is installed or not
    """Worlds that step together, as `GymnasiumVectorEnv` has them, told in the way of Stable-Baselines3.

    Where an episode ended, the observation is the first of the next one, and the row's info has the old one's last
    (`terminal_observation`), whether it was cut off (`TimeLimit.truncated`; then Stable-Baselines3 bootstraps), and its
    return and length (`episode`), so that no `Monitor` is needed.

    Args:
        env_config: the environment, typed, as a mapping of its fields, or the registered name of one or of a curriculum;
            None: the default one.
        num_envs: rows; a multiple of the agents in a world.
        **options: as in `GymnasiumVectorEnv`.

    Raises:
        ValueError: values that do not fit together.
        RuntimeError: a worker process could not be started.
    """

    def __init__(self, env_config: EnvLike | None = None, num_envs: int = 1, **options: Any) -> None:
        self.rows = GymnasiumVectorEnv(env_config, num_envs, **options)
        self.render_mode = self.rows.render_mode
        self._sent: npt.NDArray[np.int64] = np.zeros(num_envs, dtype=np.int64)
        super().__init__(num_envs, self.rows.single_observation_space, self.rows.single_action_space)

    def reset(self) -> npt.NDArray[np.uint8]:
        """Begin a new episode in every world, from the seed given to `seed`, if any.

        Returns:
            uint8 `[N, K, 3]`: the first observations.
        """
        observations, _ = self.rows.reset(seed=self._seeds[0])
        self.reset_infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: npt.NDArray[np.int64]) -> None:
        """Keep the actions, integers `[N]`, for `step_wait`."""
        self._sent = actions

    def step_wait(self) -> tuple[npt.NDArray[np.uint8], Array, Array, list[dict[str, Any]]]:
        """Step every agent.

        Returns:
            Observations uint8 `[N, K, 3]`, rewards float32 `[N]`, dones bool `[N]` (ended or cut off), an info for each row.

        Raises:
            ValueError: not a legal action for each agent.
        """
        observations, rewards, terminations, truncations, told = self.rows.step(self._sent)
        dones = terminations | truncations
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": False} for _ in range(self.num_envs)]
        for row in np.flatnonzero(dones):
            final = told["final_info"]
            infos[row] = {
                "TimeLimit.truncated": bool(truncations[row] and not terminations[row]),
                "terminal_observation": told["final_obs"][row],
                "episode": {
                    "r": float(final["episode_return"][row]),
                    "l": int(final["episode_length"][row]),
                },
                "task": final["task"][row],
            }
        return observations, rewards, dones, infos

    def get_images(self) -> list[Any]:
        """A picture for each row, that of its world; None without `render_mode="rgb_array"`."""
        return list(self.rows.render() or (None,) * self.num_envs)

    def close(self) -> None:
        """End threads and worker processes."""
        self.rows.close()

    def get_attr(self, attr_name: str, indices: int | Iterable[int] | None = None) -> list[Any]:
        """An attribute of the whole batch, once for each row that is asked for."""
        return [getattr(self.rows, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: int | Iterable[int] | None = None) -> None:
        """Not possible: rows share their worlds.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            f"'{attr_name}' cannot be set row by row: rows are agents of shared worlds. Set it before."
        )

    def env_method(
        self, method_name: str, *args: Any, indices: int | Iterable[int] | None = None, **kwargs: Any
    ) -> list[Any]:
        """Not possible: rows share their worlds.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            f"'{method_name}' cannot be called row by row: rows are agents of shared worlds. Use env.rows."
        )

    def env_is_wrapped(self, wrapper_class: type, indices: int | Iterable[int] | None = None) -> list[bool]:
        """Whether rows are wrapped: by nothing, but they tell of episodes what a `Monitor` would."""
        return [issubclass(wrapper_class, Monitor)] * len(list(self._get_indices(indices)))
