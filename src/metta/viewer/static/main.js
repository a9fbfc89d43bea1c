// Puts the parts together: data in, buttons, keys and pointers to the player, pictures out.

const PANEL_INTERVAL = 80; // ms between updates of the side panel while playing
const EFFECT_SECONDS = 0.7; // how long an effect stays on the map while playing

class App {
  constructor() {
    this.$ = (id) => document.getElementById(id);
    const $ = this.$;
    this.selected = null;
    this.dirty = true;
    this.panelTime = 0;
    this.player = new Player(() => this.changed());
    this.world = new World($("world"));
    this.timeline = new Timeline($("timeline"), $("tip"), (step) => this.jump(step));
    this.panel = new Panel({
      side: $("side"), scores: $("scores"), teamTotal: $("team-total"), portrait: $("portrait"), selectedName: $("selected-name"),
      followLabel: $("follow-label"), deselect: $("deselect"), details: $("details"), events: $("events"),
    }, {
      select: (thing) => this.select(thing),
      jump: (event) => {
        this.jump(event.step);
        if (event.agent) this.select(event.agent);
      },
    });
    this.bindControls();
    this.bindMap();
    this.bindKeys();
    new ResizeObserver(() => this.resize()).observe($("world"));
    new ResizeObserver(() => this.resize()).observe($("timeline"));
    matchMedia("(prefers-color-scheme: light)").addEventListener("change", () => this.retheme());
    this.calm = matchMedia("(prefers-reduced-motion: reduce)");
  }

  load(data) {
    this.replay = new Replay(data);
    this.selected = this.world.selected = null;
    this.player.load(this.replay.numSteps);
    this.world.load(this.replay);
    this.timeline.load(this.replay);
    this.panel.load(this.replay);
    const { label, agents, width, height, numSteps } = this.replay;
    document.title = `${label} · Metta replay`;
    this.$("title").textContent = label;
    this.$("facts").textContent = `${plural(agents.length, "agent")} · ${width} × ${height} cells · ${plural(numSteps, "step")}`;
    this.$("scrub").max = numSteps;
    this.$("banner").hidden = true;
    this.resize();
    this.changed();
  }

  fail(error) {
    const banner = this.$("banner");
    banner.textContent = error.message;
    banner.hidden = false;
  }

  async openFile(file) {
    try {
      this.load(await unpackReplay(await file.arrayBuffer()));
    } catch (error) {
      this.fail(error);
    }
  }

  // ---- reactions ---------------------------------------------------------------------------------------------

  jump(step) {
    this.player.playing = false;
    this.player.seek(step);
  }

  jumpToEvent(direction) {
    const { events } = this.replay;
    const index = lastIndexUpTo(events, direction > 0 ? this.player.step : this.player.step - 1) + (direction > 0 ? 1 : 0);
    if (events[index]) this.jump(events[index].step);
  }

  select(thing) {
    this.selected = this.world.selected = thing;
    if (thing && thing.isAgent) this.setFollow(true);
    this.changed();
  }

  setFollow(follow) {
    this.world.follow = this.$("follow").checked = follow;
    if (follow && this.selected && this.selected.isAgent) {
      this.world.approach();
      this.world.chase(this.player.time, 1);
    }
    this.dirty = true;
  }

  nextAgent(direction) {
    const { agents } = this.replay;
    if (agents.length === 0) return;
    const current = this.selected && this.selected.isAgent ? this.selected.agentId : direction > 0 ? -1 : 0;
    this.select(agents[(current + direction + agents.length) % agents.length]);
  }

  retheme() {
    this.world.theme = this.timeline.theme = readTheme();
    this.timeline.background = null;
    this.dirty = true;
  }

  flipTheme() {
    const root = document.documentElement;
    const light = root.dataset.theme ? root.dataset.theme === "light" : matchMedia("(prefers-color-scheme: light)").matches;
    root.dataset.theme = light ? "dark" : "light";
    this.retheme();
  }

  resize() {
    this.world.resize();
    this.timeline.resize();
    this.dirty = true;
  }

  changed() {
    this.dirty = true;
    this.panelTime = 0;
    if (this.player.playing) return;
    this.world.chase(this.player.time, 1);
    this.paint();
  }

  // ---- wiring ------------------------------------------------------------------------------------------------

  bindControls() {
    const { $, player, world } = this;
    const click = (id, action) => $(id).addEventListener("click", action);
    click("play", () => player.toggle());
    click("back", () => player.nudge(-1));
    click("forward", () => player.nudge(1));
    click("first", () => this.jump(0));
    click("last", () => this.jump(player.numSteps));
    click("event-back", () => this.jumpToEvent(-1));
    click("event-on", () => this.jumpToEvent(1));
    click("zoom-in", () => this.zoom(1.3));
    click("zoom-out", () => this.zoom(1 / 1.3));
    click("fit", () => this.fit());
    click("deselect", () => this.select(null));
    click("theme", () => this.flipTheme());
    click("help", () => $("keys").showModal());
    click("open", () => $("file").click());
    $("file").addEventListener("change", () => {
      const [file] = $("file").files;
      $("file").value = ""; // so that choosing the same file again counts as a change
      if (file) this.openFile(file);
    });
    $("scrub").addEventListener("input", () => this.jump(Number($("scrub").value)));
    $("follow").addEventListener("change", () => this.setFollow($("follow").checked));
    $("only-selected").addEventListener("change", () => this.changed());
    $("speed").append(...SPEEDS.map((speed) => new Option(`${speed} / s`, speed, speed === 8, speed === 8)));
    $("speed").addEventListener("change", () => { player.speed = Number($("speed").value); });
    this.giveFocusBack();
    document.addEventListener("dragover", (drag) => drag.preventDefault());
    document.addEventListener("drop", (drop) => {
      drop.preventDefault();
      if (drop.dataTransfer.files[0]) this.openFile(drop.dataTransfer.files[0]);
    });
    world.canvas.addEventListener("dblclick", () => this.fit());
  }

  /** A control that was used with the mouse does not keep the keyboard: Space plays, as anywhere else. */
  giveFocusBack() {
    let byPointer = false;
    document.addEventListener("pointerdown", () => { byPointer = true; }, true);
    document.addEventListener("keydown", () => { byPointer = false; }, true);
    const release = (used) => {
      if (byPointer && used.target.matches("button, button *, select, input")) document.activeElement.blur();
    };
    document.addEventListener("click", (press) => press.target.tagName !== "SELECT" && release(press));
    document.addEventListener("change", release);
  }

  zoom(factor, x, y) {
    this.world.zoomAt(factor, x, y);
    this.dirty = true;
  }

  fit() {
    this.world.fit();
    this.dirty = true;
  }

  /** One finger or the mouse drags and clicks, two fingers pinch, the wheel zooms. */
  bindMap() {
    const { world } = this;
    const { canvas } = world;
    const fingers = new Map();
    let travelled = 0;
    const spread = () => {
      const [a, b] = [...fingers.values()];
      return Math.hypot(a[0] - b[0], a[1] - b[1]);
    };
    canvas.addEventListener("pointerdown", (press) => {
      fingers.set(press.pointerId, [press.offsetX, press.offsetY]);
      travelled = fingers.size > 1 ? Infinity : 0;
      canvas.setPointerCapture(press.pointerId);
    });
    canvas.addEventListener("pointermove", (move) => {
      const last = fingers.get(move.pointerId);
      if (!last) return;
      const before = fingers.size === 2 ? spread() : 0;
      fingers.set(move.pointerId, [move.offsetX, move.offsetY]);
      if (fingers.size === 2) {
        this.zoom(spread() / Math.max(1, before), move.offsetX, move.offsetY);
        return;
      }
      const [dx, dy] = [move.offsetX - last[0], move.offsetY - last[1]];
      travelled += Math.hypot(dx, dy);
      if (travelled < 5) return;
      world.pan(dx, dy);
      if (world.selected) this.setFollow(false);
      this.dirty = true;
    });
    const release = (up) => {
      const known = fingers.delete(up.pointerId);
      if (known && up.type === "pointerup" && travelled < 5) {
        this.select(world.pick(up.offsetX, up.offsetY, this.player.step));
      }
    };
    canvas.addEventListener("pointerup", release);
    canvas.addEventListener("pointercancel", release);
    canvas.addEventListener("wheel", (turn) => {
      turn.preventDefault();
      this.zoom(Math.exp(-turn.deltaY * 0.0015), turn.offsetX, turn.offsetY);
    }, { passive: false });
  }

  bindKeys() {
    const { player } = this;
    const keys = {
      " ": () => player.toggle(),
      ArrowLeft: (press) => player.nudge(press.shiftKey ? -10 : -1),
      ArrowRight: (press) => player.nudge(press.shiftKey ? 10 : 1),
      ArrowUp: () => player.changeSpeed(1),
      ArrowDown: () => player.changeSpeed(-1),
      Home: () => this.jump(0),
      End: () => this.jump(player.numSteps),
      "[": () => this.jumpToEvent(-1),
      "]": () => this.jumpToEvent(1),
      n: () => this.nextAgent(1),
      p: () => this.nextAgent(-1),
      f: () => this.setFollow(!this.world.follow),
      t: () => this.flipTheme(),
      "+": () => this.zoom(1.3),
      "=": () => this.zoom(1.3),
      "-": () => this.zoom(1 / 1.3),
      0: () => this.fit(),
      "?": () => this.$("keys").showModal(),
      Escape: () => this.select(null),
    };
    document.addEventListener("keydown", (press) => {
      if (!this.replay || press.ctrlKey || press.metaKey || press.altKey || this.$("keys").open) return;
      if (press.target.tagName === "SELECT") return;
      if (press.key === " " && press.target.matches("button, input[type=checkbox]")) return;
      const action = keys[press.key.length === 1 ? press.key.toLowerCase() : press.key];
      if (!action) return;
      press.preventDefault(); // also keeps the arrows from moving the slider twice
      action(press);
    });
  }

  // ---- painting ----------------------------------------------------------------------------------------------

  frame(now) {
    const seconds = Math.min(0.1, (now - (this.lastFrame ?? now)) / 1000);
    this.lastFrame = now;
    if (this.replay) {
      this.player.advance(seconds);
      if (this.player.playing) this.world.chase(this.player.time, 1 - Math.exp(-8 * seconds));
      if (this.player.playing || this.dirty) this.paint(now);
    }
    requestAnimationFrame((next) => this.frame(next));
  }

  paint(now = performance.now()) {
    if (!this.replay || !this.world.size) return;
    const { player } = this;
    const time = this.calm.matches ? player.step : player.time;
    this.world.draw(time, player.playing ? Math.max(1, player.speed * EFFECT_SECONDS) : 1);
    this.timeline.draw(player.time);
    this.dirty = false;
    if (player.playing && now - this.panelTime < PANEL_INTERVAL) return;
    this.panelTime = now;
    this.paintPanel();
  }

  paintPanel() {
    const { $, player, selected } = this;
    const { step } = player;
    this.panel.updateScores(step, selected);
    this.panel.updateSelected(step, selected);
    this.panel.updateLog(step, selected, $("only-selected").checked);
    $("clock").textContent = `${step} / ${player.numSteps}`;
    $("scrub").value = step;
    $("speed").value = player.speed;
    $("play").classList.toggle("playing", player.playing);
    $("play").setAttribute("aria-label", player.playing ? "Pause" : "Play");
  }
}

async function start() {
  const app = new App();
  /** For tests and the curious: the state of the page, and the few verbs that its buttons have. */
  window.metta = Object.freeze({
    get ready() { return Boolean(app.replay); },
    get step() { return app.player.step; },
    get numSteps() { return app.player.numSteps; },
    get playing() { return app.player.playing; },
    get selected() { return app.selected ? app.selected.id : null; },
    /** Object id, column and row of everything that the last picture shows. */
    get drawn() { return app.world.drawn.map((place) => [...place]); },
    get events() { return app.replay.events.map((event) => ({ step: event.step, text: eventText(app.replay, event) })); },
    /** Where on the map's canvas the middle of a cell lies, in CSS pixels. */
    pixels: (col, row) => app.world.toPixels(col + 0.5, row + 0.5),
    seek: (step) => app.jump(step),
    play: () => app.player.play(),
    pause: () => app.player.pause(),
    select: (id) => app.select(app.replay.byId.get(id) || null),
    zoom: (factor) => app.zoom(factor),
  });
  requestAnimationFrame((now) => app.frame(now));
  const packed = document.getElementById("replay-data").textContent;
  try {
    app.load(await unpackReplay(bytesFromBase64(packed)));
  } catch (error) {
    app.fail(error);
    throw error;
  }
}

start();
