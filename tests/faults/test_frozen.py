"""A worker is stopped, as a suspended machine is, and goes on later."""

import os
import signal
import time

import pytest

from tests.faults.lab import BEAT, LOST_AFTER, VISIBILITY_TIMEOUT, Lab, within
from tests.stack import wait_for


@pytest.mark.together
@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent", "solo"])
def test_lost_then_running_then_the_true_end(lab, measure, pool):
    """Nobody else serves the queue, so the frozen attempt is the only one."""
    owner = f"frozen-{pool}"
    worker = lab.hire(owner, pool)
    run = lab.start("gated_early", owner=owner)
    run.until_stepping()
    worker.freeze()
    frozen = time.monotonic()
    run.until_lost(measure, f"{pool} frozen", frozen)
    worker.thaw()
    thawed = time.monotonic()
    run.until("running")
    measure(f"{pool} thawed: running", run.seen_at - thawed, within(4))
    run.open()
    assert run.until("succeeded")["attempt"] == 1
    assert len(run.begins) == 1
    assert run.percents_never_fall()


@pytest.mark.together
def test_one_frozen_child_is_lost_although_its_worker_lives(lab):
    lab.hire("frozen-child", concurrency=2)
    run = lab.start("gated_early", owner="frozen-child")
    run.until_stepping()
    pid = run.pid
    os.kill(pid, signal.SIGSTOP)
    run.until("lost")
    os.kill(pid, signal.SIGCONT)
    run.until("running")
    run.open()
    assert run.until("succeeded")["attempt"] == 1


def freeze_until_taken_over(lab, owner):
    """A run whose first worker is frozen, and whose second attempt is under way."""
    first = lab.hire(owner, concurrency=1)
    run = lab.start("gated", owner=owner)
    run.until_stepping()
    first.freeze()
    run.until("lost")
    second = lab.hire(owner, concurrency=1)
    run.until("running", attempt=2, timeout=VISIBILITY_TIMEOUT + LOST_AFTER + 60)
    run.until_stepping()
    return run, first, second


def old_attempt_stops(run, thawed):
    """The frozen body ends at its next step, and says nothing that a viewer sees."""
    end = run.until_body_ended(1)
    assert end["by"] == "Superseded"
    assert all(e["attempt"] == 2 for at, e in run.log if at > thawed)
    return end["at"] - thawed


@pytest.mark.together
def test_it_wakes_while_the_next_attempt_runs(lab, measure):
    run, first, _second = freeze_until_taken_over(lab, "wakes")
    first.thaw()
    thawed = time.monotonic()
    seconds = old_attempt_stops(run, thawed)
    measure("frozen worker wakes: its body stops", seconds, within(4))
    assert run.now()["state"] == "running"
    run.open()
    assert run.until("succeeded")["attempt"] == 2
    assert len(run.begins) == 2
    assert lab.counted("writes_refused") > 0


@pytest.mark.together
def test_it_wakes_and_then_the_second_worker_dies(lab, measure):
    """The old attempt's late acknowledgement must not take the message along."""
    run, first, second = freeze_until_taken_over(lab, "wakes-then-dies")
    first.thaw()
    old_attempt_stops(run, time.monotonic())
    second.kill()
    killed = time.monotonic()
    run.until("running", attempt=3, timeout=VISIBILITY_TIMEOUT + LOST_AFTER + 60)
    measure(
        "frozen worker woke, second one killed: third attempt",
        run.seen_at - killed,
        within(100),
    )
    run.open()
    assert run.until("succeeded")["attempt"] == 3


@pytest.mark.together
def test_it_wakes_after_the_next_attempt_has_finished(lab):
    run, first, _second = freeze_until_taken_over(lab, "wakes-late")
    run.open()
    end = run.until("succeeded")
    (lab.notes / f"{run.id}.go").unlink()
    first.thaw()
    assert old_attempt_stops(run, time.monotonic()) < within(4)
    assert run.now() | {"now": 0} == end | {"now": 0}
    assert len(run.begins) == 2


@pytest.mark.together
@pytest.mark.parametrize("finished", [False, True], ids=["running", "finished"])
def test_it_wakes_after_valkey_was_emptied(finished):
    with Lab() as lab:
        run, first, _second = freeze_until_taken_over(lab, "emptied")
        if finished:
            run.open()
            run.until("succeeded")
            (lab.notes / f"{run.id}.go").unlink()
        lab.valkey.flush()
        first.thaw()
        thawed = time.monotonic()
        end = run.until_body_ended(1)
        assert end["by"] == "Superseded"
        assert end["at"] - thawed < within(2 * BEAT + 4)
        if not finished:
            wait_for(
                lambda: run.now()["state"] == "running", "the second attempt is back"
            )
            run.open()
        wait_for(lambda: run.now()["state"] == "succeeded", "the true end")
        assert run.now()["attempt"] == 2
        # An empty epoch is the history's word, until a beat has brought the run back.
        shown = [e for at, e in run.log if at > thawed and e.get("epoch")]
        assert {e["attempt"] for e in shown} <= {2}
        assert len(run.begins) == 2


@pytest.mark.together
def test_a_c_call_that_holds_the_gil(lab):
    """Half of LOST_AFTER, as 15 s are of 30."""
    run = lab.start("holds_the_gil", seconds=LOST_AFTER / 2)
    end = run.until_end()
    assert end["state"] == "succeeded"
    assert end["silence"] > LOST_AFTER / 2 - 2 * BEAT  # it was silent indeed
    assert "lost 1" not in run.story()
