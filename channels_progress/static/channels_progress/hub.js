/* What this page watches: one socket for all its bars, HTTP where no socket gets through. */

import { Connection } from "./connection.js";
import { asleep } from "./hidden.js";
import { Poller } from "./poller.js";
import { Snapshot } from "./snapshot.js";

const FALLBACK = 4_000; // ms without a socket before HTTP takes over
const STALE = 3_000; // ms after which an unfinished run is asked for again
const TICK = 1_000; // ms between two looks at ages
const HUBS = Symbol.for("channels_progress.hubs");

const unfinished = (run) => run.listeners.size && !run.refused && !run.snapshot?.finished;

/* One hub per socket URL and document, however often this script is loaded. */
export function hubFor(socket) {
  const hubs = (document[HUBS] ??= new Map());
  if (!hubs.has(socket)) hubs.set(socket, new Hub(socket));
  return hubs.get(socket);
}

export class Hub {
  #runs = new Map();
  #refs = 0;
  #ticker = 0;
  #fallback = 0;
  #http = null; // what polling found: "polling" or "unreachable"
  #closed = null; // why the server closed for good
  #offline = !navigator.onLine;
  #heard = false; // whether a socket has ever brought anything
  #connection;
  #poller;

  constructor(socket) {
    this.#connection = new Connection(socket, {
      open: () => this.#askAll(),
      frame: (frame) => this.#hear(frame),
      down: (code, final) => this.#down(code, final),
      ask: () => this.#askAll(),
    });
    this.#poller = new Poller(() => this.#wanted(), {
      frame: (frame) => this.receive(frame),
      error: (id, code) => this.#err(this.#runs.get(id), code),
      up: () => this.#polled("polling"),
      down: () => this.#polled("unreachable"),
    });
    addEventListener("online", () => this.#network(false));
    addEventListener("offline", () => this.#network(true));
    addEventListener("pageshow", ({ persisted }) => persisted && this.#shown());
    document.addEventListener("visibilitychange", () => this.#shown());
  }

  /* How a run's news arrive: connecting, live, polling, unavailable, unreachable, offline,
     refused, signed-out or done. */
  link(id) {
    const { carrier, unavailable } = this.#runs.get(id) ?? {};
    if (this.#offline) return "offline";
    if (this.#closed && !carrier) return this.#closed;
    if (unavailable && this.#http !== "unreachable") return "unavailable";
    if (carrier || (this.#connection.open && !this.#http)) return "live";
    return this.#http ?? "connecting";
  }

  /* listener: { snapshot(Snapshot), refused(), paint() }. Returns what stops it. */
  watch(id, { src, token, snapshot = null }, listener) {
    const run = this.#run(id);
    run.token ||= token;
    run.src ||= src;
    if (snapshot?.supersedes(run.snapshot)) this.#spread(run, snapshot); // to those here before
    run.listeners.add(listener);
    if (run.snapshot && run.snapshot !== snapshot) listener.snapshot(run.snapshot);
    if (!run.carrier) this.#ask(run);
    this.#settle();
    return () => this.#leave(run, listener);
  }

  /* Another Connection (the START button's own) brings this run unasked; with null, none does. */
  carry(id, carrier) {
    const run = this.#run(id);
    Object.assign(run, { carrier, asked: performance.now(), answered: false });
    if (!carrier) this.#ask(run);
    this.#settle();
  }

  /* Ask for a run on the socket that brings it; whether that could be. */
  ask(id) {
    const run = this.#runs.get(id);
    return !!run && this.#ask(run);
  }

  /* A socket was tried in vain: HTTP need not wait for another one. */
  poll() {
    if (this.#wanted().length) this.#wait();
    this.#poll();
  }

  #run(id) {
    if (this.#closed === "done") this.#closed = null;
    if (!this.#runs.has(id)) {
      this.#runs.set(id, { id, snapshot: null, asked: 0, listeners: new Set() });
    }
    return this.#runs.get(id);
  }

  receive(frame) {
    this.#offline = false;
    if (frame.type === "error") this.#err(this.#about(frame), frame.code);
    const run = frame.type === "run" && this.#runs.get(frame.run);
    if (run) {
      run.answered = true;
      run.unavailable = false;
      const snapshot = new Snapshot(frame);
      if (snapshot.supersedes(run.snapshot)) {
        this.#spread(run, snapshot);
        if (snapshot.finished) this.#settle();
      }
    }
    this.#tell();
  }

  #spread(run, snapshot) {
    run.snapshot = snapshot;
    for (const listener of [...run.listeners]) listener.snapshot(snapshot);
  }

  /* Too many runs for one socket are as if no news could be had: of these, none comes. */
  #err(run, code) {
    if (run && code === "forbidden") this.#refuse(run);
    if (run && (code === "unavailable" || code === "too_many")) run.unavailable = true;
    this.#tell();
  }

  /* Which run an error is about; many are about none. */
  #about({ run, ref }) {
    const named = (one) => one.id === run || (ref && one.ref === ref);
    return [...this.#runs.values()].find(named);
  }

  #busy() {
    return [...this.#runs.values()].filter(unfinished);
  }

  #wanted() {
    return this.#busy().filter((run) => !run.carrier);
  }

  #refuse(run) {
    run.refused = true;
    for (const listener of run.listeners) listener.refused();
    this.#settle();
  }

  /* An element that is only moved comes back in the same task, and nothing was asked. */
  #leave(run, listener) {
    run.listeners.delete(listener);
    queueMicrotask(() => {
      if (run.listeners.size || run.carrier || this.#runs.get(run.id) !== run) return;
      this.#runs.delete(run.id);
      if (!run.snapshot?.finished) this.#connection.send({ action: "unwatch", run: run.id });
      this.#settle();
    });
  }

  /* Connected while there is something to wait for, quiet otherwise. */
  #settle() {
    if (this.#busy().length && !document.hidden) this.#ticker ||= setInterval(() => this.#tick(), TICK);
    else this.#ticker = void clearInterval(this.#ticker);
    if (this.#closed) return this.#tell();
    if (this.#wanted().length) {
      this.#connection.start();
      if (!this.#connection.open) this.#wait();
    } else {
      this.#connection.stop();
      this.#rest();
    }
    this.#tell();
  }

  #ask(run) {
    const connection = run.carrier ?? this.#connection;
    if (!connection.open || !unfinished(run)) return false;
    run.ref ??= `w${++this.#refs}`;
    run.asked = performance.now();
    run.answered = false;
    connection.send({ action: "watch", run: run.id, token: run.token ?? "", ref: run.ref });
    return true;
  }

  #askAll() {
    return this.#wanted().filter((run) => this.#ask(run)).length > 0;
  }

  /* Beats of a worker send no message, so a run that says nothing is asked for again. */
  #tick() {
    const stale = performance.now() - STALE;
    for (const run of this.#busy()) {
      const { state } = run.snapshot?.envelope ?? {};
      const settled = run.answered && state !== "running" && state !== "cancelling";
      if (settled || run.asked >= stale || (run.snapshot?.received ?? 0) >= stale) continue;
      const connection = run.carrier ?? this.#connection;
      if (run.answered) connection.expect(); // a server in a storm has not answered yet
      this.#ask(run);
    }
    for (const run of this.#runs.values()) this.#paint(run);
  }

  #wait() {
    this.#fallback ||= setTimeout(() => this.#poll(), FALLBACK);
  }

  #poll() {
    if (this.#fallback && !asleep()) this.#poller.start();
  }

  #rest() {
    this.#fallback = void clearTimeout(this.#fallback);
    this.#poller.stop();
    this.#http = null;
  }

  /* A socket that is open and brings nothing, as behind some proxies, is no reason to rest. */
  #hear(frame) {
    this.#heard = true;
    this.#rest();
    this.receive(frame);
  }

  #down(code, final) {
    if (final) {
      this.#closed = code === 4401 ? "signed-out" : code === 1000 ? "done" : "refused";
      this.#rest();
    } else {
      this.#wait();
      if (!this.#heard) this.#poll(); // a proxy that lets none through says so at once
    }
    this.#tell();
  }

  #polled(outcome) {
    this.#http = outcome;
    if (outcome === "polling") this.#offline = false;
    this.#tell();
  }

  #network(offline) {
    this.#offline = offline;
    this.#tell();
  }

  #shown() {
    this.#settle();
    if (asleep()) return this.#poller.stop();
    this.#poll();
    for (const run of this.#runs.values()) this.#paint(run);
  }

  /* Only of whose news come another way now: there may be many bars. */
  #tell() {
    for (const run of this.#runs.values()) {
      const link = this.link(run.id);
      if (link !== run.link) this.#paint(run);
      run.link = link;
    }
  }

  #paint(run) {
    for (const listener of run.listeners) listener.paint();
  }
}
