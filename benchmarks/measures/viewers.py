"""One run, 1,000 viewers, 4 updates a second, one web process.

All ways have their viewers all the time, and speak in turn.
"""

import time

from benchmarks import load
from benchmarks.desk import ticks
from benchmarks.figures import Check, Row, percentile
from benchmarks.stack import SERVERS, Bench, cpu
from benchmarks.ways import WAYS

PERIOD = 250_000  # µs between two updates
UPDATES = 16  # a turn
FEWER = 4  # for one who would still be at work in the turns of the others
SETTLE = 500_000  # µs after a turn


def measure(quick):
    viewers, turns = (100, 2) if quick else (1000, 4)
    arms = {f"{w.label}, {s}": (w, s) for s in SERVERS for w in WAYS}
    rate, late, lost = ({name: [] for name in arms} for _ in range(3))
    with Bench(concurrency=len(arms)) as bench:
        webs = {n: bench.serve(s, way.application) for n, (way, s) in arms.items()}
        length = UPDATES * PERIOD + SETTLE
        when = {"period": PERIOD, "turns": turns, "turn": len(arms) * length}
        for place, (name, (way, _)) in enumerate(arms.items()):
            here = when | {"offset": place * length, "count": updates(way)}
            way.watch(bench, name, webs[name], here, viewers)
        due = ticks() + 1e6 * bench.begin()
        for name in list(arms) * turns:
            due += length
            before = cpu(webs[name].pid)
            time.sleep(max(0, due - ticks()) / 1e6)
            seconds, ages = cpu(webs[name].pid) - before, bench.viewers(load.take, name)
            rate[name].append(len(ages) / seconds)
            late[name].append(percentile(ages, 99) / 1000)
            lost[name].append(viewers * updates(arms[name][0]) - len(ages))
    limits = [
        Check(f"ours, {server}", f"{by.label}, {server}", at_least=least)
        for server in SERVERS
        for by, least in zip(WAYS[1:], (0.7, None), strict=True)
    ]
    in_time = [Check(f"ours, {s}", at_most=PERIOD / 1000) for s in SERVERS]
    all_came = [Check(f"ours, {s}", at_most=0) for s in SERVERS]
    told = f"one run, {viewers:,} viewers: "
    yield Row(f"{told}messages a second of CPU", "", rate, limits)
    yield Row(f"{told}`advance()` to message, p99", "ms", late, in_time)
    yield Row(f"{told}messages that did not come", "", lost, all_came)


def updates(way):
    return FEWER if way.label == "celery-progress" else UPDATES
