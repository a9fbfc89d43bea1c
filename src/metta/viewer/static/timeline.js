// The strip under the map: the team's reward per step, its running total, and a lane of marks per item taken.

const GUTTER = 26; // px on the left for the lanes' icons
const INSET = 8; // px between the plot and its ends: half of the slider's thumb
const LANE = 14;
const PLOT = 48;
const MOST_LANES = 6;

class Timeline {
  constructor(canvas, tip, onJump) {
    this.canvas = canvas;
    this.tip = tip;
    this.ctx = canvas.getContext("2d");
    this.theme = readTheme();
    this.onJump = onJump;
    this.replay = null;
    let dragging = false;
    canvas.addEventListener("pointerdown", (press) => {
      dragging = true;
      canvas.setPointerCapture(press.pointerId);
      onJump(this.stepAt(press.offsetX, press.offsetY));
    });
    canvas.addEventListener("pointermove", (move) => {
      if (dragging) onJump(this.stepAt(move.offsetX, -1));
      this.showTip(move.offsetX);
    });
    const release = () => { dragging = false; };
    canvas.addEventListener("pointerup", release);
    canvas.addEventListener("pointercancel", release);
    canvas.addEventListener("pointerleave", () => { this.tip.hidden = true; });
  }

  load(replay) {
    this.replay = replay;
    const items = [...new Set(replay.events.filter((event) => event.kind === "took").map((event) => event.item))];
    this.lanes = items.sort((a, b) => a - b).slice(-MOST_LANES).map((item) => ({
      item, events: replay.events.filter((event) => event.kind === "took" && event.item === item),
    }));
    this.canvas.style.height = `${PLOT + this.lanes.length * LANE + 6}px`;
    this.totals = new Float64Array(replay.numSteps + 1);
    replay.teamReward.forEach((reward, step) => {
      this.totals[step] = reward + (step ? this.totals[step - 1] : 0);
    });
    this.background = null;
  }

  resize() {
    this.ratio = window.devicePixelRatio || 1;
    this.width = this.canvas.clientWidth;
    this.height = this.canvas.clientHeight;
    this.canvas.width = Math.max(1, Math.round(this.width * this.ratio));
    this.canvas.height = Math.max(1, Math.round(this.height * this.ratio));
    this.background = null;
  }

  xOf(step) {
    const span = this.width - GUTTER - 2 * INSET;
    return GUTTER + INSET + (this.replay.numSteps ? (step / this.replay.numSteps) * span : 0);
  }

  /** The step under the pointer; on a lane, the nearest of its marks if one is near. */
  stepAt(x, y) {
    const span = this.width - GUTTER - 2 * INSET;
    const step = clamp(Math.round(((x - GUTTER - INSET) / span) * this.replay.numSteps), 0, this.replay.numSteps);
    const lane = this.lanes[Math.floor((y - PLOT) / LANE)];
    if (!lane) return step;
    const distance = (event) => Math.abs(this.xOf(event.step) - x);
    const nearest = lane.events.reduce((best, event) => (distance(event) < distance(best) ? event : best));
    return distance(nearest) <= 8 ? nearest.step : step;
  }

  showTip(x) {
    const step = this.stepAt(x, -1);
    this.tip.textContent = `step ${step} · ${signed(this.replay.teamReward[step])} · total ${tidy(this.totals[step])}`;
    this.tip.hidden = false;
    const half = this.tip.offsetWidth / 2;
    this.tip.style.left = `${clamp(x, half, this.width - half)}px`;
  }

  /** Everything but the playhead, painted once. */
  paintBackground() {
    const { theme, ratio, replay } = this;
    const picture = document.createElement("canvas");
    picture.width = this.canvas.width;
    picture.height = this.canvas.height;
    const ctx = picture.getContext("2d");
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    const columns = Math.max(1, Math.floor((this.width - GUTTER - 2 * INSET) / 3));
    const bars = Math.min(columns, replay.numSteps + 1);
    const sums = new Float64Array(bars);
    replay.teamReward.forEach((reward, step) => {
      sums[Math.min(bars - 1, Math.floor((step / (replay.numSteps + 1)) * bars))] += reward;
    });
    const [low, high] = extent(sums);
    const room = PLOT - 8;
    const zero = 4 + (high - low ? (high / (high - low)) * room : room);
    const scale = high - low ? room / (high - low) : 0;
    ctx.strokeStyle = theme.line;
    line(ctx, [[GUTTER, zero], [this.width, zero]]);
    const left = this.xOf(0);
    const step = (this.xOf(replay.numSteps) - left) / Math.max(1, bars - 1);
    sums.forEach((sum, index) => {
      if (sum === 0) return;
      const size = Math.max(1.5, Math.abs(sum) * scale);
      ctx.fillStyle = sum > 0 ? theme.good : theme.bad;
      ctx.fillRect(left + index * step - 1, sum > 0 ? zero - size : zero, 2, size);
    });
    this.paintTotal(ctx);
    ctx.font = "11px system-ui, sans-serif";
    ctx.textBaseline = "top";
    ctx.lineJoin = "round";
    ctx.lineWidth = 4;
    ctx.strokeStyle = theme.panel;
    ctx.fillStyle = theme.muted;
    const title = "team reward per step, and its total";
    ctx.strokeText(title, GUTTER + INSET, 0);
    ctx.fillText(title, GUTTER + INSET, 0);
    this.lanes.forEach((lane, index) => this.paintLane(ctx, lane, PLOT + index * LANE));
    return picture;
  }

  paintTotal(ctx) {
    const [low, high] = extent(this.totals);
    if (high === low) return;
    const points = Math.min(this.replay.numSteps + 1, Math.max(2, Math.floor(this.width / 2)));
    ctx.beginPath();
    for (let index = 0; index < points; index++) {
      const step = Math.round((index / (points - 1 || 1)) * this.replay.numSteps);
      const y = 4 + ((high - this.totals[step]) / (high - low)) * (PLOT - 8);
      ctx.lineTo(this.xOf(step), y);
    }
    ctx.strokeStyle = this.theme.muted;
    ctx.globalAlpha = 0.8;
    ctx.lineWidth = 1.25;
    ctx.stroke();
    ctx.globalAlpha = 1;
  }

  paintLane(ctx, lane, top) {
    const name = this.replay.itemNames[lane.item];
    const middle = top + LANE / 2;
    ctx.strokeStyle = this.theme.line;
    ctx.lineWidth = 1;
    line(ctx, [[this.xOf(0), middle], [this.xOf(this.replay.numSteps), middle]]);
    drawItem(ctx, name, GUTTER / 2, middle, LANE + 1);
    ctx.fillStyle = itemColor(name);
    for (const event of lane.events) {
      ctx.beginPath();
      ctx.arc(this.xOf(event.step), middle, 3, 0, 2 * Math.PI);
      ctx.fill();
    }
  }

  draw(time) {
    const { ctx } = this;
    this.background ??= this.paintBackground();
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    ctx.clearRect(0, 0, this.canvas.width, this.canvas.height);
    ctx.drawImage(this.background, 0, 0);
    ctx.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    const x = this.xOf(time);
    ctx.strokeStyle = this.theme.accent;
    ctx.lineWidth = 2;
    line(ctx, [[x, 0], [x, this.height]]);
  }
}

/** A number with at most two decimals. */
const tidy = (value) => Number(value.toFixed(2)).toString().replace("-", "−");

/** Smallest and largest of some numbers and zero. */
const extent = (values) => [values.reduce((a, b) => Math.min(a, b), 0), values.reduce((a, b) => Math.max(a, b), 0)];
