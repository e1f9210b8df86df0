"""
The tasks that the fault tests run, break and watch.

What a body does is written to files under LAB, which no fault reaches: `begins` of a
run, and gates, for which a body waits.
"""

import contextlib
import ctypes
import datetime
import decimal
import itertools
import json
import os
import signal
import threading
import time
from pathlib import Path

from celery import shared_task
from celery.exceptions import Ignore, Reject
from django.utils.translation import gettext_lazy

from channels_progress import TaskError, progress, startable
from channels_progress.models import Run
from channels_progress.store import get_store

STEP = 0.02  # seconds of work between two steps


def lab():
    return Path(os.environ["LAB"])


def note(run, what, **values):
    """Append a line on what a body does; one write, so lines never mix."""
    entry = {"what": what, "at": time.monotonic(), "pid": os.getpid(), **values}
    line = json.dumps(entry) + "\n"
    file = os.open(lab() / run, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


@contextlib.contextmanager
def noted(task):
    """Notes when the body begins and when it ends, whatever ends it."""
    body = f"{os.getpid()}.{threading.get_ident()}.{time.monotonic_ns()}"
    retries = task.request.retries
    note(task.request.id, "begin", body=body, retries=retries)
    try:
        yield body
    except BaseException as error:
        note(task.request.id, "end", body=body, by=type(error).__name__)
        raise
    note(task.request.id, "end", body=body, by="")


def is_open(run, gate):
    return (lab() / f"{run}.{gate}").exists()


def through(task, gate="go", seconds=120.0, body=""):
    """Take steps until the gate is opened."""
    deadline = time.monotonic() + seconds
    while not is_open(task.request.id, gate):
        if time.monotonic() > deadline:
            raise TaskError(f"The gate {gate} stayed shut.")
        progress.advance()
        note_step(task, body)
        time.sleep(STEP)


def note_step(task, body):
    """The last step of each body, for overlaps that the ends alone do not show."""
    (lab() / f"{task.request.id}.{body}.step").write_text(str(time.monotonic()))


# --- Bodies ---------------------------------------------------------------------------


@shared_task(bind=True)
def steps(self, n=20, pause=STEP):
    """The plain one; notes its longest step."""
    with noted(self):
        longest, before = 0.0, time.monotonic()
        for _ in progress.track(range(n), "Stepping", unit="step"):
            time.sleep(pause)
            longest = max(longest, time.monotonic() - before)
            before = time.monotonic()
        note(self.request.id, "longest step", seconds=longest)
    return {"steps": n}


@shared_task(bind=True)
def devours(self, most=600):
    """Takes memory without end, the first time; of `most` MB it gives up."""
    with noted(self):
        progress.set(1, 2)
        hoard = []
        while progress.attempt == 1:
            hoard.append(b"x" * 10_000_000)
            if len(hoard) * 10 > most:
                raise TaskError(f"Nobody minded {most} MB.")
        while not is_open(self.request.id, "go"):
            time.sleep(STEP)
    return "content"


@shared_task(bind=True)
def queries(self, n=20):
    """Asks the database at each step. Where tasks are greenlets, none of them may see
    an event loop: Django would refuse the query."""
    with noted(self):
        while not is_open(self.request.id, "go"):
            time.sleep(STEP)
        for _ in progress.track(range(n)):
            Run.objects.filter(pk=self.request.id).get()
            time.sleep(STEP)
    return "asked"


@shared_task(bind=True)
def gated(self, seconds=120.0, total=None):
    """Goes on until its gate is opened; survives its worker."""
    with noted(self) as body:
        if total:
            progress.set(0, total)
        through(self, seconds=seconds, body=body)
    return "done"


@shared_task(bind=True, acks_late=False, reject_on_worker_lost=False)
def gated_early(self):
    """The same, acknowledged before it begins."""
    with noted(self) as body:
        through(self, body=body)
    return "done"


@shared_task(bind=True, acks_late=True, reject_on_worker_lost=False)
def gated_late(self):
    """The same, acknowledged when it ends, and failed with its process."""
    with noted(self) as body:
        through(self, body=body)
    return "done"


@startable(pausable=True)
@shared_task(bind=True)
def checkpointed(self, n=200):
    """Counts to `n` across attempts; needs the gate for its last step."""
    with noted(self) as body:
        done = progress.cursor or 0
        note(self.request.id, "cursor", cursor=done)
        progress.set(done, n)
        while done < n - 1:
            time.sleep(STEP)
            done += 1
            progress.checkpoint(done)
            progress.advance()
        while not is_open(self.request.id, "go"):
            progress.raise_if_cancelled()
            note_step(self, body)
            time.sleep(STEP)
        progress.advance()
    return {"counted": n}


@startable(pausable=True)
@shared_task(bind=True)
def counts(self, n=150):
    """Counts to `n` across attempts."""
    with noted(self):
        for _ in progress.iterate(range(n), "Counting"):
            time.sleep(STEP)
    return {"counted": n}


@shared_task(bind=True)
def kills_itself(self):
    """As a C library with a bug, or the kernel that needs memory."""
    with noted(self):
        progress.set(1, 10)
        os.kill(os.getpid(), signal.SIGKILL)


@shared_task(bind=True)
def exits(self):
    with noted(self):
        raise SystemExit(3)


@shared_task(bind=True, acks_late=False, reject_on_worker_lost=False)
def exits_early(self):
    with noted(self):
        raise SystemExit(3)


@shared_task(bind=True)
def holds_the_gil(self, seconds):
    """A C call during which no thread of the process runs."""
    with noted(self):
        progress.set(1, 2)
        time.sleep(0.1)
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))
        progress.advance()
    return "awake"


@shared_task(bind=True, time_limit=1)
def over_the_hard_limit(self):
    with noted(self) as body:
        through(self, body=body)


@shared_task(bind=True, soft_time_limit=1)
def over_the_soft_limit(self):
    with noted(self) as body:
        through(self, body=body)


@shared_task(bind=True, max_retries=3)
def retries_once(self, countdown=0):
    """Its first attempt retries; what it says after that comes late on purpose."""
    with noted(self):
        progress.set(1, 2)
        if self.request.retries == 0:
            raise self.retry(countdown=countdown)
    return "second"


@shared_task(bind=True, max_retries=3)
def gated_then_retries(self, countdown=0):
    """The first attempt waits at its gate and retries; the second at another."""
    with noted(self) as body:
        if self.request.retries == 0:
            through(self, "first", body=body)
            note(self.request.id, "retries")
            raise self.retry(countdown=countdown)
        through(self, "second", body=body)
    return "second"


@shared_task(
    bind=True,
    autoretry_for=(ValueError,),
    max_retries=3,
    retry_backoff=False,
    default_retry_delay=1,  # a viewer has the time to see that it waits
)
def retries_and_fails(self):
    with noted(self):
        progress.set(self.request.retries, 10)
        raise ValueError("never works")


@shared_task(bind=True)
def rejects(self):
    with noted(self):
        raise Reject("not mine")


@shared_task(bind=True)
def rejects_once(self):
    """Puts its message back the first time."""
    with noted(self):
        if not is_open(self.request.id, "go"):
            (lab() / f"{self.request.id}.go").touch()
            raise Reject("not now", requeue=True)
    return "second"


@shared_task(bind=True)
def ignores(self):
    with noted(self):
        raise Ignore()


@shared_task(bind=True, expires=0.2)
def expires(self):
    with noted(self):
        return "in time"


@shared_task(bind=True)
def replaces(self):
    with noted(self):
        progress.set(1, 4)
        raise self.replace(steps.s(n=5))


@shared_task(bind=True, max_retries=0)
def polls(self):
    """Looks three times for something elsewhere."""
    with noted(self):
        progress.advance()
        if progress.get().current < 3:
            raise self.poll(countdown=0.2)
    return "there"


@startable()
@shared_task(bind=True)
def quick(self):
    with noted(self):
        progress.set(1, 1)
    return 5


@shared_task(bind=True)
def advances(self, n):
    """Returns the seconds that `n` calls of advance took."""
    with noted(self):
        progress.set(0, n)
        since = time.perf_counter()
        for _ in range(n):
            progress.advance()
        return round(time.perf_counter() - since, 3)


@shared_task(bind=True)
def forks(self):
    """Has children of its own that go on with its loop; returns how they ended."""
    with noted(self):
        statuses = []
        for _ in progress.track(range(3)):
            pid = os.fork()
            if not pid:
                for _ in range(1000):
                    progress.advance()
                progress.message = "A child speaks."
                progress.flush()
                os._exit(0)
            statuses.append(os.waitpid(pid, 0)[1])
    return {"children": statuses}


@shared_task(bind=True)
def hurries(self, revs):
    """Takes a step every few ms, until its worker has reported so many."""
    key = f"progress:{self.request.id}"
    with noted(self):
        client = get_store().client
        for i in itertools.count():
            progress.set(i)
            time.sleep(0.002)
            if int(client.hget(key, "rev")) > revs:
                return


@shared_task(bind=True)
def chatters(self):
    """Says something long all the time."""
    with noted(self):
        for i in itertools.count():
            progress.set(i)
            progress.message = f"{i} " + "x" * 480
            if is_open(self.request.id, "go"):
                return
            time.sleep(STEP)


class Untranslatable:
    def __str__(self):
        raise RuntimeError("no text")


WEIRD = {
    "a message of 1 MB": lambda: setattr(progress, "message", "x" * 1_000_000),
    "total 0": lambda: progress.set(0, 0),
    "nan": lambda: progress.set(float("nan"), float("nan")),
    "infinity": lambda: progress.set(float("inf"), float("-inf")),
    "negative": lambda: progress.set(-5, 10),
    "a negative total": lambda: progress.set(5, -10),
    "current above total": lambda: progress.set(15, 10),
    "a decimal": lambda: progress.set(decimal.Decimal("1.5"), decimal.Decimal(3)),
    "a huge number": lambda: progress.set(10**400, 10**500),
    "a lazy text": lambda: setattr(progress, "message", gettext_lazy("Lazy")),
    "a text that raises": lambda: setattr(progress, "message", Untranslatable()),
    "a lone surrogate": lambda: setattr(progress, "message", "\ud800 text"),
    "control characters": lambda: setattr(progress, "message", "\0\x1b[31m<b>"),
    "a date for a message": lambda: setattr(
        progress, "message", datetime.date(2026, 1, 2)
    ),
    "a text for a total": lambda: progress.set(1, "ten"),
}

RESULTS = {
    "a date": lambda: datetime.date(2026, 1, 2),
    "a decimal": lambda: decimal.Decimal("1.50"),
    "nan": lambda: float("nan"),
    "a set": lambda: {1, 2},
    "bytes": lambda: b"\xff\x00",
    "5 MB": lambda: "x" * 5_000_000,
    "a lone surrogate": lambda: "\ud800",
    "an odd key": lambda: {(1, 2): 3},
}


@shared_task(bind=True, ignore_result=True)
def weird(self, value="", result=""):
    with noted(self):
        if value:
            WEIRD[value]()
        progress.flush()
        time.sleep(STEP)
    return RESULTS[result]() if result else "fine"


@shared_task(bind=True)
def tells_a_password(self):
    with noted(self):
        raise RuntimeError("postgres://admin:hunter2@db/prod is down")


@shared_task(bind=True)
def fails_politely(self):
    with noted(self):
        raise TaskError("Row 17: not a number")


@shared_task(bind=True)
def cleans_up(self):
    """Its clean-up runs when it is cancelled."""
    with noted(self) as body:
        progress.set(4200, 10_000)  # from here, a percent is two seconds
        try:
            through(self, body=body)
        finally:
            note(self.request.id, "cleaned up")


@shared_task(bind=True)
def listens(self):
    """Has nothing new to say: what it hears comes with its beats."""
    with noted(self):
        progress.set(42, 100)
        while not is_open(self.request.id, "go"):
            progress.raise_if_cancelled()
            time.sleep(STEP)


@shared_task(bind=True)
def swallows(self):
    """Catches what should end it, and goes on: it gets it again."""
    with noted(self):
        caught = 0
        while not is_open(self.request.id, "go"):
            try:
                progress.advance()
            except Ignore:
                caught += 1
                note(self.request.id, "swallowed")
                if caught == 3:
                    raise
            time.sleep(STEP)


@shared_task(bind=True)
def silent(self, seconds=60.0):
    """Never calls progress: it cannot be stopped politely."""
    with noted(self):
        deadline = time.monotonic() + seconds
        while not is_open(self.request.id, "go") and time.monotonic() < deadline:
            time.sleep(STEP)
    return "unheard"


@shared_task(bind=True)
def last_step(self):
    """Waits, without a step, just before its end."""
    with noted(self):
        progress.set(99, 100)
        while not is_open(self.request.id, "go"):
            time.sleep(STEP)
    return "ended"


if os.environ.get("FAULTS_WITHOUT") != "unknown_to_workers":

    @shared_task
    def unknown_to_workers():
        """Some workers are of an older version."""
