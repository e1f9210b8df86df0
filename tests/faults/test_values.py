"""Bodies that are very quick, very busy, or say odd things."""

import glob
import json
import time
from datetime import datetime

import pytest

from tests.faults import tasks
from tests.faults.lab import Lab, within

pytestmark = pytest.mark.together


def test_a_task_of_a_few_milliseconds(lab):
    runs = [lab.start("quick") for _ in range(30)]
    for run in runs:
        end = run.until_end()
        assert (end["state"], end["percent"], end["result"]) == ("succeeded", 100, 5)
        assert (end["current"], end["total"]) == (1, 1)


def test_a_task_that_ended_before_anyone_looked(lab):
    run = lab.run(
        lab.desk(
            "start", task="quick", kwargs={}, owner="shared", key=None, watch=False
        )["run"]
    )
    run.until_body_ended()
    lab.desk("watch", run=run.id)
    run.until("succeeded")


def test_100_000_steps_a_second(lab, measure):
    """The writes are bounded by time, not by steps."""
    run = lab.start("advances", n=1_000_000)
    end = run.until_end()
    assert (end["state"], end["current"]) == ("succeeded", 1_000_000)
    seconds = end["result"]
    measure("1,000,000 steps", seconds, within(10))
    # One at its begin and one at its end, and four a second between them.
    assert end["rev"] <= 4 + seconds / 0.25 + 2


@pytest.mark.parametrize("value", tasks.WEIRD)
def test_an_odd_value(lab, value):
    run = lab.start("weird", value=value)
    end = run.until_end()
    assert (end["state"], end["error"]) == ("succeeded", None)
    for _, envelope in run.log:
        json.dumps(envelope, allow_nan=False)
        assert envelope["current"] >= 0
        assert envelope["total"] is None or envelope["total"] >= 0
        assert len(envelope["message"]) <= 500
        assert envelope["percent"] is None or 0 <= envelope["percent"] <= 100


@pytest.mark.parametrize("result", tasks.RESULTS)
def test_an_odd_result(lab, result):
    run = lab.start("weird", result=result)
    end = run.until_end()
    assert (end["state"], end["error"]) == ("succeeded", None)
    assert len(json.dumps(end["result"])) < 5000


def test_a_worker_whose_clock_is_wrong(lab):
    times_are_the_stores(lab, "clock", {"FAULTS_CLOCK": "600"})


@pytest.mark.nightly
@pytest.mark.parametrize("minutes", ["-10", "+10"])
def test_a_worker_whose_hosts_clock_is_wrong(minutes):
    """As everything in the process reads it, also what is written in C. By that clock
    kombu takes back what others hold, so it has a broker of its own."""
    found = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
    assert found, "libfaketime is missing (on Debian: apt install libfaketime)"
    clock = {"LD_PRELOAD": found[0], "FAKETIME": f"{minutes}m"}
    clock["FAKETIME_DONT_FAKE_MONOTONIC"] = "1"
    with Lab() as lab:
        log = times_are_the_stores(lab, "clock", clock).output
    year_to_minute = log.partition(" INFO celery")[0].splitlines()[-1][:16]
    said = datetime.strptime(year_to_minute, "%Y-%m-%d %H:%M")
    assert abs((said - datetime.now()).total_seconds()) > 400


def times_are_the_stores(lab, owner, env):
    """Those of a run whose worker has that environment; the worker."""
    worker = lab.hire(owner, env=env)
    run = lab.start("retries_once", owner=owner, countdown=3)
    waiting = run.until("waiting")
    assert 0 < waiting["due"] - waiting["now"] <= 3500
    end = run.until_end()
    assert end["state"] == "succeeded"
    assert abs(end["now"] - time.time() * 1000) < 60_000
    assert end["queued"] <= end["started"] <= end["ended"] <= end["now"]
    assert end["ended"] - end["queued"] < 20_000
    return worker
