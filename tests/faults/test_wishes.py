"""Cancel, pause and resume: the same scenarios on each of the four pools."""

import os
import signal
import time

import pytest

from tests.faults.lab import BEAT, LOST_AFTER, REAL, Refused, within
from tests.stack import wait_for

pytestmark = pytest.mark.together
POOLS = ["prefork", "threads", "gevent", "solo"]
STEP = 0.02  # seconds between two steps of the bodies
# Where Celery's loop is the blocking one (`celery.worker.loops.synloop`), a worker
# whose slots were full looks for the next message after up to 2 s: kombu's poller
# asks `can_consume` and then polls that long. Any task waits so, and so a resume.
LOOK = {"gevent": 2.0}


def hire(lab, pool, name, concurrency=2, **options):
    """A worker for one scenario; returns its owner."""
    owner = f"{name}-{pool}"
    return owner, lab.hire(owner, pool, concurrency, **options)


# --- Cancel ---------------------------------------------------------------------------


@pytest.mark.parametrize("pool", POOLS)
def test_cancel_running(lab, measure, pool):
    """Ten in a row: a reporting body stops within a beat and a step."""
    owner, _ = hire(lab, pool, "cancel", concurrency=1)
    for _ in range(10):
        cancel_one(lab, measure, pool, lab.start("cleans_up", owner=owner))


def cancel_one(lab, measure, pool, run):
    run.until_stepping()
    asked = time.monotonic()
    assert run.cancel()["state"] in ("cancelling", "cancelled")
    end = run.until("cancelled")
    stopped = run.noted("end")[0]
    what = f"cancel, {pool}, running"
    measure(f"{what}: body stops", stopped["at"] - asked, BEAT + within(1))
    measure(f"{what}: seen", run.seen_at - asked, BEAT + within(1))
    assert stopped["by"] == "Cancelled"
    assert run.noted("cleaned up")
    assert (end["reason"], end["percent"]) == ("asked", 42)
    wait_for(lambda: run.result()["status"] == "REVOKED", "Celery's result")
    wait_for(lambda: not lab.messages_of(run), "its message is gone")
    assert len(run.begins) == 1


@pytest.mark.parametrize("pool", POOLS)
def test_cancel_running_with_nothing_to_say(lab, measure, pool):
    """Its beats carry the wish: a beat and a step."""
    owner, _ = hire(lab, pool, "cancel-quiet", concurrency=1)
    for _ in range(10):
        run = lab.start("listens", owner=owner)
        run.until("running", percent=42)
        asked = time.monotonic()
        run.cancel()
        run.until("cancelled")
        stopped = run.noted("end")[0]
        measure(
            f"cancel, {pool}, running and quiet: body stops",
            stopped["at"] - asked,
            BEAT + within(1),
        )
        assert stopped["by"] == "Cancelled"


@pytest.mark.parametrize("pool", POOLS)
def test_cancel_queued(lab, measure, pool):
    """While nobody is there; the worker that comes later drops the messages."""
    owner = f"cancel-queued-{pool}"
    runs = [lab.start("gated", owner=owner) for _ in range(10)]
    for run in runs:
        asked = time.monotonic()
        assert run.cancel()["state"] == "cancelled"
        took = time.monotonic() - asked
        measure(f"cancel, {pool}, queued: cancelled", took, within(0.5))
    other = lab.start("quick", owner=owner)
    hire(lab, pool, "cancel-queued")
    assert other.until_end()["state"] == "succeeded"
    for run in runs:
        wait_for(lambda run=run: not lab.messages_of(run), "its message is gone")
        assert run.begins == []
        assert run.now()["state"] == "cancelled"
        wait_for(lambda run=run: run.result()["status"] == "REVOKED", "Celery's result")


@pytest.mark.parametrize("pool", POOLS)
def test_cancel_while_a_worker_has_taken_the_message(lab, pool):
    """And has not begun: its only slot is busy."""
    owner, worker = hire(
        lab,
        pool,
        "cancel-reserved",
        concurrency=1,
        arguments=("--prefetch-multiplier", "4"),
    )
    first = lab.start("gated", owner=owner)
    first.until_stepping()
    second = lab.start("gated", owner=owner)
    if pool != "solo":  # which takes nothing while a body runs
        wait_for(lambda: f"{second.id}] received" in worker.output, "it is taken")
    assert second.cancel()["state"] == "cancelled"
    first.open()
    assert first.until_end()["state"] == "succeeded"
    wait_for(lambda: not lab.messages_of(second), "its message is gone")
    assert second.begins == []
    assert second.now()["state"] == "cancelled"


@pytest.mark.parametrize("pool", POOLS)
def test_cancel_between_two_tries(lab, pool):
    owner, _ = hire(lab, pool, "cancel-waiting")
    run = lab.start("retries_once", owner=owner, countdown=3)
    run.until("waiting")
    assert run.cancel()["state"] == "cancelled"
    wait_for(lambda: not lab.messages_of(run), "its message is gone")
    assert len(run.begins) == 1
    assert run.now()["state"] == "cancelled"


@pytest.mark.parametrize("pool", POOLS)
def test_cancel_a_body_that_swallows_it(lab, pool):
    owner, _ = hire(lab, pool, "cancel-swallowed")
    run = lab.start("swallows", owner=owner)
    run.until_stepping()
    run.cancel()
    run.until("cancelled")
    assert len(run.noted("swallowed")) == 3


@pytest.mark.parametrize("pool", POOLS)
def test_cancel_at_the_last_step(lab, pool):
    """The body ends by itself, without a step in which it could hear of it."""
    owner, _ = hire(lab, pool, "cancel-late")
    run = lab.start("last_step", owner=owner)
    run.until_stepping()
    assert run.cancel()["state"] == "cancelling"
    run.until("cancelling")
    run.open()
    assert run.until_end()["state"] == "succeeded"
    assert run.cancel()["state"] == "succeeded"


@pytest.mark.parametrize("pool", POOLS)
def test_cancel_a_run_whose_worker_is_lost(lab, pool):
    """At once; a worker that wakes is refused, and its body stops."""
    owner, worker = hire(lab, pool, "cancel-lost")
    run = lab.start("gated", owner=owner)
    run.until_stepping()
    worker.freeze()
    run.until("lost")
    assert run.cancel()["state"] == "cancelled"
    worker.thaw()
    assert run.until_body_ended()["by"] == "Superseded"
    wait_for(lambda: not lab.messages_of(run), "its message is gone")
    assert run.now()["state"] == "cancelled"
    assert len(run.begins) == 1


def test_two_viewers_cancel_at_once(lab):
    run = lab.start("cleans_up")
    run.until_stepping()
    refs = [lab.desk.tell("ask", verb="cancel", run=run.id) for _ in range(6)]
    states = {lab.desk.reply(ref)["envelope"]["state"] for ref in refs}
    assert states <= {"cancelling", "cancelled"}
    run.until("cancelled")
    assert len(run.noted("cleaned up")) == 1
    assert run.cancel()["state"] == "cancelled"


def test_cancel_when_the_next_attempt_has_begun(lab):
    run = lab.start("gated_then_retries", countdown=0)
    run.until_stepping()
    run.open("first")
    run.until("running", attempt=2)
    run.until_body(2)
    run.cancel()
    assert run.until_end()["state"] == "cancelled"
    assert run.until_body_ended(2)["by"] == "Cancelled"


def test_many_cancels_race_with_the_end(lab):
    """Whoever is first: one end, and it stays."""
    runs = []
    for i in range(1000 if REAL else 40):
        run = lab.start("steps", n=8)
        run.until_body()
        time.sleep(0.005 * (i % 40))  # spread over its life; no state to wait for
        run.cancel()
        runs.append(run)
    for run in runs:
        end = run.until_end()
        assert end["state"] in ("succeeded", "cancelled")
        last = run.noted("end") and run.noted("end")[-1]["by"]
        assert (end["state"] == "cancelled") == (last in ("Cancelled", []))
        assert run.now()["state"] == end["state"]


# --- Force ----------------------------------------------------------------------------


def test_force_ends_the_process_of_a_silent_body(lab, measure):
    run = lab.start("silent")
    run.until("running")
    run.until_body()
    assert run.cancel()["state"] == "cancelling"
    asked = time.monotonic()
    run.cancel(force=True)
    end = run.until("cancelled")
    measure("force, prefork: cancelled", run.seen_at - asked, within(5))
    assert end["attempt"] == 1
    wait_for(lambda: not lab.messages_of(run), "its message is gone")
    assert len(run.begins) == 1
    assert run.now()["state"] == "cancelled"


@pytest.mark.together(lab="impatient_lab")
def test_force_names_the_process_and_not_a_parked_duplicate(lab):
    worker = lab.hire("force-twice", concurrency=2)
    run = lab.start("silent", owner="force-twice")
    run.until_body()
    wait_for(lambda: "] ignored" in worker.output, "the duplicate is parked")
    run.cancel()
    run.cancel(force=True)
    run.until("cancelled")
    wait_for(lambda: not lab.messages_of(run), "no copy is left")
    assert len(run.begins) == 1


@pytest.mark.parametrize("pool", ["threads", "gevent", "solo"])
def test_force_says_why_it_cannot(lab, pool):
    owner, _ = hire(lab, pool, "force")
    run = lab.start("silent", owner=owner)
    run.until_body()
    run.cancel()
    with pytest.raises(Refused) as refused:
        run.cancel(force=True)
    assert refused.value.code == "invalid"
    said = str(refused.value)
    # A worker on solo hears of nothing while a body runs.
    assert (pool in said) or ("did not answer" in said)
    run.until("cancelling")
    run.open()
    run.until_end()


# --- Pause and resume -----------------------------------------------------------------


@pytest.mark.parametrize("pool", POOLS)
def test_pause_and_resume(lab, measure, pool):
    """The worker is free meanwhile, and the run goes on from its cursor."""
    owner, _ = hire(lab, pool, "pause", concurrency=1)
    run = lab.start("checkpointed", owner=owner, n=200)
    run.until_stepping()
    asked = time.monotonic()
    run.pause()
    paused = run.until("paused")
    measure(f"pause, {pool}: paused", run.seen_at - asked, BEAT + within(1))
    assert paused["asked"] is None
    assert lab.start("quick", owner=owner).until_end()["state"] == "succeeded"
    assert run.now()["state"] == "paused"
    resumed = time.monotonic()
    assert run.resume()["state"] in ("queued", "running")
    run.until("running")
    bound = LOOK.get(pool, 0) + within(1)
    measure(f"resume, {pool}: running", run.seen_at - resumed, bound)
    run.open()
    end = run.until_end()
    assert (end["state"], end["attempt"], end["current"]) == ("succeeded", 1, 200)
    first, second = run.noted("cursor")
    assert first["cursor"] == 0
    assert second["cursor"] >= paused["current"] - 2
    assert run.percents_never_fall()
    wait_for(lambda: not lab.messages_of(run), "its messages are gone")


def test_pause_queued_and_resume(lab):
    """At once; the message that was queued is dropped, the one of the resume is not."""
    run = lab.start("checkpointed", owner="pause-queued", n=5)
    run.open()
    assert run.pause()["state"] == "paused"
    assert run.resume()["state"] == "queued"
    assert run.pause()["state"] == "paused"
    assert run.resume()["state"] == "queued"
    lab.hire("pause-queued")
    assert run.until_end()["state"] == "succeeded"
    assert len(run.begins) == 1
    wait_for(lambda: not lab.messages_of(run), "its messages are gone")


def test_two_resumes_at_once_publish_once(lab):
    run = lab.start("checkpointed", owner="resume-twice", n=5)
    run.open()
    run.pause()
    refs = [lab.desk.tell("ask", verb="resume", run=run.id) for _ in range(6)]
    for ref in refs:
        lab.desk.reply(ref)
    assert len(lab.messages_of(run)) == 2  # the start's, which is done with, and one
    lab.hire("resume-twice")
    assert run.until_end()["state"] == "succeeded"
    assert len(run.begins) == 1


def test_cancel_paused(lab):
    run = lab.start("checkpointed", n=200)
    run.until_stepping()
    run.pause()
    run.until("paused")
    assert run.cancel()["state"] == "cancelled"
    assert run.resume()["state"] == "cancelled"
    assert run.now()["state"] == "cancelled"


def test_a_task_without_checkpoints_cannot_be_paused(lab):
    run = lab.start("gated")
    run.until_stepping()
    with pytest.raises(Refused) as refused:
        run.pause()
    assert refused.value.code == "invalid"
    run.open()
    assert run.until_end()["state"] == "succeeded"


def test_a_killed_child_goes_on_from_its_cursor(lab):
    run = lab.start("checkpointed", n=150)
    run.until_stepping()
    wait_for(lambda: run.log[-1][1]["current"] >= 50, "it has counted to 50")
    run.kill_child()
    run.until("running", attempt=2)
    run.open()
    assert run.until_end()["current"] == 150
    second = run.noted("cursor")[1]
    # What was checkpointed since the last report may be done again.
    assert second["cursor"] >= 50 - 0.3 / STEP


def test_a_cursor_that_moves_keeps_a_run_going_beyond_three_restarts(lab):
    run = lab.start("checkpointed", n=400)
    for attempt in range(1, 6):
        run.until("running", attempt=attempt)
        run.until_body(attempt)
        before = run.noted("cursor")[-1]["cursor"]
        wait_for(lambda b=before: int(run.field("cursor") or 0) > b + 10, "it moves")
        os.kill(run.pid, signal.SIGKILL)
    run.open()
    end = run.until_end(timeout=LOST_AFTER * 6 + 60)
    assert (end["state"], end["attempt"]) == ("succeeded", 6)
