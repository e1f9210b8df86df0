"""From a click on START, which opens a socket, to the run's first message on it."""

import time
import uuid
from statistics import median

from benchmarks import desk, load
from benchmarks.figures import Check, Row
from benchmarks.stack import SERVERS, Bench, visitor

BLOCKS, CLICKS = 5, 30
REST = 0.02  # s, for the worker to be done with the last run
BARE = "`apply_async` to task start"


def measure(quick):
    clicks = 5 if quick else CLICKS
    opened = {server: f"open to message, {server}" for server in SERVERS}
    clicked = {server: f"click to message, {server}" for server in SERVERS}
    values = {name: [] for name in (BARE, *opened.values(), *clicked.values())}
    with Bench(concurrency=1) as bench:
        webs = {server: bench.serve(server) for server in SERVERS}
        cookies = {server: visitor(web) for server, web in webs.items()}

        def click(server):
            query = f"?key={uuid.uuid4().hex}"
            url = f"{webs[server].ws_url}/ws/start/nothing/{query}"
            return bench.viewers(load.click, url, cookies[server])

        def turn(found):
            for server in SERVERS:
                took, whole = click(server)
                found[opened[server]].append(whole - took)
                found[clicked[server]].append(whole)
                time.sleep(REST)
                found[BARE].append(bench.desk(desk.bare_way)[0])

        for _ in range(10):  # connections are made, and scripts loaded
            turn({name: [] for name in values})
        for _ in range(BLOCKS):
            found = {name: [] for name in values}
            for _ in range(clicks):
                turn(found)
            for name in values:
                values[name].append(median(found[name]) / 1000)
    checks = [Check(opened[s], BARE, at_most=1.5) for s in SERVERS]
    checks += [Check(clicked[s], BARE) for s in SERVERS]
    yield Row("START to the first `run` message, p50", "ms", values, checks)
