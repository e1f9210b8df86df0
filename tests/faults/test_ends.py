"""Every way in which a body, a message or a worker comes to its end."""

import signal
import time

import pytest

from tests.faults.lab import LOST_AFTER, REAL, within
from tests.stack import wait_for

pytestmark = pytest.mark.together


def gone(lab, run):
    wait_for(lambda: not lab.messages_of(run), f"no message of {run.id} in the broker")


# --- Limits ---------------------------------------------------------------------------


def test_a_hard_time_limit(lab, measure):
    run = lab.start("over_the_hard_limit")
    began = run.until_body()["at"]
    end = run.until_end()
    measure("hard time limit of 1 s: failed", run.seen_at - began, within(1 + 3))
    assert (end["state"], end["attempt"]) == ("failed", 1)
    assert end["error"]["message"] == "It took longer than it may (1 s)."
    gone(lab, run)
    assert len(run.begins) == 1
    assert run.now()["state"] == "failed"


def test_a_hard_time_limit_on_gevent(lab):
    for _ in range(2):  # one that is free would take what is put back
        lab.hire("limited", pool="gevent", concurrency=1)
    run = lab.start("over_the_hard_limit", owner="limited")
    end = run.until_end()
    assert (end["state"], end["attempt"]) == ("failed", 1)
    assert end["error"]["message"] == "It took longer than it may (1 s)."
    gone(lab, run)
    assert len(run.begins) == 1


def test_a_soft_time_limit(lab):
    run = lab.start("over_the_soft_limit")
    end = run.until_end()
    assert (end["state"], end["attempt"]) == ("failed", 1)
    assert end["error"]["message"] == "It took longer than it may."
    assert "reference" not in end["error"]


def test_children_are_replaced_after_each_task(lab):
    lab.hire("fresh-children", concurrency=1, arguments=("--max-tasks-per-child", "1"))
    runs = [lab.start("steps", owner="fresh-children", n=5) for _ in range(4)]
    assert {run.until_end()["state"] for run in runs} == {"succeeded"}
    assert {run.now()["attempt"] for run in runs} == {1}
    assert len({run.begins[0]["pid"] for run in runs}) == 4


def test_children_are_replaced_when_they_use_much_memory(lab):
    lab.hire("thrifty", concurrency=1, arguments=("--max-memory-per-child", "1000"))
    runs = [lab.start("steps", owner="thrifty", n=5) for _ in range(3)]
    assert {run.until_end()["state"] for run in runs} == {"succeeded"}
    assert len({run.begins[0]["pid"] for run in runs}) == 3


# --- Shutdown of a worker -------------------------------------------------------------


@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent", "solo"])
def test_a_warm_shutdown_lets_the_body_end(lab, pool):
    owner = f"warm-{pool}"
    worker = lab.hire(owner, pool)
    run = lab.start("gated", owner=owner)
    run.until_stepping()
    worker.send(signal.SIGTERM)
    run.open()
    end = run.until_end()
    assert (end["state"], end["attempt"]) == ("succeeded", 1)
    worker.wait()
    gone(lab, run)


COLD = {"FAULTS_SOFT_SHUTDOWN": "0"}


@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent", "solo"])
def test_a_cold_shutdown_with_a_message_that_comes_back(lab, pool):
    """The next worker goes on; on threads Celery waits for the body instead, and on
    solo it fails it."""
    owner = f"cold-{pool}"
    worker = lab.hire(owner, pool, env=COLD)
    run = lab.start("gated", owner=owner)
    run.until_stepping()
    worker.send(signal.SIGQUIT)
    if pool == "threads":
        wait_for(lambda: "Hitting Ctrl+C again" in worker.output, "it was heard")
        run.open()
    worker.wait()
    if pool == "solo":
        end = run.until_end()
        assert end["state"] == "failed"
        assert end["error"]["message"] == "Its worker was stopped."
        return
    lab.hire(owner, pool)
    run.open()
    end = run.until_end()
    assert end["state"] == "succeeded"
    assert end["attempt"] == len(run.begins)
    assert run.bodies_at_once() == 1
    gone(lab, run)


@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent", "solo"])
def test_a_cold_shutdown_of_a_message_acknowledged_early(lab, measure, pool):
    owner = f"cold-early-{pool}"
    worker = lab.hire(owner, pool, env=COLD)
    run = lab.start("gated_early", owner=owner)
    run.until_stepping()
    worker.send(signal.SIGQUIT)
    asked = time.monotonic()
    if pool == "threads":
        run.open()
    end = run.until_end()
    seconds = run.seen_at - asked
    worker.wait()
    if pool == "threads":
        assert end["state"] == "succeeded"
        return
    measure(f"cold shutdown, {pool}, early ack: failed", seconds, within(2 + 4))
    assert end["state"] == "failed"
    assert end["error"]["message"] == "Its worker was stopped."
    assert run.now()["state"] == "failed"


def test_a_soft_shutdown_gives_short_bodies_time(lab):
    """As the Procfile starts a worker, and a deployment stops it."""
    worker = lab.hire("soft", concurrency=2, env={"REMAP_SIGTERM": "SIGQUIT"})
    short = lab.start("gated", owner="soft")
    long = lab.start("gated", owner="soft")
    short.until_stepping()
    long.until_stepping()
    worker.send(signal.SIGTERM)
    short.open()
    assert short.until_end()["state"] == "succeeded"
    long.until("waiting", reason="redelivery")
    worker.wait()
    lab.hire("soft", concurrency=2)
    long.until("running", attempt=2)
    long.open()
    assert long.until("succeeded")["attempt"] == 2


# --- Retries --------------------------------------------------------------------------


def test_a_retry_with_a_countdown(lab):
    run = lab.start("retries_once", countdown=1)
    waiting = run.until("waiting")
    assert (waiting["reason"], waiting["attempt"], waiting["attempts"]) == (
        "retry",
        1,
        4,
    )
    assert 0 < waiting["due"] - waiting["now"] <= 1000
    end = run.until_end()
    assert (end["state"], end["attempt"]) == ("succeeded", 2)
    first, second = (n["at"] for n in run.begins)
    assert second - first >= 1


def test_a_retry_waits_without_a_slot(lab):
    lab.hire("one-slot", concurrency=1)
    run = lab.start("retries_once", owner="one-slot", countdown=2)
    run.until("waiting")
    other = lab.start("quick", owner="one-slot")
    other.until("succeeded")
    assert run.now()["state"] == "waiting"
    assert run.until_end()["attempt"] == 2


def test_retries_without_a_countdown(lab):
    """The next attempt may begin before the last one has ended."""
    runs = [lab.start("retries_once", countdown=0) for _ in range(20)]
    for run in runs:
        end = run.until_end()
        assert (end["state"], end["attempt"]) == ("succeeded", 2)
        assert len(run.begins) == 2
        assert run.now()["state"] == "succeeded"


def test_three_automatic_retries_and_a_failure(lab):
    run = lab.start("retries_and_fails", owner="autoretry")
    run.until("queued")  # who comes later may miss the first try
    lab.hire("autoretry", concurrency=1)
    end = run.until_end()
    assert (end["state"], end["attempt"], end["attempts"]) == ("failed", 4, 4)
    assert end["error"]["message"] == "Something went wrong."
    assert len(run.begins) == 4
    assert run.percents_never_fall()
    waits = [e for _, e in run.log if e["state"] == "waiting"]
    assert [e["attempt"] for e in waits] == [1, 2, 3]
    # The slot is free for what comes next.
    assert lab.start("quick", owner="autoretry").until_end()["state"] == "succeeded"


# --- What a body may do with its message ----------------------------------------------


def test_reject(lab):
    run = lab.start("rejects")
    end = run.until_end()
    assert end["state"] == "failed"
    assert end["error"]["message"] == "The task rejected its message."
    gone(lab, run)


def test_reject_and_requeue(lab):
    run = lab.start("rejects_once")
    end = run.until_end()
    assert (end["state"], len(run.begins)) == ("succeeded", 2)
    gone(lab, run)


def test_ignore(lab):
    run = lab.start("ignores")
    end = run.until_end()
    assert end["state"] == "cancelled"
    assert end["error"]["message"] == "The task ended without a result."


def test_replace_goes_on_as_the_same_run(lab):
    run = lab.start("replaces")
    end = run.until_end()
    assert (end["state"], end["attempt"]) == ("succeeded", 1)
    assert (end["current"], end["total"]) == (5, 5)
    assert end["result"] == {"steps": 5}
    assert len(run.begins) == 2


def test_a_poll_frees_its_slot_and_stays_the_same_attempt(lab):
    run = lab.start("polls")
    end = run.until_end()
    assert (end["state"], end["attempt"], end["current"]) == ("succeeded", 1, 3)
    assert len(run.begins) == 3
    assert "poll" in {e["reason"] for _, e in run.log}


# --- Messages that no body ever sees --------------------------------------------------


@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent", "solo"])
def test_an_expired_message(lab, pool):
    owner = f"expired-{pool}"
    run = lab.start("expires", owner=owner)
    time.sleep(0.3)  # what expires, expires with time
    lab.hire(owner, pool)
    end = run.until_end()
    assert (end["state"], end["reason"]) == ("cancelled", "expired")
    assert end["error"]["message"] == "It was not begun in time."
    assert run.begins == []
    gone(lab, run)


# A worker on solo hears of nothing while a body runs.
@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent"])
def test_a_message_revoked_while_it_was_reserved(lab, pool):
    """Celery's own revoke; on threads and gevent Celery would run it all the same."""
    owner = f"revoked-{pool}"
    worker = lab.hire(
        owner, pool, concurrency=1, arguments=("--prefetch-multiplier", "4")
    )
    first = lab.start("gated", owner=owner)
    first.until_stepping()
    second = lab.start("gated", owner=owner)
    wait_for(lambda: f"{second.id}] received" in worker.output, "reserved")
    lab.desk("revoke", run=second.id)
    flagged = f"Tasks flagged as revoked: {second.id}"
    wait_for(lambda: flagged in worker.output, "revoked")
    first.open()
    assert first.until_end()["state"] == "succeeded"
    end = second.until_end()
    assert (end["state"], end["reason"]) == ("cancelled", "revoked")
    assert second.begins == []
    gone(lab, second)


@pytest.mark.parametrize("pool", ["prefork", "gevent"])
def test_a_running_body_that_is_revoked_and_terminated(lab, pool):
    owner = f"terminated-{pool}"
    lab.hire(owner, pool)
    run = lab.start("gated", owner=owner)
    run.until_stepping()
    lab.desk("revoke", run=run.id, terminate=True)
    end = run.until_end()
    assert (end["state"], end["reason"]) == ("cancelled", "revoked")
    gone(lab, run)
    assert run.now()["state"] == "cancelled"
    assert len(run.begins) == 1


def test_a_task_that_its_worker_does_not_know(lab, measure):
    lab.hire("strangers", env={"FAULTS_WITHOUT": "unknown_to_workers"})
    asked = time.monotonic()
    run = lab.start("unknown_to_workers", owner="strangers")
    end = run.until_end()
    measure("unknown task: failed", run.seen_at - asked, within(3))
    assert end["state"] == "failed"
    assert end["error"]["message"] == "No worker knows this task."
    gone(lab, run)


def test_a_message_of_a_run_queued_for_long_is_not_refused(lab):
    """Longer than LOST_AFTER: a queued run has no worker that could be lost."""
    run = lab.start("quick", owner="late-worker")
    time.sleep(300 if REAL else LOST_AFTER + 1)  # what is tested
    assert run.now()["state"] == "queued"
    lab.hire("late-worker")
    assert run.until_end()["state"] == "succeeded"


# --- Failures -------------------------------------------------------------------------


def test_an_exception_with_a_password_in_its_text(lab):
    run = lab.start("tells_a_password", owner="secretive")
    worker = lab.hire("secretive")
    end = run.until_end()
    assert "hunter2" not in str(run.log)
    reference = end["error"]["reference"]
    assert end["error"]["message"] == "Something went wrong."
    wait_for(lambda: reference in worker.output, "the log has the reference")
    about = worker.output.partition(reference)[2]
    assert "hunter2" in about


def test_a_failure_that_is_meant_for_the_viewer(lab):
    run = lab.start("fails_politely")
    assert run.until_end()["error"] == {"message": "Row 17: not a number"}
