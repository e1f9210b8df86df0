"""People watch while the store, the broker or the database breaks: their pages say so,
and show the truth by themselves once it is back."""

import asyncio
import contextlib
import time
import uuid

import pytest
from websockets.exceptions import InvalidStatus

from tests.faults.lab import REAL, within
from tests.faults.pages import Page, arrived, opened
from tests.faults.sites import FaultySite
from tests.faults.test_web import (
    all_pages,
    is_finished,
    is_running,
    start,
    works_again,
)
from tests.stack import wait_for

OUTAGE = 20.0 if REAL else 4.0  # seconds
TRUTH = 5.0  # seconds after the return
BACKOFF = 4.0  # seconds that a page may wait before it tries again
TOTAL = 5_000  # steps, of which a body takes 50 a second until its gate is opened

# One of them, and one kind of outage, unless there is time.
SITES = [("daphne", "with the store"), *([("uvicorn", "apart")] if REAL else [])]
KINDS = ["blackhole", *(["down", "stall"] if REAL else [])]
WHAT = ["emptied", *(["restarted"] if REAL else [])]
AWAY = [0, *([3, 20] if REAL else [])]  # seconds

on_every_site = pytest.mark.parametrize(
    "which",
    [pytest.param(which, marks=pytest.mark.together(which)) for which in SITES],
    ids="-".join,
)
in_every_way = pytest.mark.parametrize("kind", KINDS)


@contextlib.contextmanager
def away(proxy, kind):
    """What is behind the proxy cannot be reached. What it has swallowed never comes,
    and who waits for it has to notice that."""
    getattr(proxy, kind)()
    try:
        yield
    finally:
        proxy.restore()


def moves(run, since):
    """Whether a page shows that the run goes on, by two numbers after a moment."""

    def condition(page):
        shown = page.since(since, run.id)
        numbers = {e.get("current") for e in shown if e["state"] == "running"}
        return len(numbers) > 1 and is_running(page)

    return condition


@contextlib.asynccontextmanager
async def watching(which, sites, prepare=None):
    """A site, and a visitor whose pages show a run that moves, and ends well."""
    with sites(*which, kind=FaultySite) as lab:
        async with arrived(lab.url) as (visitor,):
            run = await start(lab, visitor, "gated", total=TOTAL)
            if prepare:
                await prepare(visitor)
            async with opened([Page(visitor, [run.id]) for _ in range(5)]) as pages:
                await all_pages(pages, moves(run, 0))
                yield lab, visitor, run, pages
                await end_well(run, pages)


async def end_well(run, pages):
    run.open()
    await all_pages(pages, is_finished)
    for page in pages:
        page.assert_never_back()
        assert page.last(run.id)["state"] == "succeeded"
    assert len(run.begins) == 1


# --- The store ------------------------------------------------------------------------


@on_every_site
@in_every_way
async def test_the_store_is_away(which, kind, sites, measure):
    """Who comes meanwhile is told so as well."""
    async with watching(which, sites) as (lab, visitor, run, pages):
        with away(lab.store, kind):
            gone = time.monotonic()
            await all_pages(pages, lambda page: page.errors)
            measure(f"store {kind}: pages say so", time.monotonic() - gone, within(6))
            late = await Page(visitor, [run.id]).open()
            pages.append(late)
            await late.until(lambda page: page.errors)
            assert (await visitor.run(run.id)).status_code == 503
            # The length of the outage is what is tested.
            await asyncio.sleep(gone + OUTAGE - time.monotonic())
            assert not late.shown
        back = time.monotonic()
        await all_pages(pages, moves(run, back))
        measure(
            f"store {kind}: pages move again", time.monotonic() - back, within(TRUTH)
        )
    for page in pages:
        assert {error["code"] for error in page.errors} == {"unavailable"}
        assert page.codes == []


@on_every_site
@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("seconds", AWAY)
async def test_the_server_of_everything_restarts(which, seconds, what, sites, measure):
    """Of store, broker and, by default, the layer."""
    async with watching(which, sites) as (lab, visitor, run, pages):
        await asyncio.to_thread(lab.valkey.restart, what == "emptied", seconds)
        back = time.monotonic()
        pages.append(await Page(visitor, [run.id]).open())
        await all_pages(pages, moves(run, back))
        measure(
            f"Valkey {what}, {which[1]}: pages move again",
            time.monotonic() - back,
            within(TRUTH),
        )
        await asyncio.to_thread(works_again, lab)
    for page in pages:
        assert page.codes == []


@pytest.mark.nightly
@on_every_site
async def test_the_store_is_out_of_memory(which, sites, measure):
    """The worker has the message already: the broker is the same server."""
    async with watching(which, sites) as (lab, visitor, run, pages):
        client = lab.valkey.client
        client.config_set("maxmemory", "1mb")
        try:
            full = time.monotonic()
            run.open()
            await asyncio.to_thread(run.until_body_ended)
            late = Page(visitor, [run.id])
            pages.append(await late.open())
            await late.until(lambda page: page.last(run.id))
            await asyncio.sleep(full + OUTAGE - time.monotonic())
            assert not any(page.finished(run.id) for page in pages)
        finally:
            client.config_set("maxmemory", "0")
        back = time.monotonic()
        await all_pages(pages, is_finished)
        measure(
            "store out of memory: pages show the end",
            time.monotonic() - back,
            within(TRUTH),
        )
        await asyncio.to_thread(works_again, lab)


@pytest.mark.nightly
@on_every_site
async def test_connections_are_cut_one_by_one(which, sites, measure):
    """Those to the store, and to the layer where that is with it."""
    with sites(*which, kind=FaultySite) as lab:
        async with arrived(lab.url) as (visitor,):
            runs = [await start(lab, visitor, "steps", n=400) for _ in range(4)]
            pages = [Page(visitor, [run.id for run in runs]) for _ in range(5)]
            async with opened(pages):
                with lab.store.cutting():
                    for run in runs:
                        await asyncio.to_thread(run.until_end)
                    ended = time.monotonic()
                    await all_pages(pages, is_finished)
                    measure(
                        "connections cut: pages show the end",
                        time.monotonic() - ended,
                        within(TRUTH),
                    )
            for page in pages:
                page.assert_never_back()
                assert {page.last(run.id)["state"] for run in runs} == {"succeeded"}
                states = {e["state"] for log in page.shown.values() for _, e in log}
                assert states <= {"queued", "running", "succeeded"}  # never lost
                assert page.codes == []
                assert {e["code"] for e in page.errors} <= {"unavailable"}
            assert {len(run.begins) for run in runs} == {1}


# --- The broker -----------------------------------------------------------------------


async def by_socket(visitor, key):
    async with visitor.socket() as socket:
        return await socket.start("quick", key=key)


async def by_button(visitor, key):
    """On the socket of a START button, which closes so that the page comes back."""
    async with visitor.socket(f"/ws/start/quick/?key={key}") as socket:
        answer = await socket.until(lambda m: m["type"] in ("started", "error"))
        if answer["type"] == "error":
            assert await socket.until_closed() == 1013
        return answer


async def by_form(visitor, key):
    form = {"csrfmiddlewaretoken": visitor.http.cookies["csrftoken"], "key": key}
    response = await visitor.http.post("/progress/start/quick/", data=form)
    answer = response.json()
    assert response.status_code == (503 if "code" in answer else 202)
    return answer


WAYS = [by_socket, by_button, by_form]


@on_every_site
@in_every_way
async def test_a_start_while_the_broker_is_away(which, kind, sites, measure):
    """It is refused soon, however many there are, and the same key starts it later;
    what the broker is brought then, of what was refused, has no body."""
    with sites(*which, kind=FaultySite) as lab:
        async with arrived(lab.url) as (visitor,):

            async def ask(way, key):
                since = time.monotonic()
                return way, await way(visitor, key), time.monotonic() - since

            keys = [uuid.uuid4().hex for _ in range(12)]
            starts = [(way, f"{way.__name__}-{key}") for way in WAYS for key in keys]
            await asyncio.gather(*(way(visitor, "before") for way in WAYS))
            with away(lab.broker, kind):
                for way, answer, seconds in await asyncio.gather(
                    *(ask(*start) for start in starts)
                ):
                    assert answer["code"] == "unavailable"
                    how = way.__name__.replace("_", " ")
                    what = f"broker {kind}: START {how} is refused"
                    measure(what, seconds, within(3))
            started = await asyncio.gather(*(way(visitor, key) for way, key in starts))
            ids = {answer["run"] for answer in started}
            assert len(ids) == len(starts)
            async with opened([Page(visitor, ids)]) as (page,):
                await page.until(is_finished)
            assert {page.last(id)["state"] for id in ids} == {"succeeded"}
            runs = [lab.run(id) for id in ids]
            await asyncio.to_thread(works_again, lab)
            for run in runs:
                await asyncio.to_thread(
                    wait_for, lambda r=run: not lab.messages_of(r), "no message is left"
                )
                assert len(run.begins) == 1


# --- The database ---------------------------------------------------------------------


async def sign_up(visitor):
    """Get an account; it takes along what they have started."""
    await visitor.http.get("/accounts/sign-up/")
    form = {
        "csrfmiddlewaretoken": visitor.http.cookies["csrftoken"],
        "username": uuid.uuid4().hex,
        **dict.fromkeys(("password1", "password2"), "a long enough sentence"),
    }
    response = await visitor.http.post("/accounts/sign-up/", data=form)
    assert response.status_code == 302


@on_every_site
async def test_somebody_who_signed_in_while_the_database_is_away(which, sites, measure):
    """Nobody can say who they are. That is no reason to refuse them, nor to take them
    for somebody else: the sockets that are there go on, and a new one comes back."""
    async with watching(which, sites, sign_up) as (lab, visitor, run, pages):
        early = list(pages)
        with lab.no_database():
            gone = time.monotonic()
            late = await Page(visitor, [run.id]).open()
            pages.append(late)
            await asyncio.to_thread(
                wait_for, lambda: len(late.codes) > 2, "it has tried thrice"
            )
            with pytest.raises(InvalidStatus) as refused:
                async with visitor.socket():
                    pass
            assert refused.value.response.status_code >= 500
            assert (await visitor.run(run.id)).status_code == 503
            await asyncio.sleep(gone + OUTAGE - time.monotonic())
            assert not late.opened
            await all_pages(early, moves(run, time.monotonic()))
        back = time.monotonic()
        await late.until(moves(run, back))
        measure(
            "database away: a page of somebody signed in is back",
            time.monotonic() - back,
            within(BACKOFF + TRUTH),
        )
    for page in pages:
        assert page.errors == []
        assert len(page.opened) == 1
