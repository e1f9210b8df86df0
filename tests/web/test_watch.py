"""What viewers see when messages get lost and parts fail: the store's truth, soon."""

import asyncio
import threading
import time
from dataclasses import replace

import pytest
from channels.layers import channel_layers, get_channel_layer
from django.db import OperationalError

from channels_progress import history, layer, runs, watch
from channels_progress.errors import Unavailable
from channels_progress.models import Run
from channels_progress.read import unavailable
from channels_progress.store import get_store
from channels_progress.topic import Topic
from tests.web.conftest import Tab, anonymous, owner_of


@pytest.fixture
def cookie():
    return anonymous()


@pytest.fixture
async def watched(begun, cookie):
    """A tab that watches a running run: both."""
    hand = await begun(owner_of(cookie))
    async with Tab(cookie=cookie) as tab:
        await tab.watch(hand.run)
        await steady(hand.run)
        yield tab, hand


async def steady(run):
    """Past the second look that follows every subscription."""
    now = watch.current()
    await until(lambda: now._ear._joined and not now._topics[run].fresh)


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


# -- Messages


async def test_a_lost_message_is_made_up_for(watched):
    tab, hand = watched
    hand.report(70)
    assert (await tab.next())["percent"] == 70
    hand.end()
    assert (await tab.next())["state"] == "succeeded"


async def test_doubled_and_late_messages_change_nothing(watched):
    tab, hand = watched
    old, new = hand.report(20), hand.report(40)
    await hand.tell(new)
    await tab.until(percent=40)  # a look at the store may have shown 20 before
    await hand.tell(old)
    await hand.tell(new)
    await hand.tell(hand.report(60))
    assert (await tab.next())["percent"] == 60


async def test_a_late_message_does_not_put_off_the_next_look(watched, configure):
    """What came after it may be lost."""
    configure(RECONCILE_INTERVAL=60)
    tab, hand = watched
    now = watch.current()
    topic = now._topics[hand.run]
    soon = topic.due = asyncio.get_running_loop().time() + 30
    late = layer.message(hand.report(20))
    late["head"]["now"] -= 50_000
    now._heard(late)
    assert topic.due == soon  # before anything else is read
    assert (await tab.next())["percent"] == 20
    await hand.tell(hand.report(30))
    assert (await tab.next())["percent"] == 30
    assert topic.due > soon


async def test_a_wrong_clock_of_this_host_does_not_make_messages_late(
    watched, configure
):
    """What the history alone knows is of this host's clock."""
    tab, hand = watched
    now = watch.current()
    topic = now._topics[hand.run]
    ahead = replace(topic.snapshot, epoch="", now=topic.snapshot.now + 600_000)
    now._take(Topic("another"), ahead)
    configure(RECONCILE_INTERVAL=60)
    soon = topic.due = asyncio.get_running_loop().time() + 30
    await hand.tell(hand.report(30))
    assert (await tab.next())["percent"] == 30
    assert topic.due > soon


async def test_a_thousand_sockets_cost_one_encoding(watched, cookie, monkeypatch):
    tab, hand = watched
    snapshot, made = hand.report(30), []
    envelope = type(snapshot).envelope
    monkeypatch.setattr(
        type(snapshot), "envelope", lambda self: made.append(self) or envelope(self)
    )
    async with Tab(cookie=cookie) as one, Tab(cookie=cookie) as two:
        await one.watch(hand.run)
        await two.watch(hand.run)
        made.clear()
        await hand.tell(hand.report(50))
        for each in (tab, one, two):
            await each.until(percent=50)
    assert len(made) == 1


async def test_joins_that_wait_together_are_one_read(begun, configure, monkeypatch):
    configure(RECONCILE_INTERVAL=60)
    hand, asked, read = await begun(), [], runs.read
    monkeypatch.setattr(
        runs, "read", lambda ids, rows_of: asked.append(ids) or read(ids, rows_of)
    )
    now = watch.current()
    await asyncio.gather(*(now.read(hand.run) for _ in range(50)))
    assert asked == [[hand.run]]


async def test_a_message_without_text_sends_us_to_the_store(watched):
    tab, hand = watched
    hand.report(33)
    await layer._send(
        hand.run, {"type": "progress.run", "run": hand.run, "head": None, "text": None}
    )
    assert (await tab.next())["percent"] == 33


async def test_a_message_of_another_version_sends_us_to_the_store(watched):
    tab, hand = watched
    message = layer.message(hand.report(33))
    del message["head"]["rev"]
    await layer._send(hand.run, message | {"new": "field"})
    assert (await tab.next())["percent"] == 33


async def test_a_message_that_is_none_does_not_deafen(watched, caplog):
    tab, hand = watched
    await layer._send(hand.run, {"type": "progress.run"})
    await hand.tell(hand.report(33))
    assert (await tab.next())["percent"] == 33
    assert "not understood" in caplog.text


async def test_a_message_of_another_epoch_is_not_believed(watched):
    tab, hand = watched
    message = layer.message(hand.report(50))
    message["head"] |= {"epoch": "old", "rev": 999}
    message["text"] = hand.details(99).members()
    await layer._send(hand.run, message)
    assert (await tab.next())["percent"] == 50


async def test_a_run_that_nobody_watches_any_more_is_not_heard(watched):
    tab, hand = watched
    now = watch.current()
    now._heard(layer.message(hand.report(5)) | {"run": "another"})
    await tab.send("unwatch", run=hand.run)
    await until(lambda: not now._ear._joined)
    assert now.gauges()["watched"] == 0


async def test_an_end_ends_the_subscription(watched):
    tab, hand = watched
    await hand.tell(hand.end("failed", 50))
    run = await tab.next()
    assert (run["state"], run["percent"]) == ("failed", 50)
    await until(lambda: not watch.current()._ear._joined)
    assert watch.current().gauges()["watched"] == 0


# -- Derived states


async def test_silence_is_shown_as_lost_and_heals(begun, cookie, configure):
    configure(LOST_AFTER=0.5)
    hand = await begun(owner_of(cookie))
    async with Tab(cookie=cookie) as tab:
        await tab.watch(hand.run)
        lost = await tab.until(state="lost")
        assert lost["now"] - lost["seen"] > 500
        hand.write("report", 0)
        assert (await tab.next())["state"] == "running"


# -- A store that loses its data


async def test_an_emptied_store_is_healed_by_the_next_word(watched):
    tab, hand = watched
    await hand.tell(hand.report(60))
    await tab.next()
    get_store().client.delete(get_store().key(hand.run))
    await until(lambda: watch.current()._topics[hand.run].vanished)
    whole = {"restore": True, "epoch": "new", "owner": "x", "hop": 1, "attempt": 1}
    await hand.tell(hand.write("report", 61, **whole))
    run = await tab.next()
    assert (run["epoch"], run["percent"], run["state"]) == ("new", 61, "running")


async def test_a_worker_that_is_gone_too_is_lost_where_it_was_seen_last(
    begun, cookie, configure
):
    configure(LOST_AFTER=1.0)
    hand = await begun(owner_of(cookie))
    async with Tab(cookie=cookie) as tab:
        await tab.watch(hand.run)
        await hand.tell(hand.report(60))
        await tab.next()
        get_store().client.delete(get_store().key(hand.run))
        run = await tab.next()
        assert (run["state"], run["percent"], run["epoch"]) == ("lost", 60, "")
        assert await tab.silent()
        again = await tab.watch(hand.run)
        assert (again["state"], again["percent"]) == ("lost", 60)


async def test_a_run_that_has_vanished_altogether_is_forbidden(watched):
    tab, hand = watched
    get_store().client.delete(get_store().key(hand.run))
    await runs.in_thread(delete_row, hand.run)
    refusal = await tab.next()
    assert (refusal["code"], refusal["ref"]) == ("forbidden", "w")
    assert watch.current().gauges()["watched"] == 0


def delete_row(run):
    Run.objects.filter(pk=run).delete()


async def test_a_start_socket_ends_with_a_run_that_has_vanished(site, cookie):
    async with Tab("/ws/start/gen_random/", cookie) as tab:
        run = (await tab.until(type="run"))["run"]
        await steady(run)
        get_store().client.delete(get_store().key(run))
        await runs.in_thread(delete_row, run)
        assert await tab.closed() == 4403
        assert tab.seen[-1]["code"] == "forbidden"


# -- A store that cannot be reached


@pytest.fixture
def outage(site, settings):
    """A switch: the store's address leads nowhere, or back."""
    up = settings.CHANNELS_PROGRESS
    down = up | {"REDIS_URL": "redis://127.0.0.1:1/0"}

    def switch(is_down):
        settings.CHANNELS_PROGRESS = down if is_down else up

    return switch


async def test_an_outage_is_told_once_and_then_the_snapshot(
    watched, outage, monkeypatch
):
    monkeypatch.setattr(watch, "OUTAGE", 0.3)
    tab, hand = watched
    outage(True)
    error = await tab.next()
    assert (error["code"], error["run"], error["ref"]) == ("unavailable", hand.run, "w")
    failed = watch.current().reads_failed
    await until(lambda: watch.current().reads_failed > failed + 2)
    outage(False)
    assert (await tab.next())["state"] == "running"


async def test_a_store_that_hangs_is_told_with_the_first_read_that_fails(
    watched, monkeypatch
):
    """It was silent all the while that the read took."""
    monkeypatch.setattr(watch, "OUTAGE", 0.3)
    tab, _ = watched
    failed = []

    def hang(ids, rows_of):
        time.sleep(0.4)
        failed.append(ids)
        raise unavailable()

    monkeypatch.setattr(runs, "read", hang)
    assert (await tab.next())["code"] == "unavailable"
    assert len(failed) == 1


async def test_a_short_outage_is_not_told(watched, outage):
    tab, hand = watched
    outage(True)
    failed = watch.current().reads_failed
    await until(lambda: watch.current().reads_failed > failed)
    outage(False)
    await hand.tell(hand.report(20))
    assert (await tab.next())["percent"] == 20


async def test_who_joins_in_an_outage_is_told_and_served_after_it(
    begun, cookie, outage
):
    hand = await begun(owner_of(cookie))
    async with Tab(cookie=cookie) as tab, Tab(cookie=anonymous()) as stranger:
        outage(True)
        for one in (tab, stranger):
            error = await one.watch(hand.run)
            assert (error["code"], error["run"]) == ("unavailable", hand.run)
        outage(False)
        assert (await tab.next())["state"] == "running"
        assert (await stranger.next())["code"] == "forbidden"


async def test_who_goes_in_an_outage_waits_for_nothing(begun, cookie, outage):
    hand = await begun(owner_of(cookie))
    async with Tab(cookie=cookie) as tab:
        outage(True)
        await tab.watch(hand.run)
        await tab.send("unwatch", run=hand.run)
        await until(lambda: not watch.current()._topics)


async def test_a_read_that_breaks_is_an_outage(begun, cookie, monkeypatch, caplog):
    hand = await begun(owner_of(cookie))
    read = runs.read
    monkeypatch.setattr(runs, "read", None)
    async with Tab(cookie=cookie) as tab:
        assert (await tab.watch(hand.run))["code"] == "unavailable"
        monkeypatch.setattr(runs, "read", read)
        assert (await tab.next())["state"] == "running"
    assert "could not be read" in caplog.text


async def test_a_database_that_hangs_keeps_nobody_from_the_store(
    watched, begun, cookie, monkeypatch
):
    """What has been silent for a while, the history is asked about."""
    tab, hand = watched
    silent, back = await begun(owner_of(cookie)), threading.Event()
    store = get_store()
    store.client.hset(store.key(silent.run), "seen", 1)
    monkeypatch.setattr(history, "read", lambda ids: back.wait(30) and {})
    try:
        assert (await tab.watch(silent.run))["state"] == "lost"
        since = time.monotonic()
        hand.end()
        assert (await tab.until(run=hand.run))["state"] == "succeeded"
        assert time.monotonic() - since < 1
    finally:
        back.set()


@pytest.mark.django_db
def test_a_question_that_the_database_never_answers_is_asked_anew(monkeypatch):
    asked, back = [], threading.Event()

    def look(ids):
        asked.append(ids)
        return back.wait(30) and {} if len(asked) == 1 else {}

    monkeypatch.setattr(history, "read", look)
    monkeypatch.setattr(runs, "HISTORY_TIMEOUT", 0.05)
    reader = runs.Reader()
    try:
        for _ in range(2):
            with pytest.raises(OperationalError):
                reader._rows_of(["a"])
        assert asked == [["a"]]
        monkeypatch.setattr(runs, "GIVEN_UP", 0)
        monkeypatch.setattr(runs, "HISTORY_TIMEOUT", 10)
        assert reader._rows_of(["b"]) == {}
    finally:
        back.set()


async def test_a_session_that_cannot_be_checked_has_not_ended(
    watched, configure, monkeypatch
):
    tab, hand = watched
    now, asked = watch.current(), []

    async def down(function, *args, **kwargs):
        asked.append(function)
        raise unavailable()

    monkeypatch.setattr(watch.access, "settled", lambda *args: False)
    monkeypatch.setattr(runs, "in_thread", down)
    for _ in range(watch.SLOTS):
        await now._sessions()
    monkeypatch.undo()
    assert asked
    await hand.tell(hand.report(20))
    assert (await tab.next())["percent"] == 20


async def test_a_stranger_learns_nothing_while_nothing_can_be_read(
    watched, monkeypatch
):
    """Where an unknown run is unavailable, a known one is not forbidden."""
    _, hand = watched
    monkeypatch.setattr(runs, "read", None)
    now = watch.current()
    async with Tab(cookie=anonymous()) as stranger:
        assert (await stranger.watch(hand.run))["code"] == "unavailable"
        for _ in range(watch.SLOTS):
            await now._sessions()
        assert await stranger.silent()
        monkeypatch.undo()
        assert (await stranger.next())["code"] == "forbidden"


# -- A channel layer that fails


async def test_a_flushed_layer_leaves_nobody_deaf(watched):
    tab, hand = watched
    await get_channel_layer().flush()
    hand.report(40)
    assert (await tab.next())["percent"] == 40
    # The missed message was noticed, and the group is joined on a new channel.
    await until(lambda: hears(hand.run))
    await hand.tell(hand.report(50))
    assert (await tab.next())["percent"] == 50


def hears(run):
    """Whether the layer would bring this process a message of the run."""
    loop_layer = get_channel_layer()._get_layer()
    return loop_layer._get_group_channel_name(runs.group(run)) in loop_layer.groups


class Broken:
    """A layer that fails as long as it is told to."""

    def __init__(self):
        self.down = True
        self.calls = []
        self.queue = asyncio.Queue()

    async def call(self, name):
        self.calls.append(name)
        if self.down:
            raise ConnectionError(name)

    async def new_channel(self):
        await self.call("new_channel")
        return "channel"

    async def group_add(self, group, channel):
        await self.call("group_add")

    async def group_discard(self, group, channel):
        await self.call("group_discard")

    async def group_send(self, group, message):
        await self.queue.put(message)

    async def receive(self, channel):
        await self.call("receive")
        return await self.queue.get()


@pytest.fixture
def broken_layer():
    channel_layers.set("default", broken := Broken())
    yield broken
    del channel_layers.backends["default"]


async def test_without_a_layer_the_store_is_enough(broken_layer, begun, cookie):
    hand = await begun(owner_of(cookie))
    async with Tab(cookie=cookie) as tab:
        assert (await tab.watch(hand.run))["state"] == "running"
        hand.report(50)
        assert (await tab.next())["percent"] == 50


async def test_a_layer_that_comes_back_is_heard(broken_layer, begun, cookie, caplog):
    hand = await begun(owner_of(cookie))
    async with Tab(cookie=cookie) as tab:
        await tab.watch(hand.run)
        broken_layer.down = False
        await until(lambda: watch.current()._ear._joined)
        broken_layer.down = True
        await hand.tell(hand.report(50))
        assert (await tab.until(percent=50))["run"] == hand.run
        await until(lambda: "cannot be heard" in caplog.text)
        broken_layer.down = False
        broken_layer.calls.clear()
        await until(lambda: "group_add" in broken_layer.calls)
        await hand.tell(hand.report(60))
        await tab.until(percent=60)


async def test_no_layer_at_all(settings, begun, cookie):
    settings.CHANNEL_LAYERS = {}
    hand = await begun(owner_of(cookie))
    async with Tab(cookie=cookie) as tab:
        await tab.watch(hand.run)
        hand.end()
        assert (await tab.next())["state"] == "succeeded"


async def test_a_layer_that_hangs_holds_nobody_up(broken_layer, begun, cookie):
    async def hang(*args):
        await asyncio.Event().wait()

    broken_layer.down = False
    broken_layer.group_add = hang
    one = await begun(owner_of(cookie))
    two = await begun(owner_of(cookie))
    async with Tab(cookie=cookie) as tab:
        assert (await tab.watch(one.run))["state"] == "running"
        before = time.monotonic()
        assert (await tab.watch(two.run))["state"] == "running"
        assert time.monotonic() - before < 0.4  # the first waited 0.5 s, for both


async def test_groups_are_joined_again_now_and_then(watched):
    now = watch.current()
    await now._renew()
    await until(lambda: not now._ear._doubted)


async def test_the_core_layer_brings_messages_and_keeps_no_members(
    settings, begun, cookie
):
    settings.CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": settings.CHANNEL_LAYERS["default"]["CONFIG"],
        }
    }
    hand = await begun(owner_of(cookie))
    client = get_store().client
    async with Tab(cookie=cookie) as tab:
        await tab.watch(hand.run)
        await until(lambda: client.keys("asgi*group*"))
        await hand.tell(hand.report(50))
        await tab.until(percent=50)
    assert not client.keys("asgi*group*")
    await watch.current()._ear.leave()


# -- The end of a process


def test_a_process_that_ends_leaves_its_groups(broken_layer, settings):
    broken_layer.down = False
    loop = asyncio.new_event_loop()

    async def serve():
        now = watch.current()
        now._ear.want("r")
        now._clocks = [loop.create_task(watch._every(lambda: 60, now._renew))]
        await now._ear.settled()

    loop.run_until_complete(serve())
    watch._leave_groups()
    assert broken_layer.calls[-1] == "group_discard"
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    watch._leave_groups()


def test_what_goes_wrong_at_the_end_stays_quiet(monkeypatch):
    class Wrong:
        def leave_groups(self):
            raise OSError

    monkeypatch.setattr(watch, "_watches", {None: Wrong()})
    watch._leave_groups()


async def test_a_clock_goes_on_after_a_failure(caplog):
    ticks = []

    async def act():
        ticks.append(1)
        raise ValueError

    task = asyncio.create_task(watch._every(lambda: 0, act))
    await until(lambda: len(ticks) > 2)
    task.cancel()
    assert "failed" in caplog.text


# -- Many starts


async def test_all_of_many_starts_get_their_turn(site):
    async with Tab(cookie=anonymous()) as tab:
        for ref in range(40):
            await tab.send("start", task="gen_random", ref=ref)
        refs = {(await tab.until(type="started"))["ref"] for _ in range(40)}
    assert refs == set(range(40))


@pytest.mark.django_db  # whose connections a thread may still hold
async def test_who_waits_is_told_when_somebody_finds_a_part_down():
    gate, begun = watch.Gate(), []

    def down():
        begun.append(1)
        raise unavailable()

    results = await asyncio.gather(
        *(gate.in_thread(down) for _ in range(50)), return_exceptions=True
    )
    assert {type(result) for result in results} == {Unavailable}
    assert len(begun) <= 12
    assert await gate.in_thread(lambda: "up again") == "up again"
