/* One WebSocket that stays connected. It knows nothing of runs. */

import { Backoff } from "./backoff.js";
import { asleep } from "./hidden.js";

const SILENCE = 40_000; // ms without a frame; the server beats every 15 s
const OPENING = 10_000; // ms that one try may take to open
const ANSWER = 5_000; // ms that an open socket has to answer
const CHECK = 1_000; // ms between two looks at the above

/* 1000 is done, 44xx is for good, anything else comes back. */
const isFinal = (code) => code === 1000 || (code >= 4400 && code < 4500);

const socketUrl = (path) => {
  const url = new URL(path, document.baseURI);
  url.protocol = url.protocol.replace("http", "ws");
  return url;
};

export class Connection {
  #path;
  #on;
  #socket = null;
  #backoff = new Backoff();
  #retry = 0;
  #watchdog = 0;
  #deadline = 0;
  #life = null;

  /* on: { open(), frame(object), down(code, final), ask() }; `ask` asks what the server
     will answer, and says whether it did. */
  constructor(path, on) {
    this.#path = path;
    this.#on = on;
  }

  get open() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  start() {
    if (this.#life) return;
    this.#life = new AbortController();
    const { signal } = this.#life;
    addEventListener("online", () => this.wake(), { signal });
    addEventListener("pageshow", () => this.wake(), { signal });
    document.addEventListener("visibilitychange", () => this.wake(), { signal });
    this.#connect();
  }

  stop() {
    this.#life?.abort();
    this.#life = null;
    clearTimeout(this.#retry);
    this.#retry = 0;
    this.#discard();
  }

  send(frame) {
    if (this.open) this.#socket.send(JSON.stringify(frame));
  }

  /* The network or the person is back: try at once, and doubt a socket that seems open. */
  wake() {
    if (!this.#life || asleep()) return;
    if (!this.#socket) this.#connect();
    else if (this.#on.ask()) this.expect();
  }

  /* What answers at once has been asked: a socket that only seems open brings nothing. */
  expect() {
    if (!this.open) return; // opening takes longer
    this.#deadline = Math.min(this.#deadline, performance.now() + ANSWER);
  }

  #connect() {
    clearTimeout(this.#retry);
    this.#retry = 0;
    let socket;
    try {
      socket = this.#socket = new WebSocket(socketUrl(this.#path));
    } catch {
      return this.#lose(1006); // this browser, or an extension of it, lets none be made
    }
    this.#deadline = performance.now() + OPENING;
    this.#watchdog = setInterval(() => {
      if (performance.now() > this.#deadline) this.#lose(1006);
    }, CHECK);
    socket.onopen = () => {
      this.#deadline = performance.now() + SILENCE;
      this.#on.open();
    };
    socket.onmessage = ({ data }) => {
      this.#deadline = performance.now() + SILENCE;
      const frame = parse(data);
      if (!frame) return;
      if (frame.type !== "error") this.#backoff.reset(); // refused, it does not hurry
      this.#on.frame(frame);
    };
    socket.onclose = ({ code }) => this.#lose(code);
  }

  /* Closing a dead socket may take minutes, so nobody listens to it any longer. */
  #discard() {
    clearInterval(this.#watchdog);
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(1000);
  }

  #lose(code) {
    this.#discard();
    if (isFinal(code)) this.stop();
    else this.#retry = setTimeout(() => this.#again(), this.#backoff.next());
    this.#on.down(code, isFinal(code));
  }

  /* A hidden tab does not knock; it will wake when it is shown. */
  #again() {
    this.#retry = 0;
    if (!asleep() && !this.#socket) this.#connect();
  }
}

function parse(data) {
  try {
    const frame = JSON.parse(data);
    return typeof frame === "object" ? frame : null;
  } catch {
    return null;
  }
}
