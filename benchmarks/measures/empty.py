"""What begin and end of a run add to the whole way of a task that does nothing."""

from statistics import median

from benchmarks import desk
from benchmarks.figures import Check, Row
from benchmarks.stack import Bench

BLOCKS, PAIRS = 5, 60


def measure(quick):
    pairs = 10 if quick else PAIRS
    names = ("runs.start()", "as a run", "bare", "by hand")
    values = {name: [] for name in (*names, "added")}
    with Bench(concurrency=1) as bench:
        for _ in range(10):  # connections are made, and scripts loaded
            [bench.desk(way) for way in (desk.bare_way, desk.way_by_hand, desk.run_way)]
        for _ in range(BLOCKS):
            found = {name: [] for name in names}
            for _ in range(pairs):
                start, run = bench.desk(desk.run_way)
                _, bare = bench.desk(desk.bare_way)
                _, hand = bench.desk(desk.way_by_hand)
                for name, value in zip(names, (start, run, bare, hand), strict=True):
                    found[name].append(value / 1000)
            for name in names:
                values[name].append(median(found[name]))
            values["added"].append(values["as a run"][-1] - values["bare"][-1])
    checks = [Check("added", at_most=3), Check("as a run", "bare")]
    checks.append(Check("as a run", "by hand"))
    yield Row("an empty task, published to over, p50", "ms", values, checks)
