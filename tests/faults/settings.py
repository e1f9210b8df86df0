"""The site's settings with the tasks of the fault tests, and a queue for each owner."""

import os

from CeleryProgressbar import settings as site
from CeleryProgressbar.settings import *  # noqa: F403
from CeleryProgressbar.settings import CHANNEL_LAYERS, INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.faults"]

CELERY_BROKER_TRANSPORT_OPTIONS = getattr(site, "CELERY_BROKER_TRANSPORT_OPTIONS", {})
timeout = os.environ.get("FAULTS_VISIBILITY_TIMEOUT")
if timeout and "visibility_timeout" in CELERY_BROKER_TRANSPORT_OPTIONS:  # Redis's own
    CELERY_BROKER_TRANSPORT_OPTIONS["visibility_timeout"] = float(timeout)
    CELERY_BROKER_TRANSPORT_OPTIONS["unacked_mutex_expire"] = 1  # second

if timeout := os.environ.get("FAULTS_SOFT_SHUTDOWN"):
    CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = float(timeout)

if os.environ.get("FAULTS_LAYER"):  # mistreats what it receives
    kind = "Core" if os.environ.get("CHANNEL_LAYER") == "core" else "PubSub"
    CHANNEL_LAYERS["default"]["BACKEND"] = f"tests.faults.mischief.{kind}"


def by_owner(name, args, kwargs, options, task=None, **_):
    """A scenario that kills its worker has one of its own, on its owner's queue."""
    header = (options.get("headers") or {}).get("progress") or {}
    if not header:
        return None
    if name.endswith(".hurries"):
        return {"queue": "hurries"}
    # Those who came through the web share one.
    named = ":" not in header["owner"]
    return {"queue": header["owner"] if named else "shared"}


CELERY_TASK_ROUTES = [by_owner]
CELERY_TASK_CREATE_MISSING_QUEUES = True

if seconds := float(os.environ.get("FAULTS_CLOCK", "0")):
    # A host whose clock is wrong, as far as its own Python says `time.time()`.
    import time

    true_time = time.time
    time.time = lambda: true_time() + seconds
