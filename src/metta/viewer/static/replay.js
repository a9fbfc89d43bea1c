// The replay as the page sees it: every object with a look-up of any field at any step.

const LIST_FIELDS = new Set([
  "position", "inventory", "inventory_limits", "input_resources", "output_resources",
]);

/** Bytes of a replay file (zlib-compressed JSON) to its JSON object. */
async function unpackReplay(bytes) {
  if (!("DecompressionStream" in window)) {
    throw new Error("This browser is too old to unpack the replay: it lacks DecompressionStream.");
  }
  let text;
  try {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    text = await new Response(stream).text();
  } catch {
    throw new Error("This is no replay file: it is not zlib-compressed, or cut short.");
  }
  let data;
  try {
    data = JSON.parse(text);
  } catch {
    throw new Error("This is no replay file: it does not hold JSON.");
  }
  if (data === null || data.version !== 2 || !Array.isArray(data.objects)) {
    throw new Error("This is no replay of version 2.");
  }
  return data;
}

function bytesFromBase64(text) {
  return Uint8Array.from(atob(text.trim()), (letter) => letter.charCodeAt(0));
}

/** One field of one object over time: its change points, searched by step. */
class Track {
  constructor(name, stored) {
    const series = Array.isArray(stored) && stored.length > 0 &&
      (!LIST_FIELDS.has(name) || stored.every((entry) => Array.isArray(entry) && Array.isArray(entry[1])));
    this.steps = series ? stored.map((entry) => entry[0]) : [0];
    this.values = series ? stored.map((entry) => entry[1]) : [stored];
    this.recent = 0;
  }

  /** Index of the change point in force at `step`; neighbours of the last one asked for are found at once. */
  indexAt(step) {
    const steps = this.steps;
    let low = this.recent;
    if (!(steps[low] <= step && (low + 1 === steps.length || step < steps[low + 1]))) {
      low = 0;
      let high = steps.length - 1;
      while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (steps[middle] <= step) low = middle;
        else high = middle - 1;
      }
      this.recent = low;
    }
    return low;
  }

  at(step) {
    return this.values[this.indexAt(step)];
  }

  /** The step at which the value in force at `step` was taken. */
  since(step) {
    return this.steps[this.indexAt(step)];
  }
}

class Thing {
  constructor(entry, data) {
    this.tracks = new Map(Object.entries(entry).map(([name, stored]) => [name, new Track(name, stored)]));
    this.id = entry.id;
    this.type = data.type_names[entry.type_id] || "unknown";
    this.isAgent = "agent_id" in entry;
    this.isConverter = "output_resources" in entry;
    this.isSwappable = entry.is_swappable === true;
    this.agentId = this.isAgent ? entry.agent_id : -1;
    this.groupId = this.isAgent ? entry.group_id : -1;
    this.isWall = !this.isAgent && !this.isConverter;
  }

  /** The field's value at a step, or `otherwise` if this object has no such field. */
  at(name, step, otherwise = 0) {
    const track = this.tracks.get(name);
    return track === undefined ? otherwise : track.at(step);
  }

  since(name, step) {
    return this.tracks.get(name).since(step);
  }

  get name() {
    return this.isAgent ? `agent ${this.agentId}` : this.type;
  }

  /** Item id to count, without zero entries. */
  items(step) {
    return new Map(this.at("inventory", step, []).filter(([, count]) => count > 0));
  }

  recipe(name) {
    return this.at(name, 0, []);
  }
}

class Replay {
  constructor(data) {
    this.label = data.file_name || "replay";
    this.numSteps = data.max_steps;
    [this.width, this.height] = data.map_size;
    this.viewSize = data.view_size || null;
    this.itemNames = data.item_names;
    this.actionNames = data.action_names;
    this.groupNames = data.group_names;
    this.rewardSharing = data.reward_sharing || [];
    this.things = data.objects.map((entry) => new Thing(entry, data));
    this.byId = new Map(this.things.map((thing) => [thing.id, thing]));
    this.agents = this.things.filter((thing) => thing.isAgent).sort((a, b) => a.agentId - b.agentId);
    this.teamReward = this.sumOfRewards();
    this.events = deriveEvents(this);
    this.families = collectedFamilies(this);
  }

  /** Sum of all agents' rewards in each step. */
  sumOfRewards() {
    const sums = new Float64Array(this.numSteps + 1);
    for (const agent of this.agents) {
      for (let step = 0; step <= this.numSteps; step++) sums[step] += agent.at("current_reward", step);
    }
    return sums;
  }

  /** Whatever stands on a cell at a step, agents first; undefined for an empty one. */
  thingAt(col, row, step) {
    const here = this.things.filter((thing) => {
      const [c, r] = thing.at("position", step);
      return c === col && r === row;
    });
    return here.find((thing) => thing.isAgent) || here[0];
  }
}
