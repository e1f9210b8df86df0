"""What the benchmarks let workers do."""

import json
import time
from functools import cache
from pathlib import Path
from time import perf_counter_ns

import redis
from celery import shared_task
from django.conf import settings

from benchmarks.desk import ticks
from channels_progress import progress

# -- Saying the time ------------------------------------------------------------------


START = "benchmarks:start"  # names the key that holds when it starts
LOOK = 0.5  # s


def moments(offset, period, count, turns=1, turn=0):
    """Wait for each of `count` moments, `period` µs apart; the time when it is there.

    The first one is `offset` µs after the start, which is told when all viewers look;
    and so in each of the `turns`, `turn` µs later than in the last.
    """
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        while (start := client.get(START)) is None:
            time.sleep(LOOK)
    for number in range(turns * count):
        due = int(start) + offset + number // count * turn + number % count * period
        time.sleep(max(0, due - ticks()) / 1e6)
        yield ticks()


@shared_task
def say(**when):
    """Say the time, again and again, as `current`."""
    said = 0
    for now in moments(**when):
        progress.advance(now - said)
        said = now


@shared_task(bind=True)
def say_by_celery_progress(self, **when):
    from celery_progress.websockets.backend import WebSocketProgressRecorder

    recorder = WebSocketProgressRecorder(self)
    for now in moments(**when):
        recorder.set_progress(now, 10**15)


@shared_task
def say_by_redis(channel, size=400, **when):
    """A text of the size of our messages, with nothing between it and the socket."""
    client = redis.Redis.from_url(settings.REDIS_URL)
    filling = "x" * size
    for now in moments(**when):
        client.publish(channel, json.dumps({"current": now, "text": filling}))


# -- Steps ----------------------------------------------------------------------------


@cache
def loops():
    """Ways through `n` items, each with how many a repetition takes."""
    from celery import current_task
    from celery_progress.websockets.backend import WebSocketProgressRecorder
    from rich.console import Console
    from rich.progress import track
    from tqdm import tqdm

    nowhere = open("/dev/null", "w")  # noqa: SIM115
    console = Console(file=nowhere, force_terminal=True)
    recorder = WebSocketProgressRecorder(current_task)

    def bare(n):
        for _ in range(n):
            pass

    def ours(n):
        for _ in progress.track(range(n)):
            pass

    def advance(n):
        for _ in range(n):
            progress.advance()

    def by_tqdm(n):
        for _ in tqdm(range(n), file=nowhere):
            pass

    def by_rich(n):
        for _ in track(range(n), console=console):
            pass

    def update_state(n):
        for i in range(n):
            current_task.update_state(state="PROGRESS", meta={"current": i})

    def celery_progress(n):
        for i in range(n):
            recorder.set_progress(i, n)

    return {
        "bare loop": (bare, 4_000_000),
        "track": (ours, 4_000_000),
        "advance()": (advance, 1_000_000),
        "tqdm": (by_tqdm, 1_000_000),
        "rich": (by_rich, 200_000),
        "update_state": (update_state, 200),
        "celery-progress": (celery_progress, 40),
    }


@shared_task
def step_cost(path, repetitions):
    """Nanoseconds a step, by every way in turn; written to `path`."""
    found = {name: [] for name in loops()}
    for _ in range(repetitions):
        for name, (loop, n) in loops().items():
            start = perf_counter_ns()
            loop(n)
            found[name].append((perf_counter_ns() - start) / n)
    Path(path).write_text(json.dumps(found))
