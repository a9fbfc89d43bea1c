"""A short puppet play: two agents fetch ore, make batteries, earn a heart, and one robs the other.

Nothing here follows rules; each step says what changes. So the tests know every position and count by heart.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from metta.mettagrid.replay import ReplayRecorder

TYPES = ["agent", "wall", "mine_red", "generator_red", "altar", "block"]
ACTIONS = ["attack", "get_items", "move", "noop", "put_items", "rotate", "swap"]
ITEMS = ["ore_red", "battery_red", "heart"]
ORE, BATTERY, HEART = range(3)
WIDTH, HEIGHT = 9, 6
DELTAS = [(-1, 0), (1, 0), (0, -1), (0, 1)]

# One line per step: (agent 0, agent 1). get and put name the object; a number after an action is its argument.
SCRIPT: list[tuple[tuple[Any, ...], tuple[Any, ...]]] = [
    (("rotate", 2), ("rotate", 3)),
    (("move", 0), ("move", 0)),
    (("get_items", "mine_red", ORE), ("noop",)),
    (("rotate", 3), ("rotate", 1)),
    (("move", 0), ("move", 0)),
    (("move", 0), ("noop",)),
    (("move", 0), ("rotate", 3)),
    (("put_items", "generator_red", ORE), ("move", 0)),
    (("noop",), ("noop",)),
    (("get_items", "generator_red", BATTERY), ("noop",)),
    (("rotate", 1), ("noop",)),
    (("move", 0), ("noop",)),
    (("rotate", 3), ("noop",)),
    (("attack", 0), ("fail", "move")),
    (("noop",), ("noop",)),
    (("rotate", 1), ("noop",)),
    (("put_items", "altar", BATTERY), ("swap", "block")),
    (("get_items", "altar", HEART), ("noop",)),
]
LAST_STEP = len(SCRIPT)


def _objects() -> dict[int, dict[str, Any]]:
    objects: dict[int, dict[str, Any]] = {}

    def add(kind: str, row: int, col: int, **more: Any) -> None:
        key = len(objects) + 1
        base = {"id": key, "type": TYPES.index(kind), "r": row, "c": col, "layer": 1, "is_swappable": False}
        objects[key] = base | more

    def converter(inputs: dict[int, int], outputs: dict[int, int], stock: dict[int, int]) -> dict[str, Any]:
        return {
            "inventory": stock,
            "is_converting": False,
            "is_cooling_down": False,
            "conversion_duration": 2,
            "cooldown_duration": 5,
            "output_limit": 5,
            "color": 0,
            "input_resources": inputs,
            "output_resources": outputs,
        }

    def agent(index: int, stock: dict[int, int]) -> dict[str, Any]:
        return {
            "layer": 0,
            "agent_id": index,
            "orientation": 0,
            "group_id": 0,
            "is_frozen": False,
            "freeze_remaining": 0,
            "freeze_duration": 4,
            "color": 0,
            "inventory": stock,
            "resource_limits": {ORE: 10, BATTERY: 10, HEART: 255},
        }

    for col in range(WIDTH):
        add("wall", 0, col)
        add("wall", HEIGHT - 1, col)
    for row in range(1, HEIGHT - 1):
        add("wall", row, 0)
        add("wall", row, WIDTH - 1)
    add("mine_red", 2, 1, **converter({}, {ORE: 1}, {ORE: 3}))
    add("generator_red", 2, 6, **converter({ORE: 1}, {BATTERY: 1}, {}))
    add("altar", 4, 5, **converter({BATTERY: 1}, {HEART: 1}, {}))
    add("block", 3, 7, is_swappable=True)
    add("agent", 2, 3, **agent(0, {}))
    add("agent", 2, 4, **agent(1, {ORE: 2}))
    return objects


def play() -> ReplayRecorder:
    """The recorded play."""
    objects = _objects()
    named = {TYPES[o["type"]]: o for o in objects.values()}
    agents = sorted((o for o in objects.values() if "agent_id" in o), key=lambda o: int(o["agent_id"]))
    recorder = ReplayRecorder(
        num_agents=2,
        map_size=(WIDTH, HEIGHT),
        type_names=TYPES,
        action_names=ACTIONS,
        item_names=ITEMS,
        label="A short play",
        episode_limit=LAST_STEP,
        view_size=(5, 5),
        reward_sharing=[0.25],
    )
    recorder.record(0, objects)
    for step, acts in enumerate(SCRIPT, start=1):
        actions = np.zeros((2, 2), np.int32)
        success = np.ones(2, bool)
        rewards = np.zeros(2, np.float32)
        for agent in agents:
            if agent["freeze_remaining"]:
                agent["freeze_remaining"] -= 1
                agent["is_frozen"] = agent["freeze_remaining"] > 0
        for index, (agent, (verb, *rest)) in enumerate(zip(agents, acts, strict=True)):
            name = rest[0] if verb == "fail" else verb
            argument = rest[0] if verb in ("rotate", "move", "attack") else 0
            actions[index] = ACTIONS.index(name), argument
            if verb == "fail":
                success[index] = False
                rewards[index] = -0.1
            elif verb == "rotate":
                agent["orientation"] = rest[0]
            elif verb == "move":
                dr, dc = DELTAS[agent["orientation"]]
                agent["r"] += dr
                agent["c"] += dc
            elif verb == "attack":
                victim = agents[1 - index]
                agent["inventory"] = _plus(agent["inventory"], victim["inventory"])
                victim |= {"inventory": {}, "is_frozen": True, "freeze_remaining": 3}
            elif verb == "swap":
                other = named[rest[0]]
                agent["r"], agent["c"], other["r"], other["c"] = (
                    other["r"],
                    other["c"],
                    agent["r"],
                    agent["c"],
                )
            elif verb == "get_items":
                place, item = named[rest[0]], rest[1]
                count = place["inventory"].get(item, 0)
                agent["inventory"] = _plus(agent["inventory"], {item: count})
                place["inventory"] = {}
                rewards[index] = 1.0 if item == HEART else 0.1
                place["is_cooling_down"] = True
            elif verb == "put_items":
                place, item = named[rest[0]], rest[1]
                agent["inventory"] = _plus(agent["inventory"], {item: -1})
                place["is_converting"] = True
        if step == 9:
            named["generator_red"] |= {"is_converting": False, "inventory": {BATTERY: 1}}
        if step == LAST_STEP - 1:
            named["altar"] |= {"is_converting": False, "inventory": {HEART: 1}}
        recorder.record(step, objects, actions, success, rewards)
    return recorder


def _plus(stock: dict[int, int], more: dict[int, int]) -> dict[int, int]:
    total = {item: stock.get(item, 0) + more.get(item, 0) for item in {*stock, *more}}
    return {item: count for item, count in total.items() if count > 0}
