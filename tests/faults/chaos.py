"""
Chaos that can be repeated: runs and viewers, and a seeded random schedule of faults.

    SEED=1 SECONDS=300 SERVER=uvicorn LAYER=core python -m tests.faults.chaos

ends with one line: runs, viewers, faults injected, wrong last envelopes and things
that have grown (which must be 0), and the longest time to truth: from an end until a
page showed it, as far as store and web could be reached all that time.

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
from tests.faults.chaos_lab import ChaosLab
from tests.faults.damage import Damage
from tests.faults.lab import LOST_AFTER, VISIBILITY_TIMEOUT, Refused
from tests.faults.pages import DELAYS, Page, arrived, essence, opened, owner_of
from tests.stack import wait_for

STEP = 0.02  # seconds, as tasks.py has it
VIEWERS = 12
POOLS = ["prefork", "prefork", "threads", "gevent"]
AT_ONCE = 16  # unfinished runs
# Seconds for everything to end after the last fault: a dead worker's message comes
# back, and has the whole body once more.
PATIENCE = 100.0 + 3 * VISIBILITY_TIMEOUT
# Seconds without message and body after which neither will come: a message that was
# just then between queue and worker would have come back.
GONE = LOST_AFTER + 2 * VISIBILITY_TIMEOUT
LONG = int(1.5 * VISIBILITY_TIMEOUT / STEP)  # steps in which its message comes again
# Seconds: a page's own pause before it comes back, what is promised, and what a layer
# and a database that hang may cost.
TRUTH = DELAYS[-1] + 2.0 + 0.5 + 1.0


class Chaos(Damage):
    """One run of it: the damage, and those who start runs and watch them."""

    def __init__(self, lab, seed, seconds):
        super().__init__(lab, seed)
        self.seconds = seconds
        self.pages = []
        self.lost = []  # by the broker
        self.wrong = 0  # pages whose last word is not the store's
        self.longest = 0.0  # seconds until a page showed an end, as `calm` has them
        self.growth = []

    # --- The schedule ---

    async def start_runs(self):
        while True:
            if sum(not run.ended for run in self.runs) < AT_ONCE:
                page = self.lot.choice(self.pages)
                try:
                    await self.start_one(page)
                except Refused as refused:
                    if refused.code == "exception":
                        raise
            await asyncio.sleep(0.1)

    async def start_one(self, page):
        task = self.lot.choice(["steps", "steps", "retries_once", "counts"])
        n = LONG if self.lot.random() < 0.1 else self.lot.randrange(5, 200)
        kwargs = {"n": n} if task == "steps" else {}
        owner = await owner_of(self.lab, page.visitor)
        run = await asyncio.to_thread(self.lab.start, task, owner=owner, **kwargs)
        self.runs.append(run)
        await page.add(run.id)

    async def break_things(self):
        deadline = time.monotonic() + self.seconds
        while time.monotonic() < deadline:
            fault = self.draw()
            since = self.seconds - deadline + time.monotonic()
            print(f"{since:6.1f} s  {fault.__name__}", flush=True)
            await fault(self)
            await self.some_time(0.2, 2)

    async def play(self):
        for pool in POOLS:
            await self.hire(pool)
        async with arrived(self.lab.url, 4) as visitors:
            self.visitor = visitors[0]
            self.pages = [Page(visitors[i % 4]) for i in range(VIEWERS)]
            async with opened(self.pages):
                starting = asyncio.create_task(self.start_runs())
                try:
                    await self.break_things()
                finally:
                    starting.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await starting
                self.lab.mend()
                await self.settle()
            self.judge()
            await self.wait_for(lambda: not self.lab.growth(), "what is left")
            self.growth = self.lab.growth()
            for grown in self.growth:
                print("grown:", *grown)

    async def settle(self):
        """Everything ends, or its message is gone; and every page knows."""
        await asyncio.to_thread(self.wait_for_ends)
        for run in (run for run in self.runs if not run.ended):
            if journal.was_lost(self.lab.broker, run.id) and not run.living():
                print("lost by the broker:", run.id, run.story())
                self.lost.append(run)
            else:
                self.tell(run)
        await self.wait_for(lambda: not any(self.lies()), "the pages' words")
        for said, truth in self.lies():
            self.wrong += 1
            print("wrong:", said, "is", truth)
        for run in self.lost:
            await asyncio.to_thread(run.cancel)
        await self.wait_for(
            lambda: all(page.finished(run) for page in self.pages for run in page.runs),
            "the pages' ends",
        )

    def wait_for_ends(self):
        deadline, gone = time.monotonic() + PATIENCE, {}
        while unended := [run for run in self.runs if not run.ended]:
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

    async def wait_for(self, condition, what):
        with contextlib.suppress(AssertionError):  # it is counted
            await asyncio.to_thread(wait_for, condition, what, PATIENCE)

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

    def judge(self):
        """Compare what each page showed last with what the store says."""
        slowest = None
        for page in self.pages:
            page.assert_never_back()
            for run in map(self.lab.run, page.runs):
                truth, log = essence(run.now()), page.shown.get(run.id, ())
                if essence(page.last(run.id)) != truth or not page.finished(run.id):
                    self.wrong += 1
                    print("wrong:", page.last(run.id), "is", truth, page.told(run.id))
                    print(*self.lab.lines_about(run), sep="\n")
                    continue
                shown = next(at for at, e in log if essence(e) == truth)
                ended = run.log[-1][0]
                if (late := self.calm(ended, shown)) > self.longest:
                    self.longest = late
                    slowest = f"{page.told(run.id)}, ended {ended:.1f}"
        print("slowest:", slowest)


def run(seed, seconds, server=None, layer=None):
    """Whether everything was as it must be; the seed chooses what is not given."""
    choose = random.Random(seed).choice
    chosen = choose(["daphne", "uvicorn"]), choose(["pubsub", "core"])
    server, layer = server or chosen[0], layer or chosen[1]
    what = f"seed {seed}, {server}, {layer}"
    print(what, flush=True)
    with ChaosLab(seed, server, layer) as lab:
        chaos = Chaos(lab, seed, seconds)
        asyncio.run(chaos.play())
        ends = Counter(run.log[-1][1]["state"] for run in chaos.runs)
        refused = lab.refused()
    how = ", ".join(f"{number} {state}" for state, number in sorted(ends.items()))
    print(
        f"{what}: {len(chaos.runs)} runs ({how}), {VIEWERS} viewers, "
        f"{chaos.injected.total()} faults injected, {refused} messages refused, "
        f"{len(chaos.lost)} runs lost by the broker and cancelled, "
        f"{len(chaos.growth)} things grown, {chaos.wrong} wrong last envelopes, "
        f"longest time to truth {chaos.longest:.1f} s of {TRUTH:g} s"
    )
    assert len(chaos.runs) > seconds, "it was idle"
    return not chaos.wrong and not chaos.growth and chaos.longest <= TRUTH


if __name__ == "__main__":
    seed = int(os.environ.get("SEED") or random.randrange(10**6))
    seconds = float(os.environ.get("SECONDS") or 300)
    sys.exit(not run(seed, seconds, os.environ.get("SERVER"), os.environ.get("LAYER")))
