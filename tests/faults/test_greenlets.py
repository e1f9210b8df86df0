"""Many tasks in one process that takes turns: each reports, and asks the database."""

import pytest

from tests.faults.lab import within

pytestmark = pytest.mark.together

GREENLETS = 100


def test_a_hundred_greenlets_ask_the_database(lab, measure):
    worker = lab.hire("greenlets", "gevent", GREENLETS)
    runs = [lab.start("queries", owner="greenlets") for _ in range(GREENLETS)]
    for run in runs:
        run.until_body()
    for run in runs:
        run.open()
    for run in runs:
        assert run.until_end()["state"] == "succeeded"
        assert run.percents_never_fall()
        measure(
            "a greenlet's end is shown",
            run.seen_at - run.until_body_ended()["at"],
            within(3),
        )

    assert "Traceback" not in worker.output
