/* An envelope as it was received, and how old its times are by now. */

export const SLOW = 10; // s without a change from a worker that lives

export const NOBODY = "00000000-0000-0000-0000-000000000000"; // stands for the run in addresses
export const FINISHED = new Set(["succeeded", "failed", "cancelled"]);

export class Snapshot {
  constructor(envelope, received = performance.now()) {
    this.envelope = envelope;
    this.received = received;
  }

  get finished() {
    return FINISHED.has(this.envelope.state);
  }

  /* Somebody works on it: a worker, or the service that it asks. */
  get works() {
    const { state, reason } = this.envelope;
    return state === "running" || (state === "waiting" && reason === "poll");
  }

  /* Without a change for so long that no rate and no time remaining is honest. */
  get stale() {
    return this.age("changed") > SLOW || this.held > SLOW;
  }

  /* Seconds since this was received, by a clock that nobody can set. */
  get held() {
    return (performance.now() - this.received) / 1000;
  }

  /* Seconds since one of the envelope's times; null if it has none. The page's own clock does not matter. */
  age(field) {
    const { now, [field]: then } = this.envelope;
    return then == null ? null : Math.max(0, (now - then) / 1000 + this.held);
  }

  /* The same at the moment when this was sent: what the server knew, not what it has not told. */
  ageThen(field) {
    return this.age(field) - this.held;
  }

  /* Seconds until one of the envelope's times, never negative. */
  until(field) {
    const { now, [field]: then } = this.envelope;
    return then == null ? null : Math.max(0, (then - now) / 1000 - this.held);
  }

  /* The server's `offer`, once more: of one epoch, nothing older than what is shown. */
  supersedes(other) {
    if (!other) return true;
    const [mine, theirs] = [this.envelope, other.envelope];
    if (mine.epoch !== theirs.epoch) return true;
    return mine.rev > theirs.rev || (mine.rev === theirs.rev && mine.now >= theirs.now);
  }
}
