"""A message comes back while its original runs: Redis does so after a while."""

import time

import pytest

from tests.faults.lab import BEAT, LOST_AFTER, within
from tests.stack import PATIENCE, wait_for

pytestmark = pytest.mark.together(lab="impatient_lab")
VISIBILITY_TIMEOUT = 5.0  # seconds


def parked(worker):
    """How often the worker has put a duplicate aside."""
    return worker.output.count("] ignored")


# A worker on solo takes nothing while a body runs: the duplicate comes to another one.
@pytest.mark.parametrize(
    "pool",
    ["prefork", "threads", "gevent", pytest.param("solo", marks=pytest.mark.nightly)],
)
def test_the_body_never_runs_twice_at_once(lab, pool):
    owner = f"twice-{pool}"
    worker = lab.hire(owner, pool)
    run = lab.start("gated", owner=owner)
    run.until_stepping()
    if pool == "solo":
        worker = lab.hire(owner, pool)
    # The first copy is put aside for LOST_AFTER.
    patience = PATIENCE + 2 * LOST_AFTER
    wait_for(lambda: parked(worker) >= 2, "the duplicate came twice", patience)
    run.open()
    end = run.until("succeeded")
    assert end["attempt"] == 1
    assert len(run.begins) == 1
    assert run.story() in (
        ["queued 1", "running 1", "succeeded 1"],
        ["running 1", "succeeded 1"],
    )
    wait_for(lambda: not lab.messages_of(run), "no copy stays behind")
    assert len(run.begins) == 1
    assert run.now()["state"] == "succeeded"


def test_a_duplicate_holds_no_slot(lab):
    """One slot of two is the original's; the other serves others meanwhile."""
    worker = lab.hire("slots", concurrency=2)
    run = lab.start("gated", owner="slots")
    run.until_stepping()
    wait_for(lambda: parked(worker), "the duplicate came")
    others = [lab.start("quick", owner="slots") for _ in range(20)]
    since = time.monotonic()
    for other in others:
        other.until("succeeded")
    assert time.monotonic() - since < within(2)
    run.open()
    run.until("succeeded", attempt=1)


def test_the_original_is_killed_after_its_duplicate_came(lab, measure):
    """At 40 s, where LOST_AFTER is 30 s."""
    worker = lab.hire("twice-killed", concurrency=2)
    run = lab.start("gated", owner="twice-killed")
    run.until_stepping()
    wait_for(lambda: parked(worker), "the duplicate came")
    kill_at = run.begins[0]["at"] + LOST_AFTER * 4 / 3
    wait_for(lambda: time.monotonic() > kill_at, "it has run long enough")
    killed = run.kill_child()
    run.until("running", attempt=2)
    measure(
        "original killed while its duplicate is parked: next attempt runs",
        run.seen_at - killed,
        within(LOST_AFTER + 4),
    )
    assert run.succeeds(attempt=2)
    assert len(run.begins) == 2


def test_the_original_worker_is_killed_after_its_duplicate_came(lab, measure):
    """The copy is with another worker, which takes over once the lease is lost."""
    first = lab.hire("twice-lost", concurrency=1)
    run = lab.start("gated", owner="twice-lost")
    run.until_stepping()
    second = lab.hire("twice-lost", concurrency=1)
    wait_for(lambda: parked(second) >= 2, "the duplicate came to the second worker")
    first.kill()
    killed = time.monotonic()
    run.until("running", attempt=2)
    measure(
        "worker killed while another has the duplicate: next attempt runs",
        run.seen_at - killed,
        within(LOST_AFTER + 4),
    )
    assert run.succeeds(attempt=2)


def test_the_duplicate_of_a_dead_child_is_with_another_worker(lab, measure):
    """Which cannot know that the child is dead, and waits for its lease to be lost."""
    lab.hire("elsewhere", concurrency=1)
    run = lab.start("gated", owner="elsewhere")
    run.until_stepping()
    second = lab.hire("elsewhere", concurrency=1)
    lab.desk("stop_taking", worker=run.holder(), queue="elsewhere")
    killed = run.kill_child()
    wait_for(lambda: parked(second), "it came to the second worker")
    run.until("running", attempt=2)
    measure(
        "child killed, another worker takes it: next attempt runs",
        run.seen_at - killed,
        within(LOST_AFTER + 4),
    )
    assert run.succeeds(attempt=2)
    assert len(run.begins) == 2


def test_a_retry_comes_between(lab):
    """Copies of the first message are done with, and nobody begins before the
    countdown is over."""
    worker = lab.hire("twice-retry", concurrency=2)
    countdown = VISIBILITY_TIMEOUT + 2
    run = lab.start("gated_then_retries", owner="twice-retry", countdown=countdown)
    run.until_stepping()
    wait_for(lambda: parked(worker), "the duplicate came")
    run.open("first")
    waiting = run.until("waiting")
    run.until_body_ended()
    assert waiting["reason"] == "retry"
    assert 0 < waiting["due"] - waiting["now"] <= countdown * 1000
    second = run.until_body(2)
    (retried,) = run.noted("retries")
    assert second["at"] - retried["at"] >= countdown
    assert second["retries"] == 1
    run.until("running", attempt=2)
    run.until_stepping()
    killed = run.kill_child()
    run.until("running", attempt=3)
    assert run.seen_at - killed < within(LOST_AFTER + 4)
    assert run.succeeds(attempt=3, gate="second")
    assert len(run.begins) == 3


def test_a_worker_with_parked_copies_is_killed_as_well(lab):
    """Everybody dies: the copy comes back like any message."""
    workers = [lab.hire("all-die", concurrency=1)]
    run = lab.start("gated", owner="all-die")
    run.until_stepping()
    workers.append(lab.hire("all-die", concurrency=1))
    # What has left the queue and is not noted yet would die with its taker.
    copy = f"{run.id}] received"
    wait_for(lambda: workers[1].output.count(copy) >= 2, "its copy came, and is kept")
    for worker in workers:
        worker.kill()
    run.until("lost")
    lab.hire("all-die", concurrency=1)
    run.until("running", attempt=2, timeout=VISIBILITY_TIMEOUT * 3 + 90)
    assert run.succeeds(attempt=2)


def test_a_run_that_beats_is_not_taken_over_by_its_copies(lab):
    """A silent body is kept alive by its beats alone."""
    worker = lab.hire("silent", concurrency=2)
    run = lab.start("silent", owner="silent")
    run.until("running")
    wait_for(lambda: parked(worker) >= 2, "the duplicate came twice")
    before = run.now()
    wait_for(
        lambda: run.now()["seen"] > before["seen"] + 2000 * BEAT, "beats are written"
    )
    assert run.now()["rev"] == before["rev"]
    run.open()
    assert run.until("succeeded")["attempt"] == 1
    assert len(run.begins) == 1
