"""A pool child or a whole worker dies, in the middle of a body."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.faults.lab import VISIBILITY_TIMEOUT, within
from tests.stack import wait_for

pytestmark = pytest.mark.together


# --- A pool child ---------------------------------------------------------------------


def test_a_killed_child_whose_message_was_acknowledged_early(lab, measure):
    run = lab.start("gated_early")
    run.until_stepping()
    killed = run.kill_child()
    end = run.until("failed")
    measure("child killed, early ack: failed", run.seen_at - killed, within(6))
    assert end["error"]["message"] == "Its worker process died."
    assert end["attempt"] == 1
    assert end["current"] > 0


def test_a_killed_child_whose_message_may_not_come_back(lab, measure):
    run = lab.start("gated_late")
    run.until_stepping()
    killed = run.kill_child()
    end = run.until("failed")
    measure("child killed, acks_late alone: failed", run.seen_at - killed, within(6))
    assert end["error"]["message"] == "Its worker process died."


def test_a_killed_child_whose_message_comes_back(lab, measure):
    run = lab.start("gated")
    run.until_stepping()
    killed = run.kill_child()
    run.until("running", attempt=2)
    measure(
        "child killed, reject_on_worker_lost: next attempt runs",
        run.seen_at - killed,
        within(6),
    )
    assert run.succeeds(attempt=2)
    assert run.percents_never_fall()


@pytest.mark.parametrize("task", ["kills_itself", "exits"])
def test_a_body_that_takes_its_process_along_every_time(lab, measure, task):
    run = lab.start(task)
    began = time.monotonic()
    end = run.until_end()
    measure(f"{task}: failed after three attempts", run.seen_at - began, within(20))
    assert (end["state"], end["attempt"]) == ("failed", 3)
    assert end["error"]["message"] == "Its worker stopped 3 times."
    assert len(run.begins) == 3
    wait_for(lambda: run.result()["status"] == "FAILURE", "Celery's own FAILURE")
    assert_message_gone(lab, run)


@pytest.mark.parametrize("pool", ["threads", "gevent", "solo"])
def test_a_body_that_exits_where_no_process_is_its_own(lab, pool):
    lab.hire(f"exits-{pool}", pool=pool, concurrency=1)
    run = lab.start("exits", owner=f"exits-{pool}")
    end = run.until_end()
    assert (end["state"], end["attempt"]) == ("failed", 3)
    assert end["error"]["message"] == "Its worker stopped 3 times."
    assert len(run.begins) == 3
    assert_message_gone(lab, run)
    # Its place is free.
    after = lab.start("quick", owner=f"exits-{pool}")
    assert after.until_end()["state"] == "succeeded"


def assert_message_gone(lab, run):
    wait_for(lambda: not lab.messages_of(run), f"no message of {run.id} in the broker")


def test_a_body_that_exits_with_its_message_acknowledged(lab, measure):
    run = lab.start("exits_early")
    began = time.monotonic()
    end = run.until_end()
    measure("SystemExit, early ack: failed", run.seen_at - began, within(6))
    assert end["error"]["message"] == "Its worker process died."


# --- A whole worker -------------------------------------------------------------------


def test_a_killed_worker_whose_message_comes_back(lab, measure):
    worker = lab.hire("killed-late", concurrency=1)
    run = lab.start("gated", owner="killed-late")
    run.until_stepping()
    worker.kill()
    killed = time.monotonic()
    lab.hire("killed-late", concurrency=1)
    run.until_lost(measure, "worker killed", killed)
    run.until("running", attempt=2, timeout=100)
    measure("worker killed: next attempt runs", run.seen_at - killed, within(100))
    assert run.succeeds(attempt=2)
    assert_message_gone(lab, run)


def test_a_killed_worker_whose_message_was_acknowledged_early(lab, measure):
    worker = lab.hire("killed-early", concurrency=1)
    run = lab.start("gated_early", owner="killed-early")
    run.until_stepping()
    worker.kill()
    killed = time.monotonic()
    run.until_lost(measure, "worker killed, early ack", killed)
    assert run.is_lost_for_who_comes_later()
    assert run.cancel()["state"] == "cancelled"


def is_gone(pid):
    """Nobody may have waited for it: Linux says Z then."""
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        )
    except FileNotFoundError:
        return True


def test_only_the_main_process_of_a_worker_is_killed(lab, measure):
    """Its children are ended by the kernel: no orphan goes on unseen."""
    worker = lab.hire("orphan", concurrency=1)
    run = lab.start("gated", owner="orphan")
    run.until_stepping()
    child = run.pid
    os.kill(worker.pid, signal.SIGKILL)
    killed = time.monotonic()
    wait_for(lambda: is_gone(child), "its child is gone")
    lab.hire("orphan", concurrency=1)
    run.until_lost(measure, "main process killed", killed)
    run.until("running", attempt=2, timeout=100)
    assert run.succeeds(attempt=2)


def test_a_worker_is_killed_with_runs_queued_behind(lab):
    worker = lab.hire("killed-queue", concurrency=1)
    runs = [lab.start("gated", owner="killed-queue") for _ in range(4)]
    runs[0].until_stepping()
    worker.kill()
    lab.hire("killed-queue", concurrency=4)
    for run in runs:
        run.open()
    for run in runs:
        run.until("succeeded", timeout=VISIBILITY_TIMEOUT + 60)
        assert run.bodies_at_once() == 1


# --- On other pools -------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["threads", "gevent", "solo"])
def test_a_killed_worker_of_another_pool(lab, measure, pool):
    owner = f"killed-{pool}"
    worker = lab.hire(owner, pool)
    run = lab.start("gated", owner=owner)
    run.until_stepping()
    worker.kill()
    killed = time.monotonic()
    run.until_lost(measure, f"{pool} killed", killed)
    lab.hire(owner, pool)
    run.until("running", attempt=2, timeout=100)
    measure(f"{pool} killed: next attempt runs", run.seen_at - killed, within(100))
    assert run.succeeds(attempt=2)


def test_the_last_child_of_a_worker_dies_while_another_run_goes_on(lab):
    """The neighbour of the dead child notices nothing."""
    lab.hire("neighbours", concurrency=2)
    first = lab.start("gated", owner="neighbours")
    second = lab.start("gated", owner="neighbours")
    first.until_stepping()
    second.until_stepping()
    os.kill(first.pid, signal.SIGKILL)
    first.until("running", attempt=2)
    second.open()
    assert second.until("succeeded")["attempt"] == 1
    first.open()
    first.until("succeeded", attempt=2)
