"""A world's config with names looked up, defaults applied and every rule of consistency checked.

The result is what the engine's numeric tables are made of, still readable and JSON-ready.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metta.common.reading import repeated
from metta.mettagrid.engine.random import MAX_AGENTS
from metta.mettagrid.engine.state import ACTION_KINDS, F_ITEMS, MAX_COUNT
from metta.mettagrid.world_config import (
    AgentConfig,
    AttackActionConfig,
    ChangeGlyphActionConfig,
    ConverterConfig,
    NamedAction,
    WorldConfig,
)

Resolved = dict[str, Any]

MOST_REWARD = 1e20
"""The largest reward, penalty or cap; times any count it is far from what single precision ends at."""

_KIND_CLASSES = {"attack": "AttackAction", "change_glyph": "ChangeGlyphAction"}


def resolve(config: WorldConfig) -> Resolved:
    """Look up names, apply defaults, and check.

    Returns:
        a JSON-ready dict: the numeric parameters of the world under `actions` (by name, in id order) and
        `objects` (by cell name, agents as `agent.<group>`), beside the plain settings.

    Raises:
        ValueError: the config contradicts itself or leaves the engine's ranges; one sentence.
    """
    items = _item_ids(config)
    resolved: Resolved = {
        "inventory_item_names": list(config.inventory_item_names),
        "num_agents": _in_range(config.num_agents, 1, MAX_AGENTS, "num_agents"),
        "max_steps": _in_range(config.max_steps, 0, 2**31 - 1, "max_steps"),
        "episode_truncates": config.episode_truncates,
        "obs_width": config.obs_width,
        "obs_height": config.obs_height,
        "num_observation_tokens": _in_range(
            config.num_observation_tokens, 1, 2**24, "num_observation_tokens"
        ),
        "global_obs": config.global_obs.model_dump(),
        "recipe_details_obs": config.recipe_details_obs,
        "track_movement_metrics": config.track_movement_metrics,
        "actions": _resolve_actions(config, items),
        "objects": _resolve_groups(config, items) | _resolve_objects(config, items),
    }
    _in_range(config.lifetime, 0, 2**31 - 1, "lifetime")
    _check_rewards(config)
    _check_type_ids(resolved["objects"])
    return resolved


def _check_rewards(config: WorldConfig) -> None:
    """See that rewards stay finite: they are single-precision numbers, multiplied by counts."""
    agents = {"agent": config.agent} | {
        f"groups.{name}.props": group.props for name, group in config.groups.items()
    }
    numbers: dict[str, float | None] = {"step_reward": config.step_reward}
    if config.diversity is not None:
        numbers |= {f"diversity.{name}": value for name, value in config.diversity.model_dump().items()}
    for where, agent in agents.items():
        numbers[f"{where}.action_failure_penalty"] = agent.action_failure_penalty
        for kind, rewards in (
            ("inventory", agent.rewards.inventory.model_dump()),
            ("stats", agent.rewards.stats),
        ):
            numbers |= {f"{where}.rewards.{kind}.{name}": value for name, value in rewards.items()}
    for where, number in numbers.items():
        if number is not None and not abs(number) <= MOST_REWARD:
            raise ValueError(
                f"{where} is {number!r}, but a reward is a number from -{MOST_REWARD:g} to {MOST_REWARD:g}."
            )


def type_names(objects: Mapping[str, Resolved]) -> list[str]:
    """Object type name by type id, "" where unused."""
    ids = [entry["type_id"] for entry in objects.values()]
    names = [""] * max(len(objects), max(ids) + 1)
    for entry in objects.values():
        names[entry["type_id"]] = entry["type_name"]
    return names


def _item_ids(config: WorldConfig) -> dict[str, int]:
    names = config.inventory_item_names
    ids = {name: i for i, name in enumerate(names)}
    if len(ids) < len(names):
        twice = repeated(names)[0]
        raise ValueError(f"inventory_item_names has {twice!r} twice: every item needs a name of its own.")
    most = (MAX_COUNT + 1 - F_ITEMS) // (3 if config.recipe_details_obs else 1)
    if len(names) > most:
        raise ValueError(
            f"inventory_item_names has {len(names)} items, but an observation can tell only {most} apart"
            f"{' while recipe_details_obs is on' if config.recipe_details_obs else ''}: drop some."
        )
    return ids


def _in_range(value: int, low: int, high: int, where: str) -> int:
    if not low <= value <= high:
        raise ValueError(f"{where} is {value}, but the engine takes {low} to {high}.")
    return int(value)


def _amounts(resources: Mapping[str, int] | None, items: Mapping[str, int], where: str) -> dict[str, int]:
    """Amounts by item id (as text, like JSON keys) in item order; names that are no items are dropped."""
    known = {items[name]: amount for name, amount in (resources or {}).items() if name in items}
    names = list(items)
    return {str(i): _in_range(known[i], 0, 255, f"{where}.{names[i]}") for i in sorted(known)}


def _recipe(resources: Mapping[str, int], items: Mapping[str, int], where: str) -> dict[str, int]:
    positive = {name: amount for name, amount in resources.items() if amount > 0}
    return _amounts(positive, items, where)


def _resolve_actions(config: WorldConfig, items: Mapping[str, int]) -> dict[str, Resolved]:
    actions: dict[str, Resolved] = {}
    for name in ACTION_KINDS:
        action = getattr(config.actions, name)
        if action is None or not action.enabled:
            continue
        entry = _resolve_costs(name, action.required_resources, action.consumed_resources, items)
        entry["kind"] = _KIND_CLASSES.get(name, "Action")
        if isinstance(action, AttackActionConfig):
            entry["defense_resources"] = _amounts(
                action.defense_resources, items, "actions.attack.defense_resources"
            )
        if isinstance(action, ChangeGlyphActionConfig):
            entry["number_of_glyphs"] = action.number_of_glyphs
        actions[name] = entry
    for name, named in config.named_actions.items():
        if name in actions:
            raise ValueError(
                f"named_actions has {name!r}, which is already an action of this world: rename it."
            )
        actions[name] = _resolve_named(name, named, config, items)
    return {name: actions[name] for name in sorted(actions)}


def _resolve_named(name: str, named: NamedAction, config: WorldConfig, items: Mapping[str, int]) -> Resolved:
    where = f"named_actions.{name}"
    entry = _resolve_costs(name, named.required_resources, named.consumed_resources, items)
    entry["kind"] = _KIND_CLASSES.get(named.kind, "Action")
    entry["does"] = named.kind
    for key, given, kinds in (
        ("defense_resources", bool(named.defense_resources), ("attack",)),
        ("number_of_glyphs", named.number_of_glyphs > 0, ("change_glyph",)),
        ("delta", named.delta is not None, ("rotate",)),
        ("item", named.item is not None, ("put_items", "get_items")),
        ("use", named.use is not None, ("put_items", "get_items")),
    ):
        if given and named.kind not in kinds:
            raise ValueError(
                f"{where}.{key} means nothing for an action of kind {named.kind!r}: leave it out."
            )
    if named.kind == "attack":
        entry["defense_resources"] = _amounts(named.defense_resources, items, f"{where}.defense_resources")
    if named.kind == "change_glyph":
        entry["number_of_glyphs"] = named.number_of_glyphs
    if named.delta is not None:
        entry["delta"] = named.delta % 4
    if named.item is not None:
        if named.item not in items:
            raise ValueError(f"{where}.item is {named.item!r}, which is not in inventory_item_names.")
        entry["item"] = items[named.item]
    if named.use is not None:
        if not isinstance(config.objects.get(named.use), ConverterConfig):
            raise ValueError(f"{where}.use is {named.use!r}, which is no converter in objects.")
        entry["use"] = named.use
    return entry


def _resolve_costs(
    name: str, required: Mapping[str, int] | None, consumed: Mapping[str, int], items: Mapping[str, int]
) -> Resolved:
    unknown = [item for item in consumed if item not in items]
    if unknown:
        raise ValueError(
            f"Action '{name}' has consumed_resources {unknown} that are not in inventory_item_names. "
            f"These are the items of this world: {list(items)}."
        )
    costs = {
        "required_resources": _amounts(required or consumed, items, f"actions.{name}.required_resources"),
        "consumed_resources": _amounts(consumed, items, f"actions.{name}.consumed_resources"),
    }
    for item, amount in costs["required_resources"].items():
        if amount < costs["consumed_resources"].get(item, 0):
            raise ValueError(
                "Required resources must be greater than or equal to consumed resources: action "
                f"{name!r} requires {amount} {list(items)[int(item)]} and consumes "
                f"{costs['consumed_resources'][item]}."
            )
    return costs


def _resolve_groups(config: WorldConfig, items: Mapping[str, int]) -> dict[str, Resolved]:
    ids = sorted({group.id for group in config.groups.values()})
    for group_name, group in config.groups.items():
        _in_range(group.id, 0, 255, f"groups.{group_name}.id")
    if ids != list(range(len(ids))):
        missing = min(set(range(max(ids) + 1)) - set(ids))
        raise ValueError(
            f"groups have the ids {ids} and none has id {missing}: number groups 0, 1, 2, ... without gaps."
        )
    share = {config.groups[name].id: config.groups[name].group_reward_pct for name in sorted(config.groups)}
    groups: dict[str, Resolved] = {}
    for name in sorted(config.groups):
        group = config.groups[name]
        where = f"groups.{name}"
        own = group.props.model_fields_set
        limit = config.agent.default_resource_limit
        if "default_resource_limit" in own and group.props.default_resource_limit != limit:
            raise ValueError(
                f"{where}.props.default_resource_limit is {group.props.default_resource_limit}, but the limit of items "
                f"that are not named comes from agent.default_resource_limit, {limit}: name the items in the "
                "group's resource_limits."
            )
        # A key that a group gives replaces the world's whole value, rewards and limits included.
        agent = config.agent.model_copy(update={key: getattr(group.props, key) for key in own})
        groups[f"agent.{name}"] = _resolve_agent(agent, limit, items, where if own else "agent") | {
            "group_id": group.id,
            "group_name": name,
            "group_reward_pct": group.group_reward_pct,
            "share": share[group.id],
        }
    return groups


def _resolve_agent(agent: AgentConfig, limit: int, items: Mapping[str, int], where: str) -> Resolved:
    limits = {
        str(i): _in_range(
            agent.resource_limits.get(name, limit), 0, 255, f"{where}: the resource limit of {name}"
        )
        for name, i in items.items()
    }
    inventory = agent.rewards.inventory.model_dump(exclude_none=True)
    stats = {name: value for name, value in agent.rewards.stats.items() if value is not None}
    return {
        "kind": "Agent",
        "type_id": 0,
        "type_name": "agent",
        "freeze_duration": _in_range(agent.freeze_duration, 0, 255, f"{where}: freeze_duration"),
        "action_failure_penalty": agent.action_failure_penalty,
        "resource_limits": limits,
        "resource_rewards": {
            str(i): inventory[name]
            for name, i in items.items()
            if name in inventory and not name.endswith("_max")  # even if an item should be called that
        },
        "resource_reward_max": {
            str(i): inventory[f"{name}_max"] for name, i in items.items() if f"{name}_max" in inventory
        },
        "stat_rewards": {name: value for name, value in sorted(stats.items()) if not name.endswith("_max")},
        "stat_reward_max": {
            name.removesuffix("_max"): value for name, value in sorted(stats.items()) if name.endswith("_max")
        },
    }


def _resolve_objects(config: WorldConfig, items: Mapping[str, int]) -> dict[str, Resolved]:
    objects: dict[str, Resolved] = {}
    for name, thing in config.objects.items():
        if name in {f"agent.{group}" for group in config.groups}:
            raise ValueError(f"objects has {name!r}, which is the cell name of a group of agents: rename it.")
        where = f"objects.{name}"
        entry: Resolved = {"type_name": name, "type_id": _in_range(thing.type_id, 0, 255, f"{where}.type_id")}
        if isinstance(thing, ConverterConfig):
            entry |= {
                "kind": "Converter",
                "input_resources": _recipe(thing.input_resources, items, f"{where}.input_resources"),
                "output_resources": _recipe(thing.output_resources, items, f"{where}.output_resources"),
                "max_output": _in_range(thing.max_output, -1, 32767, f"{where}.max_output"),
                "max_conversions": _in_range(
                    thing.max_conversions, -32768, 32767, f"{where}.max_conversions"
                ),
                "conversion_ticks": _in_range(thing.conversion_ticks, 0, 65535, f"{where}.conversion_ticks"),
                "cooldown": _in_range(thing.cooldown, 0, 65535, f"{where}.cooldown"),
                "initial_resource_count": _in_range(
                    thing.initial_resource_count, 0, 255, f"{where}.initial_resource_count"
                ),
                "color": thing.color,
                "recipe_details_obs": config.recipe_details_obs,
            }
            if _never_rests(entry):
                raise ValueError(
                    f"{where} converts without taking time and can go on for ever within one step: give it a "
                    "conversion_ticks or a cooldown of at least 1, a max_conversions, or a max_output that it reaches."
                )
        else:
            entry |= {"kind": "Wall", "swappable": thing.swappable}
        objects[name] = entry
    return objects


def _never_rests(entry: Mapping[str, Any]) -> bool:
    """Whether a converter that takes no time could convert without end, once it has its input.

    That needs an output which gives back every input, and a total of outputs that stays below max_output: items
    that grow end at 255, the others stay at no less than the input that keeps it going.
    """
    if entry["conversion_ticks"] > 0 or entry["cooldown"] > 0 or entry["max_conversions"] >= 0:
        return False
    inputs, outputs = entry["input_resources"], entry["output_resources"]
    if any(outputs.get(item, 0) < amount for item, amount in inputs.items()):
        return False
    total = sum(
        MAX_COUNT if amount > inputs.get(item, 0) else inputs.get(item, 0) for item, amount in outputs.items()
    )
    return bool(entry["max_output"] < 0 or total < entry["max_output"])


def _check_type_ids(objects: Mapping[str, Resolved]) -> None:
    taken: dict[int, str] = {}
    for name in sorted(objects):
        type_id, type_name = objects[name]["type_id"], objects[name]["type_name"]
        if taken.setdefault(type_id, type_name) != type_name:
            raise ValueError(
                f"Object type_id {type_id} already exists with type_name {taken[type_id]}. Trying to add {type_name}."
                " Give every kind of object a type_id of its own; 0 is the agents'."
            )
