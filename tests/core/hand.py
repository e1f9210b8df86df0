"""A run in the store, moved by hand: each method is one verb of the script."""

import uuid

from channels_progress.run import TRANSITIONS, Details
from channels_progress.store import Call, nonce

LOST = 30_000  # ms


class Hand:
    """Speaks the script's language for one run; every answer is held to the table."""

    def __init__(self, store, id=None):
        self.store = store
        self.id = id or str(uuid.uuid4())
        self.key = store.key(self.id)

    def say(self, verb, **values):
        """Send a verb; its answer, once the table of transitions allows it."""
        return self.send(Call(verb, self.id, values))

    def send(self, call):
        before = self.rev
        answer = self.store.call_one(call)
        if self.rev != before:
            may = TRANSITIONS.get((call.verb, answer.was or None), frozenset())
            assert answer.state in may, f"{call.verb}: {answer.was} -> {answer.state}"
        return answer

    # -- The verbs, with what they usually say ------------------------------------

    def create(self, **values):
        values = {"nonce": nonce(), "epoch": "e1", "owner": "o", "hop": 1} | values
        return self.say("create", **{"doc": self.doc(), **values})

    def begin(self, hop=1, **values):
        return self.send(self.begin_call(hop, **values))

    def begin_call(self, hop=1, **values):
        usual = {
            "kind": "start",
            "nonce": nonce(),
            "fresh": nonce(),
            "lost": LOST,
            "max": 3,
            "worker": "node|main|1",
            "doc": self.doc(),
            "error": '{"message":"Its worker stopped 3 times."}',
        }
        return Call("begin", self.id, {"hop": hop, **usual, **values})

    def report(self, lease, seq, **values):
        return self.say("report", lease=lease, seq=seq, **values)

    def end(self, lease, seq, state="succeeded", **values):
        return self.say("end", lease=lease, seq=seq, state=state, **values)

    def bury(self, hop=1, **values):
        return self.say("bury", hop=hop, **{"state": "failed", **values})

    def cancel(self):
        return self.say("cancel", lost=LOST)

    def pause(self):
        return self.say("pause", lost=LOST)

    def resume(self, **values):
        return self.say("resume", **{"nonce": nonce(), **values})

    def withdraw(self, hop=1):
        return self.say("withdraw", hop=hop)

    # -- Short ways ---------------------------------------------------------------

    def running(self, **values):
        """Create and begin; the lease."""
        self.create()
        return lease(self.begin(**values))

    def restore(self, verb, number, seq, **values):
        """A write that brings a vanished run back."""
        whole = {"restore": True, "epoch": "e2", "owner": "o", "hop": 1, "attempt": 1}
        values = {"doc": self.doc(current=7), **whole, **values}
        return self.say(verb, lease=number, seq=seq, **values)

    def silence(self, milliseconds=2 * LOST):
        """Its worker has said nothing for so long."""
        seen = int(self.field("seen")) - milliseconds
        self.store.client.hset(self.key, "seen", seen)

    def lose(self):
        """The store has lost its data."""
        self.store.client.delete(self.key)

    # -- What is stored -----------------------------------------------------------

    def doc(self, **values):
        return Details(run=self.id, task="count", **values).members()

    def field(self, name):
        value = self.store.client.hget(self.key, name)
        return value and value.decode()

    @property
    def rev(self):
        return int(self.field("rev") or 0)

    @property
    def stored(self):
        return self.store.read([self.id]).get(self.id)

    @property
    def snapshot(self):
        return self.stored.snapshot


def lease(answer):
    """The number of the lease that a begin was given."""
    assert answer.code == "begun", answer
    return int(answer.extra[0])
