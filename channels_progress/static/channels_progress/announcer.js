/* One polite live region a page: milestones only, never each tick. */

const QUARTER = 25; // percent
const TROUBLE = new Set(["lost"]);
const ACTIVE = new Set(["running", "waiting"]);

const SAID = 10_000; // ms that a text stays; the same one is then news again

let silence = 0;

const region = () => document.querySelector(".progress-announcer") ?? place();

function place() {
  const made = document.createElement("div");
  made.className = "progress-announcer";
  made.setAttribute("role", "status");
  document.body.append(made);
  return made;
}

export function say(text) {
  const here = region();
  if (here.textContent !== text) here.textContent = text;
  clearTimeout(silence);
  silence = setTimeout(() => here.replaceChildren(), SAID);
}

region(); // a reader may miss a text that comes into the page together with its region

const quarter = ({ percent }) => Math.floor((percent ?? 0) / QUARTER);

/* What became of a run between two envelopes, or null if it is nothing to speak of. */
export function milestone(before, after) {
  if (!before) return null;
  if (before.state !== after.state) {
    const back = TROUBLE.has(before.state) || after.attempt > before.attempt;
    if (after.state !== "running" || before.state === "queued" || back) return "state";
  }
  const passed = quarter(after) > quarter(before) && ACTIVE.has(after.state);
  return passed ? "percent" : null;
}

export function announce(before, after, wording) {
  const what = milestone(before, after);
  if (!what) return;
  const title = after.title || after.task;
  const text =
    what === "percent"
      ? wording.percent(quarter(after) * QUARTER)
      : wording.say(`state.${after.state}`);
  say(`${title}: ${text}`);
}
