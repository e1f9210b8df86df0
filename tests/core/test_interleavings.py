"""store.lua under any interleaving of several writers, messages and viewers.

The same 70 each time; with FAULTS_REAL, 2,000 that nobody has seen before.
"""

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from channels_progress.run import FINISHED, TRANSITIONS
from channels_progress.store import Call, nonce
from tests.core.hand import LOST, Hand

REAL = bool(os.environ.get("FAULTS_REAL"))
STATES = ["succeeded", "failed", "cancelled", "waiting", "paused"]


class Interleavings(RuleBasedStateMachine):
    """Writers hold messages and leases, and speak in any order, however late."""

    messages = Bundle("messages")  # (hop, kind, mark)
    leases = Bundle("leases")  # [number, last seq]

    def __init__(self, store):
        super().__init__()
        self.run = Hand(store)
        self.last = None  # the call sent last, and its answer
        self.numbers = []  # every lease that was ever given
        self.peak = (None, 0)  # epoch, and its highest rev
        self.succeeded = False

    # -- Sending, and what must hold of every answer ------------------------------

    def send(self, call):
        before = self.look()
        answer = self.run.store.call_one(call)
        after = self.look()
        self.hold(call, answer, before, after)
        self.last = (call, answer)
        return answer

    def look(self):
        client = self.run.store.client
        names = ["epoch", "rev", "state", "lease", "attempt"]
        epoch, rev, state, lease, attempt = client.hmget(self.run.key, names)
        return (
            epoch,
            int(rev or 0),
            state and state.decode(),
            int(lease or 0),
            int(attempt or 0),
        )

    def hold(self, call, answer, before, after):
        moved = before[:3] != after[:3]
        if moved:
            may = TRANSITIONS.get((call.verb, before[2]), frozenset())
            assert after[2] in may, f"{call.verb}: {before[2]} -> {after[2]}"
        if before[2] == "succeeded":
            assert not moved
        if before[0] == after[0]:
            assert after[1] >= before[1]  # rev
            assert after[3] >= before[3]  # lease
            assert after[4] >= before[4]  # attempt
            assert moved == (after[1] > before[1])
        number = call.values.get("lease")
        if call.verb in ("report", "end") and before[2] and number < before[3]:
            assert answer.code == "superseded"
            assert not moved

    @initialize(target=messages)
    def start(self):
        self.create()
        return (1, "start", "")

    # -- The web ------------------------------------------------------------------

    def create(self):
        values = {"nonce": nonce(), "epoch": nonce(), "owner": "o", "hop": 1}
        return self.send(Call("create", self.run.id, values | {"doc": self.run.doc()}))

    @rule(target=messages)
    def start_again(self):
        answer = self.create()
        if answer.code != "created":
            return multiple()
        return (answer.extra[0], "start", "")

    @rule(verb=st.sampled_from(["cancel", "pause"]), make=st.booleans())
    def wish(self, verb, make):
        seed = {"make": True, "epoch": nonce(), "owner": "o", "hop": 1} if make else {}
        self.send(Call(verb, self.run.id, {"lost": LOST, **seed}))

    @rule(target=messages, make=st.booleans())
    def resume(self, make):
        seed = {"make": True, "epoch": nonce(), "owner": "o", "hop": 5} if make else {}
        values = {"nonce": nonce(), "doc": self.run.doc(), **seed}
        answer = self.send(Call("resume", self.run.id, values))
        if answer.code != "resumed":
            return multiple()
        return (answer.extra[0], "resume", "")

    @rule(message=messages, verb=st.sampled_from(["withdraw", "repause"]))
    def take_back(self, message, verb):
        self.send(Call(verb, self.run.id, {"hop": message[0]}))

    # -- Workers ------------------------------------------------------------------

    @rule(
        message=messages,
        target=leases,
        make=st.booleans(),
        redelivered=st.booleans(),
        dead=st.booleans(),
    )
    def begin(self, message, make, redelivered, dead):
        hop, kind, mark = message
        values = {"kind": kind, "mark": mark, "redelivered": redelivered}
        if make:
            values |= {"make": True, "epoch": nonce(), "owner": "o", "attempt": 1}
        if dead:
            values["dead"] = self.look()[3]
        answer = self.send(self.run.begin_call(hop, **values))
        if answer.code != "begun":
            return multiple()
        number = int(answer.extra[0])
        assert number > max(self.numbers, default=0)
        self.numbers.append(number)
        return [number, 0]

    @rule(message=consumes(messages), target=messages)
    def park(self, message):
        """A duplicate publishes itself again, with the mark that is remembered."""
        fresh = nonce()
        call = self.run.begin_call(message[0], mark=message[2], fresh=fresh)
        answer = self.send(call)
        if answer.code in ("duplicate", "afresh"):
            return (message[0], message[1], fresh)
        return message

    def write(self, verb, lease, **values):
        lease[1] += 1
        whole = {"restore": True, "epoch": nonce(), "owner": "o", "hop": 1}
        call = Call(
            verb,
            self.run.id,
            {"lease": lease[0], "seq": lease[1], "doc": self.run.doc(), **values},
        )
        answer = self.send(call)
        if answer.code == "vanished" and not self.succeeded:  # else the history says so
            lease[1] += 1
            values = {**call.values, **whole, "seq": lease[1], "attempt": 1}
            answer = self.send(Call(verb, self.run.id, values))
        return answer

    @rule(lease=leases, cursor=st.sampled_from([None, "[1]", "[2]"]))
    def report(self, lease, cursor):
        self.write("report", lease, cursor=cursor)

    @rule(lease=leases)
    def beat(self, lease):
        before = self.look()
        lease[1] += 1
        values = {"lease": lease[0], "seq": lease[1]}
        self.send(Call("report", self.run.id, values))
        assert self.look()[1] == before[1]

    @rule(
        lease=leases,
        state=st.sampled_from(STATES),
        successor=st.booleans(),
        target=messages,
    )
    def end(self, lease, state, successor):
        successor = successor and state == "waiting"
        hop = int(self.run.field("hop") or 1)
        values = {"next": hop + 1} if successor else {}
        answer = self.write("end", lease, state=state, **values)
        if answer.code == "ok" and answer.state == "succeeded":
            self.succeeded = True
        return (hop + 1, "retry", "") if successor else multiple()

    @rule(
        message=messages,
        state=st.sampled_from(["failed", "cancelled", "succeeded"]),
        its_own=st.booleans(),
    )
    def bury(self, message, state, its_own):
        if state == "succeeded" and self.look()[2] == "queued":
            state = "failed"  # nobody has succeeded who has not begun
        values = {"hop": message[0], "state": state, "reason": "worker_lost"}
        if its_own:
            values["lease"] = self.look()[3]
        self.send(Call("bury", self.run.id, values))

    # -- The world ----------------------------------------------------------------

    @rule()
    def arrive_twice(self):
        """The last call again, as after a cut connection: the first answer again."""
        if self.last is None:
            return
        call, first = self.last
        before = self.look()
        again = self.run.store.call_one(call)
        assert self.look() == before
        assert again.code == first.code
        if again.code in ("created", "begun", "resumed"):
            assert again.extra[0] == first.extra[0]

    @rule()
    def fall_silent(self):
        if self.run.field("seen"):
            self.run.silence()
            self.last = None  # so long after, it is another question

    @rule()
    def lose_everything(self):
        if not self.succeeded:
            self.run.lose()
            self.last = None

    @invariant()
    def a_finished_run_has_an_end(self):
        state = self.look()[2]
        if state in FINISHED:
            assert self.run.snapshot.ended
            assert self.run.snapshot.due is None


def test_no_interleaving_of_writers_breaks_the_table(store):
    run_state_machine_as_test(
        lambda: Interleavings(store),
        settings=settings(
            max_examples=2000 if REAL else 70,
            stateful_step_count=40,
            derandomize=not REAL,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
