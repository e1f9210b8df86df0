"""
A process with the app's own functions, driven by lines of JSON: a web process without
the web. It looks at each run as a viewer does, and says what it sees when that changes.

    → {"ref": 1, "do": "start", "task": "gated", "kwargs": {}, "owner": "shared"}
    ← {"ref": 1, "run": ID, "new": true}
    ← {"run": ID, "at": 1234.5, "envelope": {...}}     `at` is this machine's monotonic
"""

import contextlib
import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.faults.settings")

import django

django.setup()

from celery import current_app  # noqa: E402
from django.contrib.auth import get_user_model  # noqa: E402
from django.db import close_old_connections  # noqa: E402

from CeleryProgressbar.celery import app  # noqa: E402
from channels_progress import access, runs  # noqa: E402
from channels_progress import claim as claims  # noqa: E402
from channels_progress import start as start_module  # noqa: E402
from channels_progress.errors import ProgressError, Unavailable  # noqa: E402
from channels_progress.models import Run  # noqa: E402
from channels_progress.store import ERRORS, get_store  # noqa: E402

LOOK = 0.08  # seconds between two looks
FINISHED = {"succeeded", "failed", "cancelled"}

watched = {}  # run: what was said of it last
lock = threading.Lock()


def say(**message):
    with lock:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def start(task, kwargs, owner, key=None, title="", watch=True):
    task = app.tasks[task if "." in task else f"tests.faults.tasks.{task}"]
    started = runs.start(task, kwargs, owner=owner, key=key, title=title)
    if watch:
        watched.setdefault(started.run, None)
    return {"run": started.run, "new": started.new}


def run_id(owner, key):
    return {"run": start_module.run_id(owner, key)}


def start_many(count, **start_with):
    """Each with the same key until it is started, as a page does."""
    return {"runs": [start_one_of_many(f"{i}", **start_with) for i in range(count)]}


def start_one_of_many(key, **start_with):
    for _ in range(10):
        with contextlib.suppress(Unavailable):
            return start(key=key, watch=False, **start_with)["run"]
    raise Unavailable("It cannot be started.")


def get(run):
    return {"envelope": runs.get(run).as_dict()}


def read(runs_):
    found = runs.read(runs_)
    states = [getattr(found[run], "shown", "unavailable") for run in runs_]
    return {"states": states}


def ask(verb, run, **options):
    return {"envelope": getattr(runs, verb)(run, **options).as_dict()}


def watch(run):
    watched.setdefault(run, None)
    return {}


def claim(owner, user):
    """Make an owner's runs a user's, as signing in does."""
    user, _ = get_user_model().objects.get_or_create(username=user)
    claims.claim([owner], user)
    return {"owner": access.owner(user)}


def unmark(run, mark):
    """What a worker says that could not put a duplicate aside."""
    return {"said": get_store().call("unmark", run, mark=mark).code}


def revoke(run, **options):
    """Celery's own."""
    app.control.revoke(run, **options)
    return {}


def stop_taking(worker, queue):
    """Let a worker take nothing more, and go on with what it has."""
    app.control.cancel_consumer(queue, destination=[worker], reply=True, timeout=5)
    return {}


def result(run):
    found = current_app.AsyncResult(run)
    return {"status": found.status, "result": repr(found.result)}


def ping():
    try:
        get_store().ping()
    except ERRORS as error:
        raise Unavailable(repr(error)) from error
    return {"pong": True}


def history(run):
    row = Run.objects.get(pk=run)
    return {"state": row.state, "cursor": row.cursor, "document": row.document}


def count(task):
    """Rows of a task."""
    return {"count": Run.objects.filter(task__endswith=f".{task}").count()}


def workers():
    """The workers that answer."""
    return {"names": list(app.control.inspect(timeout=1).ping() or ())}


def answer(ref, do, **arguments):
    close_old_connections()
    since = time.monotonic()
    try:
        reply = globals()[do](**arguments)
    except ProgressError as error:
        reply = {"code": error.code, "message": error.message}
    except Exception as error:
        reply = {"code": "exception", "message": repr(error)}
    finally:
        close_old_connections()
    say(ref=ref, seconds=time.monotonic() - since, **reply)


def look():
    """Say what a viewer would see, when it differs from what they saw last."""
    while True:
        wanted = list(watched)
        try:
            found = runs.read(wanted) if wanted else {}
        except Exception as error:
            print(f"look: {error!r}", file=sys.stderr, flush=True)
            found = {}
        at = time.monotonic()
        for run, snapshot in found.items():
            if isinstance(snapshot, ProgressError):
                envelope = {"state": snapshot.code}
            else:
                envelope = snapshot.as_dict()
            essence = {**envelope, "now": 0, "seen": 0}
            if essence != watched[run]:
                watched[run] = essence
                say(run=run, at=at, envelope=envelope)
            if envelope["state"] in FINISHED:
                del watched[run]
        close_old_connections()
        time.sleep(LOOK)


def main():
    threading.Thread(target=look, daemon=True).start()
    pool = ThreadPoolExecutor(16)
    say(ready=True)
    for line in sys.stdin:
        pool.submit(answer, **json.loads(line))
    os._exit(0)


main()
