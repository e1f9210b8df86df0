"""
Writes what was measured into docs/RELIABILITY.md.

    FAULTS_REAL=1 FAULTS_REPORT=report.json python -m pytest tests/faults
    python -m tests.faults.table report.json ...

Where several reports have run a test, it must have passed in all. Only what ran with
the real intervals is written, and nothing of a fault whose tests did not all pass.
"""

import json
import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from fnmatch import fnmatch
from statistics import median

from tests.stack import ROOT

DOCUMENT = ROOT / "docs" / "RELIABILITY.md"
POOLS = ("prefork", "threads", "gevent", "solo")


@dataclass(frozen=True)
class Row:
    """A fault as the document's table begins its row; the tests that hold it; and what
    they measure, by the words for it."""

    fault: str
    tests: tuple[str, ...]
    measured: dict[str, str]


ROWS = [
    Row(
        "a pool child is killed",
        (
            *("*::test_a_killed_child*", "*::test_the_duplicate_of_a_dead_child*"),
            "test_memory.py::*",
        ),
        {
            "failed": "child killed*: failed",
            "next attempt": "child killed, reject*",
            "by another worker": "child killed, another*",
            "out of memory": "out of memory: next*",
            "RabbitMQ": "RabbitMQ, child*",
        },
    ),
    Row(
        "a task that kills its process every time",
        ("*::test_a_body_that_takes*", "*::test_a_body_that_exits*"),
        {"killed": "kills_itself*", "`SystemExit`": "exits*"},
    ),
    Row(
        "a whole worker is killed",
        (
            *("*::test_a_killed_worker*", "*::test_only_the_main*"),
            *("*::test_a_worker_is_killed*", "*::test_a_worker_dies*"),
        ),
        {
            "lost": "* killed: lost",
            "the page says so": "worker killed: the page says lost",
            "next attempt": "* killed: next attempt runs",
            "RabbitMQ": "RabbitMQ, *worker killed: next attempt",
        },
    ),
    Row(
        "a message is delivered again",
        ("test_redelivered.py::*", "test_rabbitmq.py::test_a_message*"),
        {
            "original's child killed": "original killed*",
            "its worker": "worker killed while*",
            "RabbitMQ": "RabbitMQ, original*",
        },
    ),
    Row(
        "a worker is frozen",
        (
            *("test_frozen.py::test_lost_then*", "test_frozen.py::test_one_frozen*"),
            "test_rabbitmq.py::test_a_frozen_worker_wakes",
        ),
        {"lost": "* frozen: lost", "running again": "* thawed: running"},
    ),
    Row(
        "it wakes after",
        (
            "test_frozen.py::test_it_wakes*",
            "test_rabbitmq.py::test_a_frozen_worker_is*",
        ),
        {
            "its body stops": "*frozen worker wakes*",
            "second worker killed": "frozen worker woke*",
            "RabbitMQ gives it up": "RabbitMQ, worker frozen: next attempt",
        },
    ),
    Row("a C call", ("test_frozen.py::test_a_c_call*",), {}),
    Row(
        "warm, soft and cold shutdown",
        (
            *("test_ends.py::*shutdown*", "test_ends.py::*time_limit"),
            "test_ends.py::test_children*",
        ),
        {"stopped at once": "cold shutdown*", "hard limit of 1 s": "hard time limit*"},
    ),
    Row(
        "retry with and without",
        (
            *("test_ends.py::*retr*", "test_ends.py::test_reject*"),
            *("test_ends.py::test_replace*", "test_ends.py::test_a_poll*"),
            *("test_rabbitmq.py::*try", "test_rabbitmq.py::test_a_retry*"),
        ),
        {},
    ),
    Row(
        "expired, revoked",
        (
            *(
                "test_ends.py::test_an_expired*",
                "test_ends.py::test_a_message_revoked*",
            ),
            *("test_ends.py::test_a_task_that_its*", "test_ends.py::test_ignore"),
            "test_ends.py::test_a_running_body_that_is_revoked*",
        ),
        {"unknown": "unknown task*"},
    ),
    Row(
        "the store restarted",
        (
            *("test_store.py::*", "test_valkey.py::*", "*::test_valkey_restarts*"),
            *("test_pages.py::test_the_store*", "test_pages.py::test_connections*"),
            "test_pages.py::test_the_server_of_everything*",
        ),
        {
            "pages say so": "store *: pages say so",
            "restarted": "Valkey restarted*",
            "emptied": "Valkey emptied*",
            "unreachable": "store *: running again",
            "pages move again": "store *: pages move again",
            "an end in the outage": "store *ended in the outage*",
            "out of memory": "store out of memory*",
            "1,000 short tasks told": "1000 short tasks*: all told",
        },
    ),
    Row("store and database both", ("*::test_store_and_*_are_both_away*",), {}),
    Row(
        "the database unreachable",
        ("test_pages.py::test_somebody_who_signed_in*",),
        {"back": "database away: a page*"},
    ),
    Row(
        "the broker unreachable",
        (
            *("test_broker.py::*", "test_rabbitmq.py::test_a_start*"),
            "test_pages.py::test_a_start_while*",
        ),
        {
            "refused": "broker *: START is refused",
            "36 at once": "broker *: START by *",
            "RabbitMQ": "RabbitMQ, broker *: START is refused",
        },
    ),
    Row(
        "the web server killed",
        (
            *("test_web.py::test_it_is_killed*", "*::test_it_is_told_to_stop*"),
            "*::test_a_visitor_comes*",
        ),
        {"killed": "* killed, 500 pages*", "told to stop": "* told to stop, 500*"},
    ),
    Row(
        "group messages dropped",
        ("*::test_messages_are_dropped*",),
        {"the end after": "messages mistreated*"},
    ),
    Row(
        "the channel layer",
        ("*::test_the_layer_breaks*",),
        {"pub/sub": "layer pubsub*", "core": "layer core*"},
    ),
    Row(
        "a viewer that stops reading",
        (
            *("*::test_clients_that_do_not_read*", "*::test_a_client_that_floods*"),
            "*::test_a_thousand_changes*",
        ),
        {},
    ),
    Row("an idle socket", ("*::test_an_idle_socket*",), {}),
    Row(
        "5,000 pages come at once",
        ("*::test_thousands_come*",),
        {"all know": "* pages at once: all know", "all back": "*, 5000 pages open*"},
    ),
    Row(
        "100 greenlets",
        ("test_greenlets.py::*",),
        {"their ends": "a greenlet's end*"},
    ),
    Row("the clock of a worker's host", ("test_values.py::*clock_is_wrong*",), {}),
    Row(
        "tasks of milliseconds",
        (
            *("test_values.py::test_a_task*", "test_values.py::test_an_odd*"),
            "test_values.py::test_100*",
        ),
        {},
    ),
    Row("an exception whose text", ("*::test_an_exception_with_a_password*",), {}),
    Row("a deploy", ("test_deploy.py::*",), {}),
    Row(
        "a worker is killed at 40 %",
        ("test_import.py::*",),
        {"goes on": "import killed*"},
    ),
]


class Report:
    """What several sessions have seen."""

    def __init__(self, paths):
        self.measured = defaultdict(list)
        self.outcomes = {}
        for path in paths:
            with open(path) as file:
                report = json.load(file)
            if not report["real"]:
                sys.exit(f"{path} was not made with FAULTS_REAL=1.")
            for test, outcome in report["outcomes"].items():
                if self.outcomes.get(test, "passed") == "passed":
                    self.outcomes[test] = outcome
            for what, values in report["measured"].items():
                # What took too long has failed its test, and counts as that.
                self.measured[what] += [s for s, limit in values if s <= limit]

    def seconds(self, pattern):
        """Everything that was measured under a name like that."""
        names = [name for name in self.measured if fnmatch(name, pattern)]
        return [seconds for name in names for seconds in self.measured[name]]

    def cell(self, row):
        """What is to be written of a fault."""
        done = {
            name: outcome
            for name, outcome in self.outcomes.items()
            if any(fnmatch(name, bracketed(pattern)) for pattern in row.tests)
        }
        bad = sorted(name for name, outcome in done.items() if outcome != "passed")
        if bad or not done:
            print(f"{row.fault}: {', '.join(bad) or 'not tested'}", file=sys.stderr)
            return None
        words = [
            f"{word} {max(seconds):.1f} s"
            for word, pattern in row.measured.items()
            if (seconds := self.seconds(pattern))
        ]
        tests = f"{len(done)} test{'s' if len(done) > 1 else ''}"
        return f"{', '.join(words)} ({tests})" if words else f"held ({tests})"

    def cancels(self):
        """The rows of the table of latencies."""
        kinds = ("running: body stops", "running and quiet: body stops")
        for pool in POOLS:
            cells = []
            for kind in (*kinds, "queued: cancelled"):
                seconds = self.seconds(f"cancel, {pool}, {kind}")
                if not seconds:
                    return
                cells.append(f"{median(seconds):.2f} s, {max(seconds):.2f} s")
            yield f"| {pool} | {' | '.join(cells)} |\n"


def bracketed(pattern):
    """A pattern in which brackets are themselves."""
    return pattern.replace("[", "[[]")


def main(paths):
    report, text, complete = Report(paths), DOCUMENT.read_text(), True
    for row in ROWS:
        line = re.compile(rf"^(\| {re.escape(row.fault)}.*\| )[^|]*\|$", re.M)
        assert len(line.findall(text)) == 1, f"{row.fault}: no row, or several"
        cell = report.cell(row)
        complete = complete and cell is not None
        text = line.sub(rf"\g<1>{cell or ''} |", text)
    if rows := "".join(report.cancels()):
        table = re.compile(r"^(\| pool \|.*\n\|---.*\n)(?:\|.*\n)*", re.M)
        assert len(table.findall(text)) == 1
        text = table.sub(rf"\g<1>{rows}", text)
    DOCUMENT.write_text(text.replace("|  |", "| |"))
    return not complete


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
