"""A process of the site that starts runs, as a web process would."""

import os
import time
import uuid


def ticks():
    """The machine's clock in microseconds: the same in all of its processes."""
    return time.monotonic_ns() // 1000


def enter(env):
    """Become a process of the site."""
    os.environ.clear()
    os.environ.update(env)
    import django

    django.setup()
    import CeleryProgressbar.celery  # noqa: F401


def owner(cookie):
    """The owner's name that a visitor's cookie carries."""
    from django.http import parse_cookie

    from channels_progress import access

    return access.owner({"cookies": parse_cookie(cookie)})


def start(task, kwargs, owner):
    """The id of a new run."""
    return start_many(task, [kwargs], owner)[0]


def start_many(task, kwargs, owner):
    from celery import current_app

    from channels_progress import runs

    task = current_app.tasks[f"benchmarks.tasks.{task}"]
    return [runs.start(task, each, owner=owner).run for each in kwargs]


def publish(task, kwargs):
    """The id of a plain Celery task."""
    from celery import current_app

    return current_app.tasks[f"benchmarks.tasks.{task}"].delay(**kwargs).id


def finished(run):
    """Whether a run has succeeded; raises where it has failed."""
    from channels_progress import runs

    state = runs.get(run).state
    assert state != "failed", f"run {run} failed; the worker's log says why"
    return state == "succeeded"


def ready(task):
    """Whether a plain Celery task is over."""
    from celery.result import AsyncResult

    return AsyncResult(task).ready()


# -- A short task's way, in µs ---------------------------------------------------------


def noted(what, task):
    """When a task of `tasks.py` noted this; waits for it."""
    from benchmarks.tasks import client

    return int(client().blpop(f"benchmarks:{what}:{task}", timeout=60)[1])


def bare_way():
    """From before `apply_async` to the body, and until the worker was done with it."""
    from benchmarks.tasks import nothing_bare

    asked = ticks()
    task = nothing_bare.apply_async().id
    began, over = noted("began", task), noted("over", task)
    return began - asked, over - asked


def way_by_hand():
    """As `bare_way`, of a task that writes what a run writes."""
    from benchmarks.tasks import nothing_by_hand
    from channels_progress.models import Run

    row = Run.objects.create(id=uuid.uuid4(), owner="bench", task="by hand").pk
    asked = ticks()
    task = nothing_by_hand.apply_async((str(row),)).id
    began, over = noted("began", task), noted("over", task)
    return began - asked, over - asked


def run_way():
    """What `runs.start` took; from its message until the worker was done with it."""
    from benchmarks.tasks import nothing
    from channels_progress import runs, start

    published, publish = [], start.publish

    def stamped(*args):
        published.append(ticks())
        publish(*args)

    start.publish = stamped
    asked = ticks()
    run = runs.start(nothing, owner="bench").run
    started, start.publish = ticks(), publish
    noted("began", run)
    return started - asked, noted("over", run) - published[0]
