/* <task-progress>: attributes in, events out; what is inside works without this script.
 *
 *   run, token   which run to show, and the right to
 *   socket, src  where to ask: the WebSocket's path, the run's HTTP address
 *   envelope     what the server knew when it made the page
 *   quiet        say nothing aloud: somebody else does
 *   state, reason, connection    reflected: CSS, tests and people can wait on them
 *
 * It fills the descendants that have a `data-part`, shows those forms whose `data-verb`
 * fits the state, and dispatches `progress:change` and `progress:finished` with the
 * envelope, and `progress:refused` with { run }.
 */

import { announce, say, standing } from "./announcer.js";
import { Countdown } from "./countdown.js";
import { hubFor } from "./hub.js";
import { line, LINKS, UNANSWERED } from "./line.js";
import { post } from "./post.js";
import { FINISHED, NOBODY, Snapshot } from "./snapshot.js";
import { Steady } from "./steady.js";
import { Wording } from "./wording.js";

let wording;

/* Which buttons fit: verb -> (envelope, asked for n s, link). */
const VERBS = {
  cancel: ({ state }) => !FINISHED.has(state) && state !== "cancelling",
  force: ({ state }, asked) => state === "cancelling" && asked > UNANSWERED,
  pause: ({ state, asked, pausable }) =>
    pausable && !asked && ["queued", "running", "waiting"].includes(state),
  resume: ({ state }) => state === "paused",
  again: ({ state }) => FINISHED.has(state) || state === "lost",
};

export class TaskProgress extends HTMLElement {
  static observedAttributes = ["run"];

  #snapshot = null;
  #announced = null;
  #link = null;
  #steady = new Steady();
  #countdown = new Countdown();
  #cancelSeen = null;
  #refused = false;
  #ready = false;
  #leave = null;
  #hub = null;

  get snapshot() {
    return this.#snapshot;
  }

  get finished() {
    return this.#snapshot?.finished ?? false;
  }

  connectedCallback() {
    wording ??= new Wording();
    this.addEventListener("submit", this);
    this.#ready = true;
    this.#follow();
  }

  disconnectedCallback() {
    this.removeEventListener("submit", this);
    this.#ready = false;
    this.#leave?.();
    this.#leave = null;
  }

  attributeChangedCallback(name, before, after) {
    if (!this.#ready || before === after) return;
    this.#leave?.();
    this.#snapshot = this.#announced = this.#link = this.#cancelSeen = null;
    this.#steady = new Steady();
    this.#countdown.estimate(null);
    this.#follow();
  }

  #follow() {
    const run = this.getAttribute("run");
    if (!run) return;
    this.#refused = false;
    this.#hub = hubFor(this.getAttribute("socket"));
    const known = this.#snapshot ?? this.#rendered(run);
    if (known) this.#take(known);
    this.#leave = this.#hub.watch(
      run,
      { src: this.address(this.getAttribute("src")), token: this.getAttribute("token"), snapshot: known },
      {
        snapshot: (snapshot) => this.#take(snapshot),
        refused: () => this.#refuse(),
        paint: () => this.#paint(),
      },
    );
    if (!this.isConnected) this.disconnectedCallback(); // who heard of it has removed it
    this.#paint();
  }

  #rendered(run) {
    const text = this.getAttribute("envelope");
    const envelope = text && JSON.parse(text);
    return envelope?.run === run ? new Snapshot(envelope) : null;
  }

  address(pattern) {
    return pattern.replace(NOBODY, this.getAttribute("run"));
  }

  #refuse() {
    this.#refused = true;
    this.#paint();
    this.#tell("progress:refused", { run: this.getAttribute("run") });
  }

  #take(snapshot) {
    const before = this.#snapshot;
    const { envelope } = (this.#snapshot = snapshot);
    const cancelling = envelope.state === "cancelling";
    this.#cancelSeen = cancelling ? (this.#cancelSeen ?? performance.now()) : null;
    this.#countdown.estimate(snapshot.works ? envelope.remaining : null, snapshot.received);
    this.#paint();
    if (before === snapshot) return;
    if (before?.envelope.state !== envelope.state) this.#text("problem", "");
    this.#tell("progress:change", envelope);
    if (before && !before.finished && snapshot.finished) this.#tell("progress:finished", envelope);
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { bubbles: true, detail }));
  }

  get #asked() {
    return this.#cancelSeen === null ? 0 : (performance.now() - this.#cancelSeen) / 1000;
  }

  /* Everything that can be seen, compared before it is written; nothing in a hidden tab. */
  #paint() {
    if (document.hidden || !this.isConnected) return;
    const link = this.#refused ? "refused" : this.finished ? "done" : this.#hub.link(this.getAttribute("run"));
    this.#attribute(this, "connection", link);
    const snapshot = this.#snapshot && this.#steady.of(this.#snapshot);
    if (snapshot) {
      this.#attribute(this, "state", snapshot.envelope.state);
      this.#attribute(this, "reason", snapshot.envelope.reason ?? "");
      this.#numbers(snapshot);
      this.#buttons(snapshot.envelope, link);
      if (!this.hasAttribute("quiet")) announce(this.#announced, snapshot.envelope, wording);
      this.#announced = snapshot.envelope;
    }
    this.#line(snapshot, link);
    this.#text("link", link === "polling" ? wording.say("link.polling") : "");
  }

  /* A lost connection is said once, and that it is back. */
  #linked(link, text) {
    if (link === "connecting" || link === this.#link) return;
    const back = LINKS[this.#link];
    this.#link = link;
    if (back) this.#text("problem", "");
    if (this.hasAttribute("quiet")) return;
    if (LINKS[link]) say(text);
    else if (back && this.#announced) say(standing(this.#announced, wording));
  }

  #numbers(snapshot) {
    const { envelope } = snapshot;
    const { title, task, state, percent, message, attempt, attempts, error } = envelope;
    this.#bar(envelope);
    this.#text("title", title || task);
    this.#text("state", wording.say(`state.${state}`));
    this.#text("percent", wording.percent(percent));
    this.#text("count", wording.count(envelope));
    this.#text("message", message);
    this.#text("rate", FINISHED.has(state) || (snapshot.works && !snapshot.stale) ? wording.rate(envelope) : "");
    this.#text("remaining", this.#remaining(snapshot));
    this.#text("elapsed", wording.elapsed(snapshot));
    this.#text("attempt", attempt > 1 ? wording.say(attempts ? "attempt.of" : "attempt", envelope) : "");
    this.#text("error", error?.message);
    this.#text("reference", error?.reference && wording.say("reference", error));
  }

  #remaining(snapshot) {
    const seconds = this.#countdown.read();
    return seconds === null || snapshot.stale ? "" : wording.duration(seconds);
  }

  /* Without a total there is no value, so the bar is indeterminate. */
  #bar({ percent, current, total, state, title, task }) {
    const bar = this.#part("bar");
    if (!bar) return;
    if (bar.hasAttribute("aria-label")) this.#attribute(bar, "aria-label", title || task);
    let value = state === "succeeded" ? 100 : percent;
    if (value > 0 && value < 100 && total > 0) value = Math.min(99.9, (100 * current) / total);
    if (value != null) this.#attribute(bar, "value", `${Math.round(10 * value) / 10}`);
    else bar.removeAttribute("value");
  }

  #line(snapshot, link) {
    const [name, tone = "", seconds = 0] = line(snapshot, link, this.#asked) ?? [];
    const text = name ? wording.say(name, { time: wording.duration(seconds) }) : "";
    this.#text("line", text);
    const part = this.#part("line");
    if (part) this.#attribute(part, "data-tone", tone);
    this.#linked(link, text);
  }

  #buttons(envelope, link) {
    for (const form of this.querySelectorAll("[data-verb]")) {
      const fits = VERBS[form.dataset.verb]?.(envelope, this.#asked) && link !== "refused";
      if (form.hidden === !fits) continue;
      if (form.contains(document.activeElement)) this.#rescue();
      form.hidden = !fits;
    }
  }

  /* The focus goes from a button that is taken away to the bar: no other button gets its key. */
  #rescue() {
    const bar = this.#part("bar");
    if (!bar) return;
    bar.tabIndex = -1;
    bar.focus({ preventScroll: true });
  }

  #part(name) {
    return this.querySelector(`[data-part="${name}"]`);
  }

  #text(name, text) {
    const part = this.#part(name);
    if (!part) return;
    const value = text || "";
    if (part.textContent !== value) part.textContent = value;
    const fact = part.closest("[data-fact]");
    if (fact && fact.hidden !== !value) fact.hidden = !value;
  }

  #attribute(node, name, value) {
    if (node.getAttribute(name) !== value) node.setAttribute(name, value);
  }

  /* A button's form, sent without leaving the page. */
  async handleEvent(event) {
    const form = event.target;
    if (!form.dataset.verb || form.dataset.verb === "again") return; // which leaves the page
    event.preventDefault();
    const button = form.querySelector("button");
    if (button.hasAttribute("aria-disabled")) return;
    button.setAttribute("aria-disabled", "true"); // a disabled one would lose the focus
    const problem = await this.#post(form);
    button.removeAttribute("aria-disabled");
    this.#text("problem", problem);
    say(problem);
  }

  async #post(form) {
    const body = new FormData(form);
    const token = this.getAttribute("token");
    if (token && !body.has("token")) body.set("token", token);
    try {
      const [answer, frame] = await post(this.address(form.getAttribute("action")), body);
      if (answer.ok) this.#hub.receive(frame);
      return answer.ok ? "" : frame.message;
    } catch {
      return wording.say("problem");
    }
  }
}

if (!customElements.get("task-progress")) customElements.define("task-progress", TaskProgress);
