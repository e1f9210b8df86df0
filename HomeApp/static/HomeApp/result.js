/* When the run has ended, its receipt comes from the server, as it does on a reload. */

const { run } = document.querySelector(".alone").dataset;

document.addEventListener("progress:finished", async ({ detail }) => {
  if (detail.run !== run) return;
  const answer = await fetch(location.href).catch(() => null); // the person may be leaving
  if (!answer?.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  document.querySelector("#result").replaceWith(page.querySelector("#result"));
});
