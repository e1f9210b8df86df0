"""Tasks that go wrong, for the page that shows how that looks.

Each takes about `seconds` for 100 steps.
"""

import os
import random
import signal
import time

from billiard import current_process
from celery import shared_task
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from channels_progress import TaskError, progress, startable
from HomeApp.forms import TroubleForm

STEPS = 100


def steps(seconds, start=0, end=STEPS):
    """Yield the numbers behind `start` up to `end`, each after its share of time."""
    for number in range(start + 1, end + 1):
        time.sleep(seconds / STEPS)
        yield number


def walk(seconds, start=0, end=STEPS):
    """Show the steps behind `start` up to `end`."""
    for number in steps(seconds, start, end):
        progress.set(number)


def begin(total):
    progress.unit = "step"
    progress.set(0, total=total)


@startable(TroubleForm, title=gettext_lazy("Fails at 60 %"))
@shared_task(name="HomeApp.tasks.fail_midway")
def fail_midway(seconds=10):
    """Fail at step 60, and say why."""
    begin(STEPS)
    walk(seconds, end=60)
    raise TaskError(_("Step 61 of 100 is missing."))


@startable(TroubleForm, title=gettext_lazy("Succeeds at the third try"))
@shared_task(bind=True, name="HomeApp.tasks.retry_twice", max_retries=2)
def retry_twice(self, seconds=10):
    """Give up at step 40, then at step 70, and come back after a moment."""
    begin(STEPS)
    for patience in (40, 70)[self.request.retries :][:1]:
        walk(seconds, end=patience)
        raise self.retry(countdown=min(3, seconds / 3))
    walk(seconds)


@startable(TroubleForm, title=gettext_lazy("Kills its process"))
@shared_task(name="HomeApp.tasks.crash_process")
def crash_process(seconds=10):
    """Kill the process at step 60, every time."""
    if current_process().name == "MainProcess":
        raise TaskError(_("This worker has no child process that could be killed."))
    begin(STEPS)
    walk(seconds, end=60)
    os.kill(os.getpid(), signal.SIGKILL)


@startable(TroubleForm, title=gettext_lazy("Hangs silently"))
@shared_task(name="HomeApp.tasks.hang_silently")
def hang_silently(seconds=10):
    """Stop at step 40 and hear nothing, not even a cancel, for 30 times as long."""
    begin(STEPS)
    walk(seconds, end=40)
    time.sleep(seconds * 30)
    walk(seconds, start=40)


@startable(TroubleForm, title=gettext_lazy("Has no total"))
@shared_task(name="HomeApp.tasks.no_total")
def no_total(seconds=10):
    """Count without knowing how far."""
    progress.unit = "step"
    count = random.randint(50, 150)
    for _number in progress.track(steps(seconds, end=count)):
        pass
    return {"steps": count}


@startable(TroubleForm, title=gettext_lazy("Finds that the total was wrong"))
@shared_task(name="HomeApp.tasks.wrong_total")
def wrong_total(seconds=10):
    """Believe in 50 steps, and learn at step 40 that there are 100."""
    begin(50)
    walk(seconds, end=40)
    progress.message = _("There are 50 steps more than it seemed.")
    progress.set(40, total=STEPS)
    walk(seconds, start=40)


@startable(TroubleForm, title=gettext_lazy("Counts above its total"))
@shared_task(name="HomeApp.tasks.above_total")
def above_total(seconds=10):
    """Say 80 steps, and count to 100."""
    begin(80)
    walk(seconds)


# What a viewer is going to see of each.
SEEN = {
    "fail_midway": gettext_lazy("Keeps its number, and says why."),
    "retry_twice": gettext_lazy("Gives up twice, waits, and counts its tries."),
    "crash_process": gettext_lazy("Is taken up again, but not for ever."),
    "hang_silently": gettext_lazy("Hears no cancel, and can be forced."),
    "no_total": gettext_lazy("A bar without an end, and without a promise."),
    "wrong_total": gettext_lazy("The end moves away, and the bar goes back."),
    "above_total": gettext_lazy("Goes past its end, and the bar says so."),
}
