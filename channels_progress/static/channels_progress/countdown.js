/* Time remaining that counts down smoothly: estimates bend it, they do not make it jump. */

/* Below so many seconds, shown in steps of so many seconds. */
const STEPS = [
  [10, 1],
  [60, 5],
  [600, 15],
  [3600, 60],
  [Infinity, 300],
];
const BEND = 0.3; // how far one new estimate moves the expected end
const JUMP = 0.5; // an estimate off by more than this share is believed at once
const RISE = 1.2; // what is shown rises only to something this much larger

const coarse = (seconds) => {
  const [, step] = STEPS.find(([below]) => seconds < below);
  return Math.max(1, Math.round(seconds / step) * step);
};

export class Countdown {
  #end = null; // in performance.now()'s ms
  #shown = null;

  /* A new estimate of the seconds that remain, made at `at`; null stops the countdown. */
  estimate(seconds, at = performance.now()) {
    if (seconds == null) {
      this.#end = this.#shown = null;
      return;
    }
    const end = at + seconds * 1000;
    const off = this.#end === null ? Infinity : Math.abs(end - this.#end);
    if (off > JUMP * seconds * 1000 && off > 3000) this.#end = end;
    else this.#end += BEND * (end - this.#end);
  }

  /* Whole seconds to show, or null. */
  read(at = performance.now()) {
    if (this.#end === null) return null;
    const seconds = coarse(Math.max(0, (this.#end - at) / 1000));
    if (this.#shown === null || seconds < this.#shown || seconds > this.#shown * RISE + 1) {
      this.#shown = seconds;
    }
    return this.#shown;
  }
}
