"""What a body's end means: where it leads, and what a viewer may know of it."""

from __future__ import annotations

import logging
import secrets
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from celery import Task, states
from celery.exceptions import Reject, Retry
from celery.worker import state as worker_state
from django.utils.functional import Promise
from django.utils.text import format_lazy
from django.utils.translation import gettext, gettext_lazy
from kombu.exceptions import EncodeError

from channels_progress import worker
from channels_progress.current import Cancelled, Paused, Stop, Superseded, TaskError
from channels_progress.lease import Lease
from channels_progress.legible import MESSAGE_CHARACTERS, encode, text
from channels_progress.run import CANCELLED, FAILED, PAUSED, SUCCEEDED, WAITING
from channels_progress.task import Polling

logger = logging.getLogger("channels_progress")


@dataclass(frozen=True, slots=True)
class End:
    """Where a body's end leads; `delay` is in seconds."""

    state: str
    reason: str = ""
    error: str = ""
    delay: float | None = None
    successor: bool = False
    tame: bool = False


def failure(error: BaseException, id: str) -> dict[str, str]:
    """What a viewer may know of a failure: `message`, and perhaps the `reference`
    under which the log has the rest."""
    if isinstance(error, TaskError):
        return {"message": text(error, MESSAGE_CHARACTERS)}
    if isinstance(error, SoftTimeLimitExceeded | TimeLimitExceeded):
        return {"message": gettext("It took longer than it may.")}
    message = gettext("Something went wrong.")
    if isinstance(error, EncodeError):
        message = gettext("It returned or passed on a value that is not JSON.")
    reference = secrets.token_hex(4)
    logger.error("Run %s failed, reference %s", id, reference, exc_info=error)
    return {"message": message, "reference": reference}


def end_of(
    task: Task[Any, Any], lease: Lease, state: str | None, value: Any
) -> End | None:
    """What a body's end means, from Celery's state and value; None is no word."""
    if state is None and (error := in_flight()) is not None:
        state, value = _unkept(error)
    retry = getattr(task.request, "progress_retry", None)
    ended = state in (states.SUCCESS, states.IGNORED)
    if retry and ended and not isinstance(value, Stop):
        state, value = states.RETRY, retry
    match state, value:
        case states.SUCCESS, _:
            return End(SUCCEEDED)
        case states.RETRY, _:
            return End(WAITING, "retry", delay=_delay(value), successor=True)
        case states.FAILURE, NotImplementedError() if worker_state.should_terminate:
            # On solo, Celery raises it in the body to stop a worker at once.
            return End(
                FAILED, "worker_stopped", _sentence(gettext("Its worker was stopped."))
            )
        case states.FAILURE, SoftTimeLimitExceeded() | TimeLimitExceeded():
            return End(FAILED, "time_limit", encode(failure(value, lease.id)))
        case states.FAILURE, _:
            return End(FAILED, "error", encode(failure(value, lease.id)))
        case _, Superseded():
            return None
        case _, Cancelled():
            return End(CANCELLED, "asked")
        case _, Paused():
            return End(PAUSED)
        case _, Polling():
            return End(WAITING, "poll", delay=value.countdown, successor=True)
        case _, Reject() if value.requeue:
            return End(WAITING, "redelivery", tame=True)
        case _, Reject():
            return End(
                FAILED, "rejected", _sentence(gettext("The task rejected its message."))
            )
        case states.IGNORED, _ if getattr(task.request, "progress_replaced", False):
            return End(WAITING, "replace", successor=True)
        case states.IGNORED, _:
            return End(
                CANCELLED,
                "ignored",
                _sentence(gettext("The task ended without a result.")),
            )
    # No state: the body is being torn down.
    if torn_by("Timeout") and task.acks_on_timeout is not False:
        seconds = getattr(sys.exc_info()[1], "seconds", None) or 0
        return End(FAILED, "time_limit", _sentence(over_limit(seconds)))
    if task.acks_late:
        return End(WAITING, "redelivery")
    if worker.in_child:
        return None  # its main process says so within seconds
    return End(FAILED, "worker_stopped", _sentence(gettext("Its worker was stopped.")))


def in_flight() -> Exception | None:
    """What Celery itself met before, in or after a body, as in a result backend that
    is away: it has no state then. What tears a process down is no Exception."""
    error = sys.exc_info()[1]
    return error if isinstance(error, Exception) else None


def torn_by(name: str) -> bool:
    """Whether gevent ends the body with an exception of this name, which is none of
    Exception's: a hard time limit is a `Timeout`, a kill a `GreenletExit`."""
    kind = type(sys.exc_info()[1])
    of_gevent = kind.__module__.partition(".")[0] in ("gevent", "greenlet")
    return of_gevent and kind.__name__ == name


def _unkept(error: Exception) -> tuple[str, BaseException]:
    """The state and value that Celery could not keep: what the body has raised came
    before `error`."""
    earlier: BaseException | None = error
    while earlier is not None:
        if isinstance(earlier, Retry):
            return states.RETRY, earlier
        if isinstance(earlier, TaskError | SoftTimeLimitExceeded):
            return states.FAILURE, earlier
        earlier = earlier.__context__
    return states.FAILURE, error


def over_limit(seconds: float) -> Promise:
    """What is said of a body that a hard time limit has ended."""
    sentence = gettext_lazy("It took longer than it may ({seconds} s).")
    return format_lazy(sentence, seconds=f"{seconds:g}")


def _sentence(message: str | Promise) -> str:
    return encode({"message": message})


def _delay(retry: Retry) -> float | None:
    when = getattr(retry, "when", None)
    if isinstance(when, datetime):
        return max(0.0, (when - datetime.now(when.tzinfo or UTC)).total_seconds())
    return float(when) if when is not None else None
