"""The end of a body, from Celery's `task_postrun`, whatever has happened."""

from __future__ import annotations

import logging
import secrets
import sys
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from celery import Task, states
from celery.exceptions import Reject, Retry
from celery.signals import (
    task_postrun,
    worker_process_init,
    worker_process_shutdown,
    worker_shutdown,
)
from celery.worker import state as worker_state
from django.utils import translation
from django.utils.translation import gettext
from kombu.exceptions import EncodeError

from channels_progress import counters
from channels_progress.begin import publish_again, revoke
from channels_progress.bury import bury
from channels_progress.current import (
    Cancelled,
    Paused,
    Stop,
    Superseded,
    TaskError,
    leave,
)
from channels_progress.lease import Lease
from channels_progress.log import transition
from channels_progress.record import get_recorder, record
from channels_progress.reporter import breaker, get_reporter
from channels_progress.run import (
    CANCELLED,
    FAILED,
    MESSAGE_CHARACTERS,
    PAUSED,
    SUCCEEDED,
    WAITING,
    encode,
    encode_result,
    text,
)
from channels_progress.store import ERRORS, Answer, Call, get_store
from channels_progress.task import Polling, header_of
from channels_progress.threads import green

logger = logging.getLogger("channels_progress")

DRAIN_SECONDS: Final = 2.0
in_child = False
"""Whether this process is a prefork worker's child."""


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
    if state is None and (error := _in_flight()) is not None:
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
    # No state: the process is being torn down.
    if task.acks_late:
        return End(WAITING, "redelivery")
    if in_child:
        return None  # its main process says so within seconds
    return End(FAILED, "worker_stopped", _sentence(gettext("Its worker was stopped.")))


def _in_flight() -> Exception | None:
    """What Celery itself met before, in or after a body, as in a result backend that
    is away: it has no state then. What tears a process down is no Exception."""
    error = sys.exc_info()[1]
    return error if isinstance(error, Exception) else None


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


def _sentence(message: str) -> str:
    return encode({"message": message})


def _delay(retry: Retry) -> float | None:
    when = getattr(retry, "when", None)
    if isinstance(when, datetime):
        return max(0.0, (when - datetime.now(when.tzinfo or UTC)).total_seconds())
    return float(when) if when is not None else None


def on_postrun(
    sender: Task[Any, Any], task_id: str, retval: Any, state: str | None, **_: Any
) -> None:
    lease: Lease | None = getattr(sender.request, "progress_lease", None)
    if lease is None:
        if (header := header_of(sender.request)) is not None:
            error = retval if state == states.FAILURE else _in_flight()
            if error is not None:
                bury(header, FAILED, "error", failure(error, task_id))
            translation.deactivate()
        return
    leave()
    reporter, kept = get_reporter(), False
    reporter.busy.add(lease)
    reporter.remove(lease)
    try:
        kept = _end(sender, lease, state, retval)
        if lease.again_after is not None:
            lease.again_after()
    finally:
        translation.deactivate()
        if not kept:
            reporter.busy.discard(lease)


def _end(sender: Task[Any, Any], lease: Lease, state: str | None, retval: Any) -> bool:
    """Say the end of a body, if any; whether that is kept for later."""
    end = end_of(sender, lease, state, retval)
    if state is None and sender.acks_late and green():
        # Celery acknowledges what it kills there, so nothing else would come back.
        publish_again(sender, lease.header)
    if isinstance(retval, Cancelled):
        revoke(sender, sender.request)
    if end is None:
        return False
    lease.ended = True
    if end.state == SUCCEEDED:
        lease.succeeded, lease.result = True, encode_result(retval)
    return finish(lease, end)


def finish(lease: Lease, end: End) -> bool:
    """Commit an end to the store and the history; whether it is kept for later,
    where that fails."""
    if (begin := lease.begin) is not None and not breaker.open:
        with suppress(*ERRORS):
            begin(get_store())
    if lease.number == 0 and lease.begin is None:
        return False  # this message should not have begun
    hop = lease.header.hop + end.successor
    call = lease.call(
        "end",
        lease.members(),
        state=end.state,
        reason=end.reason,
        error=end.error,
        delay=None if end.delay is None else int(end.delay * 1000),
        next=hop if end.successor else None,
        tame=end.tame,
    )
    write = _Write(lease, call, hop)
    if not breaker.open:
        try:
            write.store(get_store().call_one)
        except ERRORS as error:
            breaker.trip(error)
        except SoftTimeLimitExceeded:  # it came too late for the body
            write.done = False
    if not write.done:
        get_reporter().keep(write.later)
    return not write.done


class _Write:
    """One end on its way to the store and the history."""

    def __init__(self, lease: Lease, call: Call, hop: int) -> None:
        self.lease, self.call, self.hop, self.done = lease, call, hop, False

    def later(self) -> None:
        """Called by the reporter until it no longer raises."""
        lease, reporter = self.lease, get_reporter()
        if (begin := lease.begin) is not None:
            begin(reporter.store)
        values = {**self.call.values, "lease": lease.number}
        self.call = Call(self.call.verb, self.call.id, values)
        if lease.number:  # else this message should not have begun
            self.store(reporter.store.call_one)
        reporter.busy.discard(lease)

    def store(self, call_one: Any) -> None:
        lease = self.lease
        answer: Answer = call_one(self.call)
        if answer.code == "vanished":
            whole = lease.whole(self.call)
            if whole is None:
                self.done = True
                return
            answer = call_one(whole)
        self.done = True
        if answer.code != "ok":
            counters.bump("writes_refused")
            logger.info("The end of run %s was refused: %s", lease.id, answer.code)
            return
        transition(lease.header, answer, lease.worker)
        snapshot = answer.snapshot(str(self.call.values["doc"]))
        get_reporter().send(snapshot)
        if snapshot.finished or snapshot.state == PAUSED:
            cursor = lease.progress.cursor_text
            record(snapshot, hop=self.hop, cursor=cursor)


def on_process_init(**_: Any) -> None:
    global in_child
    in_child = True


def on_shutdown(**_: Any) -> None:
    get_reporter().drain(DRAIN_SECONDS)
    get_recorder().drain(DRAIN_SECONDS)
    counters.flush()


task_postrun.connect(on_postrun, dispatch_uid="channels_progress")
worker_process_init.connect(on_process_init, dispatch_uid="channels_progress")
worker_process_shutdown.connect(on_shutdown, dispatch_uid="channels_progress")
worker_shutdown.connect(on_shutdown, dispatch_uid="channels_progress")
