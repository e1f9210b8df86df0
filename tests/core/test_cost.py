"""What a run costs, counted exactly: commands, messages, connections, encodings."""

import contextlib
import json
import threading

import pytest
import redis

from channels_progress import layer, progress, runs
from channels_progress.reporter import get_reporter
from channels_progress.store import SCRIPT, SHA, get_store
from tests.core import tasks
from tests.core.conftest import until
from tests.stack import wait_for

STEPS = 10_000


class Tap:
    """Everything that the server is sent, as it sees it."""

    def __init__(self, url):
        self.client = redis.Redis.from_url(url)
        self.commands = []
        self.script = []  # what the store's script has the server do
        self.started = threading.Event()
        self.thread = threading.Thread(target=self.listen)

    def listen(self):
        with self.client.monitor() as monitor:
            self.started.set()
            for entry in monitor.listen():
                if entry["client_type"] == "lua":
                    self.script.append(entry["command"])
                else:
                    self.commands.append(entry["command"])
                if "ECHO enough" in entry["command"]:
                    return

    def of(self, run):
        """The commands that name a run or its group, each by its verb."""
        group = layer.group(run)
        names = []
        for command in self.commands:
            words = command.split()
            if words[0] == "EVALSHA" and run in command:
                assert words[1] == SHA
                names.append(words[4])
            elif words[0] == "PUBLISH" and group in command:
                names.append("PUBLISH")
        return names

    def told(self, run):
        """How many messages the script has published of a run."""
        group = layer.group(run)
        return sum(c.startswith("PUBLISH") and group in c for c in self.script)


@contextlib.contextmanager
def tapped(valkey):
    tap = Tap(valkey.url)
    tap.thread.start()
    assert tap.started.wait(10)
    try:
        yield tap
    finally:
        valkey.client.echo("enough")
        tap.thread.join(10)
        tap.client.close()


def connections(valkey):
    return valkey.client.info("stats")["total_connections_received"]


@pytest.fixture
def encodings(monkeypatch):
    """How often the members of a run's envelope were encoded."""
    counted = {}
    dumps = json.dumps

    def counting(value, *args, **kwargs):
        members = isinstance(value, dict) and "remaining" in value
        if members and "type" not in value:  # else it is the history's document
            counted[value["run"]] = counted.get(value["run"], 0) + 1
        return dumps(value, *args, **kwargs)

    monkeypatch.setattr(json, "dumps", counting)
    return counted


def steps(reported, opened):
    """A body of many steps, whose first one is reported before the others."""

    def body(task):
        progress.advance()
        reported.wait(30)
        for _ in range(STEPS):
            progress.advance()
        for _ in progress.track(range(STEPS)):
            pass
        opened.wait(30)

    return body


@pytest.fixture
def long_run(play, slow):
    """`begin()` starts a run of many steps; `finish()` lets it end."""
    reported, opened = threading.Event(), threading.Event()

    def begin():
        run = play(steps(reported, opened), task=tasks.silent)
        wait_for(lambda: runs.get(run).as_dict()["current"] == 1, "the first report")
        get_reporter().drain(10)
        reported.set()
        return run

    def finish(run):
        opened.set()
        until(run, "succeeded")
        wait_for(lambda: not get_reporter().busy, "the body over")
        get_reporter().drain(10)

    yield begin, finish
    reported.set()
    opened.set()


def test_a_run_is_four_writes_and_three_messages_however_many_steps_it_has(
    valkey, acquainted, long_run
):
    begin, finish = long_run
    get_store().client.script_load(SCRIPT)
    with tapped(valkey) as tap:
        run = begin()
        finish(run)
    assert sorted(tap.of(run)) == sorted(["create", "begin", "report", "end"])
    assert tap.told(run) == 3


def test_a_run_is_encoded_once_a_write(long_run, encodings):
    begin, finish = long_run
    run = begin()
    finish(run)
    assert encodings[run] == 4


def test_a_running_run_opens_no_connection(valkey, acquainted, long_run):
    begin, finish = long_run
    reporter = get_reporter()
    reporter.keep(reporter.store.ping)  # a new one connects with its first word
    reporter.drain(10)
    run = begin()
    before = connections(valkey)
    lease = get_reporter().leases[run]
    wait_for(lambda: lease.progress.current == STEPS, "the steps")
    get_reporter().drain(10)
    assert connections(valkey) == before
    finish(run)


def test_a_report_is_one_command(valkey, acquainted, play, gate, quick):
    def body(task):
        for _ in range(STEPS):
            progress.advance()
        gate.wait()

    with tapped(valkey) as tap:
        run = play(body, task=tasks.silent)
        gate.arrival()
        wait_for(lambda: runs.get(run).as_dict()["current"] == STEPS, "the last report")
        gate.open()
        until(run, "succeeded")
        wait_for(lambda: not get_reporter().busy, "the body over")
        get_reporter().drain(10)
    named = tap.of(run)
    assert set(named) == {"create", "begin", "report", "end"}
    told = tap.told(run) - 2  # begin and end
    assert 1 <= told <= named.count("report")  # the others are beats
    assert told <= 10


def test_a_start_publishes_once_and_subscribes_to_nothing(
    valkey, acquainted, play, monkeypatch
):
    monkeypatch.setattr("celery._state._task_join_will_block", False)  # as in the web
    with tapped(valkey) as tap:
        run = play(lambda task: None)
        until(run, "succeeded")
    sent = [command.split()[0] for command in tap.commands]
    assert sent.count("LPUSH") == 1
    assert "SUBSCRIBE" not in sent  # to Celery's result
    assert set(tap.of(run)) == {"create", "begin", "end"}


def test_a_beat_is_one_command_and_no_message(valkey, acquainted, play, gate, quick):
    with tapped(valkey) as tap:
        run = play(lambda task: gate.wait(), task=tasks.silent)
        gate.arrival()
        seen = runs.get(run).seen
        wait_for(lambda: runs.get(run).seen > seen, "a beat")
        wait_for(lambda: runs.get(run).seen > seen + 200, "more beats")
        rev = runs.get(run).rev
        gate.open()
        until(run, "succeeded")
        wait_for(lambda: not get_reporter().busy, "the body over")
        get_reporter().drain(10)
    named = tap.of(run)
    assert named.count("report") >= 2
    assert set(named) == {"create", "begin", "report", "end"}
    assert tap.told(run) == 2
    assert rev == 2
