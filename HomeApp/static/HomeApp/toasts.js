/* What became of a run, said once, wherever the person is on the site. */

import { say, standing } from "../channels_progress/announcer.js";
import { stayAwake } from "../channels_progress/hidden.js";
import { FINISHED, NOBODY } from "../channels_progress/snapshot.js";
import { Wording } from "../channels_progress/wording.js";
import { tell } from "./lists.js";

const STAY = 8_000; // ms that good news stay
const MOST = 3;
const ELSEWHERE = 500; // ms in which a tab that is seen may say it first

const list = document.querySelector(".toasts");
const pattern = document.querySelector("#toast").content.firstElementChild;
const states = new Map(); // run -> state
const waiting = new Map(); // run -> envelope, of a tab that nobody sees
export const wording = new Wording();

const isNews = (state) => FINISHED.has(state) || state === "lost";
const toastOf = (run) => list.querySelector(`[run="${run}"]`)?.closest("li");

/* An envelope of any element of the page. */
export function notice(envelope) {
  const { run, state } = envelope;
  const before = states.get(run);
  states.set(run, state);
  if (!before || before === state) return;
  if (isNews(state)) return show(envelope);
  waiting.delete(run); // it was lost, and is not
  toastOf(run)?.remove();
}

export function show(envelope) {
  if (!document.hidden) return void toast(envelope);
  waiting.set(envelope.run, envelope);
  setTimeout(() => waiting.get(envelope.run) === envelope && notify(envelope), ELSEWHERE);
}

/* Another tab has said it. */
export function forget({ run, state }) {
  if (waiting.get(run)?.state === state) waiting.delete(run);
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  for (const envelope of waiting.values()) toast(envelope);
  waiting.clear();
});

function toast(envelope) {
  const { run, state } = envelope;
  tell({ run, state });
  // A large bar says it by itself.
  if (document.querySelector(`main .task-progress:not(.compact)[run="${run}"]`)) return;
  toastOf(run)?.remove();
  const item = pattern.cloneNode(true);
  const bar = item.querySelector("task-progress");
  const link = item.querySelector("a");
  link.href = link.getAttribute("href").replace(NOBODY, run);
  bar.setAttribute("envelope", JSON.stringify(envelope));
  bar.setAttribute("run", run);
  item.querySelector(".toast-close").onclick = () => item.remove();
  list.append(item);
  while (list.children.length > MOST) list.firstElementChild.remove();
  say(standing(envelope, wording));
  if (state === "succeeded" || state === "cancelled") leave(item, STAY);
}

/* Take it away in so many ms, but not from under a pointer, nor from who goes by the keyboard. */
export function leave(item, ms) {
  setTimeout(() => {
    if (item.matches(":hover") || item.querySelector(":focus-visible")) leave(item, ms);
    else item.remove();
  }, ms);
}

// -- Outside of the page, for who has asked for it

const WISH = "HomeApp.notify";
const wished = () =>
  window.Notification?.permission === "granted" && localStorage.getItem(WISH) === "1";

stayAwake(wished);

export function offerNotifications(button) {
  if (!("Notification" in window) || !isSecureContext) return;
  const paint = () => button.setAttribute("aria-pressed", `${wished()}`);
  button.onclick = async () => {
    const wish = !wished() && (await Notification.requestPermission()) === "granted";
    localStorage.setItem(WISH, wish ? "1" : "0");
    button.disabled = Notification.permission === "denied";
    paint();
  };
  button.hidden = Notification.permission === "denied";
  paint();
}

function notify(envelope) {
  if (!wished()) return;
  try {
    const note = new Notification(standing(envelope, wording), { tag: envelope.run });
    note.onclick = () => window.focus();
  } catch {
    // Some mobile browsers want a service worker for it.
  }
}
