"""Tasks whose body is a function of the test, run by a worker in the test's process."""

import uuid

from celery import shared_task

BODIES = {}


def play(task, body):
    return BODIES.get(body, over)(task)


def over(task):
    """The body of a message that comes after its test."""


late = shared_task(play, name="core.late", bind=True, max_retries=3)
early = shared_task(play, name="core.early", bind=True, acks_late=False)
endless = shared_task(play, name="core.endless", bind=True, max_retries=None)
silent = shared_task(play, name="core.silent", bind=True, ignore_result=True)
stoppable = shared_task(play, name="core.stoppable", bind=True)


@shared_task(name="core.count")
def count(n=1):
    return n


def kwargs_of(body):
    """The arguments that let one of these tasks do what `body(task)` does."""
    name = uuid.uuid4().hex
    BODIES[name] = body
    return {"body": name}
