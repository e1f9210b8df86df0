/* The one honest line under a bar: what is going on when nothing seems to. */

import { SLOW } from "./snapshot.js";

const SILENT = 5; // s without a sign of life from the worker
const TAKEN = 2; // s in the queue that need no remark
const SOON = 3; // s that are not counted down where another service is asked again and again
export const UNANSWERED = 10; // s after which a cancel may be forced

/* What a run waits for, as far as this page knows: during a deploy, a worker may know more. */
const REASONS = new Set(["retry", "poll", "redelivery", "replace"]);

const away = (name, snapshot) => [name, "trouble", snapshot?.held ?? 0];

/* What the connection has to say. */
export const LINKS = {
  offline: (snapshot) => away("line.offline", snapshot),
  unreachable: (snapshot) => away("line.unreachable", snapshot),
  unavailable: (snapshot) => away("line.unavailable", snapshot),
  "signed-out": () => ["line.signed-out", "trouble"],
  refused: () => ["line.refused", "trouble"],
};

/* What the run's state has to say; `asked` is for how many seconds a cancel was seen. */
const STATES = {
  queued: (snapshot) => {
    const age = snapshot.age("queued");
    return age > TAKEN ? ["line.queued", "", age] : null;
  },
  waiting: (snapshot) => {
    const reason = snapshot.envelope.reason ?? "redelivery";
    if (!REASONS.has(reason)) return null;
    const until = snapshot.until("due");
    const counts = until > (reason === "poll" ? SOON : 0);
    return counts ? [`line.${reason}.in`, "", Math.ceil(until)] : [`line.${reason}`, ""];
  },
  paused: () => ["line.paused", ""],
  lost: (snapshot) => ["line.lost", "trouble", snapshot.age("seen")],
  cancelling: (snapshot, asked) =>
    asked > UNANSWERED ? ["line.unanswered", "trouble", asked] : ["line.cancelling", ""],
  running: (snapshot) => {
    if (snapshot.ageThen("seen") > SILENT) return ["line.silent", "trouble", snapshot.age("seen")];
    if (snapshot.envelope.asked === "pause") return ["line.pausing", ""];
    return snapshot.age("changed") > SLOW ? ["line.slow", "", snapshot.age("changed")] : null;
  },
};

/* [name of the sentence, tone, seconds it speaks of], or null when all is well. */
export function line(snapshot, link, asked = 0) {
  if (snapshot?.finished) return null;
  if (LINKS[link]) return LINKS[link](snapshot);
  return (snapshot && STATES[snapshot.envelope.state]?.(snapshot, asked)) ?? null;
}
