"""The end of a body, from Celery's `task_postrun`, whatever has happened."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import Any, Final

from billiard.exceptions import SoftTimeLimitExceeded
from celery import Task, states
from celery.signals import (
    task_postrun,
    worker_init,
    worker_process_init,
    worker_process_shutdown,
    worker_shutdown,
)
from django.utils import translation

from channels_progress import counters, history, layer, worker
from channels_progress.begin import publish_again, revoke
from channels_progress.bury import bury
from channels_progress.current import Cancelled, Paused, leave
from channels_progress.end import End, end_of, failure, in_flight, torn_by
from channels_progress.lease import Lease
from channels_progress.legible import encode_result
from channels_progress.log import transition
from channels_progress.record import get_recorder, record
from channels_progress.reporter import breaker, get_reporter
from channels_progress.run import CANCELLED, FAILED, FINISHED, PAUSED, SUCCEEDED
from channels_progress.store import ERRORS, Answer, Call, get_store
from channels_progress.task import header_of

logger = logging.getLogger("channels_progress")

DRAIN_SECONDS: Final = 2.0


def on_postrun(
    sender: Task[Any, Any], task_id: str, retval: Any, state: str | None, **_: Any
) -> None:
    lease: Lease | None = getattr(sender.request, "progress_lease", None)
    if lease is None:
        if (header := header_of(sender.request)) is not None:
            error = retval or in_flight()
            if error is not None and state in (states.FAILURE, None):
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
    if state is None and sender.acks_late and torn_by("GreenletExit"):
        # Celery acknowledges what it kills, so nothing else would come back.
        publish_again(sender, lease.header)
    if isinstance(retval, Cancelled | Paused):  # a cancel may follow a pause
        lease.revoke = partial(revoke, sender, sender.request)
    if end is None:
        return False
    if end.reason == "replace":  # the next body obeys no pause
        lease.header = replace(lease.header, pausable=False)
    lease.ended, lease.polls = True, end.reason == "poll"
    if end.state == SUCCEEDED:
        lease.succeeded, lease.result = True, encode_result(retval)
    return finish(lease, end)


def finish(lease: Lease, end: End) -> bool:
    """Commit an end to the store and the history; whether it is kept for later,
    where that fails."""
    if (begin := lease.begin) is not None and not breaker.open:
        try:
            begin(get_store())
        except ERRORS as error:  # the lease comes first
            breaker.trip(error)
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
    if lease.number and not breaker.open:
        try:
            write.store(get_store().call_one)
        except ERRORS as error:
            breaker.trip(error)
        except SoftTimeLimitExceeded:  # it came too late for the body
            write.done = False
    if not write.done:
        get_reporter().keep(write.later)
        write.early()
    return not write.done


class _Write:
    """One end on its way to the store and the history."""

    def __init__(self, lease: Lease, call: Call, hop: int) -> None:
        self.lease, self.call, self.hop, self.done = lease, call, hop, False

    def early(self) -> None:
        """The history has an end before the store, which is away: this process may die
        before it is back."""
        if self.call.values["state"] in FINISHED:
            what = f"The early end of run {self.lease.id}"
            get_recorder().write(self._write_early, what)

    def _write_early(self) -> None:
        if not self.done:  # the database may have been away, too
            history.close(self.lease.snapshot(self.call), hop=self.hop, early=True)

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
                if self.call.values["state"] == CANCELLED and lease.revoke is not None:
                    lease.revoke()
                return
            answer = call_one(whole)
        self.done = True
        if answer.code != "ok":
            counters.bump("writes_refused")
            logger.info("The end of run %s was refused: %s", lease.id, answer.code)
            return
        transition(lease.header.task, answer, lease.worker)
        members, owner = str(self.call.values["doc"]), lease.header.owner
        snapshot = answer.snapshot(members, owner=owner)
        if not answer.told:
            get_reporter().send(snapshot)
        if snapshot.finished or snapshot.state == PAUSED:
            cursor = lease.progress.cursor_text
            record(snapshot, hop=self.hop, cursor=cursor)
        if snapshot.state == CANCELLED and lease.revoke is not None:
            lease.revoke()


def on_init(**_: Any) -> None:
    layer.preload()


def on_process_init(**_: Any) -> None:
    worker.in_child = True


def on_shutdown(**_: Any) -> None:
    get_reporter().drain(DRAIN_SECONDS)
    get_recorder().drain(DRAIN_SECONDS)
    counters.flush()


task_postrun.connect(on_postrun, dispatch_uid="channels_progress")
worker_init.connect(on_init, dispatch_uid="channels_progress")
worker_process_init.connect(on_process_init, dispatch_uid="channels_progress")
worker_process_shutdown.connect(on_shutdown, dispatch_uid="channels_progress")
worker_shutdown.connect(on_shutdown, dispatch_uid="channels_progress")
