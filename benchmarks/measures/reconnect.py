"""A thousand sockets that come back after a restart of their web process."""

from benchmarks import load
from benchmarks.crowd import ARMS, BARE, OURS, Crowd
from benchmarks.figures import Check, Row
from benchmarks.stack import SERVERS, Bench

WAITING = 48  # ask to be let in at the same time: daphne has a backlog of 50


def measure(quick):
    count, repetitions = (100, 1) if quick else (1000, 3)
    values = {name: [] for name in ARMS}
    with Bench(workers=0) as bench:
        crowd = Crowd(bench, count)
        for _ in range(repetitions):
            for name, (way, server) in ARMS.items():
                web = bench.serve(server)
                took = bench.viewers(load.storm, *crowd.of(way, web), WAITING)
                values[name].append(took)
                bench.viewers(load.close_group, "storm")
                web.kill()
    checks = [Check(f"{OURS}, {s}", f"{BARE}, {s}", at_most=1.5) for s in SERVERS]
    yield Row(f"{count:,} sockets come back: until all know", "s", values, checks)
