/* A form's fields over HTTP, answered in JSON: [Response, frame]. */

const PATIENCE = 10_000; // ms

export async function post(address, body) {
  const headers = { Accept: "application/json" };
  const signal = AbortSignal.timeout(PATIENCE);
  const answer = await fetch(address, { method: "POST", headers, body, signal });
  return [answer, await answer.json()];
}
