/* The same envelopes over HTTP, for networks that let no WebSocket through. */

import { Backoff } from "./backoff.js";
import { asleep } from "./hidden.js";

const INTERVAL = 2_000; // ms between two rounds
const FRESH = 5_000; // ms after which "not modified" is not enough: `seen` may be news
const PATIENCE = 8_000; // ms for one answer

export class Poller {
  #runs;
  #on;
  #timer = 0;
  #backoff = new Backoff();
  #tags = new Map();
  #life = null;

  /* runs: () => [{ id, src, token, snapshot }]; on: { frame(object), error(id, code), up(), down() } */
  constructor(runs, on) {
    this.#runs = runs;
    this.#on = on;
  }

  start() {
    if (this.#life) return;
    this.#life = new AbortController();
    this.#round(this.#life.signal);
  }

  stop() {
    this.#life?.abort();
    this.#life = null;
    clearTimeout(this.#timer);
  }

  async #round(signal) {
    let wait = INTERVAL;
    try {
      if (!asleep()) {
        // One strange answer says nothing of the other runs.
        let [broken, answered] = [null, false];
        for (const run of this.#runs()) {
          try {
            await this.#ask(run, signal);
            answered = true;
          } catch (error) {
            if (!(error instanceof SyntaxError)) throw error;
            broken = error;
          }
        }
        if (broken && !answered) throw broken;
        this.#backoff.reset();
        this.#on.up();
      }
    } catch {
      if (signal.aborted) return;
      wait = Math.max(INTERVAL, this.#backoff.next());
      this.#on.down();
    }
    if (!signal.aborted) this.#timer = setTimeout(() => this.#round(signal), wait);
  }

  async #ask({ id, src, token, snapshot }, signal) {
    const url = new URL(src, document.baseURI);
    if (token) url.searchParams.set("token", token);
    const headers = { Accept: "application/json" };
    const tag = this.#tags.get(id);
    if (tag && snapshot && performance.now() - snapshot.received < FRESH) {
      headers["If-None-Match"] = tag;
    }
    const limit = AbortSignal.any([signal, AbortSignal.timeout(PATIENCE)]);
    const answer = await fetch(url, { headers, cache: "no-store", signal: limit });
    if (answer.status === 304) return;
    const frame = await answer.json(); // a proxy's HTML page counts as no answer
    if (frame.type === "error") return this.#on.error(id, frame.code);
    this.#tags.set(id, answer.headers.get("ETag"));
    this.#on.frame(frame);
  }
}
