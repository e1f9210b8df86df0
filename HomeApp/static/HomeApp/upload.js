/* Shows how much of a file is sent; then the run's page takes over. */

const form = document.querySelector("#upload");
const sending = form.querySelector(".sending");
const button = form.querySelector("button");

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!sending.hidden) return;
  const large = tooLarge(form.elements.file);
  if (large) return fail(large);
  busy(true);
  const request = new XMLHttpRequest();
  const { upload } = request;
  upload.onprogress = ({ loaded, total }) => show(loaded / total);
  upload.onload = () => sending.querySelector("progress").removeAttribute("value");
  request.onload = () => finish(request);
  request.onerror = () => fail(form.dataset.broken);
  request.open("POST", form.action);
  request.send(new FormData(form));
});

/* What the server would say of a file after minutes of sending; nothing of a good one. */
function tooLarge({ files: [file], dataset: { most, large } }) {
  if (!file || file.size <= most) return "";
  return large.replace("%(size)s", Math.ceil(file.size / 2 ** 20));
}

function busy(is) {
  sending.hidden = !is;
  button.disabled = is;
  if (is) show(0);
  if (is) wrong("");
}

function show(share) {
  sending.querySelector("progress").value = share;
}

/* The request has followed the redirect to the run; or it brought this page with errors. */
function finish({ responseURL, responseText, status }) {
  if (status === 200 && responseURL !== form.action) return location.assign(responseURL);
  if (status === 403) return fail(form.dataset.stale);
  const page = new DOMParser().parseFromString(responseText, "text/html");
  const texts = [...page.querySelectorAll("#upload .wrong-text")].map((node) => node.textContent);
  fail(texts.join(" ").trim() || form.dataset.broken);
}

function fail(text) {
  busy(false);
  wrong(text);
  form.elements.file.focus();
}

function wrong(text) {
  form.querySelector('[data-error="file"]').textContent = "";
  form.querySelector('[data-error=""]').textContent = text;
  form.elements.file.setAttribute("aria-invalid", text ? "true" : "false");
}
