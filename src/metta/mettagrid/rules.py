"""From a world's config to the numeric tables that the engine reads, and back to names.

`compile_rules` makes the table of one rule set, `stack_rules` the tables of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metta.mettagrid.engine import state as cols
from metta.mettagrid.engine.state import Ints, Rules
from metta.mettagrid.objects import EMPTY, EMPTY_NAMES
from metta.mettagrid.resolve import Resolved, resolve, type_names
from metta.mettagrid.spec import EnvSpec, feature_table
from metta.mettagrid.stat_names import (
    StatNames,
    agent_stat_names,
    converter_stat_names,
    game_stat_names,
    stat_starts,
    tracked_invalid,
)
from metta.mettagrid.world_config import WorldConfig

_NO_CAP = np.float32(np.inf)
_MAX_ARGS = {"attack": 8, "change_color": 3, "move": 1, "rotate": 3}
_NO_SLOT = -1


@dataclass(frozen=True)
class RuleTable:
    """One rule set, compiled.

    Attributes:
        config: what it was compiled from.
        resolved: the config with names looked up; see `metta.mettagrid.resolve`.
        spec: what an agent may know of such a world.
        tables: the engine's tables, without the leading rule index; see `engine.state.Rules`. `window` holds row
            and column offsets here, as the width of the grid is the batch's.
        cell_names: cell name by code; code 0 is empty, then groups, then objects.
        cell_codes: code by cell name, names of the empty cell included.
        agent_stats: for every group row, the statistic names by column.
        converter_stats: for every object row, the statistic names by column.
        game_stats: statistic name by column.
    """

    config: WorldConfig
    resolved: Resolved
    spec: EnvSpec
    tables: dict[str, Any]
    cell_names: tuple[str, ...]
    cell_codes: dict[str, int]
    agent_stats: tuple[StatNames, ...]
    converter_stats: tuple[StatNames, ...]
    game_stats: StatNames

    @property
    def num_agents(self) -> int:
        """Agents that every map of this rule set holds."""
        return int(self.resolved["num_agents"])

    @property
    def num_tokens(self) -> int:
        """Tokens per observation."""
        return int(self.resolved["num_observation_tokens"])

    @property
    def item_names(self) -> list[str]:
        """Items by id."""
        return list(self.resolved["inventory_item_names"])

    @property
    def group_names(self) -> list[str]:
        """Group names by row of the group tables."""
        return [
            entry["group_name"] for entry in self.resolved["objects"].values() if entry["kind"] == "Agent"
        ]

    @property
    def objects(self) -> list[Resolved]:
        """Walls and converters by row of the object tables."""
        return [entry for entry in self.resolved["objects"].values() if entry["kind"] != "Agent"]

    @property
    def margin(self) -> int:
        """Cells that a window reaches beyond its observer."""
        return max(self.spec.obs_height, self.spec.obs_width) // 2

    @property
    def look_length(self) -> int:
        """Most tokens that one thing can show."""
        items = len(self.item_names)
        return max(6 + items, 3 + items * (3 if self.resolved["recipe_details_obs"] else 1))


def compile_rules(config: WorldConfig) -> RuleTable:
    """Compile the rules of a world.

    Raises:
        ValueError: the config contradicts itself or leaves the engine's ranges; one sentence.
    """
    resolved = resolve(config)
    entries = resolved["objects"]
    groups = [entry for entry in entries.values() if entry["kind"] == "Agent"]
    objects = [entry for entry in entries.values() if entry["kind"] != "Agent"]
    items = resolved["inventory_item_names"]
    actions = resolved["actions"]
    tracked = tracked_invalid(groups)
    starts = stat_starts(len(actions), len(items), len(groups), len(objects))
    cell_names = (EMPTY, *(f"agent.{g['group_name']}" for g in groups), *(o["type_name"] for o in objects))
    agent_stats = tuple(
        agent_stat_names(resolved, groups, objects, row, starts, tracked) for row in range(len(groups))
    )
    max_args = [_max_arg(_kind(name, entry), entry) for name, entry in actions.items()]
    spec = EnvSpec(
        action_names=tuple(actions),
        max_action_args=tuple(max_args),
        features=feature_table(tuple(items), resolved["recipe_details_obs"]),
        obs_height=resolved["obs_height"],
        obs_width=resolved["obs_width"],
        num_tokens=resolved["num_observation_tokens"],
        object_type_names=tuple(type_names(entries)),
        item_names=tuple(items),
        action_kinds=tuple(_kind(name, entry) for name, entry in actions.items()),
    )
    tables: dict[str, Any] = {
        "window": window_table(resolved["obs_height"], resolved["obs_width"]),
        "tracked": np.array(tracked, np.int32).reshape(-1, 3),
        "reals": np.array(_reals(config), np.float32),
        **_action_tables(actions, max_args, objects, len(items)),
        **_group_tables(groups, agent_stats, len(items)),
        **_object_tables(objects, len(items)),
    }
    tables["scalars"] = _scalars(config, resolved, tables, starts)
    return RuleTable(
        config=config,
        resolved=resolved,
        spec=spec,
        tables=tables,
        cell_names=cell_names,
        cell_codes={name: code for code, name in enumerate(cell_names) if name not in EMPTY_NAMES}
        | dict.fromkeys(EMPTY_NAMES, 0),
        agent_stats=agent_stats,
        converter_stats=tuple(converter_stat_names(entry, items) for entry in objects),
        game_stats=game_stat_names(objects),
    )


def stack_rules(rules: Sequence[RuleTable], stride: int) -> Rules:
    """Tables of several rule sets in one, smaller ones padded; `stride` is the columns of the grid."""
    stacked: dict[str, Any] = {}
    windows = {rule.tables["window"].tobytes(): rule for rule in rules}
    views = [window_tables(rule, stride) for rule in windows.values()]
    for name in Rules._fields:
        tables = [view[name] for view in views] if name in views[0] else [rule.tables[name] for rule in rules]
        shape = [max(max(t.shape[axis] for t in tables), 1) for axis in range(tables[0].ndim)]
        stack = np.zeros((len(tables), *shape), tables[0].dtype)
        for row, table in enumerate(tables):
            _fill(stack[row], table)
        stacked[name] = stack
    stacked["stat_slots"] = _pad_slots(rules, stacked["stat_slots"])
    rows = {window: row for row, window in enumerate(windows)}
    stacked["scalars"][:, cols.S_WINDOW] = [rows[rule.tables["window"].tobytes()] for rule in rules]
    return Rules(**stacked)


def window_table(height: int, width: int) -> Ints:
    """Row offset, column offset and location byte of every window cell, in the order of observations.

    Cells come by distance in steps, then by row, then left before right.
    """
    cells: list[tuple[int, int, int]] = []
    for distance in range(height // 2 + width // 2 + 1):
        for row in range(-distance, distance + 1):
            side = distance - abs(row)
            for col in (-side, side) if side else (0,):
                if abs(row) <= height // 2 and abs(col) <= width // 2:
                    cells.append((row, col, 16 * (row + height // 2) + col + width // 2))
    return np.array(cells, np.int32)


def window_tables(rule: RuleTable, stride: int) -> dict[str, Any]:
    """The engine's tables of a rule set's window on a grid with `stride` columns; see `engine.state.Rules`.

    `ranks` turns the bits of a window row that say which cells hold something into bits in the order in which cells are
    shown: word 0 for the first `RANK_BITS` cells, word 1 for the next, and further pairs of words for larger windows. The
    bits of the left half of a row and those of the right half are looked up apart, which keeps the tables small.
    """
    cells = rule.tables["window"]
    height, width = rule.spec.obs_height, rule.spec.obs_width
    window = np.zeros((len(cells), cols.WINDOW_COLUMNS), np.int64)
    window[:, cols.DISTANCE] = cells[:, 0] * stride + cells[:, 1]
    every_third = np.zeros((len(cells), cols.SHORT_LOOK_BYTES), np.uint8)
    every_third[:, ::3] = cells[:, 2:]
    window[:, cols.LOCATIONS :] = every_third.view("<i8")
    parts = _window_parts(height, width)
    low = (width + 1) // 2
    halves = (range(low), range(low, width))
    ranks = np.zeros((parts, height, sum(2 ** len(half) for half in halves), 2), np.int64)
    for rank, (row, col, _) in enumerate(cells.tolist()):
        part, bit = divmod(rank, 2 * cols.RANK_BITS)
        word, bit = divmod(bit, cols.RANK_BITS)
        col += width // 2
        half = halves[col >= low]
        first = 2**low if col >= low else 0
        bits = np.arange(2 ** len(half))
        has_cell = bits >> half.index(col) & 1 == 1
        ranks[part, row + height // 2, first + bits[has_cell], word] |= 1 << bit
    return {"window": window, "ranks": ranks.reshape(parts * height, *ranks.shape[2:])}


def _window_parts(height: int, width: int) -> int:
    """Pairs of words that it takes to have a bit for every cell."""
    return -(-height * width // (2 * cols.RANK_BITS))


def _kind(name: str, entry: Mapping[str, Any]) -> str:
    return str(entry.get("does", name))


def _max_arg(kind: str, entry: Mapping[str, Any]) -> int:
    if kind == "change_glyph":
        return max(int(entry["number_of_glyphs"]) - 1, 0)
    if kind == "rotate" and "delta" in entry:
        return 0
    return _MAX_ARGS.get(kind, 0)


def _reals(config: WorldConfig) -> tuple[float, float, float]:
    rule = config.diversity
    return (config.step_reward, rule.similarity_coef if rule else 0, rule.diversity_coef if rule else 0)


def _action_tables(
    actions: Mapping[str, Resolved], max_args: Sequence[int], objects: Sequence[Resolved], items: int
) -> dict[str, Any]:
    table = np.zeros((len(actions), cols.ACTION_COLUMNS), np.int32)
    amounts = np.full((len(actions), 3, items), -1, np.int32)
    object_rows = {entry["type_name"]: row for row, entry in enumerate(objects)}
    for row, (name, entry) in enumerate(actions.items()):
        kind = _kind(name, entry)
        required, consumed = entry["required_resources"], dict(entry["consumed_resources"])
        for item in required:
            consumed.setdefault(item, 0)
        for side, resources in enumerate((required, consumed, entry.get("defense_resources", {}))):
            for item, amount in resources.items():
                amounts[row, side, int(item)] = amount
        table[row, cols.KIND] = cols.ACTION_KINDS.index(kind)
        table[row, cols.MAX_ARG] = max_args[row]
        table[row, cols.PRIORITY] = kind == "attack"
        table[row, cols.NEEDS_ITEMS] = bool(required or consumed)
        table[row, cols.HAS_DEFENSE] = bool(entry.get("defense_resources"))
        table[row, cols.TURN] = entry.get("delta", cols.NO_TURN)
        table[row, cols.ONLY_ITEM] = entry.get("item", -1)
        table[row, cols.ONLY_OBJECT] = object_rows[entry["use"]] if "use" in entry else -1
    return {"actions": table, "action_items": amounts}


def _group_tables(groups: Sequence[Resolved], agent_stats: Sequence[StatNames], items: int) -> dict[str, Any]:
    table = np.zeros((len(groups), cols.LIMITS + items), np.int32)
    reals = np.zeros((len(groups), 2), np.float32)
    item_rewards = np.zeros((len(groups), items, 2), np.float32)
    item_rewards[:, :, cols.CAP] = _NO_CAP
    stat_rewards = [
        list(_stat_rewards(group, names)) for group, names in zip(groups, agent_stats, strict=True)
    ]
    most = max(len(rewards) for rewards in stat_rewards)
    widest = max((len(slots) for rewards in stat_rewards for slots, _, _ in rewards), default=0)
    slots = np.full((len(groups), most, widest), _NO_SLOT, np.int32)
    rates = np.zeros((len(groups), most, 2), np.float32)
    for row, group in enumerate(groups):
        for item, rate in group["resource_rewards"].items():
            item_rewards[row, int(item)] = rate, group["resource_reward_max"].get(item, _NO_CAP)
        for i, (columns, rate, cap) in enumerate(stat_rewards[row]):
            slots[row, i, : len(columns)] = columns
            rates[row, i] = rate, cap
        table[row, cols.GROUP_ID] = group["group_id"]
        table[row, cols.FREEZE] = group["freeze_duration"]
        table[row, cols.RESOURCE_BYTE] = sum(
            1 << (7 - item) for item in range(min(8, items)) if item_rewards[row, item, cols.RATE] > 0
        )
        table[row, cols.NUM_STAT_REWARDS] = len(stat_rewards[row])
        table[row, cols.LIMITS :] = list(group["resource_limits"].values())
        reals[row] = group["action_failure_penalty"], group["share"]
    return {
        "groups": table,
        "group_reals": reals,
        "item_rewards": item_rewards,
        "stat_slots": slots,
        "stat_rates": rates,
    }


def _stat_rewards(group: Resolved, names: StatNames) -> Iterator[tuple[list[int], float, float]]:
    """Columns, rate and cap of every statistic that the group is rewarded for and that can occur."""
    for name in sorted(group["stat_rewards"]):
        columns = [column for column, aliases in enumerate(names) if name in aliases]
        if columns:
            yield columns, group["stat_rewards"][name], group["stat_reward_max"].get(name, _NO_CAP)


def _object_tables(objects: Sequence[Resolved], items: int) -> dict[str, Any]:
    table = np.zeros((len(objects), cols.OBJECT_COLUMNS), np.int32)
    recipes = np.zeros((len(objects), items, 2), np.int32)
    for row, entry in enumerate(objects):
        table[row, cols.TYPE_ID] = entry["type_id"]
        if entry["kind"] == "Wall":
            table[row, cols.SWAPPABLE] = entry["swappable"]
            continue
        table[row, cols.IS_CONVERTER] = 1
        table[row, cols.MAX_OUTPUT] = entry["max_output"]
        table[row, cols.MAX_CONVERSIONS] = entry["max_conversions"]
        table[row, cols.TICKS] = entry["conversion_ticks"]
        table[row, cols.COOLDOWN] = entry["cooldown"]
        table[row, cols.INITIAL] = entry["initial_resource_count"]
        table[row, cols.OBJECT_COLOR] = entry["color"]
        for side, resources in (
            (cols.INPUT, entry["input_resources"]),
            (cols.OUTPUT, entry["output_resources"]),
        ):
            for item, amount in resources.items():
                recipes[row, int(item), side] = amount
    return {"objects": table, "recipes": recipes}


def _scalars(
    config: WorldConfig, resolved: Resolved, tables: Mapping[str, Any], starts: Mapping[str, int]
) -> Ints:
    shown = resolved["global_obs"]
    values = {
        cols.S_NUM_AGENTS: resolved["num_agents"],
        cols.S_MAX_STEPS: resolved["max_steps"],
        cols.S_TRUNCATES: resolved["episode_truncates"],
        cols.S_LIFETIME: config.lifetime,
        cols.S_NUM_ACTIONS: len(tables["actions"]),
        cols.S_TOP_PRIORITY: tables["actions"][:, cols.PRIORITY].max(initial=0),
        cols.S_NUM_ITEMS: len(resolved["inventory_item_names"]),
        cols.S_NUM_TOKENS: resolved["num_observation_tokens"],
        cols.S_CENTER: 16 * (resolved["obs_height"] // 2) + resolved["obs_width"] // 2,
        cols.S_WINDOW_ROWS: resolved["obs_height"],
        cols.S_WINDOW_COLS: resolved["obs_width"],
        cols.S_WINDOW_PARTS: _window_parts(resolved["obs_height"], resolved["obs_width"]),
        cols.S_SHOW_COMPLETION: shown["episode_completion_pct"],
        cols.S_SHOW_ACTION: shown["last_action"],
        cols.S_SHOW_REWARD: shown["last_reward"],
        cols.S_SHOW_RESOURCES: shown["resource_rewards"],
        cols.S_RECIPES: resolved["recipe_details_obs"],
        cols.S_METRICS: resolved["track_movement_metrics"],
        cols.S_NUM_GROUPS: len(tables["groups"]),
        cols.S_NUM_GROUP_IDS: tables["groups"][:, cols.GROUP_ID].max() + 1,
        cols.S_DIVERSITY: config.diversity is not None,
        cols.S_NUM_OBJECTS: len(tables["objects"]),
        cols.S_NUM_TRACKED: len(tables["tracked"]),
        cols.S_STAT_ITEMS: starts["items"],
        cols.S_STAT_BLOCKED: starts["blocked"],
        cols.S_STAT_HIT: starts["hit"],
        cols.S_STAT_HIT_BY: starts["hit_by"],
        cols.S_STAT_STOLEN: starts["stolen"],
        cols.S_STAT_SWAPPED: starts["swapped"],
        cols.S_STAT_TRACKED: starts["tracked"],
    }
    scalars = np.zeros(cols.SCALARS, np.int32)
    for column, value in values.items():
        scalars[column] = value
    return scalars


def _pad_slots(rules: Sequence[RuleTable], stacked: Ints) -> Ints:
    """Mark the padding of the statistic columns as none."""
    padded = np.full_like(stacked, _NO_SLOT)
    for row, rule in enumerate(rules):
        _fill(padded[row], rule.tables["stat_slots"])
    return padded


def _fill(larger: NDArray[Any], table: NDArray[Any]) -> None:
    """Write a table into the first rows and columns of a larger one."""
    larger[tuple(slice(size) for size in table.shape)] = table
