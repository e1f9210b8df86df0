"""The background thread: its throttle, its beats, and what it does in an outage."""

import json
import socket
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import replace
from functools import partial
from itertools import pairwise

import msgpack
import pytest
import redis

from channels_progress import counters, layer, reporter
from channels_progress.current import Cancelled, Paused, Progress, Superseded
from channels_progress.express import Express
from channels_progress.header import Header
from channels_progress.lease import Lease, Samples, significant
from channels_progress.reporter import Breaker, Reporter
from tests.core.conftest import set_intervals
from tests.core.hand import Hand, lease
from tests.ports import free_port
from tests.stack import Valkey, wait_for


class Attempt(Hand):
    """A run with a lease that a reporter carries."""

    def __init__(self, store, carrier, pausable=False):
        super().__init__(store)
        self.carrier = carrier
        self.create()
        header = Header(run=self.id, owner="o", task="count", pausable=pausable)
        self.progress = Progress()
        self.lease = Lease(
            header=header,
            progress=self.progress,
            attempts=1,
            worker="w|m|1",
            number=lease(self.begin()),
        )
        self.progress._wake = partial(carrier.wake, self.lease)
        self.lease.sent, self.lease.spoke = self.lease.numbers(), time.monotonic()
        carrier.add(self.lease)

    @property
    def current(self):
        return self.stored and self.snapshot.as_dict()["current"]

    def wait(self, current):
        wait_for(lambda: self.current == current, f"{current} reported")

    def writes(self):
        """How many reports were written so far."""
        return int(self.field("seq"))


@pytest.fixture
def carrier(store, monkeypatch):
    """A reporter of its own, as of another process."""
    carrier = Reporter()
    monkeypatch.setattr(reporter, "_reporter", carrier)
    yield carrier
    carrier.leases.clear()
    carrier.later.clear()


@pytest.fixture
def attempt(store, carrier):
    return Attempt(store, carrier)


def look(carrier):
    """Wait until the thread has looked at everything once more."""
    carrier.drain(10)


@pytest.fixture
def crowd(slow, store, carrier):
    """Runs of one process, whose first look is over."""
    attempts = [Attempt(store, carrier) for _ in range(20)]
    look(carrier)
    return attempts


# -- Throttle ---------------------------------------------------------------------


def test_the_first_change_is_said_at_once(slow, attempt):
    attempt.progress.advance()
    attempt.wait(1)


def test_the_next_ones_wait_for_the_interval(slow, attempt, carrier):
    attempt.progress.advance()
    attempt.wait(1)
    attempt.progress.advance()
    look(carrier)
    assert attempt.current == 1


def test_the_last_one_is_said_when_the_interval_is_over(settings, attempt):
    set_intervals(settings, REPORT_INTERVAL=0.2, HEARTBEAT_INTERVAL=600)
    for _ in range(100):
        attempt.progress.advance()
    attempt.wait(100)
    assert attempt.writes() <= 3


def test_what_has_not_changed_is_not_said(quick, settings, attempt, carrier):
    set_intervals(settings, HEARTBEAT_INTERVAL=600)
    attempt.progress.advance()
    attempt.wait(1)
    for _ in range(5):
        attempt.progress.set(1)
        look(carrier)
    assert attempt.writes() == 1


def test_a_run_with_nothing_to_say_beats(quick, attempt):
    before = attempt.snapshot
    wait_for(lambda: attempt.snapshot.seen > before.seen, "a beat")
    assert attempt.snapshot.rev == before.rev


def test_all_runs_of_a_process_are_one_pipeline(settings, store, carrier):
    set_intervals(settings, REPORT_INTERVAL=0.2, HEARTBEAT_INTERVAL=600)
    attempts = [Attempt(store, carrier) for _ in range(5)]
    for attempt in attempts:
        attempt.progress.advance()
    for attempt in attempts:
        attempt.wait(1)


def test_a_step_of_one_run_is_no_look_at_the_others(crowd, monkeypatch):
    looked, say = [], Reporter._say
    monkeypatch.setattr(
        Reporter, "_say", lambda self, *args: looked.append(args[0]) or say(self, *args)
    )
    crowd[7].progress.advance()
    crowd[7].wait(1)
    assert {lease.id for lease in looked} == {crowd[7].id}


def test_a_lease_that_is_removed_is_not_spoken_for(quick, attempt, carrier):
    carrier.remove(attempt.lease)
    attempt.progress.advance()
    look(carrier)
    assert attempt.current == 0


def test_only_its_own_lease_is_removed(attempt, carrier):
    other = Lease(
        header=attempt.lease.header, progress=Progress(), attempts=1, worker=""
    )
    carrier.remove(other)
    assert carrier.leases[attempt.id] is attempt.lease


def test_flush_lets_it_look(slow, attempt):
    attempt.progress.total = 7
    attempt.progress.flush()
    wait_for(lambda: attempt.snapshot.as_dict()["total"] == 7, "the total")


def test_a_process_about_to_end_waits_until_all_is_out(slow, attempt, carrier):
    attempt.progress.advance()
    carrier.drain(10)
    assert attempt.current == 1


def test_a_reporter_that_has_nothing_to_do_is_no_thread(store):
    idle = Reporter()
    before = threading.active_count()
    idle.drain(10)
    assert threading.active_count() == before


# -- What is said -----------------------------------------------------------------


def test_the_cursor_travels_once(quick, attempt):
    attempt.progress.checkpoint({"row": 4})
    wait_for(lambda: attempt.stored.cursor == '{"row":4}', "the cursor")
    wait_for(lambda: attempt.lease.cursor, "its arrival known")
    assert attempt.lease.call("report", None).values["cursor"] is None


def test_the_message_follows_the_store(quick, attempt, valkey):
    message = listen(valkey, attempt.id, attempt.progress.advance)
    assert message["run"] == attempt.id
    assert message["head"]["state"] == "running"
    assert message["head"]["rev"] == attempt.rev
    assert '"current":1' in message["text"]


def listen(valkey, run, act):
    """What the channel layer carries to the group of `run` after `act()`."""
    client = redis.Redis.from_url(valkey.url)
    inbox = client.pubsub(ignore_subscribe_messages=True)
    try:
        inbox.subscribe(f"asgi__group__{layer.group(run)}")
        inbox.get_message(timeout=10)
        act()
        found = wait_for(lambda: inbox.get_message(timeout=1), "the message")
        return msgpack.unpackb(found["data"])
    finally:
        inbox.close()
        client.close()


def test_a_cancel_comes_back_in_the_answer(quick, attempt):
    attempt.cancel()
    wait_for(lambda: attempt.progress._stop, "the wish")
    with pytest.raises(Cancelled):
        attempt.progress.advance()


def test_a_pause_comes_back_where_the_task_can(quick, store, carrier):
    attempt = Attempt(store, carrier, pausable=True)
    attempt.pause()
    wait_for(lambda: attempt.progress._stop, "the wish")
    with pytest.raises(Paused):
        attempt.progress.advance()


def test_a_pause_of_a_task_that_keeps_no_checkpoints_is_no_stop(quick, attempt):
    attempt.pause()
    wait_for(lambda: attempt.lease.asked == "pause", "the wish")
    attempt.progress.advance()


def test_a_lease_that_was_taken_over_stops(quick, attempt, carrier):
    attempt.begin(hop=2)
    wait_for(lambda: attempt.id not in carrier.leases, "the lease given up")
    with pytest.raises(Superseded):
        attempt.progress.advance()


# -- A store that has lost the run ------------------------------------------------


@pytest.mark.usefixtures("transactional_db")
def test_a_vanished_run_is_brought_back_by_the_next_beat(quick, attempt, caplog):
    caplog.set_level("INFO", "channels_progress.transitions")
    attempt.progress.set(4, total=10)
    attempt.wait(4)
    before = attempt.snapshot
    attempt.lose()
    wait_for(lambda: attempt.stored, "the run back")
    assert attempt.snapshot.epoch != before.epoch
    assert attempt.current == 4
    wait_for(lambda: f"run={attempt.id}" in caplog.text, "the line in the log")
    assert "from= to=running" in caplog.text


@pytest.mark.usefixtures("transactional_db")
def test_who_was_silent_for_long_lets_a_living_lease_speak_first(
    settings, attempt, carrier
):
    set_intervals(
        settings, LOST_AFTER=0.5, HEARTBEAT_INTERVAL=0.3, REPORT_INTERVAL=0.05
    )
    attempt.lose()
    attempt.lease.heard -= 60
    attempt.progress.advance()
    wait_for(lambda: attempt.lease.missed, "the loss noticed")
    assert attempt.stored is None
    other = Hand(attempt.store, attempt.id)
    other.begin(make=True, epoch="e2")
    wait_for(lambda: attempt.id not in carrier.leases, "the lease given up")
    with pytest.raises(Superseded):
        attempt.progress.advance()


# -- Outages ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def away_server(tmp_path_factory):
    server = Valkey(tmp_path_factory.mktemp("away"))
    yield server.start()
    server.close()


@pytest.fixture
def away(away_server, settings):
    """A store of its own, which the test may stop."""
    if not away_server.running:
        away_server.start()
    set_intervals(
        settings,
        REDIS_URL=away_server.url,
        REPORT_INTERVAL=0.02,
        HEARTBEAT_INTERVAL=600,
    )
    return away_server


@pytest.fixture
def far(away, monkeypatch, transactional_db):
    """A run in that store, and who carries its progress. A server that is killed may
    lose the last second: then the history is asked, and the run brought back."""
    carrier = Reporter()
    monkeypatch.setattr(reporter, "_reporter", carrier)
    monkeypatch.setattr(reporter, "breaker", Breaker())
    yield Attempt(carrier.store, carrier)
    carrier.leases.clear()


def test_what_was_said_into_an_outage_is_said_again(far, away):
    away.kill()
    far.progress.advance()
    wait_for(lambda: reporter.breaker.open, "the outage noticed")
    away.start()
    far.wait(1)
    wait_for(lambda: not reporter.breaker.open, "its end noticed")


def test_a_beat_into_an_outage_is_made_up_for_at_once(far, away):
    away.kill()
    far.lease.spoke -= 700
    far.carrier.wake()
    wait_for(lambda: reporter.breaker.open, "the outage noticed")
    away.start()
    wait_for(lambda: not reporter.breaker.open, "its end noticed")


def test_an_outage_costs_a_step_nothing(far, away):
    away.freeze()
    try:
        for _ in range(10_000):
            far.progress.advance()
        wait_for(lambda: reporter.breaker.open, "the outage noticed")
        assert far.progress.current == 10_000
    finally:
        away.thaw()
    far.wait(10_000)


def test_a_cut_connection_is_no_outage(far, away):
    far.progress.advance()
    far.wait(1)
    away.client.client_kill_filter(_type="normal", skipme=True)
    far.progress.advance()
    far.wait(2)
    assert not reporter.breaker.open


def test_a_store_that_was_emptied_knows_the_script_again(far, away):
    away.client.script_flush()
    far.progress.advance()
    far.wait(1)


def test_a_full_store_is_an_outage_that_ends(far, away):
    away.client.config_set("maxmemory", 1)
    try:
        far.progress.advance()
        wait_for(lambda: reporter.breaker.open, "the outage noticed")
    finally:
        away.client.config_set("maxmemory", 0)
    far.wait(1)


def test_what_was_kept_is_said_in_its_order_once_it_can(far, away):
    said = []
    away.kill()
    for word in "abc":
        far.carrier.keep(lambda word=word: (far.store.ping(), said.append(word)))
    wait_for(lambda: reporter.breaker.open, "the outage noticed")
    away.start()
    wait_for(lambda: len(said) == 3, "everything said")
    assert said == ["a", "b", "c"]


def test_a_process_about_to_end_waits_for_what_an_outage_has_kept(far, away):
    kept = []

    def write():
        far.carrier.store.ping()
        kept.append(True)

    away.kill()
    far.carrier.keep(write)
    threading.Timer(0.5, away.start).start()
    far.carrier.drain(30)
    assert kept


def test_what_cannot_be_said_at_all_keeps_nothing_else_back(far, caplog):
    said = []
    far.carrier.keep(lambda: 1 / 0)
    far.carrier.keep(lambda: said.append("b"))
    wait_for(lambda: said, "the next word")
    assert "What was to be said later cannot be said." in caplog.text
    far.progress.advance()
    far.wait(1)


def test_the_thread_outlives_whatever_it_meets(far, monkeypatch, caplog):
    def fail(*args):
        raise ZeroDivisionError

    with monkeypatch.context() as broken:
        broken.setattr(Express, "send", fail)
        far.progress.advance()
        wait_for(lambda: "The reporter met an error" in caplog.text, "the error")
    far.progress.advance()
    far.wait(2)


def test_a_broken_channel_layer_loses_messages_and_nothing_else(far, settings, caplog):
    settings.CHANNEL_LAYERS = {"default": settings.CHANNEL_LAYERS["default"]}
    set_intervals(settings, CHANNEL_LAYER="missing")
    far.progress.advance()
    far.wait(1)


def test_a_layer_that_is_down_loses_messages_and_counts_them(far, settings, caplog):
    caplog.set_level("INFO", "channels_progress")
    config = {"hosts": [f"redis://127.0.0.1:{free_port()}/0"]}
    backend = settings.CHANNEL_LAYERS["default"]["BACKEND"]
    layers = {"down": {"BACKEND": backend, "CONFIG": config}}
    settings.CHANNEL_LAYERS = {**settings.CHANNEL_LAYERS, **layers}
    set_intervals(settings, CHANNEL_LAYER="down")
    before = counters.read()["messages_dropped"]
    layer.tell(far.id)
    assert counters.read()["messages_dropped"] == before + 1
    assert "was lost" in caplog.text


@pytest.mark.parametrize("kind", ["pubsub.RedisPubSub", "core.Redis"])
def test_a_layer_that_hangs_holds_up_the_store_for_a_moment(attempt, settings, kind):
    """Once, and not with each message."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        hangs = {
            "BACKEND": f"channels_redis.{kind}ChannelLayer",
            "CONFIG": {"hosts": [host]},
        }
        settings.CHANNEL_LAYERS = {**settings.CHANNEL_LAYERS, "hangs": hangs}
        set_intervals(settings, CHANNEL_LAYER="hangs", REPORT_INTERVAL=0.05)
        dropped = counters.read()["messages_dropped"]
        since = time.monotonic()
        for n in range(1, 6):
            attempt.progress.advance()
            attempt.wait(n)
        assert time.monotonic() - since < 2 * layer.SEND_TIMEOUT
        wait_for(
            lambda: counters.read()["messages_dropped"] >= dropped + 4, "they count"
        )


def test_a_fork_has_no_part_in_the_outage(monkeypatch):
    for name in ("_reporter", "_reporter_lock"):
        monkeypatch.setattr(reporter, name, None)
    monkeypatch.setattr(reporter.breaker, "open", True)
    reporter._forget()
    assert not reporter.breaker.open
    assert reporter.get_reporter().leases == {}


def test_an_outage_is_said_once_in_the_log(caplog):
    breaker = Breaker()
    breaker.trip(OSError("gone"))
    breaker.trip(OSError("gone"))
    breaker.reset()
    breaker.reset()
    assert [r.levelname for r in caplog.records] == ["WARNING", "WARNING"]


# -- Small parts ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, None), (812.345, 812.3), (0.000123456, 0.0001235), (123456.7, 123500)],
)
def test_significant(value, expected):
    assert significant(value) == expected


def test_samples_are_a_few_dozen_points_of_the_whole_curve():
    now = [0.0]
    samples = Samples(clock=lambda: now[0])
    for n in range(10_000):
        now[0] = n / 10
        samples.add(n)
    assert 20 <= len(samples.points) <= Samples.MOST
    assert samples.points[0] == (0, 0)
    assert samples.points[-1][0] > 900
    gaps = {
        round(b[0] - a[0])
        for a, b in zip(samples.points, samples.points[1:], strict=False)
    }
    assert max(gaps) <= 2 * min(gaps)


@pytest.mark.parametrize(("idle", "is_known"), [(2, True), (12, False)])
def test_polls_that_bring_nothing_new_have_no_pace(attempt, idle, is_known):
    polling = replace(attempt.lease.header, kind="poll")
    lease = replace(attempt.lease, header=polling)
    lease.progress.set(30, total=100)
    lease.go_on([(n, 10 * n) for n in range(4)], seconds=3 + idle)
    said = json.loads(f"{{{lease.members()}}}")
    assert [said[name] is not None for name in ("rate", "remaining")] == [is_known] * 2


def test_the_samples_of_many_polls_are_the_whole_curve_too():
    now, points = [0.0], []
    for n in range(2000):
        now[0] = n
        samples = Samples(clock=lambda: now[0])
        samples.go_on(points, seconds=n)
        samples.add(n)
        points = samples.points
    assert 20 <= len(points) <= Samples.MOST
    assert points[0] == (0, 0)
    assert points[-1][0] > 1900
    gaps = [b[0] - a[0] for a, b in pairwise(points)]
    assert max(gaps) <= 3 * min(gaps)


def test_a_fork_has_a_reporter_of_its_own(store):
    before = reporter.get_reporter()
    saved = reporter._reporter
    try:
        reporter._forget()
        assert reporter.get_reporter() is not before
    finally:
        reporter._reporter = saved


def test_a_group_name_holds_nothing_of_the_user():
    name = layer.group(f"{uuid.uuid4()}<script>\ud800")
    prefix, _, digest = name.partition(".")
    assert prefix == "progress"
    assert len(digest) == 32
    assert int(digest, 16)


PRELOADED = """
import sys, django
django.setup()
from celery.signals import worker_init
from django.conf import settings
module = settings.CHANNEL_LAYERS["default"]["BACKEND"].rpartition(".")[0]
assert module not in sys.modules
worker_init.send(None)
assert module in sys.modules
"""


def test_a_worker_imports_the_layer_before_it_forks():
    subprocess.run([sys.executable, "-c", PRELOADED], check=True, timeout=60)


def test_others_can_see_that_it_says_what_it_could_not_say_before():
    carrier, seen = Reporter(), []
    carrier.later.append(lambda: seen.append(carrier.catching_up))
    assert carrier._catch_up()
    assert seen == [True]
    assert not carrier.catching_up


def test_a_store_that_is_still_down_ends_the_catching_up():
    def fail():
        raise redis.ConnectionError("down")

    carrier = Reporter()
    carrier.later.append(fail)
    with pytest.raises(redis.ConnectionError):
        carrier._catch_up()
    assert carrier.later
    assert not carrier.catching_up
