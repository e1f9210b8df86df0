"""Fixtures for the core: a store, a run moved by hand, a worker in this process."""

import gc
import logging
import threading
import warnings
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import pytest
from celery._state import _set_task_join_will_block
from celery.app.trace import reset_worker_optimizations, setup_worker_optimizations
from celery.backends.redis import ResultConsumer
from celery.contrib.testing.worker import start_worker
from django.db import connection

from CeleryProgressbar.celery import app
from channels_progress import begin, catalogue, express, progress, runs
from channels_progress.models import Run
from channels_progress.reporter import get_reporter
from channels_progress.store import get_store
from tests.core import tasks
from tests.core.hand import Hand
from tests.stack import wait_for

NODE = "core@test"


@pytest.fixture
def store(valkey):
    """The project's store. Tests share it, and never a run."""
    return get_store()


@pytest.fixture
def run(store):
    """A run that nobody has created yet."""
    return Hand(store)


@pytest.fixture
def transactional_db(django_db_setup, django_db_blocker):
    """The test database, for all threads. Only our rows are removed after the test:
    to flush every table, as pytest-django's does, takes most of these tests' time."""
    with django_db_blocker.unblock():
        yield
        Run.objects.all().delete()


@pytest.fixture
def quick(settings):
    """Intervals that a test can wait for."""
    return set_intervals(settings, REPORT_INTERVAL=0.02, HEARTBEAT_INTERVAL=0.1)


@pytest.fixture
def slow(settings):
    """Intervals that no test outlives."""
    return set_intervals(settings, REPORT_INTERVAL=600, HEARTBEAT_INTERVAL=600)


def set_intervals(settings, **values):
    settings.CHANNELS_PROGRESS = {**settings.CHANNELS_PROGRESS, **values}
    return settings


@pytest.fixture(scope="package")
def worker(valkey, django_db_setup, django_db_blocker):
    """A Celery worker whose pool are threads of this process.

    It may use the database between two tests as well: a message that comes late, or
    again, would end it there, and a row that is owed would be lost.
    """
    setup_worker_optimizations(app, NODE)  # as `celery worker` does
    app.control.purge()  # what tests without a worker have left
    root = logging.getLogger()
    level = root.level
    with ExitStack() as stack:
        stack.enter_context(django_db_blocker.unblock())
        worker = stack.enter_context(
            start_worker(
                app,
                pool="threads",
                concurrency=8,
                perform_ping_check=False,
                loglevel="ERROR",
                shutdown_timeout=30,
                hostname=NODE,
            )
        )
        # As in any other worker: who publishes does not subscribe to the result.
        _set_task_join_will_block(True)
        # Celery gives every logger of this process the worker's level.
        root.setLevel(level)
        yield worker
        _set_task_join_will_block(False)
        # Its threads end, and leave their SQLite connections to the collector.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            stack.close()
            gc.collect()
    reset_worker_optimizations(app)
    # The results of groups unsubscribe when they go, and there will be no server then.
    for consumer in gc.get_objects():
        if type(consumer) is ResultConsumer:
            consumer.subscribed_to.clear()


@pytest.fixture(autouse=True)
def no_rest(monkeypatch):
    """A history that one test has taken away is there for the next one."""
    monkeypatch.setattr(begin._Asking, "rest", 0.0)


@pytest.fixture
def play(worker, store, transactional_db):
    """`play(body)` starts a run that does what `body(task)` does; its id."""
    started = []

    def play(body, task=tasks.late, owner="player", **options):
        run = runs.start(task, tasks.kwargs_of(body), owner=owner, **options).run
        started.append(run)
        return run

    yield play
    tasks.BODIES.clear()  # a parked copy may come after the test
    wait_for(lambda: not get_reporter().leases, "every body over")
    get_reporter().drain(10)


@pytest.fixture
def acquainted(store):
    """This process has sent a message, and knows that the layer's server is ours."""
    hand = Hand(store)
    hand.create()
    get_reporter().send(hand.snapshot)
    wait_for(lambda: express.to_tell(hand.id), "the layer's server is known")


@pytest.fixture
def gate():
    """A body waits in `gate.wait()`; the test waits for it and lets it go on."""
    arrived, opened = threading.Event(), threading.Event()

    def wait():
        arrived.set()
        assert opened.wait(30), "the gate was not opened"

    def arrival():
        assert arrived.wait(30), "nobody came to the gate"

    yield SimpleNamespace(wait=wait, arrival=arrival, open=opened.set)
    opened.set()


@pytest.fixture
def declare():
    """`declare(task, form, ...)` lets a task be started from outside, in one test."""
    before = list(catalogue._declared)

    def declare(task, *args, **kwargs):
        return catalogue.startable(*args, **kwargs)(task)

    yield declare
    catalogue._declared[:] = before


def until(run, state):
    """Wait for a run's shown state; its snapshot then."""

    def reached():
        snapshot = runs.read([run])[run]
        return snapshot if getattr(snapshot, "shown", "") == state else None

    return wait_for(reached, f"run {run} {state}")


@contextmanager
def before_the_row_is_written(act):
    """`act()` once, before this thread writes to a row of the history."""
    left = [act]

    def look(execute, sql, *args):
        if left and sql.startswith('UPDATE "channels_progress_run"'):
            left.pop()()
        return execute(sql, *args)

    with connection.execute_wrapper(look):
        yield
    assert not left, "no row was written"


def endless(task):
    """A body that takes steps until it is stopped."""
    pause = threading.Event()
    progress.set(0, total=1 << 40)
    while True:
        progress.advance()
        pause.wait(0.01)
