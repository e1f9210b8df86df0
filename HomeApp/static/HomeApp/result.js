/* When the run has ended, its result comes from the server, as it does on a reload. */

document.addEventListener("progress:finished", async ({ detail }) => {
  if (detail.state !== "succeeded") return;
  const answer = await fetch(location.href);
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  document.querySelector("#result").replaceWith(page.querySelector("#result"));
});
