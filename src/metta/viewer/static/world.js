// The map: a camera over the cells, and everything that stands on them at a moment between two steps.

const SMALLEST_CELL = 3;
const LARGEST_CELL = 140;
const DETAIL_CELL = 20; // px from which icons show their details
const ICON_CELL = 9; // px below which objects are plain squares
const TRAIL = 14; // steps of the selected agent's path that stay visible

const ease = (t) => t * t * (3 - 2 * t);
const ANGLES = [-Math.PI / 2, Math.PI / 2, Math.PI, 0];

class World {
  constructor(canvas) {
    this.canvas = canvas;
    this.ctx = canvas.getContext("2d");
    this.theme = readTheme();
    this.fitted = true;
    this.cell = 32;
    this.center = [0, 0];
    this.drawn = [];
    this.selected = null;
    this.follow = true;
    this.replay = null;
  }

  load(replay) {
    this.replay = replay;
    this.walls = replay.things.filter((thing) => thing.isWall && !thing.isSwappable);
    this.others = replay.things.filter((thing) => thing.isConverter || thing.isSwappable);
    this.walled = new Set(this.walls.map((wall) => wall.at("position", 0)).map(([col, row]) => row * replay.width + col));
    this.eventsByStep = new Map();
    for (const event of replay.events) {
      if (!this.eventsByStep.has(event.step)) this.eventsByStep.set(event.step, []);
      this.eventsByStep.get(event.step).push(event);
    }
    this.fit();
  }

  // ---- camera ------------------------------------------------------------------------------------------------

  resize() {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth, clientHeight } = this.canvas;
    this.size = [clientWidth, clientHeight];
    this.canvas.width = Math.max(1, Math.round(clientWidth * ratio));
    this.canvas.height = Math.max(1, Math.round(clientHeight * ratio));
    this.ratio = ratio;
    if (this.fitted) this.fit();
  }

  fit() {
    if (!this.replay || !this.size) return;
    const { width, height } = this.replay;
    this.cell = clamp(Math.min(this.size[0] / (width + 0.5), this.size[1] / (height + 0.5)), SMALLEST_CELL, 64);
    this.center = [width / 2, height / 2];
    this.fitted = true;
  }

  zoomAt(factor, x = this.size[0] / 2, y = this.size[1] / 2) {
    const [col, row] = this.toCells(x, y);
    this.cell = clamp(this.cell * factor, SMALLEST_CELL, LARGEST_CELL);
    this.fitted = false;
    this.center = [col - (x - this.size[0] / 2) / this.cell, row - (y - this.size[1] / 2) / this.cell];
    this.keepInside();
  }

  pan(dx, dy) {
    this.center = [this.center[0] - dx / this.cell, this.center[1] - dy / this.cell];
    this.fitted = false;
    this.keepInside();
  }

  keepInside() {
    this.center = [clamp(this.center[0], 0, this.replay.width), clamp(this.center[1], 0, this.replay.height)];
  }

  toCells(x, y) {
    return [this.center[0] + (x - this.size[0] / 2) / this.cell, this.center[1] + (y - this.size[1] / 2) / this.cell];
  }

  toPixels(col, row) {
    return [(col - this.center[0]) * this.cell + this.size[0] / 2, (row - this.center[1]) * this.cell + this.size[1] / 2];
  }

  /** Bring a freshly followed agent near enough to see it, when the whole map would be too small for that. */
  approach() {
    if (this.cell < 22) {
      this.cell = 34;
      this.fitted = false;
    }
  }

  /** Move the camera towards the followed agent along each axis in which the map does not fit. */
  chase(time, weight) {
    if (!this.selected || !this.follow || this.fitted) return;
    const [col, row] = this.placeOf(this.selected, time);
    const spans = [this.replay.width, this.replay.height];
    [col + 0.5, row + 0.5].forEach((target, axis) => {
      const half = this.size[axis] / this.cell / 2 - 0.5; // half a cell beyond the map may show
      const fits = half * 2 >= spans[axis];
      const aim = fits ? spans[axis] / 2 : clamp(target, half, spans[axis] - half);
      this.center[axis] += (aim - this.center[axis]) * weight;
    });
  }

  // ---- what is where -----------------------------------------------------------------------------------------

  /** Column and row at a time between two steps: moves of one cell glide, anything longer jumps. */
  placeOf(thing, time) {
    const step = Math.floor(time);
    const here = thing.at("position", step);
    if (time === step || step >= this.replay.numSteps) return here;
    const next = thing.at("position", step + 1);
    const far = Math.abs(next[0] - here[0]) + Math.abs(next[1] - here[1]);
    if (far === 0) return here;
    const part = far === 1 ? ease(time - step) : Math.round(time - step);
    return [here[0] + (next[0] - here[0]) * part, here[1] + (next[1] - here[1]) * part];
  }

  angleOf(agent, time) {
    const step = Math.floor(time);
    const from = ANGLES[agent.at("rotation", step)] ?? 0;
    if (time === step || step >= this.replay.numSteps) return from;
    let turn = (ANGLES[agent.at("rotation", step + 1)] ?? 0) - from;
    if (turn > Math.PI) turn -= 2 * Math.PI;
    if (turn < -Math.PI) turn += 2 * Math.PI;
    return from + turn * ease(time - step);
  }

  pick(x, y, step) {
    const [col, row] = this.toCells(x, y).map(Math.floor);
    return this.replay.thingAt(col, row, step) || null;
  }

  // ---- painting ----------------------------------------------------------------------------------------------

  /** Paint the world at `time` (whole numbers are recorded steps); effects fade over `span` steps. */
  draw(time, span) {
    const { ctx, ratio } = this;
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.fillStyle = this.theme.void;
    ctx.fillRect(0, 0, ...this.size);
    this.drawn = [];
    const [left, top] = this.toCells(0, 0).map((cell) => Math.floor(cell) - 1);
    const [right, bottom] = this.toCells(...this.size).map((cell) => Math.ceil(cell) + 1);
    this.drawFloor(Math.max(0, left), Math.max(0, top), Math.min(this.replay.width, right), Math.min(this.replay.height, bottom));
    const visible = ([col, row]) => col >= left && col <= right && row >= top && row <= bottom;
    this.drawWalls(visible);
    if (this.selected) this.drawView(time);
    for (const thing of this.others) this.drawOther(thing, time, visible);
    if (this.selected && this.selected.isAgent) this.drawTrail(time);
    for (const agent of this.replay.agents) this.drawAgentAt(agent, time, visible);
    if (this.cell >= ICON_CELL) this.drawEffects(time, span);
    if (this.selected) this.drawSelection(time);
  }

  drawFloor(left, top, right, bottom) {
    const { ctx, cell, theme } = this;
    const [x, y] = this.toPixels(left, top);
    ctx.fillStyle = theme.floor;
    ctx.fillRect(x, y, (right - left) * cell, (bottom - top) * cell);
    if (cell < ICON_CELL) return;
    ctx.fillStyle = theme["floor-2"];
    for (let row = top; row < bottom; row++) {
      for (let col = left + ((left + row) % 2); col < right; col += 2) {
        ctx.fillRect(...this.toPixels(col, row), cell, cell);
      }
    }
  }

  /** The window that the selected agent observes. */
  drawView(time) {
    if (!this.selected.isAgent || !this.replay.viewSize) return;
    const { ctx } = this;
    const [wide, high] = this.replay.viewSize;
    const [col, row] = this.placeOf(this.selected, time);
    const { width, height } = this.replay;
    const [left, top] = this.toPixels(Math.max(0, col - (wide >> 1)), Math.max(0, row - (high >> 1)));
    const [right, bottom] = this.toPixels(Math.min(width, col + (wide >> 1) + 1), Math.min(height, row + (high >> 1) + 1));
    ctx.save();
    ctx.fillStyle = ctx.strokeStyle = this.theme.accent;
    ctx.globalAlpha = 0.06;
    ctx.fillRect(left, top, right - left, bottom - top);
    ctx.globalAlpha = 0.7;
    ctx.lineWidth = 1.5;
    ctx.setLineDash([5, 5]);
    ctx.strokeRect(left, top, right - left, bottom - top);
    ctx.restore();
  }

  /** Walls melt into one another; those that can be swapped are drawn as blocks of their own. */
  drawWalls(visible) {
    const { ctx, cell, theme } = this;
    const { width } = this.replay;
    const bevel = Math.max(1, cell * 0.1);
    for (const wall of this.walls) {
      const [col, row] = wall.at("position", 0);
      this.drawn.push([wall.id, col, row]);
      if (!visible([col, row])) continue;
      const [x, y] = this.toPixels(col, row);
      const has = (dc, dr) => col + dc >= 0 && col + dc < width && this.walled.has((row + dr) * width + col + dc);
      const [up, down, before, after] = [has(0, -1), has(0, 1), has(-1, 0), has(1, 0)];
      const round = cell < ICON_CELL ? 0 : cell * 0.22;
      ctx.beginPath();
      ctx.roundRect(x, y, cell + 0.6, cell + 0.6, [
        up || before ? 0 : round, up || after ? 0 : round, down || after ? 0 : round, down || before ? 0 : round,
      ]);
      ctx.fillStyle = theme.wall;
      ctx.fill();
      if (cell < ICON_CELL) continue;
      const from = x + (before ? 0 : round / 2);
      const length = x + cell - (after ? 0 : round / 2) - from + 0.6;
      ctx.fillStyle = theme["wall-top"];
      if (!up) ctx.fillRect(from, y, length, bevel);
      ctx.fillStyle = theme["wall-edge"];
      if (!down) ctx.fillRect(from, y + cell - bevel, length, bevel);
    }
  }

  drawOther(thing, time, visible) {
    const { ctx, cell } = this;
    const place = this.placeOf(thing, time);
    this.drawn.push([thing.id, ...place]);
    if (!visible(place)) return;
    const [x, y] = this.toPixels(...place);
    if (cell < ICON_CELL) {
      ctx.fillStyle = kindColor(thing.type);
      ctx.fillRect(x, y, cell, cell);
      return;
    }
    const step = Math.floor(time);
    ctx.save();
    ctx.translate(x + cell / 2, y + cell / 2);
    ctx.scale(cell * 0.92, cell * 0.92);
    drawKind(ctx, thing.type, this.lookOf(thing, step));
    ctx.restore();
    if (thing.isConverter && cell >= DETAIL_CELL) this.drawStock(thing, step, x, y);
  }

  lookOf(thing, step) {
    if (!thing.isConverter) return { busy: false, stocked: false, isConverter: false };
    const outputs = new Set(thing.recipe("output_resources").map(([item]) => item));
    const stocked = [...thing.items(step).keys()].some((item) => outputs.has(item));
    return { busy: thing.at("is_converting", step), stocked, isConverter: true };
  }

  /** What lies in a converter (products right, ingredients left), and the progress of its work. */
  drawStock(thing, step, x, y) {
    const { ctx, cell, theme } = this;
    const outputs = new Set(thing.recipe("output_resources").map(([item]) => item));
    const size = cell * 0.32;
    const stacks = [[], []];
    for (const [item, count] of thing.items(step)) stacks[outputs.has(item) ? 1 : 0].push([item, count]);
    stacks.forEach((stack, side) => {
      stack.slice(0, 3).forEach(([item, count], index) => {
        this.drawStack(item, count, x + (side ? cell - size * 0.55 : size * 0.55), y + cell - size * (0.6 + index), size);
      });
    });
    const progress = progressOf(thing, step);
    if (progress === null) return;
    const [fraction, kind] = progress;
    const [width, height] = [cell * 0.8, Math.max(2, cell * 0.07)];
    ctx.fillStyle = "rgba(0,0,0,.45)";
    ctx.fillRect(x + cell * 0.1, y + cell - height, width, height);
    ctx.fillStyle = kind === "converting" ? theme.accent : theme.ice;
    ctx.fillRect(x + cell * 0.1, y + cell - height, width * fraction, height);
  }

  /** An item with its count. */
  drawStack(item, count, x, y, size) {
    const { ctx } = this;
    drawItem(ctx, this.replay.itemNames[item], x, y, size);
    if (count < 2 || size < 9) return;
    ctx.fillStyle = "#fff";
    ctx.strokeStyle = INK;
    ctx.lineWidth = 2.5;
    ctx.lineJoin = "round";
    ctx.font = `700 ${Math.round(size * 0.8)}px system-ui, sans-serif`;
    ctx.textAlign = "center";
    ctx.textBaseline = "middle";
    ctx.strokeText(count, x + size * 0.34, y + size * 0.22);
    ctx.fillText(count, x + size * 0.34, y + size * 0.22);
  }

  drawTrail(time) {
    const { ctx, cell } = this;
    const step = Math.floor(time);
    ctx.fillStyle = agentColor(this.selected.agentId);
    for (let age = TRAIL; age > 0; age--) {
      if (step - age < 0) continue;
      const [col, row] = this.selected.at("position", step - age);
      const [x, y] = this.toPixels(col + 0.5, row + 0.5);
      ctx.globalAlpha = 0.5 * (1 - age / (TRAIL + 1));
      ctx.beginPath();
      ctx.arc(x, y, Math.max(1.5, cell * 0.09), 0, 2 * Math.PI);
      ctx.fill();
    }
    ctx.globalAlpha = 1;
  }

  drawAgentAt(agent, time, visible) {
    const { ctx, cell } = this;
    const place = this.placeOf(agent, time);
    this.drawn.push([agent.id, ...place]);
    if (!visible(place)) return;
    const step = Math.floor(time);
    const [x, y] = this.toPixels(...place);
    if (cell < ICON_CELL) {
      ctx.fillStyle = agentColor(agent.agentId);
      ctx.beginPath();
      ctx.arc(x + cell / 2, y + cell / 2, cell / 2, 0, 2 * Math.PI);
      ctx.fill();
      return;
    }
    const groups = this.replay.groupNames.filter(Boolean).length;
    ctx.save();
    ctx.translate(x + cell / 2, y + cell / 2);
    ctx.scale(cell, cell);
    drawAgent(ctx, this.angleOf(agent, time), {
      color: agentColor(agent.agentId),
      ring: groups > 1 ? groupColor(agent.groupId) : null,
      frozen: agent.at("frozen", step),
      label: cell >= DETAIL_CELL ? `${agent.agentId}` : null,
      detailed: cell >= 14,
    });
    ctx.restore();
    if (cell < DETAIL_CELL) return;
    const size = cell * 0.34;
    const height = DIRECTION_NAMES[agent.at("rotation", step)] === "down" ? 0.02 : 0.9; // never over its face
    [...agent.items(step)].slice(0, 4).forEach(([item, count], index, all) => {
      const column = index - (all.length - 1) / 2;
      this.drawStack(item, count, x + cell / 2 + column * size * 0.95, y + cell * height, size);
    });
  }

  drawSelection(time) {
    const { ctx, cell, theme } = this;
    const [x, y] = this.toPixels(...this.placeOf(this.selected, time));
    const corner = cell * 0.26;
    ctx.save();
    ctx.strokeStyle = theme.accent;
    ctx.lineWidth = Math.max(1.5, cell * 0.06);
    ctx.lineCap = "round";
    for (const [sx, sy] of [[0, 0], [1, 0], [0, 1], [1, 1]]) {
      const [px, py] = [x + sx * cell, y + sy * cell];
      line(ctx, [[px + (sx ? -corner : corner), py], [px, py], [px, py + (sy ? -corner : corner)]]);
    }
    ctx.restore();
  }

  // ---- effects: items changing hands, attacks, rewards -------------------------------------------------------

  drawEffects(time, span) {
    const step = Math.floor(time);
    const rewarded = new Set(); // only an agent's latest reward is shown, or they would pile up
    for (let past = step; past >= Math.max(1, step - Math.ceil(span)); past--) {
      const age = (time - past) / span;
      if (age >= 1) break;
      for (const event of this.eventsByStep.get(past) || []) this.drawEvent(event, time, age);
      this.drawRewards(past, time, age, rewarded);
    }
  }

  drawEvent(event, time, age) {
    const { ctx, cell } = this;
    const middle = (thing) => this.toPixels(...this.placeOf(thing, time).map((cellAt) => cellAt + 0.5));
    if (event.kind === "took" || event.kind === "put") {
      const [from, to] = event.kind === "took" ? [event.other, event.agent] : [event.agent, event.other];
      const [[x0, y0], [x1, y1]] = [middle(from), middle(to)];
      const part = 0.5 + 0.5 * ease(Math.min(1, age * 1.6));
      ctx.globalAlpha = 1 - Math.max(0, age - 0.5) * 2;
      drawItem(ctx, this.replay.itemNames[event.item], x0 + (x1 - x0) * part, y0 + (y1 - y0) * part, cell * 0.42);
      ctx.globalAlpha = 1;
    } else if (event.kind === "attack") {
      const [[x0, y0], [x1, y1]] = [middle(event.agent), middle(event.other)];
      ctx.save();
      ctx.globalAlpha = 1 - age;
      ctx.strokeStyle = this.theme.bad;
      ctx.lineWidth = Math.max(2, cell * 0.1);
      ctx.lineCap = "round";
      line(ctx, [[x0, y0], [x0 + (x1 - x0) * 0.45 + cell * 0.1, y0 + (y1 - y0) * 0.45 - cell * 0.1],
        [x0 + (x1 - x0) * 0.55 - cell * 0.1, y0 + (y1 - y0) * 0.55 + cell * 0.1], [x1, y1]]);
      ctx.restore();
    }
  }

  drawRewards(step, time, age, rewarded) {
    const { ctx, cell, theme } = this;
    if (cell < DETAIL_CELL) return;
    for (const agent of this.replay.agents) {
      const reward = agent.at("current_reward", step);
      if (Math.abs(reward) < 0.0005 || rewarded.has(agent)) continue;
      rewarded.add(agent);
      const [col, row] = this.placeOf(agent, time);
      const [x, y] = this.toPixels(col + 0.5, row - 0.24 - age * 0.4);
      ctx.save();
      ctx.globalAlpha = 1 - age;
      ctx.font = `700 ${Math.round(clamp(cell * 0.3, 10, 20))}px system-ui, sans-serif`;
      ctx.textAlign = "center";
      ctx.textBaseline = "middle";
      ctx.lineWidth = 3;
      ctx.lineJoin = "round";
      ctx.strokeStyle = theme.void;
      ctx.fillStyle = reward > 0 ? theme.good : theme.bad;
      ctx.strokeText(signed(reward), x, y);
      ctx.fillText(signed(reward), x, y);
      ctx.restore();
    }
  }
}

/** [fraction done, "converting" or "cooling"] of a converter at work, else null. */
function progressOf(thing, step) {
  for (const [flag, kind, duration] of [
    ["is_converting", "converting", "conversion_duration"], ["is_cooling_down", "cooling", "cooldown_duration"],
  ]) {
    const total = thing.at(duration, 0);
    if (thing.at(flag, step) && total > 0) {
      return [clamp((step - thing.since(flag, step)) / total, 0, 1), kind];
    }
  }
  return null;
}

/** A number with its sign and at most three decimals. */
function signed(value) {
  const text = Number(Math.abs(value).toFixed(3)).toString();
  return `${value < 0 ? "−" : "+"}${text}`;
}
