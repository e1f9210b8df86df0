"""What the benchmarks let workers do."""

import json
import threading
import time
from functools import cache
from pathlib import Path
from time import perf_counter_ns

import redis
from celery import Task, current_task, shared_task
from celery.signals import task_postrun
from django.conf import settings
from django.utils import timezone

from benchmarks import steps
from benchmarks.desk import ticks
from channels_progress import progress, startable

# -- Saying the time ------------------------------------------------------------------


START = "benchmarks:start"  # names the key that holds when it starts
LOOK = 0.5  # s

lock = threading.Lock()


@cache
def client():
    """A connection of this process for what is said about the benchmark itself."""
    return redis.Redis.from_url(settings.REDIS_URL)


def start():
    """When it starts; waits until that is told."""
    with lock:  # so that one thread looks for all
        while (found := client().get(START)) is None:
            time.sleep(LOOK)
    return int(found)


def moments(offset, period, count, turns=1, turn=0):
    """Wait for each of `count` moments, `period` µs apart; the time when it is there.

    The first one is `offset` µs after the start, which is told when all viewers look;
    and so in each of the `turns`, `turn` µs later than in the last.
    """
    first = start() + offset
    for number in range(turns * count):
        due = first + number // count * turn + number % count * period
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
def say_by_redis(channel, size=400, stored=False, **when):
    """A text of the size of our messages, with nothing between it and the socket, but
    that it is `stored` before."""
    filling = "x" * size
    for now in moments(**when):
        text = json.dumps({"current": now, "text": filling})
        if stored:
            client().hset(f"benchmarks:{channel}", "text", text)
        client().publish(channel, text)


# -- Short tasks ----------------------------------------------------------------------


@startable()
@shared_task
def nothing():
    """A run whose body is empty."""
    note("began")


@shared_task(base=Task)
def nothing_bare():
    """The same as an ordinary Celery task."""
    note("began")


@shared_task(base=Task)
def nothing_by_hand(row):
    """The same, which writes what a run writes: two states, two messages, a row."""
    from channels_progress.models import Run

    by_hand("running")
    note("began")
    by_hand("succeeded")
    Run.objects.filter(pk=row).update(state="succeeded", ended=timezone.now())


def by_hand(state):
    client().hset("benchmarks:hand", "state", state)
    client().publish("benchmarks:hand", "x" * 400)


def note(what, task_id=None):
    """Keep when this was, for `desk.noted`."""
    now = ticks()
    client().rpush(f"benchmarks:{what}:{task_id or current_task.request.id}", now)


@task_postrun.connect
def over(sender, task_id, **_):
    # Connected after the app's own receiver, so its work is done.
    if sender.name in (nothing.name, nothing_bare.name, nothing_by_hand.name):
        note("over", task_id)


# -- Steps ----------------------------------------------------------------------------


@shared_task
def step_cost(path, counts, repetitions):
    """Nanoseconds a step, by every way in turn; written to `path`."""
    ways = steps.ways()
    found = {name: [] for name in counts}
    for _ in range(repetitions):
        for name, n in counts.items():
            begin = perf_counter_ns()
            for _ in ways[name](n):
                pass
            found[name].append((perf_counter_ns() - begin) / n)
    Path(path).write_text(json.dumps(found))


@shared_task
def stroll(way, n, seconds):
    """`n` steps in `seconds`, or as fast as this way can."""
    begin, batch = time.monotonic(), max(1, n // 1000)
    for number in steps.ways()[way](n):
        if number % batch == 0:
            time.sleep(max(0, begin + number * seconds / n - time.monotonic()))


@shared_task
def surprise(path, n, seconds):
    """`n` quick items and a slow one; how many are shown while that one is at work."""
    shown = {}
    for name, way, look in steps.shows():
        for number in way(n + 1):
            if number == n:
                time.sleep(seconds)
                shown[name] = look()
    Path(path).write_text(json.dumps(shown))
