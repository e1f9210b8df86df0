"""The broker cannot be reached at START, or the web process dies on the way to it."""

import time

import pytest

from channels_progress.start import REPUBLISH_AFTER
from tests.faults import journal
from tests.faults.lab import Lab, Refused, within
from tests.faults.proxy import Proxy
from tests.stack import wait_for


class FaultyBroker(Lab):
    """The web publishes through a proxy; workers and the store need none."""

    def __init__(self):
        super().__init__()
        self.proxy = Proxy(self.valkey.port)
        self.desk.env |= self.env | {"CELERY_BROKER_URL": self.proxy.redis_url()}

    def close(self):
        super().close()
        self.proxy.close()


@pytest.fixture(scope="module")
def broken():
    with FaultyBroker() as lab:
        lab.hire()
        yield lab


@pytest.fixture
def lab(broken):
    yield broken
    broken.proxy.restore()
    broken.proxy.cut()


KINDS = ["down", "stall", "blackhole"]


def refused_start(lab, measure, kind, key):
    with pytest.raises(Refused) as refused:
        lab.start("quick", key=key)
    assert refused.value.code == "unavailable"
    measure(f"broker {kind}: START is refused", refused.value.seconds, within(3))


@pytest.mark.parametrize("kind", KINDS)
def test_a_start_is_refused_and_the_same_key_starts_it_later(lab, measure, kind):
    lab.start("quick").until("succeeded")
    getattr(lab.proxy, kind)()
    refused_start(lab, measure, kind, key=kind)
    lab.proxy.restore()
    lab.proxy.cut()
    run = lab.start("quick", key=kind)
    end = run.until_end()
    assert (end["state"], end["attempt"]) == ("succeeded", 1)
    assert len(run.begins) == 1
    again = lab.start("quick", key=kind)
    assert again is run
    wait_for(lambda: not lab.messages_of(run), "no message is left")
    assert len(run.begins) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_withdrawn_run_never_starts(lab, measure, kind):
    """Its message may still be on its way, and arrive when the broker is back."""
    getattr(lab.proxy, kind)()
    refused_start(lab, measure, kind, key=f"withdrawn-{kind}")
    lab.proxy.restore()
    run = lab.run(lab.desk("run_id", key=f"withdrawn-{kind}", owner="shared")["run"])
    others = [lab.start("quick") for _ in range(5)]
    assert {other.until_end()["state"] for other in others} == {"succeeded"}
    wait_for(lambda: not lab.messages_of(run), "what arrived late was dropped")
    assert run.now()["state"] == "cancelled"
    assert run.begins == []


def test_a_web_process_killed_between_the_store_and_the_broker(lab):
    """The same key publishes it; once, whatever the first message does."""
    lab.proxy.stall()
    key = "killed"
    ref = lab.desk.tell("start", task="quick", kwargs={}, owner="shared", key=key)
    run = lab.run(lab.desk("run_id", key=key, owner="shared")["run"])
    wait_for(lambda: run.field("state") == "queued", "it is in the store")
    lab.desk.kill()
    assert ref
    lab.proxy.restore()
    lab.desk.start()
    deadline = time.monotonic() + 20
    # The page comes back with the same key until it is told of a beginning.
    while time.monotonic() < deadline:
        if lab.start("quick", key=key).now()["state"] == "succeeded":
            break
        time.sleep(0.5)
    assert run.now()["state"] == "succeeded"
    assert len(run.begins) == 1


def test_the_broker_is_away_at_resume(lab, measure):
    run = lab.start("checkpointed", n=100)
    run.until_stepping()
    run.pause()
    run.until("paused")
    lab.proxy.down()
    with pytest.raises(Refused) as refused:
        run.resume()
    assert refused.value.code == "unavailable"
    measure("broker down: RESUME is refused", refused.value.seconds, within(3))
    assert run.now()["state"] == "paused"
    lab.proxy.restore()
    run.resume()
    run.open()
    assert run.until_end()["state"] == "succeeded"
    assert len(run.begins) == 2


def asking(lab):
    """How many clients wait for a message."""
    return [c["cmd"] for c in lab.valkey.client.client_list()].count("brpop")


def age(envelope):
    """Milliseconds since its last change, by the store's clock."""
    return envelope["now"] - envelope["changed"]


def test_a_worker_dies_with_a_message_that_it_has_not_noted(lab):
    """Redis has given the message away, and nobody will give it back: the run waits,
    and the same key publishes it once more."""
    before = asking(lab)
    worker = lab.hire("taker", concurrency=1)
    wait_for(lambda: asking(lab) > before, "it asks for messages")
    worker.freeze()
    run = lab.start("quick", owner="taker", key="taken")
    wait_for(lambda: journal.was_lost(lab.valkey, run.id), "it has been taken")
    lab.fire(worker)
    lab.hire("taker", concurrency=1)
    assert lab.start("quick", owner="taker").until_end()["state"] == "succeeded"
    assert lab.messages_of(run) == []
    assert run.now()["state"] == "queued"
    # So long, the first message may be on its way.
    wait_for(lambda: age(run.now()) > REPUBLISH_AFTER, "it is old enough")
    assert lab.start("quick", owner="taker", key="taken") is run
    assert run.until_end()["state"] == "succeeded"
    assert len(run.begins) == 1
    assert not journal.was_lost(lab.valkey, run.id)
