/* The tray: how much is under way, in the header and in the title, on every page. */

import { listen } from "./lists.js";
import { forget, leave, notice, offerNotifications, show, wording } from "./toasts.js";

const KEPT = "HomeApp.active"; // the tab's active runs, for its next page
const GONE = 8_000; // ms that a run stays in the tray after its end
const RECENT = 60_000; // ms after an end that nobody was told of, when it is still news

const tray = document.querySelector("#tray");
const count = document.querySelector("[data-count]");
const title = document.title;
let drawn = false;

const rows = () => [...tray.querySelectorAll("task-progress[run]")];
const active = () => rows().filter((row) => row.snapshot && !row.finished);

function draw() {
  drawn = false;
  const envelopes = active().map((row) => row.snapshot.envelope);
  const n = `${envelopes.length}`;
  if (count.textContent !== n) count.textContent = n;
  if (count.hidden !== !envelopes.length) count.hidden = !envelopes.length;
  const badge = [envelopes.length ? `(${n})` : "", document.hidden ? "" : share(envelopes)];
  const text = [...badge, title].filter(Boolean).join(" ");
  if (document.title !== text) document.title = text;
  const kept = JSON.stringify(envelopes.map(({ run }) => run));
  if (sessionStorage.getItem(KEPT) !== kept) sessionStorage.setItem(KEPT, kept);
}

/* How far they are together; a tab that nobody sees does not count along. */
function share(envelopes) {
  const known = envelopes.map(({ percent }) => percent).filter((percent) => percent != null);
  if (!known.length) return "";
  const sum = known.reduce((a, b) => a + b);
  return wording.percent(Math.floor(sum / known.length));
}

/* Once for all that has changed at one moment. */
function redraw() {
  if (!drawn) queueMicrotask(draw);
  drawn = true;
}

/* What has ended while the tab went from one page to the next. */
async function catchUp() {
  const here = new Set(rows().map((row) => row.getAttribute("run")));
  const before = JSON.parse(sessionStorage.getItem(KEPT) ?? "[]");
  const gone = new Set(before.filter((run) => !here.has(run)));
  if (!gone.size) return;
  const one = document.querySelector("#toast").content.querySelector("task-progress");
  const answer = await fetch(new URL("..", new URL(one.getAttribute("src"), document.baseURI)));
  const { runs = [] } = await answer.json();
  for (const envelope of runs) {
    const { run, ended, now } = envelope;
    if (gone.has(run) && ended > now - RECENT) show(envelope);
  }
}

document.addEventListener("progress:change", ({ detail, target }) => {
  notice(detail);
  if (!tray.contains(target)) return;
  redraw();
  if (target.finished) leave(target.closest("li"), GONE);
});
document.addEventListener("visibilitychange", redraw);
new MutationObserver(redraw).observe(tray.querySelector("ul"), { childList: true });

const missed = catchUp();
for (const element of document.querySelectorAll("task-progress[run]")) {
  if (element.snapshot) notice(element.snapshot.envelope);
}
draw();
listen(forget);
offerNotifications(tray.querySelector("[data-notify]"));
missed.catch(() => {}); // it can be read on "My runs"
