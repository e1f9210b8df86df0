"""A task that follows work done by another service."""

import time
from uuid import uuid4

from celery import shared_task
from django.utils.translation import gettext_lazy as _

from channels_progress import TaskError, progress, startable
from HomeApp import forms, rendering

POLL = 1.0  # seconds between two questions


@startable(forms.RenderForm, title=_("A service elsewhere"))
@shared_task(bind=True, name="HomeApp.tasks.render_elsewhere")
def render_elsewhere(self, frames=200, mood="steady"):
    """Ask the render service for frames; no worker waits while it works.

    The job has the run's id, so asking twice never makes two.
    """
    now = time.time()
    past = rendering.Course(**(progress.cursor or {"since": now}))
    job = self.request.id or uuid4().hex
    try:
        course = rendering.ask(job, frames, mood, past, now)
    except rendering.GivenUp as error:
        raise TaskError(str(error)) from None
    progress.unit = "frame"
    progress.message = course.message
    progress.set(course.done, total=course.total)
    progress.checkpoint(course.as_dict())
    if not course.finished:
        raise self.poll(countdown=POLL)
    return {"frames": course.done}
