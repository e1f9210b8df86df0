"""What a step of a loop costs the task, in a worker with its reporter at work."""

import json

from benchmarks import desk
from benchmarks.figures import Check, Row
from benchmarks.stack import Bench
from tests.stack import wait_for


def measure(quick):
    with Bench(concurrency=1) as bench:
        path = bench.directory / "step.json"
        kwargs = {"path": str(path), "repetitions": 3 if quick else 15}
        run = bench.desk(desk.start, "step_cost", kwargs, "bench")
        wait_for(lambda: bench.desk(desk.finished, [run]), "the steps", 300)
        found = json.loads(path.read_text())
    bare = found.pop("bare loop")
    added = {
        name: [one - base for one, base in zip(values, bare, strict=True)]
        for name, values in found.items()
    }
    checks = [
        Check("track", "tqdm", at_most=1 / 3),
        Check("track", "rich"),
        Check("track", "update_state"),
        Check("track", "celery-progress"),
        Check("advance()", at_most=250),
    ]
    yield Row("added time a step", "ns", {"bare loop": bare, **added}, checks)
