/* Lists of runs that stay complete: what was begun elsewhere comes as HTML, from the server.
 * A list is an element with `data-runs`, the address of its newest state.
 */

const EVERY = 20_000; // ms between two looks for runs begun on other devices

const channel = new BroadcastChannel("HomeApp.runs"); // to the other tabs
const known = new Set();
let fetching = false;
let due = false;

const lists = () => document.querySelectorAll("[data-runs]");
const runs = (root) => [...root.querySelectorAll("task-progress[run]")];
const idOf = (element) => element.getAttribute("run");

/* Moments as a clock on this wall would say them. */
function localize() {
  const format = { dateStyle: "medium", timeStyle: "short" };
  const clock = new Intl.DateTimeFormat(document.documentElement.lang, format);
  for (const time of document.querySelectorAll("time")) {
    time.textContent = clock.format(new Date(time.dateTime));
  }
}

/* Calls `told(what)` when another tab says something with `tell`. */
export function listen(told) {
  channel.onmessage = ({ data }) => (data.runs ? meet(data.runs) : told(data.told));
  document.addEventListener("progress:change", ({ detail }) => {
    if (meet([detail.run])) channel.postMessage({ runs: [detail.run] });
  });
  document.addEventListener("visibilitychange", refresh);
  addEventListener("pageshow", ({ persisted }) => persisted && refresh());
  setInterval(refresh, EVERY);
  localize();
  const shown = runs(document).map(idOf);
  for (const id of shown) known.add(id);
  if (shown.length) channel.postMessage({ runs: shown });
}

export function tell(told) {
  channel.postMessage({ told });
}

/* Whether one of these runs is news here; then it is fetched. */
function meet(ids) {
  const news = ids.filter((id) => !known.has(id));
  for (const id of news) known.add(id);
  if (news.length) refresh();
  return news.length > 0;
}

async function refresh() {
  due = true;
  if (fetching || document.hidden) return;
  fetching = true;
  while (due) {
    due = false;
    await Promise.all([...lists()].map(update)).catch(() => {}); // the next look may succeed
  }
  fetching = false;
}

async function update(list) {
  const signal = AbortSignal.timeout(10_000); // ms
  const answer = await fetch(list.dataset.runs, { headers: { Accept: "text/html" }, signal });
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const rows = page.querySelector(`[data-runs="${list.dataset.runs}"]`).children;
  const here = new Set(runs(list).map(idOf));
  for (const row of [...rows].reverse()) {
    const [id] = runs(row).map(idOf);
    known.add(id);
    if (!here.has(id)) list.prepend(row);
  }
  localize();
}
