/* How long to wait before the next try: full jitter, so that a thousand pages never come back at once. */

/* The longest wait before each try, in ms: one row for the first minute, one for later. */
const EARLY = [500, 1000, 2000, 4000];
const LATE = [8000, 16000, 30000];
const MINUTE = 60_000;

export class Backoff {
  #since = null;
  #early = 0;
  #late = 0;

  /* Something was heard: the next break starts anew. */
  reset() {
    this.#since = null;
    this.#early = this.#late = 0;
  }

  next(now = performance.now()) {
    this.#since ??= now;
    const cap =
      now - this.#since < MINUTE
        ? EARLY[Math.min(this.#early++, EARLY.length - 1)]
        : LATE[Math.min(this.#late++, LATE.length - 1)];
    return Math.random() * cap;
  }
}
