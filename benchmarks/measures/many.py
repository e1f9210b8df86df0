"""A thousand runs at once on two workers, each with a viewer, one update a second."""

import time

from benchmarks import desk, load
from benchmarks.figures import Check, Row, percentile
from benchmarks.stack import SERVERS, Bench, cpu, visitor

WORKERS = 2
PERIOD = 1_000_000  # µs
SETTLE = 0.5  # s
OURS = ("EVALSHA", "PUBLISH")


def measure(quick):
    count, turns = (100, 3) if quick else (1000, 4)
    seconds = 3 if quick else 5  # a turn
    values = {}
    for server in SERVERS:
        for name, found in once(server, count, turns, seconds).items():
            values.setdefault(name, {})[server] = found
    told = f"{count:,} runs at once, a viewer each, an update a second"
    late = [Check(server, at_most=250) for server in SERVERS]
    yield Row(f"{told}: `advance()` to message, p99", "ms", values["p99"], late)
    yield Row(f"{told}: p50", "ms", values["p50"], [])
    yield Row(f"{told}: messages that came", "a second", values["came"], [])
    yield Row(f"{told}: scripts and messages", "a second", values["commands"], [])
    for process in ("workers", "web", "Redis"):
        unit = "ms a second of a run"
        yield Row(f"{told}: CPU of {process}", unit, values[process], [])


def once(server, count, turns, seconds):
    names = ("p50", "p99", "came", "commands", "workers", "web", "Redis")
    found = {name: [] for name in names}
    options = {"workers": WORKERS, "pool": "threads", "concurrency": count // WORKERS}
    with Bench(**options) as bench:
        web = bench.serve(server)
        cookie = visitor(web)
        owner = bench.desk(desk.owner, cookie)
        kwargs = [
            {"offset": n * PERIOD // count, "period": PERIOD, "count": turns * seconds}
            for n in range(count)
        ]
        runs = bench.desk(desk.start_many, "say", kwargs, owner)
        urls = [f"{web.ws_url}/ws/progress/"] * count
        frames = [{"action": "watch", "run": run} for run in runs]
        bench.viewers(load.open_group, "all", urls, cookie, frames)
        time.sleep(bench.begin())
        for _ in range(turns):
            before = look(bench, web)
            time.sleep(seconds)
            after = look(bench, web)
            ages = bench.viewers(load.take, "all")
            found["p50"].append(percentile(ages, 50) / 1000)
            found["p99"].append(percentile(ages, 99) / 1000)
            found["came"].append(len(ages) / seconds)
            for name, value in after.items():
                scale = seconds if name == "commands" else count * seconds / 1000
                found[name].append((value - before[name]) / scale)
    return found


def look(bench, web):
    """Scripts and messages so far, and CPU seconds of all who carry the runs."""
    stats = bench.redis.info("commandstats")
    sent = (stats.get(f"cmdstat_{name.lower()}", {}).get("calls", 0) for name in OURS)
    return {
        "commands": sum(sent),
        "workers": sum(cpu(worker.pid) for worker in bench.workers),
        "web": cpu(web.pid),
        "Redis": cpu(bench.valkey.pid),
    }
