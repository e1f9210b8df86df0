"""The bytes of a live message, as it comes on the socket."""

import json
import time

from benchmarks import load
from benchmarks.figures import Check, Row
from benchmarks.stack import SERVERS, Bench
from benchmarks.ways import CeleryProgress, Ours

TEXTS = ("title", "message", "result", "error")


def measure(quick):
    with Bench(concurrency=2) as bench:
        web = bench.serve(SERVERS[0])
        ways = (Ours(), CeleryProgress())
        for way in ways:
            when = {"offset": 0, "period": 200_000, "count": 100}
            way.watch(bench, way.label, web, when, 1)
        time.sleep(bench.begin() + 3)
        sizes = {w.label: [size(bench.viewers(load.last, w.label))] for w in ways}
    yield Row("a live message", "bytes", sizes, [Check("ours", at_most=500)])


def size(text):
    """Bytes of a message without those of its texts."""
    message = json.loads(text)
    kept = (json.dumps(message[name]) for name in TEXTS if name in message)
    return len(text) - sum(map(len, kept))
