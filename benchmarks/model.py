"""What many viewers and runs take, on paper, from what one was measured to cost.

Written into docs/SCALING.md.
"""

from math import ceil
from pathlib import Path
from statistics import median

from benchmarks.page import fill
from benchmarks.stack import SERVERS
from benchmarks.table import number

PAGE = Path(__file__).parents[1] / "docs" / "SCALING.md"
STEPS = ((100, 10), (1_000, 100), (10_000, 1_000), (100_000, 10_000))
STEPS += ((1_000_000, 100_000),)
FULL = 0.6  # of a core; more of it, and messages begin to wait for each other
BASE = 100  # MB of a web process without viewers
PLACE = 8_000  # sockets a web process: what a restart can take back within a minute


def costs(results):
    """CPU of an update in ms, memory in KiB, sockets a second; by web server."""
    values = {
        row["measure"]: row["values"]
        for found in results["measures"].values()
        for row in found["rows"]
    }

    def of(end, arm):
        found = [v for name, v in values.items() if name.endswith(end)]
        return median(found[0][arm])

    return {
        server: {
            "worker": of("CPU of workers", server),
            "Redis": of("CPU of Redis", server),
            "first viewer": of("CPU of web", server),
            "next viewer": 1000 / of("messages a second of CPU", f"ours, {server}"),
            "memory": of("memory of an idle viewer", f"ours, {server}"),
            "back": 1000 / of("sockets come back: until all know", f"ours, {server}"),
        }
        for server in SERVERS
    }


def need(cost, viewers, runs):
    """Cores and GB for so many, when each run says something once a second."""
    processes = 1
    while True:
        heard = min(viewers / runs, processes)  # how many processes hear of a run
        hear = max(0, cost["first viewer"] - cost["next viewer"])
        web = (runs * heard * hear + viewers * cost["next viewer"]) / 1000
        wanted = max(ceil(web / FULL), ceil(viewers / PLACE))
        if wanted <= processes:
            break
        processes = wanted
    return {
        "web cores": web,
        "web processes": processes,
        "web GB": (viewers * cost["memory"] / 1024 + processes * BASE) / 1024,
        "worker cores": runs * cost["worker"] / 1000,
        "Redis cores": runs * cost["Redis"] / 1000,
        "interval": runs * cost["Redis"] / 1000 / FULL,
        "back": viewers / processes / cost["back"],
    }


def first_full(found, viewers):
    """What is full first, if there is one of each."""
    shares = {
        "a web process": max(found["web cores"] / FULL, viewers / PLACE),
        "a worker's thread": found["worker cores"] / FULL,
        "Redis": found["Redis cores"] / FULL,
    }
    name = max(shares, key=shares.get)
    return f"{name}, at {number(100 * shares[name])} %"


COSTS = {
    "worker": "a worker, ms of CPU an update",
    "Redis": "Redis, ms of CPU an update (one script call, which publishes)",
    "first viewer": "a web process, ms of CPU an update, the first viewer",
    "next viewer": "and each further viewer of the same run, ms",
    "memory": "a viewer, KiB",
    "back": "viewers that come back at once, a second and web process",
}
HEAD = """\
| viewers | runs | full first, with one of each | web processes | web GB | \
cores that tell | Redis cores | one Redis does, at an update every | back within |
|--:|--:|---|--:|--:|--:|--:|--:|--:|"""


def write(results):
    """Both tables: what one costs, what many need."""
    found = costs(results)
    lines = [f"| measured | {' | '.join(SERVERS)} |", "|---|--:|--:|"]
    for name, label in COSTS.items():
        values = (number(found[server][name]) for server in SERVERS)
        lines.append(f"| {label} | {' | '.join(values)} |")
    for server in SERVERS:
        lines += ["", f"With {server}:", "", HEAD]
        lines += [line(found[server], *step) for step in STEPS]
    fill(PAGE, "\n".join([*lines, ""]))


def line(cost, viewers, runs):
    found = need(cost, viewers, runs)
    cells = (
        f"{viewers:,}",
        f"{runs:,}",
        first_full(found, viewers),
        f"{found['web processes']:,}",
        number(found["web GB"]),
        number(found["worker cores"]),
        number(found["Redis cores"]),
        f"{number(max(1, found['interval']))} s",
        f"{number(found['back'])} s",
    )
    return f"| {' | '.join(cells)} |"
