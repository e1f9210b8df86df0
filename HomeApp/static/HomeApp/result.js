/* When the run has ended, its receipt comes from the server, as it does on a reload. */

const EVERY = 5_000; // ms between two tries

const bar = document.querySelector(".alone task-progress");

bar.addEventListener("progress:finished", bring);
if (bar.finished && !document.querySelector("#result *")) bring(); // before this script came

async function bring() {
  if (document.hidden) {
    return document.addEventListener("visibilitychange", bring, { once: true });
  }
  try {
    const answer = await fetch(location.href);
    if (answer.ok) return show(await answer.text());
    if (answer.status < 500) return;
  } catch {
    // The person may be leaving, or the server starting anew.
  }
  setTimeout(bring, EVERY);
}

function show(text) {
  const page = new DOMParser().parseFromString(text, "text/html");
  document.querySelector("#result").replaceWith(page.querySelector("#result"));
}
