// The clock: which moment is shown, and how it moves on.

const SPEEDS = [1, 2, 4, 8, 16, 32, 64, 128];

class Player {
  constructor(onChange) {
    this.onChange = onChange;
    this.numSteps = 0;
    this.time = 0;
    this.playing = false;
    this.speed = 8;
  }

  load(numSteps) {
    this.numSteps = numSteps;
    this.time = 0;
    this.playing = false;
  }

  /** The recorded step that is shown; between two steps, the earlier one. */
  get step() {
    return Math.floor(this.time);
  }

  seek(step) {
    this.time = clamp(Math.round(step), 0, this.numSteps);
    this.onChange();
  }

  play() {
    if (this.numSteps === 0) return;
    if (this.time >= this.numSteps) this.time = 0;
    this.playing = true;
    this.onChange();
  }

  /** Stops on a recorded step. */
  pause() {
    this.playing = false;
    this.time = clamp(Math.round(this.time), 0, this.numSteps);
    this.onChange();
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  nudge(steps) {
    this.playing = false;
    this.seek(this.step + steps);
  }

  changeSpeed(direction) {
    const index = clamp(SPEEDS.indexOf(this.speed) + direction, 0, SPEEDS.length - 1);
    this.speed = SPEEDS[index];
    this.onChange();
  }

  /** Let `seconds` of real time pass. */
  advance(seconds) {
    if (!this.playing) return;
    this.time += seconds * this.speed;
    if (this.time >= this.numSteps) {
      this.time = this.numSteps;
      this.pause();
    }
  }
}
