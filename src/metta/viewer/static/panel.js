// The right-hand side: the team's scores, the selected object, and what happened lately.

const LOG_LINES = 60;

/** A DOM element with a class and children; texts become text nodes, so that no name can smuggle in markup. */
function element(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

/** A small canvas with a drawing in the unit square. */
function picture(size, paint) {
  const canvas = document.createElement("canvas");
  paintPicture(canvas, size, paint);
  return canvas;
}

function paintPicture(canvas, size, paint) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = canvas.height = Math.round(size * ratio);
  canvas.style.width = canvas.style.height = `${size}px`;
  const ctx = canvas.getContext("2d");
  ctx.translate(canvas.width / 2, canvas.height / 2);
  ctx.scale(canvas.width * 0.96, canvas.height * 0.96);
  paint(ctx);
}

const itemPicture = (name, size = 16) => picture(size, (ctx) => drawItem(ctx, name, 0, 0, 1));

class Panel {
  constructor(parts, on) {
    this.parts = parts;
    this.on = on;
    this.replay = null;
    this.logLines = [];
    this.shownEvents = null;
  }

  load(replay) {
    this.replay = replay;
    this.buildScores();
    this.buildLog();
    this.legend = this.buildLegend();
  }

  portraitOf(thing, size) {
    return picture(size, (ctx) => this.paintThing(ctx, thing));
  }

  paintThing(ctx, thing) {
    if (thing.isAgent) {
      const ring = this.replay.groupNames.filter(Boolean).length > 1 ? groupColor(thing.groupId) : null;
      drawAgent(ctx, 0, { color: agentColor(thing.agentId), ring, frozen: false, label: `${thing.agentId}`, detailed: true });
    } else if (thing.isWall && !thing.isSwappable) {
      ctx.lineWidth = 0.05;
      ctx.strokeStyle = INK;
      box(ctx, readTheme().wall, -0.42, -0.42, 0.84, 0.84, 0.14);
    } else {
      drawKind(ctx, thing.type, { busy: false, stocked: true, isConverter: thing.isConverter });
    }
  }

  // ---- the team ----------------------------------------------------------------------------------------------

  buildScores() {
    const { replay } = this;
    const groups = replay.groupNames.map((name, id) => ({ name, id })).filter(({ id }) =>
      replay.agents.some((agent) => agent.groupId === id));
    const head = element("div", "row head", element("span", "who", "agent"));
    for (const family of replay.families) {
      const cell = element("span", "count", itemPicture(family.icon, 15));
      cell.title = `${family.name} taken so far`;
      head.append(cell);
    }
    const total = element("span", "sum", "reward");
    total.title = "Reward received so far";
    head.append(total);
    this.rows = [];
    this.groupSums = [];
    const rows = [head];
    for (const group of groups) {
      if (groups.length > 1) {
        const sum = element("span", "sum");
        const mark = element("i", "dot");
        mark.style.background = groupColor(group.id);
        rows.push(element("div", "row group", element("span", "who", mark, group.name), sum));
        this.groupSums.push({ group, sum });
      }
      for (const agent of replay.agents.filter((each) => each.groupId === group.id)) rows.push(this.buildScore(agent));
    }
    const columns = `minmax(64px, 1fr) ${"minmax(26px, auto) ".repeat(replay.families.length)} minmax(64px, auto)`;
    this.parts.scores.style.setProperty("--columns", columns);
    this.parts.scores.replaceChildren(...rows);
  }

  buildScore(agent) {
    const row = element("button", "row agent");
    row.append(element("span", "who", this.portraitOf(agent, 22), `${agent.agentId}`));
    row.title = `Select ${agent.name}`;
    const counts = this.replay.families.map(() => element("span", "count"));
    const bar = element("i", "bar");
    bar.style.background = agentColor(agent.agentId);
    const sum = element("span", "number");
    row.append(...counts, element("span", "sum", bar, sum));
    row.addEventListener("click", () => this.on.select(agent));
    this.rows.push({ agent, row, counts, bar, sum });
    return row;
  }

  updateScores(step, selected) {
    const totals = this.rows.map(({ agent }) => agent.at("total_reward", step));
    const most = this.rows.reduce((high, { agent }) => Math.max(high, Math.abs(agent.at("total_reward", this.replay.numSteps))), 1e-9);
    this.rows.forEach(({ agent, row, counts, bar, sum }, index) => {
      row.classList.toggle("selected", agent === selected);
      counts.forEach((cell, family) => {
        const count = this.replay.families[family].counts[agent.agentId][step];
        cell.textContent = count || "·";
        cell.classList.toggle("none", count === 0);
      });
      bar.style.width = `${Math.min(100, (Math.abs(totals[index]) / most) * 100)}%`;
      sum.textContent = fixed(totals[index]);
      row.classList.toggle("frozen", Boolean(agent.at("frozen", step)));
    });
    for (const { group, sum } of this.groupSums) {
      sum.textContent = fixed(this.replay.agents.reduce((all, agent) =>
        all + (agent.groupId === group.id ? agent.at("total_reward", step) : 0), 0));
    }
    this.parts.teamTotal.textContent = `total ${fixed(totals.reduce((all, total) => all + total, 0))}`;
  }

  // ---- the selected object -----------------------------------------------------------------------------------

  updateSelected(step, selected) {
    const { parts } = this;
    parts.portrait.hidden = parts.deselect.hidden = selected === null;
    parts.side.classList.toggle("selecting", selected !== null);
    parts.followLabel.hidden = !(selected && selected.isAgent);
    if (selected === null) {
      parts.selectedName.textContent = "On the map";
      if (parts.details.firstChild !== this.legend) parts.details.replaceChildren(this.legend);
      return;
    }
    if (this.portrayed !== selected) {
      paintPicture(parts.portrait, 28, (ctx) => this.paintThing(ctx, selected));
      this.portrayed = selected;
    }
    parts.selectedName.textContent = selected.isAgent ? `Agent ${selected.agentId}` : selected.type;
    const facts = selected.isAgent ? this.agentFacts(selected, step) : this.objectFacts(selected, step);
    const [col, row] = selected.at("position", step);
    facts.push(["at", `column ${col}, row ${row}`]);
    const list = element("dl", "");
    for (const [name, value] of facts) {
      const content = element("dd", "");
      content.append(...[value].flat());
      content.dataset.fact = name;
      list.append(element("dt", "", name), content);
    }
    parts.details.replaceChildren(list);
  }

  agentFacts(agent, step) {
    const { replay } = this;
    const facts = [["carries", this.stock(agent, step, new Map(agent.at("inventory_limits", 0, [])))]];
    if (step > 0) {
      const worked = agent.at("action_success", step);
      const name = replay.actionNames[agent.at("action_id", step)] || `invalid action ${agent.at("action_id", step)}`;
      facts.push(["last action", [`${name}${argumentInWords(name, agent.at("action_parameter", step))} `,
        element("span", worked ? "good" : "bad", worked ? "✓" : "✗ failed")]]);
    }
    const reward = agent.at("current_reward", step);
    facts.push(["reward", [element("span", reward > 0 ? "good" : reward < 0 ? "bad" : "", reward ? signed(reward) : "0"),
      ` this step, ${tidy3(agent.at("total_reward", step))} in all`]]);
    facts.push(["faces", DIRECTION_NAMES[agent.at("rotation", step)] || "?"]);
    if (agent.at("frozen", step)) {
      const [left, whole] = [agent.at("frozen_progress", step), agent.at("frozen_time", step)];
      facts.push(["frozen", element("span", "ice", `for ${left} more of ${whole} steps`)]);
    }
    const group = replay.groupNames[agent.groupId] || `${agent.groupId}`;
    const share = replay.rewardSharing[agent.groupId];
    facts.push(["team", share ? `${group}, shares ${Math.round(share * 100)} % of its reward` : group]);
    if (agent.at("glyph", step)) facts.push(["glyph", `${agent.at("glyph", step)}`]);
    if (agent.at("color", step)) facts.push(["colour", `${agent.at("color", step)}`]);
    return facts;
  }

  objectFacts(thing, step) {
    if (!thing.isConverter) return [["is", thing.isSwappable ? "a block: agents can swap places with it" : "solid"]];
    const facts = [["holds", this.stock(thing, step, new Map())], ["now", this.stateOf(thing, step)],
      ["recipe", this.recipeOf(thing)]];
    const [ticks, rest] = [thing.at("conversion_duration", 0), thing.at("cooldown_duration", 0)];
    facts.push(["takes", `${plural(ticks, "step")}${rest ? `, then rests ${plural(rest, "step")}` : ""}`]);
    const most = thing.at("output_limit", 0);
    if (most >= 0) facts.push(["stops at", `${most} in store`]);
    return facts;
  }

  /** Why a converter works or waits. */
  stateOf(thing, step) {
    const progress = progressOf(thing, step);
    if (thing.at("is_converting", step)) {
      return element("span", "busy", progress ? `converting, ${Math.round(progress[0] * 100)} % done` : "converting");
    }
    if (thing.at("is_cooling_down", step)) {
      const left = thing.at("cooldown_duration", 0) - (step - thing.since("is_cooling_down", step));
      return element("span", "ice", `resting, ${plural(Math.max(1, left), "more step", "more steps")}`);
    }
    const store = thing.items(step);
    const made = thing.recipe("output_resources").reduce((sum, [item]) => sum + (store.get(item) || 0), 0);
    const most = thing.at("output_limit", 0);
    if (most >= 0 && made >= most) return "full: waits until something is taken";
    const missing = thing.recipe("input_resources")
      .map(([item, amount]) => [item, amount - (store.get(item) || 0)]).filter(([, lack]) => lack > 0);
    if (missing.length === 0) return "idle";
    return `waits for ${missing.map(([item, lack]) => `${lack} ${this.replay.itemNames[item]}`).join(", ")}`;
  }

  recipeOf(thing) {
    const side = (entries) => entries.flatMap(([item, amount], index) => [
      index ? " + " : "", `${amount} `, itemPicture(this.replay.itemNames[item], 15), ` ${this.replay.itemNames[item]}`,
    ]);
    const inputs = thing.recipe("input_resources");
    const outputs = thing.recipe("output_resources");
    const products = outputs.length ? side(outputs) : ["nothing"];
    if (inputs.length > 0) return [...side(inputs), " → ", ...products];
    const period = Math.max(1, thing.at("conversion_duration", 0)) + thing.at("cooldown_duration", 0);
    return ["gives ", ...products, ` every ${plural(period, "step")}`];
  }

  stock(thing, step, limits) {
    const chips = [...thing.items(step)].map(([item, count]) => {
      const limit = limits.get(item);
      const chip = element("span", "chip", itemPicture(this.replay.itemNames[item], 16), ` ${this.replay.itemNames[item]} `,
        element("b", "", `${count}`));
      if (limit !== undefined && limit < 255) chip.append(element("small", "", ` of ${limit}`));
      return chip;
    });
    return chips.length ? chips : element("span", "none", "nothing");
  }

  /** What the map holds: shown while nothing is selected. */
  buildLegend() {
    const list = element("ul", "legend");
    const kinds = new Map();
    for (const thing of this.replay.things) {
      const key = thing.isAgent ? "agent" : thing.type;
      if (!kinds.has(key)) kinds.set(key, { thing, count: 0 });
      kinds.get(key).count += 1;
    }
    const order = ({ thing }) => (thing.isAgent ? 0 : thing.isConverter ? 1 : thing.isSwappable ? 2 : 3);
    for (const { thing, count } of [...kinds.values()].sort((a, b) => order(a) - order(b))) {
      const what = thing.isConverter ? element("span", "what", ...this.recipeOf(thing)) : "";
      list.append(element("li", "", this.portraitOf(thing, 24),
        element("span", "kind", thing.isAgent ? "agent" : thing.type, element("small", "", ` ×${count}`)), what));
    }
    const hint = element("p", "hint", "Click an agent to follow it, or anything else to look inside.");
    return element("div", "", list, hint);
  }

  // ---- what happened -----------------------------------------------------------------------------------------

  buildLog() {
    this.parts.events.replaceChildren();
    this.shownEvents = null;
    this.logLines = [];
    for (let index = 0; index < LOG_LINES; index++) {
      const when = element("span", "when");
      const icon = element("span", "icon");
      const what = element("span", "what");
      const button = element("button", "", when, icon, what);
      const entry = { item: element("li", "", button), when, icon, what, event: null };
      button.addEventListener("click", () => this.on.jump(entry.event));
      this.logLines.push(entry);
    }
    this.parts.events.replaceChildren(...this.logLines.map((entry) => entry.item));
    this.parts.events.append(element("li", "none", "Nothing yet."));
  }

  /** The latest events up to `step`, newest first. */
  updateLog(step, selected, onlySelected) {
    const wanted = [];
    const { events } = this.replay;
    for (let index = lastIndexUpTo(events, step); index >= 0 && wanted.length < LOG_LINES; index--) {
      const event = events[index];
      if (!onlySelected || !selected || event.agent === selected || event.other === selected) wanted.push(event);
    }
    const key = `${wanted.length}:${events.indexOf(wanted[0])}:${onlySelected && selected ? selected.id : ""}`;
    this.logLines.forEach((entry, index) => {
      const event = wanted[index] || null;
      if (event) entry.item.classList.toggle("now", event.step === step);
      if (key === this.shownEvents) return;
      entry.item.hidden = event === null;
      if (event === null || entry.event === event) return;
      entry.event = event;
      entry.when.textContent = event.step;
      entry.what.textContent = eventText(this.replay, event);
      entry.icon.replaceChildren(this.eventPicture(event));
    });
    this.parts.events.lastChild.hidden = wanted.length > 0;
    this.shownEvents = key;
  }

  eventPicture(event) {
    if (event.item !== undefined) return itemPicture(this.replay.itemNames[event.item], 15);
    return this.portraitOf(event.agent, 15);
  }
}

/** Index of the last event at or before a step, -1 if there is none. */
function lastIndexUpTo(events, step) {
  let [low, high] = [0, events.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (events[middle].step <= step) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

function argumentInWords(action, argument) {
  if (action === "rotate") return ` ${DIRECTION_NAMES[argument] || argument}`;
  if (action === "move") return argument === 1 ? " backward" : " forward";
  if (action === "attack") return ` target ${argument}`;
  if (action === "change_color") return ` ${["+1", "−1", "+63", "−63"][argument] || argument}`;
  if (action === "change_glyph") return ` ${argument}`;
  return argument ? ` ${argument}` : "";
}

const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;
const fixed = (value) => value.toFixed(2).replace("-", "−");
const tidy3 = (value) => Number(value.toFixed(3)).toString().replace("-", "−");
