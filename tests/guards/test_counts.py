"""What things cost, counted exactly: queries, commands, reads, tasks, bytes.

What a run costs its worker is counted in `tests/core/test_cost.py`.
"""

import asyncio
import contextlib
import json
import uuid

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from channels_progress import runs, watch
from channels_progress.courier import couriers
from channels_progress.run import Details, Snapshot
from channels_progress.store import SCRIPT, Store, get_store
from tests.core.test_cost import connections, tapped
from tests.web.conftest import Tab, anonymous, owner_of
from tests.web.test_watch import steady

TEXTS = ("title", "message", "result", "error")


def submit(key, owner="a:counts"):
    return runs.submit("gen_random", {}, owner=owner, key=key)


@pytest.fixture
def warm(site):
    """A site where somebody has started something before."""
    get_store().client.script_load(SCRIPT)
    submit(uuid.uuid4().hex)
    return site


def test_a_start_is_two_queries(warm):
    with CaptureQueriesContext(connection) as queries:
        submit(uuid.uuid4().hex)
    verbs = [query["sql"].split()[0] for query in queries]
    # Is the key known and has the owner too many; and the row, without a transaction.
    assert verbs == ["SELECT", "INSERT"]


def test_a_start_is_two_round_trips_to_the_store_and_a_message(warm):
    with tapped(warm) as tap:
        submit(uuid.uuid4().hex)
    sent = [command.split()[0] for command in tap.commands]
    ours = ["MULTI", "SET", "INCRBY", "SET", "INCRBY", "EXEC", "EVALSHA"]
    assert sent == [*ours, "LPUSH", "ECHO"]


def test_the_same_key_again_is_two_queries_and_two_reads(warm):
    key = uuid.uuid4().hex
    submit(key)
    with CaptureQueriesContext(connection) as queries, tapped(warm) as tap:
        submit(key)
    assert [query["sql"].split()[0] for query in queries] == ["SELECT", "SELECT"]
    sent = [command.split()[0] for command in tap.commands]
    assert sent == ["TIME", "HMGET"] * 2 + ["ECHO"]


@pytest.fixture
def reads(monkeypatch):
    """How many runs each round trip to the store has read."""
    sizes, read = [], Store.read

    def counting(store, ids):
        ids = list(ids)
        sizes.append(len(ids))
        return read(store, ids)

    monkeypatch.setattr(Store, "read", counting)
    return sizes


async def test_a_message_is_no_read(begun, configure, reads):
    configure(RECONCILE_INTERVAL=60)
    cookie = anonymous()
    hand = await begun(owner_of(cookie))
    async with Tab(cookie=cookie) as tab:
        await tab.watch(hand.run)
        reads.clear()
        for number in range(10, 20):
            await hand.tell(hand.report(number))
            assert (await tab.next())["percent"] == number
    assert reads == []


async def test_those_who_come_back_together_share_their_reads(begun, configure, reads):
    configure(RECONCILE_INTERVAL=60)
    hands = [await begun() for _ in range(30)]
    now = watch.current()
    reads.clear()
    await asyncio.gather(*(now.read(hand.run) for hand in hands for _ in range(3)))
    assert reads == [30]


async def test_a_quiet_run_is_read_once_an_interval(begun, configure, reads):
    cookie = anonymous()
    hand = await begun(owner_of(cookie))
    async with Tab(cookie=cookie) as one, Tab(cookie=cookie) as two:
        await one.watch(hand.run)
        await two.watch(hand.run)
        await steady(hand.run)
        reads.clear()
        async with asyncio.timeout(10):
            while len(reads) < 3:
                await asyncio.sleep(0.01)
        assert set(reads) == {1}


async def test_a_message_to_many_sockets_is_one_task(begun, monkeypatch):
    cookie = anonymous()
    hand = await begun(owner_of(cookie))
    async with contextlib.AsyncExitStack() as stack:
        tabs = [await stack.enter_async_context(Tab(cookie=cookie)) for _ in range(4)]
        for tab in tabs:
            await tab.watch(hand.run)
        await steady(hand.run)
        carriers, dispatch = [], type(couriers())._dispatch
        monkeypatch.setattr(
            type(couriers()),
            "_dispatch",
            lambda self: carriers.append(1) or dispatch(self),
        )
        await hand.tell(hand.report(50))
        for tab in tabs:
            assert (await tab.next())["percent"] == 50
    assert len(carriers) == 1


@pytest.fixture
def envelopes(monkeypatch):
    """The runs whose envelope was put together, each as often as that happened."""
    made, envelope = [], Snapshot.envelope
    monkeypatch.setattr(
        Snapshot, "envelope", lambda self: made.append(self.id) or envelope(self)
    )
    return made


async def test_a_message_to_many_sockets_is_one_envelope(begun, envelopes):
    cookie = anonymous()
    hand = await begun(owner_of(cookie))
    async with contextlib.AsyncExitStack() as stack:
        tabs = [await stack.enter_async_context(Tab(cookie=cookie)) for _ in range(4)]
        for tab in tabs:
            await tab.watch(hand.run)
        await steady(hand.run)
        envelopes.clear()
        for number in (50, 60):
            await hand.tell(hand.report(number))
            for tab in tabs:
                assert (await tab.next())["percent"] == number
    assert envelopes == [hand.run] * 2


async def test_a_viewer_more_is_no_subscription_and_no_connection(begun, site):
    cookie = anonymous()
    hand = await begun(owner_of(cookie))
    async with contextlib.AsyncExitStack() as stack:

        async def look():
            tab = await stack.enter_async_context(Tab(cookie=cookie))
            await tab.watch(hand.run)
            await steady(hand.run)

        await look()
        before = connections(site)
        with tapped(site) as tap:
            for _ in range(3):
                await look()
        assert connections(site) == before + 1  # the tap's
    assert {command.split()[0] for command in tap.commands} & {"SUBSCRIBE"} == set()


def test_the_largest_live_message_without_its_texts():
    details = Details(
        run=str(uuid.uuid4()),
        task="import_rows",
        attempts=6,
        current=123_456_789,
        total=987_654_321,
        unit="row",
        rate=12_345_000,
        remaining=123_400,
        pausable=True,
    )
    moment = 1_763_700_000_123
    snapshot = Snapshot(
        id=details.run,
        now=moment,
        epoch="0123abcd",
        rev=123_456,
        state="running",
        asked="cancel",
        attempt=5,
        reason=None,
        due=None,
        queued=moment,
        started=moment,
        ended=None,
        seen=moment,
        changed=moment,
        error="null",
        members=details.members(),
    )
    envelope = snapshot.envelope()
    message = json.loads(envelope)
    texts = sum(len(json.dumps(message[name])) for name in TEXTS)
    assert len(envelope.encode()) - texts <= 500
