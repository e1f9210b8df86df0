"""From `advance()` in the worker to the message on the socket of its one viewer."""

import time

from benchmarks import load
from benchmarks.figures import Check, Row, percentile
from benchmarks.stack import SERVERS, Bench
from benchmarks.ways import STORED, WAYS

PERIOD = 125_000  # µs between two messages of one way
BLOCKS = 4  # repetitions: the ways take turns all the time, and this cuts it in pieces
# A report a period, so that the interval is never what is waited for.
ENV = {"PROGRESS_REPORT_INTERVAL": "0.1"}


def measure(quick):
    count = 80 if quick else 480
    ages = collect(count)
    for percent, limits in ((50, (2, 0.4)), (99, (4, None))):
        values = {
            name: [percentile(block, percent) / 1000 for block in blocks(samples)]
            for name, samples in ages.items()
        }
        checks = []
        for server in SERVERS:
            names = (f"{way.label}, {server}" for way in (*WAYS, STORED))
            ours, bare, peer, stored = names
            checks.append(Check(ours, bare, at_most=limits[0]))
            checks.append(Check(ours, peer, at_most=limits[1]))
            checks.append(Check(ours, stored))
        yield Row(
            f"`advance()` to message, p{percent}", "ms", values, checks, samples=ages
        )


def collect(count):
    """The ages of `count` messages in µs, by way and server."""
    arms = [(way, server) for server in SERVERS for way in (*WAYS, STORED)]
    with Bench(concurrency=len(arms), env=ENV) as bench:
        webs = [bench.serve(server, way.application) for way, server in arms]
        for turn, ((way, server), web) in enumerate(zip(arms, webs, strict=True)):
            offset = turn * PERIOD // len(arms)
            kwargs = {"offset": offset, "period": PERIOD, "count": count}
            way.watch(bench, f"{way.label}, {server}", web, kwargs, 1)
        time.sleep(bench.begin() + count * PERIOD / 1e6 + 1)
        names = [f"{way.label}, {server}" for way, server in arms]
        ages = {name: bench.viewers(load.take, name) for name in names}
    for name, samples in ages.items():
        assert len(samples) >= 0.8 * count, f"{name}: {len(samples)} of {count} came"
    return ages


def blocks(samples):
    size = len(samples) // BLOCKS
    return [samples[n * size : (n + 1) * size] for n in range(BLOCKS)]
