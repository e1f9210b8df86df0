"""What a viewer costs who only looks."""

import time

from benchmarks import load
from benchmarks.crowd import ARMS, BARE, OURS, Crowd
from benchmarks.figures import Check, Row
from benchmarks.stack import SERVERS, Bench, memory

FIRST = 50  # viewers, for whom a process loads and makes what it needs once
AT_ONCE = 25
SETTLE = 1.5  # s


def measure(quick):
    count, repetitions = (200, 1) if quick else (1000, 2)
    values = {name: [] for name in ARMS}
    with Bench(workers=0) as bench:
        crowd = Crowd(bench, count)
        for _ in range(repetitions):
            for name, (way, server) in ARMS.items():
                web = bench.serve(server)
                urls, cookie, frames = crowd.of(way, web)
                sizes = []
                for group, part in (("few", slice(FIRST)), ("all", slice(FIRST, None))):
                    some = (group, urls[part], cookie, frames[part], AT_ONCE)
                    bench.viewers(load.open_group, *some)
                    time.sleep(SETTLE)
                    sizes.append(memory(web.pid))
                values[name].append((sizes[1] - sizes[0]) / (count - FIRST))
                for group in ("few", "all"):
                    bench.viewers(load.close_group, group)
                web.kill()
    checks = [Check(f"{OURS}, {s}", f"{BARE}, {s}", at_most=1.25) for s in SERVERS]
    yield Row("memory of an idle viewer", "KiB", values, checks)
