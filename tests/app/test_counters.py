import os
import sys
from io import StringIO

import pytest
from celery import shared_task
from django.core.management import CommandError, call_command

from channels_progress import counters, layer, lifecycle, threads
from channels_progress import store as stores
from channels_progress.begin import begin
from channels_progress.counters import Counters
from channels_progress.current import Progress, leave
from channels_progress.header import Header
from channels_progress.lease import Lease
from channels_progress.outbox import Outbox
from channels_progress.reporter import Reporter, get_reporter
from tests.core.hand import Hand
from tests.stack import wait_for


@pytest.fixture
def fresh(monkeypatch):
    """A process that has counted nothing yet, and whose thread never comes by."""
    fresh = Counters()
    fresh._started = True
    monkeypatch.setattr(counters, "_counters", fresh)
    return fresh


def stats():
    out = StringIO()
    call_command("progress_stats", stdout=out)
    lines = [line.split() for line in out.getvalue().splitlines()]
    return {name: number for name, number, *_ in lines}


def test_every_name_is_known_from_the_beginning(fresh):
    counters.bump("restarts", 2)
    counters.bump("restarts")
    assert counters.read() == {**dict.fromkeys(counters.NAMES, 0), "restarts": 3}


def test_what_is_new_is_added_to_the_numbers_of_all(fresh, store):
    other = Counters()
    other._started = True
    other.bump("restarts", 5)
    other.flush()
    counters.bump("restarts")
    counters.flush()
    counters.flush()
    counters.bump("restarts")
    counters.flush()
    assert stats()["restarts"] == "7"
    assert "since" in stats()


def test_nothing_counted_is_nothing_written(fresh, store):
    counters.flush()
    assert store.client.keys(store.key("counters*")) == []
    assert set(stats()) == set(counters.NAMES)


def test_open_sockets_are_those_of_living_processes(fresh, store):
    key = store.key("counters:sockets")
    store.client.hset(key, mapping={"a:1": f"4 {2**40}", "b:2": "7 1000"})
    counters.bump("sockets", 3)
    counters.flush()
    assert stats()["sockets"] == "7"
    assert store.client.hexists(key, "b:2") == 0
    counters.bump("sockets", -3)
    counters.flush()
    assert stats()["sockets"] == "4"


def test_open_sockets_are_said_again_so_that_they_stay_true(fresh, store):
    counters.bump("sockets")
    counters.flush()
    store.client.delete(store.key("counters:sockets"))
    counters.flush()
    assert stats()["sockets"] == "1"


def test_what_the_store_does_not_take_is_kept_for_later(fresh, store, settings):
    down = {**settings.CHANNELS_PROGRESS, "REDIS_URL": "redis://127.0.0.1:1/0"}
    up, settings.CHANNELS_PROGRESS = settings.CHANNELS_PROGRESS, down
    counters.bump("restarts")
    counters.flush()
    settings.CHANNELS_PROGRESS = up
    counters.flush()
    assert stats()["restarts"] == "1"


def test_stats_say_that_the_store_is_down(store_down):
    with pytest.raises(CommandError, match="The store cannot be read"):
        stats()


def test_a_thread_carries_the_numbers_out(store, monkeypatch):
    monkeypatch.setattr(counters, "FLUSH_SECONDS", 0.01)
    one = Counters()
    one.bump("restarts")
    one.bump("restarts")
    wait_for(lambda: stats()["restarts"] == "2", "the numbers are out")


def test_a_forked_child_counts_anew(fresh):
    counters.bump("restarts")
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writer, str(counters.read()["restarts"]).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 10) == b"0"
    os.close(reader)
    os.close(writer)


def test_without_gevent_a_lock_is_a_threads(monkeypatch):
    monkeypatch.setitem(sys.modules, "gevent.monkey", None)
    lock = threads.lock()
    assert lock.acquire(blocking=False)
    assert not lock.acquire(blocking=False)


# -- Who counts -------------------------------------------------------------------


def test_a_store_that_is_down_is_counted(fresh, store_down):
    for call in (
        lambda store: store.read(["a"]),
        lambda store: store.call("cancel", "a"),
        lambda store: store.admit({"a": 1}),
    ):
        with pytest.raises(stores.ERRORS):
            call(stores.get_store())
    assert counters.read()["store_failures"] == 3


class BrokenLayer:
    """A channel layer that carries nothing."""

    async def group_send(self, group, message):
        raise OSError("gone")


async def test_a_message_that_cannot_be_sent_is_counted_once(fresh, monkeypatch):
    monkeypatch.setattr(layer, "get_channel_layer", lambda _: BrokenLayer())
    await layer._send("a", {})
    assert counters.read()["messages_dropped"] == 1


async def test_a_socket_that_is_given_up_is_counted_once(fresh):
    async def send(message):
        raise OSError("nobody there")

    outbox = Outbox(send)
    outbox._task = None
    outbox.drop("it does not read")
    outbox.drop("it does not read")
    assert counters.read()["sockets_dropped"] == 1


@pytest.fixture
def superseded(store):
    """The lease of an attempt that another one has replaced."""
    hand = Hand(store)
    hand.running()
    header = Header(run=hand.id, owner="o", task="t")
    return Lease(header, Progress(), attempts=1, worker="w|m|1", number=1)


def test_a_refused_report_is_counted(fresh, superseded, valkey):
    reporter = Reporter()
    reporter.leases[superseded.id] = superseded
    reporter._report()
    assert counters.read()["writes_refused"] == 1
    assert not reporter.leases


def test_a_refused_end_is_counted(fresh, superseded):
    lifecycle.finish(superseded, lifecycle.End("succeeded"))
    assert counters.read()["writes_refused"] == 1


@shared_task
def body():
    """Begins, and does nothing."""


def begin_in(hand, mark):
    """Begin a run's message in this process, as a worker does."""
    header = Header(run=hand.id, owner="o", task="body", mark=mark)
    body.push_request(id=hand.id, retries=0, headers=header.as_headers())
    try:
        begin(body, header)
    finally:
        get_reporter().remove(body.request.progress_lease)
        leave()
        body.pop_request()


def test_a_begin_after_a_dead_worker_is_counted_as_a_restart(fresh, store, db):
    lost, queued = Hand(store), Hand(store)
    lost.running()
    lost.silence()
    begin_in(lost, mark="copy")
    queued.create()
    begin_in(queued, mark="copy")
    assert counters.read()["restarts"] == 1
