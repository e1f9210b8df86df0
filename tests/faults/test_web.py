"""The web process, the channel layer or a client breaks, while pages are open."""

import asyncio
import json
import signal
import socket
import time
from itertools import pairwise

import pytest

from tests.faults.lab import LOST_AFTER, REAL, within
from tests.faults.mischief import DEEDS
from tests.faults.pages import FINISHED, Page, arrived, essence, opened, owner_of
from tests.faults.sites import Site
from tests.stack import wait_for

PAGES = 500 if REAL else 40
RUNS = 200 if REAL else 40

# Each server and each layer at least; with the real intervals, all that there are.
PAIRS = [("daphne", "core"), ("uvicorn", "pubsub")]
if REAL:
    PAIRS += [("daphne", "pubsub"), ("uvicorn", "core")]
# With 500 pages, nothing else is to happen in this process.
SITES = [
    pytest.param(*pair, id="-".join(pair), marks=pytest.mark.together(pair, alone=REAL))
    for pair in PAIRS
]
on_every_site = pytest.mark.parametrize(("server", "layer"), SITES)


async def start(lab, visitor, task, **kwargs):
    owner = await owner_of(lab, visitor)
    return await asyncio.to_thread(lab.start, task, owner=owner, **kwargs)


def is_running(page):
    return all(page.last(run).get("state") == "running" for run in page.runs)


def is_finished(page):
    return bool(page.runs) and all(page.finished(run) for run in page.runs)


async def all_pages(pages, condition, timeout=60):
    await asyncio.gather(*(page.until(condition, timeout) for page in pages))


# --- The web process ------------------------------------------------------------------


@on_every_site
async def test_it_is_killed_and_restarted(server, layer, sites, measure):
    """Every page comes back by itself, to the right snapshot; and no run is started
    twice."""
    with sites(server, layer) as lab:
        async with arrived(lab.url, 4) as visitors:
            started = ("gen_random", {"speed": 20})
            before = await asyncio.to_thread(lab.desk, "count", task="gen_random")
            run = await start(lab, visitors[0], "gated")
            watchers = [Page(visitors[0], [run.id]) for _ in range(PAGES)]
            starters = [
                Page(visitors[1 + i % 3], start=started) for i in range(PAGES // 10)
            ]
            async with opened([*watchers, *starters]) as pages:
                await all_pages(watchers, is_running)
                await all_pages(starters, lambda page: page.runs)
                await asyncio.to_thread(lab.web.kill)
                killed = time.monotonic()
                late = [Page(visitors[1 + i], start=started) for i in range(3)]
                async with opened(late):
                    await asyncio.to_thread(lab.web.start)
                    back = time.monotonic()
                    await all_pages(watchers, lambda page: page.since(killed, run.id))
                    measure(
                        f"{server} killed, {PAGES} pages open: all back",
                        time.monotonic() - back,
                        within(8),
                    )
                    run.open()
                    await all_pages([*pages, *late], is_finished, timeout=90)
            for page in pages:
                page.assert_never_back()
            assert {p.last(run.id)["state"] for p in watchers} == {"succeeded"}
            after = await asyncio.to_thread(lab.desk, "count", task="gen_random")
            keys = {page.key for page in [*starters, *late]}
            assert after["count"] - before["count"] == len(keys)


@on_every_site
async def test_it_is_told_to_stop(server, layer, sites, measure):
    """uvicorn says that it will be back; daphne drops its sockets, and leaves nobody
    in a group of the core layer, which keeps the members in Redis."""
    with sites(server, layer) as lab:

        def groups():
            return set(lab.layer.scan_iter("asgi:group:*"))

        others = groups()  # a server that was killed has left nobody's
        async with arrived(lab.url) as (visitor,):
            run = await start(lab, visitor, "gated")
            pages = [Page(visitor, [run.id]) for _ in range(PAGES)]
            async with opened(pages):
                await all_pages(pages, is_running)
                if layer == "core":
                    await asyncio.to_thread(
                        wait_for, lambda: groups() - others, "the run has its group"
                    )
                stopped = time.monotonic()
                await asyncio.to_thread(lab.web.stop)
                assert groups() <= others
                await asyncio.to_thread(lab.web.start)
                back = time.monotonic()
                await all_pages(pages, lambda page: page.since(stopped, run.id))
                measure(
                    f"{server} told to stop, {PAGES} pages open: all back",
                    time.monotonic() - back,
                    within(8),
                )
                codes = {page.codes[0] for page in pages}
                assert codes == {1012} if server == "uvicorn" else codes
                run.open()
                await all_pages(pages, is_finished)


@on_every_site
async def test_a_visitor_comes_while_it_is_away(server, layer, sites):
    with sites(server, layer) as lab:
        async with arrived(lab.url) as (visitor,):
            for number in (signal.SIGTERM, signal.SIGKILL):
                await asyncio.to_thread(lab.web.stop, number)
                page = Page(visitor, start=("gen_random", {"speed": 50}))
                async with opened([page]):
                    tries = page.codes
                    await asyncio.to_thread(
                        wait_for, lambda t=tries: len(t) >= 2, "it has tried twice"
                    )
                    await asyncio.to_thread(lab.web.start)
                    await page.until(is_finished)
                assert len(page.runs) == 1


# --- The channel layer ----------------------------------------------------------------


@pytest.mark.together(alone=REAL)
@pytest.mark.parametrize("layer", ["pubsub", *(["core"] if REAL else [])])
async def test_messages_are_dropped_doubled_delayed_and_reordered(layer, measure):
    with Site(layer=layer, web_env={"FAULTS_LAYER": "1"}) as lab:
        async with arrived(lab.url, 4) as visitors:
            async with opened([Page(visitor) for visitor in visitors]) as pages:
                for i in range(RUNS):
                    page = pages[i % 4]
                    run = await start(lab, page.visitor, "steps", n=40)
                    await page.add(run.id)
                await all_pages(pages, is_finished, timeout=180)
            for page in pages:
                page.assert_never_back()
                for run in page.runs:
                    truth = await asyncio.to_thread(lab.run(run).now)
                    assert essence(page.last(run)) == essence(truth)
                    assert truth["state"] == "succeeded"
                    shown = page.shown[run][-1][0]
                    ended = lab.run(run).log[-1][0]
                    measure(
                        "messages mistreated: the end is shown",
                        shown - ended,
                        within(3),
                    )
        for deed in DEEDS:
            assert lab.web.output.count(f"A message was {deed}") > 1, deed


def breaks_of(lab, layer):
    """What may befall a layer, each by its name."""

    def flushed():
        lab.layer.flushdb()

    def without_groups():
        find = lab.layer.scan_iter
        groups = wait_for(lambda: list(find("asgi:group:*")), "there is a group")
        lab.layer.delete(*groups)

    proxy = lab.proxy
    ways = [proxy.cut, proxy.down, proxy.slow, proxy.blackhole, flushed]
    return [*ways, without_groups] if layer == "core" else ways


@on_every_site
async def test_the_layer_breaks(server, layer, sites, measure):
    """Pages that are open then, and pages that are opened afterwards, see numbers and
    the end all the same."""
    with sites(server, layer) as lab:
        async with arrived(lab.url) as (visitor,):
            for break_it in breaks_of(lab, layer):
                run = await start(lab, visitor, "gated")
                early = Page(visitor, [run.id])
                late = [Page(visitor, [run.id]) for _ in range(100 if REAL else 10)]
                async with opened([early]):
                    await early.until(is_running)
                    break_it()
                    broken = time.monotonic()
                    await early.until(lambda p, b=broken, r=run: p.since(b, r.id))
                    measure(
                        f"layer {layer} {break_it.__name__}: goes on",
                        time.monotonic() - broken,
                        within(3),
                    )
                    async with opened(late):
                        await all_pages(late, is_running)
                        run.open()
                        await asyncio.to_thread(run.until, "succeeded")
                        ended = run.seen_at
                        await all_pages([early, *late], is_finished)
                        measure(
                            f"layer {layer} {break_it.__name__}: the end is shown",
                            time.monotonic() - ended,
                            within(3),
                        )
                    early.assert_never_back()
                lab.mend()


# --- Clients --------------------------------------------------------------------------


@on_every_site
async def test_clients_that_do_not_read(server, layer, sites):
    """They cost little, their neighbour notices nothing, and who reads again sees the
    end, unless it was given up meanwhile: then a page comes back."""
    with sites(server, layer) as lab:
        async with arrived(lab.url, 2) as (visitor, other):
            runs = [await start(lab, visitor, "chatters") for _ in range(7)]
            mine = await start(lab, other, "gated")
            neighbour = Page(other, [mine.id])
            sleepers = [await handshake(lab, visitor, runs) for _ in range(40)]
            async with opened([neighbour]):
                await neighbour.until(is_running)
                before = lab.web.memory()
                since = time.monotonic()
                # What is tested is how long they sleep.
                await asyncio.sleep(60 if REAL else 10)
                grown = lab.web.memory() - before
                assert grown < 50, f"{grown} MB more"
                times = [at for at, _ in neighbour.shown[mine.id] if at > since]
                assert max(b - a for a, b in pairwise(times)) < within(2)
                for run in (*runs, mine):
                    run.open()
                await neighbour.until(is_finished)
                for run in runs:
                    await asyncio.to_thread(run.until_end)
                woken = [read_on(reader, runs) for reader, _ in sleepers[:5]]
                for given_up, finished in await asyncio.gather(*woken):
                    assert given_up or finished == {run.id for run in runs}
                    assert given_up or not REAL  # after a minute they all are
            back = Page(visitor, [run.id for run in runs])
            async with opened([back]):
                await back.until(is_finished)
                # What it missed does not come: the first thing it is told is the last.
                assert {len(log) for log in back.shown.values()} == {1}
            for _, writer in sleepers:
                writer.close()


async def handshake(lab, visitor, runs):
    """An open socket that watches runs, and does not read what comes."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", lab.port))
    reader, writer = await asyncio.open_connection(sock=raw, limit=2**10)
    writer.write(
        b"GET /ws/progress/ HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: %s\r\n"
        b"Cookie: %s\r\n\r\n" % (lab.port, lab.url.encode(), visitor.cookie.encode())
    )
    for run in runs:
        text = b'{"action":"watch","run":"%s"}' % run.id.encode()
        writer.write(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
    await writer.drain()
    return reader, writer


async def read_on(reader, runs):
    """Read until the server has closed, or has told of every run that it has ended:
    whether it has closed, and the runs whose end was told."""
    finished = set()
    try:
        async with asyncio.timeout(60):
            await reader.readuntil(b"\r\n\r\n")
            while len(finished) < len(runs):
                kind, length = await reader.readexactly(2)
                if length == 126:
                    length = int.from_bytes(await reader.readexactly(2))
                text = await reader.readexactly(length)
                if kind == 0x88:
                    return True, finished
                message = json.loads(text) if kind == 0x81 else {}
                if message.get("state") in FINISHED:
                    finished.add(message["run"])
    except (asyncio.IncompleteReadError, ConnectionError):
        return True, finished
    return False, finished


@on_every_site
async def test_a_client_that_floods(server, layer, sites):
    with sites(server, layer) as lab:
        async with arrived(lab.url, 2) as (visitor, other):
            mine = await start(lab, other, "gated")
            neighbour = Page(other, [mine.id])
            async with opened([neighbour]):
                await neighbour.until(is_running)
                before = lab.web.memory()
                since = time.monotonic()
                code = await flood(visitor)
                assert code in (1006, 1008)
                assert lab.web.memory() - before < 50
                await neighbour.until(lambda page: len(page.since(since, mine.id)) > 4)
                assert neighbour.codes == []
                mine.open()
                await neighbour.until(is_finished)


async def flood(visitor):
    """Send until the server closes, for 30 s at most; the close code.

    uvicorn reads on for 10 s where a client takes no close.
    """
    async with visitor.socket() as flooder:
        deadline = time.monotonic() + 30
        try:
            while time.monotonic() < deadline:
                await flooder.connection.send('{"action": "nothing"}' * 50)
                await asyncio.sleep(0)  # let others do something
        except Exception:
            return await flooder.until_closed(10)
    return None


@on_every_site
async def test_an_idle_socket_stays(server, layer, sites):
    """redis-py 8 gives up a core layer that brings nothing for 7 s, unless it is told.
    A run that has nothing new to say sends no message."""
    with sites(server, layer) as lab:
        async with arrived(lab.url) as (visitor,):
            deaf = lab.web.output.count("The channel layer cannot be heard")
            run = await start(lab, visitor, "listens")
            page = Page(visitor, [run.id])
            nothing = Page(visitor, [])
            async with opened([page, nothing]):
                await page.until(is_running)
                await asyncio.sleep(120 if REAL else 9)  # what is tested
                assert page.codes == nothing.codes == []
                now = lab.web.output.count("The channel layer cannot be heard")
                assert now == deaf
                run.open()
                await page.until(is_finished)


# --- Everything at once ---------------------------------------------------------------


@on_every_site
async def test_store_and_database_are_both_away(server, layer, sites):
    """Viewers are told `unavailable`; nobody is told `forbidden`, nobody is let in."""
    with sites(server, layer) as lab:
        async with arrived(lab.url, 2) as (visitor, stranger):
            run = await start(lab, visitor, "gated")
            page = Page(visitor, [run.id])
            async with opened([page]):
                await page.until(is_running)
                # To find no run is to read the database, which stays open then.
                unknown = Page(stranger, ["00000000-0000-4000-8000-000000000000"])
                async with opened([unknown]):
                    await unknown.until(lambda page: page.errors)
                assert {e["code"] for e in unknown.errors} == {"forbidden"}
                with lab.no_database(), lab.frozen_valkey():
                    await page.until(lambda page: page.errors, timeout=within(6))
                    late = [Page(v, [run.id]) for v in (visitor, stranger)]
                    async with opened(late):
                        await all_pages(late, lambda page: page.errors)
                    for each in (page, *late):
                        assert {e["code"] for e in each.errors} == {"unavailable"}
                    assert not late[1].shown
                broken = time.monotonic()
                await page.until(lambda page: page.since(broken, run.id))
                assert page.codes == []
                run.open()
                await page.until(is_finished)


@on_every_site
async def test_a_worker_dies_and_the_page_knows(server, layer, sites, measure):
    """One run, seen from a page: lost, the next attempt, its end."""
    with sites(server, layer) as lab:
        async with arrived(lab.url) as (visitor,):
            run = await start(lab, visitor, "gated")
            page = Page(visitor, [run.id])
            async with opened([page]):
                await page.until(is_running)
                (worker,) = lab.workers
                await asyncio.to_thread(lab.fire, worker)
                killed = time.monotonic()
                await page.until(lambda p: p.last(run.id)["state"] == "lost")
                measure(
                    "worker killed: the page says lost",
                    time.monotonic() - killed,
                    within(LOST_AFTER + 4),
                )
                later = (await visitor.run(run.id)).json()
                assert later["state"] == "lost"
                assert later["now"] - later["seen"] > 1000 * LOST_AFTER
                again = await asyncio.to_thread(lab.hire, concurrency=lab.concurrency)
                again.hired_by = None
                await page.until(lambda p: p.last(run.id)["attempt"] == 2, timeout=100)
                measure(
                    "worker killed: the page shows the next attempt",
                    time.monotonic() - killed,
                    within(100),
                )
                run.open()
                await page.until(is_finished)
                page.assert_never_back()


@on_every_site
async def test_a_thousand_changes_while_nobody_reads(server, layer, sites):
    """The socket is open and unread; then the run ends: the end is shown."""
    with sites(server, layer) as lab:
        fast = {"PROGRESS_REPORT_INTERVAL": "0.001"}
        worker = await asyncio.to_thread(
            lab.hire, "hurries", concurrency=1, env=fast, pool="threads"
        )
        async with arrived(lab.url) as (visitor,):
            run = await start(lab, visitor, "hurries", revs=1000)
            async with visitor.socket() as sleeper:
                await sleeper.send("watch", run=run.id)
                end = await asyncio.to_thread(run.until_end)
                assert end["rev"] > 1000
                last = await sleeper.until_finished(run.id)
                assert essence(last) == essence(end)
        await asyncio.to_thread(lab.fire, worker)


@on_every_site
async def test_valkey_restarts_under_open_pages(server, layer, sites, measure):
    with sites(server, layer) as lab:
        async with arrived(lab.url) as (visitor,):
            run = await start(lab, visitor, "gated")
            pages = [Page(visitor, [run.id]) for _ in range(20)]
            async with opened(pages):
                await all_pages(pages, is_running)
                for empty in (False, True):
                    await asyncio.to_thread(lab.valkey.restart, empty)
                    back = time.monotonic()
                    await all_pages(
                        pages, lambda p, b=back: len(p.since(b, run.id)) > 1
                    )
                    what = "emptied" if empty else "restarted"
                    measure(
                        f"Valkey {what}: pages move again",
                        time.monotonic() - back,
                        within(5),
                    )
                run.open()
                await all_pages(pages, is_finished)
            for page in pages:
                page.assert_never_back()
                assert page.codes == []
            await asyncio.to_thread(works_again, lab)


def works_again(lab):
    """The worker takes tasks again."""
    wait_for(lambda: lab.start("quick").until_end()["state"] == "succeeded", "it works")
