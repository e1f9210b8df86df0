/* <start-button>: a form that starts one run over a socket of its own, and follows it.
 *
 *   socket  path of the task's start socket; the form's fields are its parameters
 *   src     the same over HTTP, where no socket gets through
 *   bar     selector of the <task-progress> that shows the run
 *   page    address of the run's page, for the address bar
 *   state   reflected: idle, starting, running
 */

import { Connection } from "./connection.js";
import { hubFor } from "./hub.js";
import { post } from "./post.js";
import { FINISHED, NOBODY } from "./snapshot.js";

const FALLBACK = 4_000; // ms without a socket before HTTP is tried
const OWN = new Set(["csrfmiddlewaretoken", "key"]);

/* Not crypto.randomUUID(), which plain http lacks. */
const randomKey = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    byte.toString(16).padStart(2, "0"),
  ).join("");

export class StartButton extends HTMLElement {
  #key = null; // one for each click: however often it is sent, it is the same run
  #run = null;
  #connection = null;
  #hub = null;
  #fallback = 0;
  #heard = false; // anything from the socket, for this click
  #posted = false;

  connectedCallback() {
    if (!this.#key) this.#state = "idle";
    this.addEventListener("submit", this);
    document.addEventListener("progress:change", this);
    document.addEventListener("progress:refused", this);
  }

  /* One that is only moved comes back in the same task, and goes on. */
  disconnectedCallback() {
    document.removeEventListener("progress:change", this);
    document.removeEventListener("progress:refused", this);
    queueMicrotask(() => this.isConnected || this.#reset());
  }

  /* The first that is heard of a run may be its end, or that it may not be seen. */
  handleEvent(event) {
    const { type, detail } = event;
    if (type === "submit") {
      event.preventDefault();
      if (!this.#key) this.#start();
    } else if (detail.run === this.#run) {
      if (type === "progress:refused" || FINISHED.has(detail.state)) this.#reset();
    }
  }

  get #form() {
    return this.querySelector("form");
  }

  get #bar() {
    return document.querySelector(this.getAttribute("bar"));
  }

  set #state(state) {
    this.setAttribute("state", state);
    const busy = `${state !== "idle"}`;
    this.querySelector("button").setAttribute("aria-disabled", busy);
  }

  #start() {
    this.#key = randomKey();
    this.#heard = this.#posted = false;
    this.#state = "starting";
    this.#wrong({});
    this.#hub = hubFor(this.#bar.getAttribute("socket"));
    const fields = [...new FormData(this.#form)].filter(([name]) => !OWN.has(name));
    const params = new URLSearchParams([...fields, ["key", this.#key]]);
    this.#connection = new Connection(`${this.getAttribute("socket")}?${params}`, {
      open: () => {},
      frame: (frame) => this.#frame(frame),
      down: (code, final) => this.#down(final),
      ask: () => this.#hub.ask(this.#run),
    });
    this.#connection.start();
    this.#fallback = setTimeout(() => this.#post(), FALLBACK);
  }

  #frame(frame) {
    this.#heard = true;
    if (frame.type === "started" && !this.#run) {
      this.#follow(frame);
      this.#hub.carry(frame.run, this.#connection);
      this.#show(frame);
    } else if (frame.type === "error" && !this.#run) {
      this.#wrong(frame.errors ?? { "": [frame.message] });
    } else {
      this.#hub.receive(frame);
    }
  }

  #follow({ run }) {
    clearTimeout(this.#fallback);
    this.#run = run;
    this.#state = "running";
    this.#wrong({});
    history.replaceState(null, "", this.getAttribute("page").replace(NOBODY, run));
  }

  #show({ run, token }) {
    const bar = this.#bar;
    bar.setAttribute("token", token ?? "");
    bar.setAttribute("run", run);
  }

  /* With a run, the page's own socket goes on; without one, this one tries again. */
  #down(final) {
    if (this.#run) {
      this.#drop();
    } else if (final) {
      this.#reset();
    } else if (!this.#heard && !this.#posted) {
      this.#post(); // a proxy that lets no WebSocket through says so at once
    } else if (!this.#fallback) {
      this.#fallback = setTimeout(() => this.#post(), FALLBACK);
    }
  }

  #drop() {
    clearTimeout(this.#fallback);
    this.#connection?.stop();
    this.#connection = null;
    if (this.#run) this.#hub.carry(this.#run, null);
  }

  #reset() {
    this.#drop();
    this.#key = this.#run = null;
    this.#fallback = 0;
    this.#state = "idle";
  }

  /* The same start with the same key over HTTP, while the socket goes on trying. */
  async #post() {
    this.#posted = true;
    this.#fallback = void clearTimeout(this.#fallback);
    const body = new FormData(this.#form);
    const key = this.#key;
    body.set("key", key);
    try {
      const [answer, frame] = await post(this.getAttribute("src"), body);
      if (this.#key !== key || this.#run) return;
      if (answer.ok) {
        this.#follow(frame);
        this.#drop();
        this.#show(frame);
        this.#hub.receive(frame);
        if (!this.#heard) this.#hub.poll();
      } else {
        this.#wrong(frame.errors ?? { "": [frame.message] });
        if (answer.status < 500 && answer.status !== 429) this.#reset();
      }
    } catch {
      // Neither way is open; the connection tries on.
    }
  }

  /* Errors by field, as text; the empty name is for the form as a whole. */
  #wrong(errors) {
    for (const place of this.querySelectorAll("[data-error]")) {
      const name = place.dataset.error;
      place.textContent = (errors[name] ?? []).join(" ");
      this.#form.elements[name]?.setAttribute("aria-invalid", `${name in errors}`);
    }
    this.querySelector('[aria-invalid="true"]')?.focus();
  }
}

if (!customElements.get("start-button")) customElements.define("start-button", StartButton);
