/* One polite live region a page: milestones only, never each tick. */

const QUARTER = 25; // percent
const TROUBLE = new Set(["lost"]);
const ACTIVE = new Set(["running", "waiting"]);

const SAID = 10_000; // ms that a text stays; the same one is then news again

const region = document.createElement("div");
region.className = "progress-announcer";
region.setAttribute("role", "status");
region.setAttribute("aria-atomic", "false"); // of several news, each is said once
document.body.append(region); // a reader may miss a text that comes together with its region

export function say(text) {
  if (!region.isConnected) document.body.append(region); // the page was exchanged
  if (!text || [...region.children].some((said) => said.textContent === text)) return;
  const said = document.createElement("p");
  said.textContent = text;
  region.append(said);
  setTimeout(() => said.remove(), SAID);
}

/* How a run stands. */
export const standing = ({ title, task, state }, wording) =>
  `${title || task}: ${wording.say(`state.${state}`)}`;

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
  if (what === "state") say(standing(after, wording));
  if (what === "percent") {
    say(`${after.title || after.task}: ${wording.percent(quarter(after) * QUARTER)}`);
  }
}
