"""The web process, the channel layer or a client breaks, while pages are open."""

import asyncio
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.client import Visitor
from tests.faults.lab import REAL, Lab, within
from tests.faults.pages import Page, arrived, essence, opened, owner_of
from tests.faults.proxy import Proxy
from tests.stack import wait_for

# Young, and many pages at once: not yet proven steady enough for every change.
pytestmark = pytest.mark.nightly

PAGES = 500 if REAL else 120
RUNS = 200 if REAL else 60


class WebLab(Lab):
    """The site with a worker, its runs started in the name of a visitor."""

    def __init__(self, server="daphne", layer_url=None, concurrency=4, **env):
        super().__init__(server=server, env=env)
        self.concurrency = concurrency
        if layer_url:
            self.env["CHANNEL_REDIS_URL"] = layer_url

    def __enter__(self):
        super().__enter__()
        self.hire(concurrency=self.concurrency)
        return self

    def memory(self):
        """Resident bytes of the web process."""
        pages = Path(f"/proc/{self.web.pid}/statm").read_text().split()[1]
        return int(pages) * 4096


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


@pytest.mark.parametrize("server", ["daphne", "uvicorn"])
async def test_it_is_killed_and_restarted(server, measure):
    """Every page comes back by itself, at another moment than the others, to the
    right snapshot; and no run is started twice."""
    with WebLab(server) as lab:
        async with arrived(lab.url, 4) as visitors:
            run = await start(lab, visitors[0], "gated")
            watchers = [Page(visitors[0], [run.id]) for _ in range(PAGES)]
            starters = [
                Page(visitors[1 + i % 3], start=("gen_random", {"speed": 20}))
                for i in range(PAGES // 10)
            ]
            async with opened([*watchers, *starters]) as pages:
                await all_pages(watchers, is_running)
                await all_pages(starters, lambda page: page.runs)
                await asyncio.to_thread(lab.web.kill)
                killed = time.monotonic()
                late = [
                    await Page(
                        visitors[1 + i % 3], start=("gen_random", {"speed": 20})
                    ).open()
                    for i in range(3)
                ]
                await asyncio.to_thread(lab.web.start)
                back = time.monotonic()
                await all_pages(watchers, lambda page: page.since(killed, run.id))
                measure(
                    f"{server} killed, {PAGES} pages: all back",
                    time.monotonic() - back,
                    within(8),
                )
                run.open()
                await all_pages([*pages, *late], is_finished, timeout=90)
                for page in late:
                    await page.close()
            returned = sorted(min(t for t in p.opened if t > killed) for p in watchers)
            assert returned[-1] - returned[0] > 0.3
            for page in pages:
                page.assert_never_back()
            assert {p.last(run.id)["state"] for p in watchers} == {"succeeded"}
            keys = {page.key for page in [*starters, *late]}
            assert lab.desk("count", task="gen_random")["count"] == len(keys)


async def test_uvicorn_says_that_it_will_be_back():
    with WebLab("uvicorn") as lab:
        async with arrived(lab.url) as (visitor,):
            run = await start(lab, visitor, "gated")
            pages = [Page(visitor, [run.id]) for _ in range(30)]
            async with opened(pages):
                await all_pages(pages, is_running)
                stopped = time.monotonic()
                await asyncio.to_thread(lab.web.stop)
                await asyncio.to_thread(lab.web.start)
                await all_pages(pages, lambda page: page.since(stopped, run.id))
                assert {page.codes[0] for page in pages} == {1012}
                run.open()
                await all_pages(pages, is_finished)


async def test_daphne_stops_and_leaves_no_group_behind():
    """The core layer keeps the members of a group in Redis."""
    with WebLab("daphne", CHANNEL_LAYER="core") as lab:
        async with arrived(lab.url) as (visitor,):
            run = await start(lab, visitor, "gated")
            pages = [Page(visitor, [run.id]) for _ in range(30)]
            async with opened(pages):
                await all_pages(pages, is_running)
                client = lab.valkey.client
                assert list(client.scan_iter("asgi:group:*"))
                await asyncio.to_thread(lab.web.stop)
                assert not list(client.scan_iter("asgi:group:*"))
                stopped = time.monotonic()
                await asyncio.to_thread(lab.web.start)
                await all_pages(pages, lambda page: page.since(stopped, run.id))
                run.open()
                await all_pages(pages, is_finished)


# --- The channel layer ----------------------------------------------------------------


async def test_messages_are_dropped_doubled_delayed_and_reordered(measure):
    with WebLab(FAULTS_LAYER="Mischievous", concurrency=8) as lab:
        async with arrived(lab.url, 4) as visitors:
            pages = [Page(visitor) for visitor in visitors]
            async with opened([]):
                runs = []
                for i in range(RUNS):
                    page = pages[i % 4]
                    run = await start(lab, page.visitor, "steps", n=40)
                    page.runs.add(run.id)
                    runs.append(run)
            async with opened(pages):
                await all_pages(pages, is_finished, timeout=180)
            for page in pages:
                page.assert_never_back()
                for run in page.runs:
                    truth = await asyncio.to_thread(lab.run(run).now)
                    assert essence(page.last(run)) == essence(truth)
                    assert truth["state"] == "succeeded"


async def told_the_truth(lab, visitor, break_it, what, measure):
    """A page that is open when the layer breaks sees numbers and the end all the
    same, and so does one that is opened afterwards."""
    run = await start(lab, visitor, "gated")
    early, late = Page(visitor, [run.id]), Page(visitor, [run.id])
    async with opened([early]):
        await early.until(is_running)
        await break_it()
        broken = time.monotonic()
        await early.until(lambda page: page.since(broken, run.id))
        async with opened([late]):
            await late.until(is_running)
            run.open()
            await asyncio.to_thread(run.until, "succeeded")
            ended = run.seen_at
            await all_pages([early, late], is_finished)
            measure(f"{what}: the end is shown", time.monotonic() - ended, within(3))
        early.assert_never_back()


REAL_RECONCILE = {"PROGRESS_RECONCILE_INTERVAL": "2"}


async def test_the_layer_is_deaf(measure):
    async def nothing():
        """It has been deaf from the beginning."""

    with WebLab(FAULTS_LAYER="Deaf", **REAL_RECONCILE) as lab:
        async with arrived(lab.url) as (visitor,):
            await told_the_truth(lab, visitor, nothing, "layer deaf", measure)


@pytest.mark.parametrize("layer", ["pubsub", "core"])
@pytest.mark.parametrize("kind", ["blackhole", "cut", "down"])
async def test_the_connection_of_the_layer(measure, layer, kind):
    with WebLab(CHANNEL_LAYER=layer, **REAL_RECONCILE) as lab:
        proxy = Proxy(lab.valkey.port)
        lab.env["CHANNEL_REDIS_URL"] = f"redis://127.0.0.1:{proxy.port}/0"
        await asyncio.to_thread(lab.web.stop)
        await asyncio.to_thread(lab.web.start)

        async def break_it():
            getattr(proxy, kind)()

        try:
            async with arrived(lab.url) as (visitor,):
                await told_the_truth(
                    lab, visitor, break_it, f"layer {layer} {kind}", measure
                )
        finally:
            proxy.close()


async def test_the_layer_loses_its_groups(measure):
    with WebLab(CHANNEL_LAYER="core", **REAL_RECONCILE) as lab:
        client = lab.valkey.client

        async def break_it():
            groups = list(client.scan_iter("asgi:group:*"))
            assert groups
            client.delete(*groups)

        async with arrived(lab.url) as (visitor,):
            await told_the_truth(lab, visitor, break_it, "groups deleted", measure)


# --- Clients --------------------------------------------------------------------------


@pytest.mark.parametrize("server", ["daphne", "uvicorn"])
async def test_clients_that_do_not_read(server, measure):
    """They cost little, their neighbour notices nothing, and who reads again sees the
    latest."""
    with WebLab(server, concurrency=8) as lab:
        async with arrived(lab.url, 2) as (visitor, other):
            runs = [await start(lab, visitor, "chatters") for _ in range(8)]
            mine = await start(lab, other, "gated")
            neighbour = Page(other, [mine.id])
            sleepers = [await handshake(lab, visitor, runs) for _ in range(40)]
            async with opened([neighbour]):
                await neighbour.until(is_running)
                before = lab.memory()
                since = time.monotonic()
                # What is tested is how long they sleep.
                await asyncio.sleep(60 if REAL else 10)
                grown = lab.memory() - before
                assert grown < 50_000_000, f"{grown} bytes more"
                gaps = neighbour.since(since, mine.id)
                assert len(gaps) > (120 if REAL else 20)
                for run in (*runs, mine):
                    run.open()
                await neighbour.until(is_finished)
            for writer in sleepers:
                writer.close()


async def handshake(lab, visitor, runs):
    """An open socket that watches runs, and never reads what comes."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", lab.port))
    _, writer = await asyncio.open_connection(sock=raw, limit=2**10)
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
    return writer


@pytest.mark.parametrize("server", ["daphne", "uvicorn"])
async def test_a_client_that_floods(server):
    with WebLab(server) as lab:
        async with arrived(lab.url, 2) as (visitor, other):
            mine = await start(lab, other, "gated")
            neighbour = Page(other, [mine.id])
            async with opened([neighbour]):
                await neighbour.until(is_running)
                before = lab.memory()
                since = time.monotonic()
                code = await flood(visitor)
                assert code in (1006, 1008)
                assert lab.memory() - before < 50_000_000
                await neighbour.until(lambda page: len(page.since(since, mine.id)) > 4)
                assert neighbour.codes == []
                mine.open()
                await neighbour.until(is_finished)


async def flood(visitor):
    """Send for 10 s, or until the server closes; the close code."""
    async with visitor.socket() as flooder:
        deadline = time.monotonic() + 10
        try:
            while time.monotonic() < deadline:
                await flooder.connection.send('{"action": "nothing"}' * 50)
        except Exception:
            return await flooder.until_closed(10)
    return None


@pytest.mark.parametrize("layer", ["pubsub", "core"])
async def test_an_idle_socket_stays(layer):
    """redis-py 8 ends a core layer's idle sockets after 7 s, unless it is told."""
    with WebLab(CHANNEL_LAYER=layer) as lab:
        async with arrived(lab.url) as (visitor,):
            run = await asyncio.to_thread(
                lab.start, "gated", owner=await owner_of(lab, visitor)
            )
            page = Page(visitor, [run.id])
            paused = Page(visitor, [])
            async with opened([page, paused]):
                await page.until(is_running)
                await asyncio.sleep(120 if REAL else 9)  # what is tested
                assert page.codes == paused.codes == []
                run.open()
                await page.until(is_finished)


# --- Everything at once ---------------------------------------------------------------


async def test_store_and_database_are_both_away():
    """Viewers are told `unavailable`; nobody is told `forbidden`, nobody is let in."""
    with WebLab() as lab:
        async with arrived(lab.url, 2) as (visitor, stranger):
            run = await start(lab, visitor, "gated")
            page = Page(visitor, [run.id])
            async with opened([page]):
                await page.until(is_running)
                database = lab.directory / "db.sqlite3"
                database.rename(lab.directory / "away.sqlite3")
                database.mkdir()
                lab.valkey.freeze()
                try:
                    await page.until(lambda page: page.errors, timeout=within(6))
                    late = [Page(v, [run.id]) for v in (visitor, stranger)]
                    async with opened(late):
                        await all_pages(late, lambda page: page.errors)
                    for each in (page, *late):
                        assert {e["code"] for e in each.errors} == {"unavailable"}
                    assert not late[1].shown
                finally:
                    lab.valkey.thaw()
                    database.rmdir()
                    (lab.directory / "away.sqlite3").rename(database)
                broken = time.monotonic()
                await page.until(lambda page: page.since(broken, run.id))
                assert page.codes == []
                run.open()
                await page.until(is_finished)


async def test_a_worker_dies_and_the_page_knows(measure):
    """One run, seen from a page: lost, the next attempt, its end."""
    with WebLab() as lab:
        async with arrived(lab.url) as (visitor,):
            run = await start(lab, visitor, "gated")
            page = Page(visitor, [run.id])
            async with opened([page]):
                await page.until(is_running)
                await asyncio.to_thread(lab.workers[0].kill)
                killed = time.monotonic()
                await page.until(lambda p: p.last(run.id)["state"] == "lost")
                measure(
                    "worker killed: the page says lost",
                    time.monotonic() - killed,
                    within(3 + 4),
                )
                assert (await visitor.run(run.id)).json()["state"] == "lost"
                await asyncio.to_thread(lab.hire)
                await page.until(lambda p: p.last(run.id)["attempt"] == 2)
                run.open()
                await page.until(is_finished)
                page.assert_never_back()


async def test_a_thousand_changes_while_nobody_reads(measure):
    """The socket is open and unread; then the run ends: the end is shown."""
    with WebLab() as lab:
        async with arrived(lab.url) as (visitor,):
            run = await start(lab, visitor, "steps", n=150)
            async with visitor.socket() as sleeper:
                await sleeper.send("watch", run=run.id)
                await asyncio.to_thread(run.until_end)
                last = await sleeper.until_finished(run.id)
                assert last["state"] == "succeeded"


async def test_valkey_restarts_under_open_pages(measure):
    with WebLab() as lab:
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_visitor_comes_while_the_web_process_is_away(number):
    with WebLab() as lab:
        async with arrived(lab.url) as (visitor,):
            await asyncio.to_thread(lab.web.stop, number)
            page = await Page(visitor, start=("gen_random", {"speed": 50})).open()
            try:
                await asyncio.to_thread(
                    wait_for, lambda: len(page.codes) >= 2, "it has tried twice"
                )
                await asyncio.to_thread(lab.web.start)
                await page.until(is_finished)
            finally:
                await page.close()
            assert len(page.runs) == 1
            assert isinstance(visitor, Visitor)
