"""What chaos does to a site: faults, each of which leaves it able to recover by itself,
and wishes of people."""

import asyncio
import contextlib
import os
import random
import time
from collections import Counter

from tests.faults.lab import Refused
from tests.faults.pages import UNREACHABLE


class Damage:
    """The faults of one seed: the same ones, whatever the runs do meanwhile."""

    def __init__(self, lab, seed):
        self.lab = lab
        # Faults are drawn from `chance`; what depends on the runs, from `lot`.
        self.chance, self.lot = random.Random(seed), random.Random(seed)
        self.injected = Counter()
        self.outages = []  # (since, until): store or web could not be reached
        self.runs = []
        self.paused = set()
        self.visitor = None

    def draw(self):
        """The next fault, or wish."""
        fault = self.chance.choice(self.FAULTS)
        self.injected[fault.__name__] += 1
        return fault

    # --- Workers ---

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
        await self.some_time(0.5, 6)
        worker.thaw()

    # --- Web ---

    async def kill_the_web(self):
        await self.restart_the_web(self.lab.web.kill)

    async def stop_the_web(self):
        await self.restart_the_web(self.lab.web.stop)

    async def restart_the_web(self, end):
        with self.outage():
            await asyncio.to_thread(end)
            await self.some_time(0, 2)
            await asyncio.to_thread(self.lab.web.start)

    async def flood_the_web(self):
        """By one who reads nothing of what it is answered."""
        with contextlib.suppress(*UNREACHABLE):
            async with self.visitor.socket(max_queue=1, close_timeout=1) as flooder:
                for run in self.runs:
                    await flooder.send("watch", run=run.id)
                for _ in range(500):
                    await flooder.connection.send('{"action": "nothing"}' * 50)

    # --- Store and database ---

    async def restart_the_store(self):
        with self.outage():
            await asyncio.to_thread(self.lab.valkey.restart)

    async def empty_the_store(self):
        await asyncio.to_thread(self.lab.valkey.flush)

    async def fill_the_store(self):
        """It has no memory left for what is new; it can be read."""
        self.lab.valkey.client.config_set("maxmemory", 1)
        await self.some_time(0.5, 3)
        self.lab.valkey.client.config_set("maxmemory", 0)

    async def freeze_the_store(self):
        with self.outage():
            self.lab.valkey.freeze()
            await self.some_time(0.5, 2)
            self.lab.valkey.thaw()

    async def cut_the_store(self):
        for _ in range(20):
            self.lab.store_proxy.cut_one()
            await asyncio.sleep(0.02)

    async def lose_the_store(self):
        with self.outage():
            await self.lose(self.lab.store_proxy, "down", "stall")

    async def lose_the_database(self):
        seconds = self.chance.uniform(0.5, 3)

        def lose():
            with self.lab.no_database():
                time.sleep(seconds)

        await asyncio.to_thread(lose)

    # --- Layer ---

    async def flush_the_layer(self):
        self.lab.layer.flushdb()

    async def lose_the_layer(self):
        await self.lose(self.lab.layer_proxy, "cut", "down", "slow", "blackhole")

    # --- Broker ---

    async def restart_the_broker(self):
        await asyncio.to_thread(self.lab.broker.restart)

    async def cut_the_broker(self):
        self.lab.broker_proxy.cut()

    async def lose_the_broker(self):
        await self.lose(self.lab.broker_proxy, "down", "stall")

    # --- Wishes ---

    async def cancel_a_run(self):
        await self.ask("cancel")

    async def pause_and_resume_a_run(self):
        run = await self.ask("pause")
        if run is None:
            return
        self.paused.add(run)
        await self.some_time(0.1, 2)
        await self.ask("resume", run)

    FAULTS = (
        *(kill_a_child, kill_a_worker, stop_a_worker, freeze_a_worker),
        *(kill_the_web, stop_the_web, flood_the_web),
        *(restart_the_store, empty_the_store, fill_the_store, freeze_the_store),
        *(cut_the_store, lose_the_store, lose_the_database),
        *(flush_the_layer, lose_the_layer),
        *(restart_the_broker, cut_the_broker, lose_the_broker),
        *(cancel_a_run, pause_and_resume_a_run),
    )

    # --- What they need ---

    async def some_time(self, least, most):
        await asyncio.sleep(self.chance.uniform(least, most))

    async def lose(self, proxy, *ways):
        getattr(proxy, self.chance.choice(ways))()
        await self.some_time(0.5, 4)
        proxy.restore()

    @contextlib.contextmanager
    def outage(self):
        since = time.monotonic()
        yield
        self.outages.append((since, time.monotonic()))

    def calm(self, since, until):
        """The longest time in between for which store and web could be reached."""
        longest = 0.0
        for broken, mended in (*self.outages, (until, until)):
            if since < mended:
                longest = max(longest, min(broken, until) - since)
                since = mended
        return longest

    def workers(self, pool=None):
        return [w for w in self.lab.workers if pool in (None, w.pool)]

    async def hire(self, pool):
        worker = await asyncio.to_thread(self.lab.hire, pool=pool, concurrency=4)
        worker.pool = pool

    async def replace(self, worker):
        self.lab.workers.remove(worker)
        await self.hire(worker.pool)

    async def ask(self, verb, run=None):
        unfinished = [r for r in self.runs if not r.ended]
        run = run or (self.lot.choice(unfinished) if unfinished else None)
        if run is not None:
            try:
                await asyncio.to_thread(getattr(run, verb))
            except Refused as refused:
                if refused.code == "exception":
                    raise
        return run
