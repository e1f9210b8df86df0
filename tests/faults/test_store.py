"""The store breaks in the middle of runs; the broker and the viewer do not."""

import contextlib
import itertools
import time
from functools import partial

import pytest
import redis

from tests.faults.lab import REAL, SHARED, Lab, Refused, within
from tests.faults.proxy import Proxy
from tests.stack import wait_for

OUTAGE = 20.0 if REAL else 4.0  # seconds
MANY = 1000 if REAL else 100
TRUTH = 5.0  # seconds after the store's return
SERVED = {SHARED: "prefork", "threads": "threads", "gevent": "gevent", "solo": "solo"}


class FaultyStore(Lab):
    """Workers and web reach the store through a proxy, and workers the broker directly;
    the web has one of its own on the way there."""

    def __init__(self, visibility_timeout=60):
        # A duplicate that comes while its run cannot be looked up would begin.
        super().__init__(env={"FAULTS_VISIBILITY_TIMEOUT": str(visibility_timeout)})
        self.proxy = Proxy(self.valkey.port)
        self.env |= {
            "REDIS_URL": self.proxy.redis_url(),
            "CELERY_BROKER_URL": self.valkey.url,
            "CELERY_RESULT_BACKEND": self.valkey.url,
        }
        self.broker = Proxy(self.valkey.port)
        self.desk.env |= self.env | {"CELERY_BROKER_URL": self.broker.redis_url()}

    def close(self):
        super().close()
        self.proxy.close()
        self.broker.close()


@pytest.fixture(scope="module")
def faulty_lab():
    with FaultyStore() as lab:
        lab.pools = [
            lab.hire(queue, pool, concurrency=4, wait=False)
            for queue, pool in SERVED.items()
        ]
        for worker in lab.pools:
            worker.wait_taking_tasks()
        yield lab


@pytest.fixture
def lab(faulty_lab):
    yield faulty_lab
    faulty_lab.proxy.restore()
    faulty_lab.proxy.cut()
    wait_for(lambda: store_answers(faulty_lab), "the store is back")


def insist(ask):
    """As a page does: once more, where the connection was cut over it twice."""
    for _ in range(5):
        try:
            return ask()
        except Refused as refused:
            if refused.code != "unavailable":
                raise
    raise AssertionError("never answered")


def store_answers(lab):
    with contextlib.suppress(Refused):
        return lab.desk("ping")
    return False


@contextlib.contextmanager
def outage(lab, kind):
    """The store is away for OUTAGE seconds at least, in one of four ways."""
    getattr(lab.proxy, kind)()
    back = time.monotonic() + OUTAGE
    yield
    # The length of the outage is what is tested, so this is waited for blindly.
    time.sleep(max(0.0, back - time.monotonic()))
    lab.proxy.restore()
    if kind == "blackhole":
        lab.proxy.cut()  # a swallowed connection never comes back by itself


def took(run):
    """Seconds between the first begin and the last end of its bodies."""
    return run.noted("end")[-1]["at"] - run.begins[0]["at"]


KINDS = ["down", "stall", "blackhole"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_notices_nothing(lab, measure, kind):
    """It begins before the outage and ends after it, on each pool."""
    n = int((OUTAGE + 4) / 0.02)
    runs = [lab.start("steps", owner=queue, n=n) for queue in SERVED]
    for run in runs:
        run.until_stepping()
    with outage(lab, kind):
        for run in runs:
            run.until("unavailable")
    back = time.monotonic()
    for run in runs:
        run.until("running", attempt=1)
        measure(f"store {kind}: running again", run.seen_at - back, within(TRUTH))
    for pool, run in zip(SERVED.values(), runs, strict=True):
        end = run.until_end()
        assert (end["state"], end["attempt"], end["current"]) == ("succeeded", 1, n)
        assert took(run) < 1.3 * n * 0.02 + 2
        (longest,) = run.noted("longest step")
        measure(f"store {kind}, {pool}: longest step", longest["seconds"], within(0.5))
        assert len(run.begins) == 1
        assert run.percents_never_fall()


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_begins_and_ends_in_the_outage(lab, measure, kind):
    """On each pool; solo begins the second one when the first has ended."""
    firsts = [lab.start("gated", owner=queue) for queue in SERVED]
    for run in firsts:
        run.until_stepping()
    for worker in lab.pools:  # what they are sent, they take in the outage
        worker.freeze()
    seconds = [lab.start("steps", owner=queue, n=20) for queue in SERVED]
    with outage(lab, kind):
        for worker in lab.pools:
            worker.thaw()
        for run in firsts:
            run.open()
        for run in (*firsts, *seconds):
            run.until_body_ended()
    back = time.monotonic()
    for runs, what in ((firsts, "ended"), (seconds, "begun and ended")):
        for run in runs:
            end = run.until_end()
            assert (end["state"], end["attempt"]) == ("succeeded", 1)
            measure(
                f"store {kind}: {what} in the outage, shown",
                run.seen_at - back,
                within(TRUTH),
            )
            assert len(run.begins) == 1
    for run in seconds:
        assert run.now()["current"] == 20
        # Its begin may take 1 s, its end 5 s.
        assert took(run) < 20 * 0.02 + 1 + 2


@pytest.mark.parametrize("kind", ["down", "blackhole"])
def test_many_short_tasks_in_the_outage(lab, measure, kind):
    """The time for a store that is away is spent once, not once a task."""
    owner = f"many-{kind}"
    runs = lab.desk("start_many", count=MANY, task="quick", kwargs={}, owner=owner)[
        "runs"
    ]
    getattr(lab.proxy, kind)()
    since = time.monotonic()
    lab.hire(owner, concurrency=2)
    bodies = [lab.run(run) for run in runs]
    wait_for(lambda: all(run.noted("end") for run in bodies[-1:]), "the last one", 120)
    wait_for(lambda: all(run.noted("end") for run in bodies), "all of them", 60)
    measure(
        f"{MANY} short tasks, store {kind}: done",
        time.monotonic() - since,
        within(10 + MANY * 0.03),
    )
    lab.proxy.restore()
    lab.proxy.cut()
    back = time.monotonic()

    left = set(runs)

    def all_told():
        asked = sorted(left)
        states = lab.desk("read", runs_=asked)["states"]
        found = zip(asked, states, strict=True)
        left.difference_update(run for run, state in found if state == "succeeded")
        return not left

    wait_for(all_told, "all ends are told")
    measure(
        f"{MANY} short tasks, store {kind}: all told",
        time.monotonic() - back,
        within(TRUTH),
    )
    assert all(len(run.begins) == 1 for run in bodies)
    # The breaker closes by itself: what comes next is told at once.
    assert lab.start("quick", owner=owner).until_end()["state"] == "succeeded"


def test_connections_are_cut_one_by_one(lab):
    """In the middle of every verb; each is sent again, and counts once."""
    keys = itertools.count()

    def start(task, **kwargs):
        return insist(partial(lab.start, task, key=f"cut {next(keys)}", **kwargs))

    with lab.proxy.cutting():
        runs = []
        for _ in range(20):
            runs += [start("steps", n=30), start("retries_once", countdown=0)]
        paused = start("checkpointed", n=50)
        paused.until_stepping()
        insist(paused.pause)
        paused.until("paused")
        insist(paused.resume)
        paused.open()
        cancelled = start("gated")
        cancelled.until_stepping()
        insist(cancelled.cancel)
        for run in runs:
            run.until_end()
    assert {run.until_end()["state"] for run in runs} == {"succeeded"}
    assert cancelled.until_end()["state"] == "cancelled"
    assert paused.until_end()["state"] == "succeeded"
    for run in runs:
        expected = 2 if run.now()["task"] == "retries_once" else 1
        assert (run.now()["attempt"], len(run.begins)) == (expected, expected)
        assert run.percents_never_fall()


VERBS = (
    *("create", "begin", "report", "end", "bury", "cancel", "pause", "resume"),
    *("repause", "withdraw", "claim", "unmark"),
)


@contextlib.contextmanager
def refused_without_the_broker(lab):
    """What needs the broker is taken back, and says so."""
    lab.broker.down()
    try:
        with pytest.raises(Refused) as refused:
            yield
    finally:
        lab.broker.restore()
    assert refused.value.code == "unavailable"


@pytest.mark.parametrize("lost", ["answer", "request"])
def test_a_connection_is_cut_in_the_middle_of_each_verb(lab, lost):
    """The store has done it and nobody has heard so, or it has not heard of it: it is
    said again, and counts once."""
    cut = lab.proxy.cut_answers if lost == "answer" else lab.proxy.cut_requests
    unsaid = cut(*VERBS)
    run = lab.start("checkpointed", n=50)
    run.until_stepping()
    run.pause()
    run.until("paused")
    with refused_without_the_broker(lab):
        run.resume()
    assert run.now()["state"] == "paused"
    run.resume()
    run.open()
    end = run.until_end()
    assert (end["state"], end["attempt"], end["current"]) == ("succeeded", 1, 50)
    assert len(run.begins) == 2
    cancelled = lab.start("gated")
    cancelled.until_stepping()
    cancelled.cancel()
    assert cancelled.until_end()["state"] == "cancelled"
    dead = lab.start("gated_early")
    dead.until_stepping()
    dead.kill_child()
    assert dead.until_end()["state"] == "failed"
    key = f"withdrawn, {lost}"
    with refused_without_the_broker(lab):
        lab.start("quick", key=key)
    withdrawn = lab.start("quick", key=key)
    assert withdrawn.until_end()["state"] == "succeeded"
    for each in (cancelled, dead, withdrawn):
        assert len(each.begins) == 1
    claimed = lab.start("quick", owner=f"nobody {lost}")
    taken = lab.desk("claim", owner=f"nobody {lost}", user="somebody")
    assert claimed.field("owner") == taken["owner"]
    assert lab.desk("unmark", run=claimed.id, mark="no such mark")["said"] == "done"
    assert claimed.cancel()["state"] == "cancelled"
    assert not unsaid


def test_the_store_is_out_of_memory(lab, measure):
    client = lab.valkey.client
    n = 150
    run = lab.start("steps", owner="hungry", n=n)
    # The broker is the same server, so the worker has the message before it is full.
    lab.hire("hungry", concurrency=1)
    run.until_stepping()
    client.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(redis.OutOfMemoryError):
            client.set("one more", "key")
        run.until_body_ended()
        assert took(run) < 1.5 * n * 0.02 + 2
    finally:
        client.config_set("maxmemory", "0")
    back = time.monotonic()
    assert run.until_end()["state"] == "succeeded"
    measure("store out of memory: the end is shown", run.seen_at - back, within(TRUTH))


def test_the_history_is_away_while_runs_end(lab, measure):
    """The other runs of the process are not silenced by it."""
    lab.hire("no-history", pool="threads", concurrency=2)
    first = lab.start("gated", owner="no-history")
    second = lab.start("gated", owner="no-history")
    first.until_stepping()
    second.until_stepping()
    with lab.no_database():
        first.open()
        assert first.until_end()["state"] == "succeeded"
        before = second.log[-1][1]["current"]
        wait_for(lambda: second.log[-1][1]["current"] > before + 100, "it goes on")
        assert "lost 1" not in second.story()
        with pytest.raises(Refused) as refused:
            lab.start("quick")
        assert refused.value.code == "unavailable"
    back = time.monotonic()
    wait_for(
        lambda: lab.desk("history", run=first.id)["state"] == "succeeded",
        "the end is in the history",
    )
    measure("history away: the end is written", time.monotonic() - back, within(TRUTH))
    second.open()
    assert second.until_end()["state"] == "succeeded"


def test_store_and_history_are_both_away(lab):
    """Viewers are told so; nobody is told that there is no such run."""
    run = lab.start("gated")
    run.until_stepping()
    with lab.no_database(), outage(lab, "down"):
        for id in (run.id, "00000000-0000-4000-8000-000000000000"):
            with pytest.raises(Refused) as refused:
                lab.desk("get", run=id)
            assert refused.value.code == "unavailable"
    run.open()
    assert run.until_end()["state"] == "succeeded"


@pytest.mark.together
def test_a_duplicate_that_comes_in_the_outage():
    """It waits for the store, and has no body beside the first one; once that one
    is gone, it follows."""
    with FaultyStore(visibility_timeout=5) as lab:
        lab.hire(concurrency=2)
        run = lab.start("gated")
        run.until_stepping()
        lab.proxy.down()
        wait_for(lambda: " ignored" in "".join(lab.lines_about(run)), "it is put off")
        lab.proxy.restore()
        run.until("running")
        assert len(run.begins) == 1
        wait_for(lambda: lab.messages_of(run), "a message is left")
        run.kill_child()
        run.until_body(2)
        run.open()
        assert run.until_end()["state"] == "succeeded"
        assert lab.counted("store_failures") > 0
