"""The replay recorder: steps of one world in, a replay file out.

It is fed plain values (the object table of `GridEngine.grid_objects`, actions, rewards) and knows neither
environments nor policies. `metta.mettagrid.replay_format` describes the file and reads it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from metta.common.files import atomic_write_bytes
from metta.mettagrid.replay_format import REPLAY_VERSION, Replay, collapse, read_replay
from metta.mettagrid.spec import EnvSpec

__all__ = ["Replay", "ReplayRecorder", "read_replay"]


@dataclass
class ReplayRecorder:
    """Collects the states of one world and writes them as a replay file.

    Call `record(0, objects)` after the reset, `record(t, objects, actions, success, rewards)` after step t,
    and `save` at the end (or at any time in between).

    Attributes:
        num_agents: agents in the world.
        map_size: (width, height) in cells.
        type_names: object type name by type id.
        action_names: action name by action id.
        item_names: item name by item id.
        group_names: group name by group id.
        label: what people call this replay.
        episode_limit: the step at which the rules end the episode, 0 = never.
        view_size: (width, height) of an agent's observation window.
        reward_sharing: share of its reward that an agent gives to its group, by group id.
    """

    num_agents: int
    map_size: tuple[int, int]
    type_names: Sequence[str]
    action_names: Sequence[str]
    item_names: Sequence[str]
    group_names: Sequence[str] = ("agent",)
    label: str = "replay"
    episode_limit: int = 0
    view_size: tuple[int, int] | None = None
    reward_sharing: Sequence[float] | None = None
    _changes: dict[int, dict[str, list[list[Any]]]] = field(default_factory=dict, init=False, repr=False)
    _last: dict[int, dict[str, Any]] = field(default_factory=dict, init=False, repr=False)
    _needed: set[int] = field(default_factory=set, init=False, repr=False)  # what every step has to describe
    _totals: np.ndarray = field(init=False, repr=False)
    _num_states: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        self._totals = np.zeros(self.num_agents, np.float32)

    @classmethod
    def for_spec(
        cls,
        spec: EnvSpec,
        *,
        num_agents: int,
        map_size: tuple[int, int],
        group_names: Sequence[str] = ("agent",),
        label: str = "replay",
        episode_limit: int = 0,
        reward_sharing: Sequence[float] | None = None,
    ) -> ReplayRecorder:
        """A recorder whose names and view size are those of `spec`."""
        return cls(
            num_agents=num_agents,
            map_size=map_size,
            type_names=spec.object_type_names,
            action_names=spec.action_names,
            item_names=spec.item_names,
            group_names=group_names,
            label=label,
            episode_limit=episode_limit,
            view_size=(spec.obs_width, spec.obs_height),
            reward_sharing=reward_sharing,
        )

    @property
    def num_steps(self) -> int:
        """The last recorded step, -1 before the first `record`."""
        return self._num_states - 1

    def record(
        self,
        step: int,
        objects: Mapping[int, Mapping[str, Any]],
        actions: np.ndarray | None = None,
        action_success: np.ndarray | None = None,
        rewards: np.ndarray | None = None,
    ) -> None:
        """Add the state after `step`.

        Args:
            step: 0 after the reset, then 1, 2, ... without a gap.
            objects: object id to its description, as `GridEngine.grid_objects` gives it. After step 0 the walls that
                cannot be swapped may be left out: they never change.
            actions: int `[A, 2]`, what each agent tried in this step; None only at step 0.
            action_success: bool `[A]`.
            rewards: float32 `[A]`, as the agents received them.

        Raises:
            ValueError: a step is missing, a shape is wrong, a reward is not finite, or the objects are not
                those of the steps before. Nothing is recorded then.
        """
        if step != self._num_states:
            raise ValueError(
                f"Step {step} was recorded, but a replay needs every step in order: "
                f"the next is {self._num_states}."
            )
        acted = self._what_agents_did(step, actions, action_success, rewards)
        states = {int(key): self._describe(int(key), entry, acted) for key, entry in objects.items()}
        self._check_same_objects(step, states)
        for key, state in states.items():
            if step == 0:
                self._changes[key] = {name: [[0, value]] for name, value in state.items()}
            elif state != self._last[key]:
                for name, changes in self._changes[key].items():
                    if state[name] != changes[-1][1]:
                        changes.append([step, state[name]])
        if step == 0:
            self._needed = {key for key, state in states.items() if not _never_changes(state)}
        self._last |= states
        self._totals = acted.totals
        self._num_states += 1

    def to_dict(self) -> dict[str, Any]:
        """The replay so far, as the JSON object that a file holds.

        Raises:
            ValueError: nothing was recorded yet.
        """
        if self._num_states == 0:
            raise ValueError("The replay is empty: record step 0 before saving it.")
        data: dict[str, Any] = {
            "version": REPLAY_VERSION,
            "file_name": self.label,
            "num_agents": self.num_agents,
            "max_steps": self.num_steps,
            "episode_limit": self.episode_limit,
            "map_size": [int(n) for n in self.map_size],
            "type_names": list(self.type_names),
            "action_names": list(self.action_names),
            "item_names": list(self.item_names),
            "group_names": list(self.group_names),
        }
        if self.view_size is not None:
            data["view_size"] = [int(n) for n in self.view_size]
        if self.reward_sharing is not None:
            data["reward_sharing"] = [_shortest(share) for share in self.reward_sharing]
        data["objects"] = [
            {name: collapse(changes) for name, changes in fields.items()}
            for _, fields in sorted(self._changes.items())
        ]
        return data

    def save(self, path: str | Path) -> Path:
        """Write the replay; the file appears whole or not at all.

        Args:
            path: by custom it ends in `.json.z`; missing folders are made.

        Raises:
            ValueError: nothing was recorded yet.
        """
        text = json.dumps(self.to_dict(), separators=(",", ":"), allow_nan=False)
        return atomic_write_bytes(path, zlib.compress(text.encode(), 9))

    def _what_agents_did(
        self,
        step: int,
        actions: np.ndarray | None,
        action_success: np.ndarray | None,
        rewards: np.ndarray | None,
    ) -> _Acted:
        num = self.num_agents
        given = {"actions": actions, "action_success": action_success, "rewards": rewards}
        if step == 0 and all(array is None for array in given.values()):
            zeros = np.zeros(num, np.float32)
            return _Acted(np.tile(np.array([-1, 0]), (num, 1)), np.zeros(num, bool), zeros, zeros)
        arrays: dict[str, np.ndarray] = {}
        for name, array in given.items():
            shape = (num, 2) if name == "actions" else (num,)
            found = None if array is None else np.asarray(array)
            if found is None or found.shape != shape:
                what = "None" if found is None else f"of shape {found.shape}"
                raise ValueError(
                    f"{name} of step {step} is {what}, but {num} agents need an array of shape {shape}."
                )
            arrays[name] = found
        received = arrays["rewards"].astype(np.float32)
        if not np.isfinite(received).all():
            agent = int(np.flatnonzero(~np.isfinite(received))[0])
            raise ValueError(
                f"The reward of agent {agent} at step {step} is {received[agent]}, but a replay holds "
                "finite rewards only."
            )
        return _Acted(arrays["actions"], arrays["action_success"], received, self._totals + received)

    def _describe(self, key: int, entry: Mapping[str, Any], acted: _Acted) -> dict[str, Any]:
        try:
            state: dict[str, Any] = {
                "id": key,
                "type_id": int(entry["type"]),
                "position": [int(entry["c"]), int(entry["r"])],
                "layer": int(entry["layer"]),
                "rotation": int(entry.get("orientation", 0)),
                "inventory": _pairs(entry.get("inventory", {})),
                "color": int(entry.get("color", 0)),
            }
            if "agent_id" in entry:
                state |= self._describe_agent(entry, acted)
            elif "output_resources" in entry:
                state |= {
                    "is_converting": bool(entry["is_converting"]),
                    "is_cooling_down": bool(entry["is_cooling_down"]),
                    "input_resources": _pairs(entry["input_resources"]),
                    "output_resources": _pairs(entry["output_resources"]),
                    "conversion_duration": int(entry["conversion_duration"]),
                    "cooldown_duration": int(entry["cooldown_duration"]),
                    "output_limit": int(entry["output_limit"]),
                }
            elif entry.get("is_swappable", False):
                state["is_swappable"] = True
        except KeyError as missing:
            raise ValueError(
                f"Object {key} has no field {missing}, so it is no description from GridEngine.grid_objects."
            ) from None
        return state

    def _describe_agent(self, entry: Mapping[str, Any], acted: _Acted) -> dict[str, Any]:
        agent = int(entry["agent_id"])
        if not 0 <= agent < self.num_agents:
            raise ValueError(f"There is an agent {agent}, but this replay is of {self.num_agents} agents.")
        return {
            "agent_id": agent,
            "group_id": int(entry["group_id"]),
            "action_id": int(acted.actions[agent, 0]),
            "action_parameter": int(acted.actions[agent, 1]),
            "action_success": bool(acted.success[agent]),
            "current_reward": _shortest(acted.rewards[agent]),
            "total_reward": _shortest(acted.totals[agent]),
            "frozen": bool(entry["is_frozen"]),
            "frozen_progress": int(entry["freeze_remaining"]),
            "frozen_time": int(entry["freeze_duration"]),
            "glyph": int(entry.get("agent:glyph", 0)),
            "inventory_limits": _pairs(entry.get("resource_limits", {})),
        }

    def _check_same_objects(self, step: int, states: Mapping[int, Mapping[str, Any]]) -> None:
        if step > 0:
            changed = sorted((self._needed - states.keys()) | (states.keys() - self._last.keys()))
            if changed:
                what = "appeared" if changed[0] in states else "vanished"
                raise ValueError(f"Object {changed[0]} {what} at step {step}, but a world keeps its objects.")
            for key, state in states.items():
                if self._last[key].keys() != state.keys():
                    raise ValueError(f"Object {key} changed its kind at step {step}, which none can.")
            return
        found = sorted(state["agent_id"] for state in states.values() if "agent_id" in state)
        if found != list(range(self.num_agents)):
            raise ValueError(
                f"The objects hold the agents {found}, but this replay is of {self.num_agents} agents."
            )


@dataclass(frozen=True)
class _Acted:
    """What the agents did in one step: int `[A, 2]`, bool `[A]`, float32 `[A]`, float32 `[A]`."""

    actions: np.ndarray
    success: np.ndarray
    rewards: np.ndarray
    totals: np.ndarray


def _never_changes(state: Mapping[str, Any]) -> bool:
    """Whether a described object is a wall that cannot be swapped."""
    return not state.keys() & {"agent_id", "output_resources", "is_swappable"}


def _pairs(counts: Mapping[Any, Any]) -> list[list[int]]:
    """An item-to-count mapping as `[[item id, count], ...]`, ordered by item."""
    return sorted([int(item), int(count)] for item, count in counts.items())


def _shortest(value: Any) -> float:
    """The shortest decimal that reads back as the same float32."""
    return float(str(np.float32(value))) + 0.0  # adding zero turns -0.0 into 0.0
