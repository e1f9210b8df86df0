"""A worker dies in the middle of an import, and the next one goes on where it was."""

import contextlib
import sqlite3
import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.faults.lab import REAL, Lab, within
from tests.stack import wait_for

ROWS = 200_000 if REAL else 20_000
EVERY = 500  # the rows of which one is bad
TIMES = 3 if REAL else 1
START = datetime(2025, 1, 1, tzinfo=UTC)


class ImportLab(Lab):
    def upload(self, name):
        """A file of ROWS rows, of a sensor of that name, where uploads are kept."""
        path = self.directory / "uploads" / "imports" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            file.write("when,sensor,value\n")
            for i in range(ROWS):
                when = "yesterday" if i % EVERY == 0 else START + timedelta(minutes=i)
                file.write(f"{when},{name},{i}\n")
        return f"imports/{name}.csv"

    def ask(self, question, *values):
        """The database's answer, as somebody who only reads it gets it."""
        path = self.directory / "db.sqlite3"
        with contextlib.closing(
            sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        ) as it:
            return it.execute(question, values).fetchone()

    def done(self, run):
        """How many rows the table has taken, by the report of the import."""
        report = self.ask("SELECT rows FROM HomeApp_importreport WHERE run = ?", run.id)
        return report[0] if report else 0


@pytest.mark.together
def test_a_worker_is_killed_at_40_percent(measure):
    """Every row is there once, the receipt says two attempts, and each bad row is
    counted once."""
    with ImportLab() as lab:
        for number in range(TIMES):
            kill_one(lab, measure, f"sensor-{number}")


def kill_one(lab, measure, name):
    path = lab.upload(name)
    worker = lab.hire("import", concurrency=1)
    run = lab.start(
        "HomeApp.tasks.import_rows", owner="import", path=path, name=f"{name}.csv"
    )
    wait_for(lambda: lab.done(run) >= 0.4 * ROWS, "40 %", timeout=120)
    lab.fire(worker)
    killed = time.monotonic()
    kept = lab.done(run)
    assert 0.4 * ROWS <= kept < 0.8 * ROWS

    lab.hire("import", concurrency=1)
    run.until("running", attempt=2, timeout=100)
    measure("import killed at 40 %: goes on", run.seen_at - killed, within(100))
    end = run.until_end(timeout=180)

    # It begins where the first one was, and not at the first row.
    shown = [e["current"] for _, e in run.log if e["attempt"] == 2 and e["current"]]
    assert shown[0] >= kept
    assert (end["state"], end["current"], end["total"]) == ("succeeded", ROWS, ROWS)
    bad = ROWS // EVERY
    receipt = {k: end["result"][k] for k in ("rows", "inserted", "updated", "bad")}
    assert receipt == {"rows": ROWS, "inserted": ROWS - bad, "updated": 0, "bad": bad}
    assert end["result"]["attempts"] == 2
    table = lab.ask(
        "SELECT count(*), count(DISTINCT value), sum(value)"
        " FROM HomeApp_measurement WHERE sensor = ?",
        name,
    )
    good = [i for i in range(ROWS) if i % EVERY]
    assert table == (len(good), len(good), sum(good))
    for worker in list(lab.workers):
        lab.fire(worker)
