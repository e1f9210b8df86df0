/* A page that could not be made now asks until it can be, and only then comes anew. */

const EVERY = 5_000; // ms

setInterval(async () => {
  if (document.hidden) return;
  const answer = await fetch(location.href, { method: "HEAD" }).catch(() => null);
  if (answer && answer.status !== 503) location.reload();
}, EVERY);
