"""What a step of a loop costs the task, in a worker with its reporter at work."""

import json

from benchmarks import desk
from benchmarks.figures import Check, Row
from benchmarks.stack import Bench
from tests.stack import wait_for

# Steps a repetition: about as long for each way.
COUNTS = {
    "bare loop": 4_000_000,
    "track": 4_000_000,
    "advance()": 1_000_000,
    "tqdm": 1_000_000,
    "rich": 200_000,
    "update_state": 200,
    "celery-progress": 40,
}
QUICK, SLOW = 2_000_000, 0.3  # items; seconds of the one after them, over an interval


def measure(quick):
    with Bench(concurrency=1) as bench:
        bare, added = costs(bench, 3 if quick else 15)
        behind = surprises(bench, 2 if quick else 5)
    checks = [
        Check("track", "tqdm", at_most=1 / 3),
        *(Check("track", name) for name in ("rich", "update_state", "celery-progress")),
        Check("advance()", at_most=250),
    ]
    yield Row("added time a step", "ns", {"bare loop": bare, **added}, checks)
    yield Row(
        f"items not shown {SLOW} s into a slow one, after {QUICK:,} quick ones",
        "",
        behind,
        [Check("track", at_most=0)],
    )


def costs(bench, repetitions):
    """Nanoseconds of a bare loop's step, and what each way adds to it."""
    kwargs = {"counts": COUNTS, "repetitions": repetitions}
    found = told(bench, "step_cost", kwargs)
    bare = found.pop("bare loop")
    return bare, {
        name: [one - base for one, base in zip(values, bare, strict=True)]
        for name, values in found.items()
    }


def surprises(bench, repetitions):
    kwargs = {"n": QUICK, "seconds": SLOW}
    found = [told(bench, "surprise", kwargs) for _ in range(repetitions)]
    return {name: [QUICK - shown[name] for shown in found] for name in found[0]}


def told(bench, task, kwargs):
    """What a run has written to a file."""
    path = bench.directory / "told.json"
    run = bench.desk(desk.start, task, {"path": str(path), **kwargs}, "bench")
    wait_for(lambda: bench.desk(desk.finished, run), task, 300)
    return json.loads(path.read_text())
