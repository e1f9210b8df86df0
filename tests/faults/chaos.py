"""
Chaos that can be repeated: runs and viewers, and a seeded random schedule of faults.

    SEED=1 SECONDS=300 python -m tests.faults.chaos

ends with one line: runs, viewers, faults injected, wrong last envelopes (which must be
0), and the longest time from an end until a page showed it.

A broker on Redis may lose a message (see journal.py). Its run has no end then; it is
counted, every page must say of it what the store says, and a person's cancel must end
it. Any other run that has no end is a wrong one.
"""

import asyncio
import contextlib
import os
import random
import sys
import time
from collections import Counter

from tests.faults import journal
from tests.faults.lab import LOST_AFTER, VISIBILITY_TIMEOUT, Lab, Refused
from tests.faults.pages import Page, arrived, essence, opened, owner_of
from tests.faults.proxy import Proxy
from tests.stack import Valkey, wait_for

VIEWERS = 12
POOLS = ["prefork", "prefork", "threads", "gevent"]
AT_ONCE = 16  # unfinished runs
PATIENCE = 120.0  # seconds for everything to end after the last fault
# Seconds without message and body after which neither will come: a message that was
# just then between queue and worker would have come back.
GONE = LOST_AFTER + 2 * VISIBILITY_TIMEOUT
LATE = 10.0  # seconds after which an end on a page is looked into


class ChaosLab(Lab):
    """
    The site on a mischievous channel layer; store, layer and broker on two servers, of
    which the first is behind a proxy and may lose its data.
    """

    def __init__(self, seed):
        super().__init__(
            server="daphne",
            web_env={"FAULTS_LAYER": "1", "FAULTS_SEED": str(seed)},
        )
        self.broker = Valkey(self.directory / "broker")
        self.proxy = Proxy(self.valkey.port)
        direct = {"CELERY_BROKER_URL": self.broker.url}
        direct["CELERY_RESULT_BACKEND"] = self.broker.url
        self.desk.env |= direct
        self.env |= direct
        self.env["REDIS_URL"] = f"redis://127.0.0.1:{self.proxy.port}/0"

    def __enter__(self):
        self.broker.start()
        return super().__enter__()

    def close(self):
        super().close()
        self.broker.close()
        self.proxy.close()

    def messages_left(self, run):
        """Its messages in the broker."""
        return journal.messages_of(self.broker.client, run.id)


class Chaos:
    """One run of it."""

    def __init__(self, lab, seed, seconds):
        self.lab, self.seconds = lab, seconds
        # The faults are the same for a seed, whatever the runs do meanwhile.
        self.chance, self.lot = random.Random(seed), random.Random(seed)
        self.injected = Counter()
        self.runs = []
        self.lost = []  # by the broker
        self.paused = set()
        self.wrong = 0  # pages that said of those what the store did not
        self.pages = []

    # --- Faults; each leaves the site able to recover by itself ---

    async def kill_a_child(self):
        worker = self.chance.choice(self.workers("prefork"))
        if children := worker.children():
            os.kill(self.lot.choice(children), 9)

    async def kill_a_worker(self):
        worker = self.chance.choice(self.workers())
        await asyncio.to_thread(worker.kill)
        await self.replace(worker)

    async def stop_a_worker(self):
        worker = self.chance.choice(self.workers())
        await asyncio.to_thread(worker.stop)
        await self.replace(worker)

    async def freeze_a_worker(self):
        worker = self.chance.choice(self.workers())
        worker.freeze()
        await asyncio.sleep(self.chance.uniform(0.5, 6))
        worker.thaw()

    async def kill_the_web(self):
        await asyncio.to_thread(self.lab.web.kill)
        await asyncio.sleep(self.chance.uniform(0, 2))
        await asyncio.to_thread(self.lab.web.start)

    async def restart_the_store(self):
        await asyncio.to_thread(self.lab.valkey.restart)

    async def empty_the_store(self):
        await asyncio.to_thread(self.lab.valkey.flush)

    async def freeze_the_store(self):
        self.lab.valkey.freeze()
        await asyncio.sleep(self.chance.uniform(0.5, 2))
        self.lab.valkey.thaw()

    async def restart_the_broker(self):
        await asyncio.to_thread(self.lab.broker.restart)

    async def cut_the_store(self):
        for _ in range(20):
            self.lab.proxy.cut_one()
            await asyncio.sleep(0.02)

    async def lose_the_store(self):
        getattr(self.lab.proxy, self.chance.choice(["down", "stall"]))()
        await asyncio.sleep(self.chance.uniform(0.5, 4))
        self.lab.proxy.restore()

    async def cancel_a_run(self):
        await self.ask("cancel")

    async def pause_and_resume_a_run(self):
        run = await self.ask("pause")
        self.paused.add(run)
        await asyncio.sleep(self.chance.uniform(0.1, 2))
        await self.ask("resume", run)

    FAULTS = (
        *(kill_a_child, kill_a_worker, stop_a_worker, freeze_a_worker, kill_the_web),
        *(restart_the_store, empty_the_store, freeze_the_store, cut_the_store),
        *(lose_the_store, restart_the_broker, cancel_a_run, pause_and_resume_a_run),
    )

    # --- What they need ---

    def workers(self, pool=None):
        return [w for w in self.lab.workers if pool in (None, w.pool)]

    async def hire(self, pool):
        worker = await asyncio.to_thread(self.lab.hire, pool=pool, concurrency=4)
        worker.pool = pool

    async def replace(self, worker):
        self.lab.workers.remove(worker)
        await self.hire(worker.pool)

    async def ask(self, verb, run=None):
        unfinished = [r for r in self.runs if not ended(r)]
        run = run or (self.lot.choice(unfinished) if unfinished else None)
        if run is not None:
            try:
                await asyncio.to_thread(getattr(run, verb))
            except Refused as refused:
                if refused.code == "exception":
                    raise
        return run

    # --- The schedule ---

    async def start_runs(self):
        while True:
            if sum(not ended(run) for run in self.runs) < AT_ONCE:
                page = self.lot.choice(self.pages)
                try:
                    await self.start_one(page)
                except Refused as refused:
                    if refused.code == "exception":
                        raise
            await asyncio.sleep(0.1)

    async def start_one(self, page):
        task = self.lot.choice(["steps", "steps", "retries_once", "counts"])
        kwargs = {"steps": {"n": self.lot.randrange(5, 200)}}.get(task, {})
        owner = await owner_of(self.lab, page.visitor)
        run = await asyncio.to_thread(self.lab.start, task, owner=owner, **kwargs)
        self.runs.append(run)
        await page.add(run.id)

    async def break_things(self):
        deadline = time.monotonic() + self.seconds
        while time.monotonic() < deadline:
            fault = self.chance.choice(self.FAULTS)
            self.injected[fault.__name__] += 1
            print(
                f"{self.seconds - deadline + time.monotonic():6.1f} s  "
                f"{fault.__name__}",
                flush=True,
            )
            await fault(self)
            await asyncio.sleep(self.chance.uniform(0.2, 2))

    async def play(self):
        for pool in POOLS:
            await self.hire(pool)
        async with arrived(self.lab.url, 4) as visitors:
            self.pages = [Page(visitors[i % 4]) for i in range(VIEWERS)]
            async with opened(self.pages):
                starting = asyncio.create_task(self.start_runs())
                try:
                    await self.break_things()
                finally:
                    starting.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await starting
                self.lab.proxy.restore()
                await self.settle()
        return self.verdict()

    async def settle(self):
        """Everything ends, or its message is gone; and every page knows."""
        await asyncio.to_thread(self.wait_for_ends)
        for run in (run for run in self.runs if not ended(run)):
            if journal.was_lost(self.lab.broker, run.id) and not run.living():
                print("lost by the broker:", run.id, run.story())
                self.lost.append(run)
            else:
                self.tell(run)
        await self.wait_for(lambda: not any(self.lies()))
        for said, truth in self.lies():
            self.wrong += 1
            print("wrong:", said, "is", truth)
        for run in self.lost:
            await asyncio.to_thread(run.cancel)
        await self.wait_for(
            lambda: all(page.finished(run) for page in self.pages for run in page.runs)
        )

    def wait_for_ends(self):
        deadline, gone = time.monotonic() + PATIENCE, {}
        while unended := [run for run in self.runs if not ended(run)]:
            self.resume_what_was_paused(unended)
            now = time.monotonic()
            gone = {r: gone.get(r, now) for r in unended if self.is_gone(r)}
            if now > deadline or all(now - gone.get(r, now) > GONE for r in unended):
                return
            time.sleep(0.5)

    def resume_what_was_paused(self, runs):
        """A pause may come after the wish to go on: whoever asked for it asks again."""
        for run in self.paused.intersection(runs):
            if run.log and run.log[-1][1]["state"] == "paused":
                with contextlib.suppress(Refused):
                    run.resume()

    async def wait_for(self, condition):
        with contextlib.suppress(AssertionError):  # it is counted
            await asyncio.to_thread(wait_for, condition, "the pages", PATIENCE)

    def is_gone(self, run):
        return not self.lab.messages_left(run) and not run.living()

    def tell(self, run):
        """What is known of a run that has no end."""
        print("never ended:", run.id, run.story(), run.log[-1:])
        print("its bodies:", run.begins, run.noted("end"))
        print("its messages:", self.lab.messages_left(run))
        print(*self.lab.lines_about(run), sep="\n")

    def lies(self):
        """What pages say of the runs that the broker has lost, and is not so. Where the
        store has lost one as well, a page shows the point at which it was seen last."""
        for page in self.pages:
            for run in (run for run in self.lost if run.id in page.runs):
                said, truth = page.last(run.id), run.now()
                names = essence(truth) if truth["epoch"] else ("state", "epoch")
                if any(said.get(name) != truth[name] for name in names):
                    yield said, truth

    def verdict(self):
        """The number of wrong last envelopes, and the longest time to truth."""
        wrong, longest = self.wrong, 0.0
        for page in self.pages:
            page.assert_never_back()
            for run in page.runs:
                truth = self.lab.run(run).now()
                if essence(page.last(run)) != essence(truth) or not page.finished(run):
                    wrong += 1
                    print("wrong:", page.last(run), "is", truth)
                else:
                    late = page.shown[run][-1][0] - self.lab.run(run).log[-1][0]
                    longest = max(longest, late)
                    if late > LATE:
                        print(f"late by {late:.1f} s: {page.told(run)}")
        return wrong, longest


def ended(run):
    return bool(run.log) and run.log[-1][1]["state"] in (
        "succeeded",
        "failed",
        "cancelled",
    )


def run(seed, seconds):
    """The number of wrong last envelopes."""
    with ChaosLab(seed) as lab:
        chaos = Chaos(lab, seed, seconds)
        wrong, longest = asyncio.run(chaos.play())
        ends = Counter(run.log[-1][1]["state"] for run in chaos.runs)
    how = ", ".join(f"{number} {state}" for state, number in sorted(ends.items()))
    print(
        f"seed {seed}: {len(chaos.runs)} runs ({how}), {VIEWERS} viewers, "
        f"{chaos.injected.total()} faults injected, "
        f"{len(chaos.lost)} runs lost by the broker and cancelled, "
        f"{wrong} wrong last envelopes, longest time to truth {longest:.1f} s"
    )
    assert len(chaos.runs) > seconds, "it was idle"
    return wrong


if __name__ == "__main__":
    seed = int(os.environ.get("SEED") or random.randrange(10**6))
    sys.exit(run(seed, float(os.environ.get("SECONDS") or 300)) > 0)
