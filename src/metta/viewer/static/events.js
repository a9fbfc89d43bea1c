// What happened, in words: events are read off the differences between one step and the next.

const DIRECTIONS = [[0, -1], [0, 1], [-1, 0], [1, 0]];
const DIRECTION_NAMES = ["up", "down", "left", "right"];
const MOST_FAMILIES = 6; // columns of the score table

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/** The cell that an agent faces; at the edge of an open map that is its own. */
function cellAhead(replay, agent, step, distance = 1, leftward = 0) {
  const [dc, dr] = DIRECTIONS[agent.at("rotation", step)] || [0, 0];
  const [col, row] = agent.at("position", step);
  return [
    clamp(col + dc * distance + dr * leftward, 0, replay.width - 1),
    clamp(row + dr * distance - dc * leftward, 0, replay.height - 1),
  ];
}

/** Item id to gain (negative: loss) between step - 1 and step. */
function inventoryChange(thing, step) {
  if (thing.since("inventory", step) !== step) return new Map();
  const before = thing.items(step - 1);
  const change = new Map(thing.items(step));
  for (const [item, count] of before) change.set(item, (change.get(item) || 0) - count);
  return new Map([...change].filter(([, count]) => count !== 0));
}

/** The agent that an attack with argument `choice` strikes: attacks come first in a step, so by the old positions. */
function attackTarget(replay, attacker, step, choice) {
  const met = [];
  for (let distance = 1; distance <= 3; distance++) {
    for (const leftward of [0, 1, -1]) {
      const [col, row] = cellAhead(replay, attacker, step - 1, distance, leftward);
      const there = replay.agents.find((agent) => {
        const [c, r] = agent.at("position", step - 1);
        return c === col && r === row;
      });
      if (there) met.push(there);
    }
  }
  return choice >= 0 && choice < met.length ? met[choice] : met[met.length - 1];
}

function attackEvents(replay, step, robbed) {
  const events = [];
  for (const agent of replay.agents) {
    const action = replay.actionNames[agent.at("action_id", step)] || "";
    if (!action.startsWith("attack") || !agent.at("action_success", step)) continue;
    const target = attackTarget(replay, agent, step, agent.at("action_parameter", step));
    if (!target) continue;
    const loot = [...inventoryChange(agent, step)].filter(([, count]) => count > 0);
    const losses = robbed.get(target) || new Map();
    for (const [item, count] of loot) losses.set(item, (losses.get(item) || 0) + count);
    robbed.set(target, losses);
    const lost = [...inventoryChange(target, step)].some(([, count]) => count < 0);
    let outcome = "hit";
    if (target.at("frozen", step - 1)) outcome = "wasted";
    else if (loot.length === 0 && lost && !target.at("frozen", step)) outcome = "blocked";
    events.push({ step, kind: "attack", agent, other: target, loot, outcome });
  }
  return events;
}

/** Items that went between an agent and the converter it faces. */
function transferEvents(replay, converters, agent, step, stolen) {
  if (agent.since("inventory", step) !== step || !agent.at("action_success", step)) return [];
  const action = replay.actionNames[agent.at("action_id", step)] || "";
  if (/^(attack|swap|move|rotate|noop|change_)/.test(action)) return [];
  const [col, row] = cellAhead(replay, agent, step);
  const converter = converters.get(row * replay.width + col);
  if (!converter) return [];
  const takes = new Set([...converter.recipe("output_resources").map(([item]) => item), ...converter.items(step - 1).keys()]);
  const accepts = new Set(converter.recipe("input_resources").map(([item]) => item));
  const events = [];
  for (const [item, change] of inventoryChange(agent, step)) {
    const own = change + (stolen.get(item) || 0);
    if (own > 0 && takes.has(item)) {
      events.push({ step, kind: "took", agent, other: converter, item, count: own });
    } else if (own < 0 && accepts.has(item)) {
      events.push({ step, kind: "put", agent, other: converter, item, count: -own });
    }
  }
  return events;
}

/** Conversions that came to an end. Sources, which need no input, are left out: they would drown the rest. */
function productionEvents(converter, numSteps) {
  if (converter.recipe("input_resources").length === 0) return [];
  const events = [];
  for (let step = 1; step <= numSteps; step++) {
    const finished = converter.at("is_converting", step - 1) && !converter.at("is_converting", step);
    const change = inventoryChange(converter, step);
    const grew = converter.recipe("output_resources").some(([item]) => (change.get(item) || 0) > 0);
    if (!finished && !grew) continue;
    for (const [item, count] of converter.recipe("output_resources")) {
      events.push({ step, kind: "made", agent: null, other: converter, item, count });
    }
  }
  return events;
}

/** What an agent swapped with: whatever now stands where the agent stood. */
function swapEvent(replay, agent, step) {
  const action = replay.actionNames[agent.at("action_id", step)] || "";
  if (!action.startsWith("swap") || !agent.at("action_success", step)) return [];
  const [col, row] = agent.at("position", step - 1);
  const other = replay.things.find((thing) => {
    const [c, r] = thing.at("position", step);
    return thing !== agent && c === col && r === row && thing.since("position", step) === step;
  });
  return other ? [{ step, kind: "swap", agent, other }] : [];
}

/** Every event of a replay, ordered by step. */
function deriveEvents(replay) {
  const converters = new Map();
  const events = [];
  for (const thing of replay.things) {
    if (!thing.isConverter) continue;
    const [col, row] = thing.at("position", 0);
    converters.set(row * replay.width + col, thing);
    events.push(...productionEvents(thing, replay.numSteps));
  }
  for (let step = 1; step <= replay.numSteps; step++) {
    const robbed = new Map();
    events.push(...attackEvents(replay, step, robbed));
    for (const agent of replay.agents) {
      events.push(...transferEvents(replay, converters, agent, step, robbed.get(agent) || new Map()));
      events.push(...swapEvent(replay, agent, step));
      if (agent.at("frozen", step - 1) && !agent.at("frozen", step)) {
        events.push({ step, kind: "thaw", agent, other: null });
      }
    }
  }
  return events.sort((a, b) => a.step - b.step);
}

function eventText(replay, event) {
  const who = event.agent ? event.agent.name : event.other.name;
  const some = (item, count) => (count === 1 ? replay.itemNames[item] : `${count} ${replay.itemNames[item]}`);
  switch (event.kind) {
    case "took":
      return `${who} ${familyOf(replay.itemNames[event.item]) === "heart" ? "got" : "took"} ` +
        `${some(event.item, event.count)} from ${event.other.name}`;
    case "put":
      return `${who} put ${some(event.item, event.count)} into ${event.other.name}`;
    case "made":
      return `${who} made ${some(event.item, event.count)}`;
    case "swap":
      return `${who} swapped places with ${event.other.name}`;
    case "thaw":
      return `${who} can move again`;
    default: {
      const target = event.other === event.agent ? "itself" : event.other.name;
      if (event.outcome === "blocked") return `${target} blocked an attack by ${who}`;
      if (event.outcome === "wasted") return `${who} attacked ${target}, who was frozen already`;
      const loot = event.loot.map(([item, count]) => some(item, count)).join(", ");
      return `${who} attacked ${target}${loot ? ` and took ${loot}` : ""}`;
    }
  }
}

/** "ore_red" and "ore_blue" are one family, "ore". */
const familyOf = (item) => item.split("_")[0];

/** Families of items taken from converters, in the order of their items, each with a running count per agent. */
function collectedFamilies(replay) {
  const families = new Map();
  const present = new Set(replay.events.filter((event) => event.kind === "took").map((event) => event.item));
  replay.itemNames.forEach((name, item) => {
    if (name === "heart" || present.has(item)) families.set(familyOf(name), { name: familyOf(name), icon: name });
  });
  const kept = [...families.values()].slice(-MOST_FAMILIES);
  for (const family of kept) {
    family.counts = replay.agents.map(() => new Int32Array(replay.numSteps + 1));
    for (const event of replay.events) {
      if (event.kind === "took" && familyOf(replay.itemNames[event.item]) === family.name) {
        family.counts[event.agent.agentId][event.step] += event.count;
      }
    }
    for (const counts of family.counts) {
      for (let step = 1; step <= replay.numSteps; step++) counts[step] += counts[step - 1];
    }
  }
  return kept;
}
