"""The one Valkey that is store, broker, layer and result backend at once breaks."""

import time

import pytest

from tests.faults.lab import LOST_AFTER, REAL, Lab, within
from tests.stack import wait_for

TRUTH = 5.0


@pytest.fixture(scope="module")
def own_lab():
    with Lab() as lab:
        lab.hire(concurrency=4)
        yield lab


@pytest.fixture
def lab(own_lab):
    yield own_lab
    wait_for(own_lab.valkey.answers, "Valkey is back")


# The broker must not be away for so long that it finds a run lost.
AWAY = [0, 3, 20] if REAL else [0, 1]  # seconds


@pytest.mark.parametrize("away", AWAY)
@pytest.mark.parametrize("empty", [False, True], ids=["kept", "emptied"])
def test_it_is_killed_and_restarted(lab, measure, empty, away):
    runs = [lab.start("gated") for _ in range(3)]
    done = lab.start("quick")
    done.until("succeeded")
    for run in runs:
        run.until_stepping()
    epochs = {run.id: run.now()["epoch"] for run in runs}
    lab.valkey.restart(empty=empty, away=away)
    back = time.monotonic()
    for run in runs:
        before = run.now().get("current", 0)
        wait_for(
            lambda run=run, before=before: (
                run.now()["state"] == "running" and run.now()["current"] > before
            ),
            "it reports again",
        )
    what = "emptied" if empty else "restarted"
    measure(f"Valkey {what}: running again", time.monotonic() - back, within(TRUTH))
    assert (runs[0].now()["epoch"] != epochs[runs[0].id]) == empty
    assert done.now()["state"] == "succeeded"
    for run in runs:
        run.open()
    for run in runs:
        wait_for(lambda run=run: run.now()["state"] == "succeeded", "its end")
        assert len(run.begins) == 1
    wait_for(
        lambda: lab.start("quick").until_end()["state"] == "succeeded",
        "the worker takes tasks again",
    )


def test_it_is_emptied_while_a_run_waits_for_its_retry(lab):
    """The message is gone as well, so nobody can go on: the run reads as lost, and
    can be cancelled."""
    run = lab.start("retries_once", countdown=60)
    run.until("waiting")
    lab.valkey.flush()
    wait_for(lambda: run.now()["state"] == "lost", "it reads as lost")
    assert run.cancel()["state"] == "cancelled"


FROZEN = LOST_AFTER * 0.4  # 12 s of 30


def test_it_is_frozen(lab, measure):
    """As a machine that swaps, for less than LOST_AFTER."""
    run = lab.start("gated")
    run.until_stepping()
    lab.valkey.freeze()
    time.sleep(FROZEN)  # what is tested
    lab.valkey.thaw()
    thawed = time.monotonic()
    before = run.log[-1][1].get("current", 0)
    wait_for(lambda: run.log[-1][1].get("current", 0) > before, "it reports again")
    measure("Valkey frozen: reports again", time.monotonic() - thawed, within(TRUTH))
    run.open()
    assert run.until_end()["attempt"] == 1
    assert "lost 1" not in run.story()


def test_a_paused_run_survives_a_restart_of_everything_and_an_emptied_valkey(lab):
    run = lab.start("checkpointed", n=100)
    run.until_stepping()
    run.pause()
    paused = run.until("paused")
    wait_for(lambda: lab.desk("history", run=run.id)["state"] == "paused", "its row")
    lab.desk.kill()
    for worker in list(lab.workers):
        worker.stop()
        lab.fire(worker)
    lab.valkey.restart(empty=True)
    lab.hire(concurrency=4)
    lab.desk.start()
    assert run.now()["state"] == "paused"
    lab.desk("watch", run=run.id)
    run.resume()
    run.until("running")
    run.open()
    end = run.until_end()
    assert (end["state"], end["attempt"]) == ("succeeded", 1)
    first, second = run.noted("cursor")
    assert first["cursor"] == 0
    assert second["cursor"] >= paused["current"] - 1 > 0
