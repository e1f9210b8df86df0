"""Web and workers of neighbouring versions, as there are during a deploy."""

import asyncio

import pytest

from tests.faults.pages import Page, arrived, essence, opened, owner_of
from tests.faults.sites import Site

PAIRS = [("newer", ""), ("older", ""), ("", "newer"), ("", "older")]


@pytest.mark.together
async def test_they_understand_each_other():
    """A run begins, is retried, told of live and ends; a page sees all of it."""
    with Site() as lab:
        async with arrived(lab.url) as (visitor,):
            owner = await owner_of(lab, visitor)
            for web, workers in PAIRS:
                await asyncio.to_thread(deploy, lab, web, workers)
                run = await asyncio.to_thread(
                    lab.start, "gated_then_retries", owner=owner, countdown=0.2
                )
                page = Page(visitor, [run.id])
                async with opened([page]):
                    await page.until(lambda p, r=run: p.last(r.id).get("current"))
                    run.open("first")
                    await page.until(lambda p, r=run: p.last(r.id)["attempt"] == 2)
                    run.open("second")
                    await page.until(lambda p, r=run: p.finished(r.id))
                    page.assert_never_back()
                truth = await asyncio.to_thread(run.now)
                assert (truth["state"], truth["result"]) == ("succeeded", "second")
                assert essence(page.last(run.id)) == essence(truth)
                # Until the worker's first report, what the web has said stands.
                told = [e for _, e in page.shown[run.id] if e["attempt"] == 2]
                assert any("weather" in e for e in told) == (workers == "newer")


def deploy(lab, web, workers):
    lab.web.stop()
    lab.desk.kill()
    for worker in list(lab.workers):
        lab.fire(worker)
    for env, version in ((lab.env, web), (lab.desk.env, web)):
        env["FAULTS_VERSION"] = version
    lab.web.start()
    lab.desk.start()
    lab.hire(env={"FAULTS_VERSION": workers}, concurrency=2)
