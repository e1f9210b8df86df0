"""What a worker sends to Redis for a task of 100,000 steps in 10 s."""

import os

from benchmarks import desk
from benchmarks.figures import Check, Row
from benchmarks.stack import Bench
from benchmarks.tap import Tap, ports
from tests.stack import wait_for

STEPS, SECONDS = 100_000, 10
# Those who send at every step are given a hundredth of them; it is multiplied.
SHARE = {"track": 1, "update_state": 100, "celery-progress": 100}


def measure(quick):
    sent = {way: [] for way in SHARE}
    opened = {way: [] for way in SHARE}
    with Bench(concurrency=1) as bench:
        run(bench, "track", 1000, 0.5)  # what a worker does once is not counted
        for _ in range(1 if quick else 2):
            for way, share in SHARE.items():
                commands, connections = run(bench, way, STEPS // share, SECONDS / share)
                sent[way].append(commands * share)
                opened[way].append(connections * share)
    told = f"a task of {STEPS:,} steps in {SECONDS} s: "
    checks = [Check("track", at_most=100), Check("track", "celery-progress")]
    yield Row(f"{told}Redis commands of the worker", "", sent, checks)
    yield Row(f"{told}new connections", "", opened, [Check("track", at_most=1)])


def run(bench, way, steps, seconds):
    """Commands that the worker's child sends, and the connections it opens."""
    (child,) = bench.worker.children()
    before = ports(child)
    with Tap(bench.redis) as tap:
        kwargs = {"way": way, "n": steps, "seconds": seconds}
        if way == "track":
            started = bench.desk(desk.start, "stroll", kwargs, "bench")
            wait_for(lambda: bench.desk(desk.finished, started), way, 300)
        else:
            started = bench.desk(desk.publish, "stroll", kwargs)
            wait_for(lambda: bench.desk(desk.ready, started), way, 300)
        others = ports(bench.worker.pid) | ports(bench.desk(os.getpid)) | ports("self")
    mine = [port for port, _ in tap.commands if port not in others - before]
    return len(mine), len(set(mine) - before)
