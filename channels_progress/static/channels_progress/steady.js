/* A task that asks another service runs for a moment each time: no change to show. */

import { Snapshot } from "./snapshot.js";

const ASKING = 2_000; // ms after which such a moment counts as running

export class Steady {
  #until = -Infinity;

  /* The snapshot as it is to be shown now. */
  of(snapshot) {
    const { envelope, received } = snapshot;
    const { state, reason, asked } = envelope;
    if (state === "waiting" && reason === "poll") this.#until = performance.now() + ASKING;
    if (state !== "running" || asked || performance.now() > this.#until) return snapshot;
    return new Snapshot({ ...envelope, state: "waiting", reason: "poll", due: null }, received);
  }
}
