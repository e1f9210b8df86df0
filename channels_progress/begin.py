"""What happens before a body: the lease is taken, or the message is refused."""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
from contextlib import suppress
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any, Final, NoReturn

from celery import Task
from celery.exceptions import Ignore, Reject
from django.utils.translation import gettext

from channels_progress import counters, express, history
from channels_progress.conf import conf
from channels_progress.current import Progress, enter
from channels_progress.header import Header
from channels_progress.lease import Lease
from channels_progress.legible import encode
from channels_progress.log import transition
from channels_progress.models import Run
from channels_progress.record import record
from channels_progress.reporter import breaker, get_reporter
from channels_progress.run import (
    CANCELLED,
    FAILED,
    RUNNING,
    WAITING,
    Details,
    Snapshot,
)
from channels_progress.store import ERRORS, Answer, Store, get_store, nonce
from channels_progress.threads import spawn
from channels_progress.worker import Worker

logger = logging.getLogger("channels_progress")

REST: Final = 2.0  # s


def dead(holder: Worker, number: int, asking: Lease) -> bool:
    """Whether the lease's process is one of this very worker's and no longer lives."""
    if not holder.ours:
        return False
    if holder.pid == os.getpid():
        return not get_reporter().holds(asking.id, number, besides=asking)
    return holder.gone()


class Refused(Ignore):  # type: ignore[misc]  # Celery has no types
    """This message has nothing to run: its body does not begin."""


def begin(task: Task[Any, Any], header: Header) -> None:
    """Take the lease for the message at hand, or raise Ignore.

    It may take 1 s; if the store does not answer by then the body runs mute, and
    the reporter keeps asking. What may have a cursor, or a body elsewhere, waits
    instead, without a slot.
    """
    lease = Lease(
        header=header,
        progress=Progress(),
        attempts=None if task.max_retries is None else task.max_retries + 1,
        worker=str(Worker.here(task.request)),
        # Where the store has lost the run, the message knows its retries, and whether
        # a body of it may have begun before.
        attempt=task.request.retries + 1 + _comes_again(task.request, header),
    )
    lease.progress._wake = partial(get_reporter().wake, lease)
    asking, reporter = _Asking(task, lease, get_store()), get_reporter()
    reporter.busy.add(lease)
    try:
        if breaker.open:
            asking.postpone()
        else:
            try:
                asking.ask()
            except ERRORS as error:
                _trip(error)
                asking.postpone()
        reporter.add(lease)
    finally:
        reporter.busy.discard(lease)
    task.request.progress_lease = lease
    enter(lease.progress)


class _Asking:
    """The begin of one message; it may be asked twice, and counts once."""

    rest = 0.0
    """Until when nobody asks a history that did not answer (monotonic seconds): its
    time is not spent for each message."""

    def __init__(self, task: Task[Any, Any], lease: Lease, store: Store) -> None:
        self.task, self.lease, self.store = task, lease, store
        self.request = task.request  # another thread, which asks late, has none
        self.nonce, self.mark, self.fresh = nonce(), lease.header.mark, nonce()
        self.is_late = False
        self.unread = False
        """Whether the history did not answer."""

    def postpone(self) -> None:
        """The body is to begin mute; not beside another of this very process."""
        here = get_reporter().leases.get(self.lease.id)
        if here is not None and here.header.hop == self.lease.header.hop:
            self._again(self.mark or self.fresh, conf.LOST_AFTER)
            raise Refused("its body runs here, and the store cannot be asked")
        if here is not None and here.header.hop > self.lease.header.hop:
            raise Refused("a later message of its run has a body here")
        self._row()  # which may know that the run is over
        if self._goes_on():
            self._wait("only the store knows how it goes on")
        self.lease.begin = self.late

    def _wait(self, reason: str) -> NoReturn:
        known = self.fresh if _redelivered(self.request) else ""
        self._again(self.mark or known, conf.HEARTBEAT_INTERVAL)
        raise Refused(reason)

    def _goes_on(self) -> bool:
        """Whether the body may have a cursor, which it would overwrite where it begins
        without it, or may run elsewhere."""
        header = self.lease.header
        return (
            _comes_again(self.request, header)
            or header.kind == "poll"
            or header.kept
            or (header.pausable and header.kind in ("retry", "resume"))
        )

    def late(self, store: Store) -> None:
        """Called by the reporter until the store has answered: it never takes a
        lease that speaks."""
        asking = copy(self)  # another thread may be asking as well
        asking.is_late, asking.store = True, store
        try:
            asking.ask()
        except Ignore:
            self.lease.supersede()
            get_reporter().remove(self.lease)
        self.lease.begin = None

    def ask(self) -> None:
        """Take the lease or raise Ignore; raises what the store raises."""
        if _comes_again(self.request, self.lease.header):
            self._row()  # which may know of an end before the store does
        if self._goes_on():
            # A store that hangs does later what it was told, for a message that has
            # given up and comes again: let that be this.
            self.store.ping()
        answer = self._call()
        if answer.code == "missing":
            answer = self._make()
        if answer.code == "duplicate" and dead(*self._holder(answer)):
            self.mark = self.fresh
            answer = self._call(dead=answer.extra[1].decode())
        if answer.code == "begun":
            self._begun(answer)
        elif answer.code == "ended":
            self._ended(answer)
        elif answer.code in ("duplicate", "afresh"):
            wait = int(answer.extra[0]) / 1000 if answer.code == "duplicate" else 0
            again = partial(self._again, self.fresh, wait)
            if self.is_late:
                self.lease.again_after = again
            else:
                again()
            raise Refused(f"{answer.code}: another copy of this message goes on")
        else:
            if answer.code == CANCELLED:
                revoke(self.task, self.request)
            self._record()  # whoever said it may have died before
            logger.info("Message of run %s dropped: %s", self.lease.id, answer.code)
            raise Refused(answer.code)

    def _holder(self, answer: Answer) -> tuple[Worker, int, Lease]:
        number, holder = answer.extra[1:3]
        return Worker.of(holder.decode()), int(number), self.lease

    def _call(self, **values: object) -> Answer:
        header = self.lease.header
        return self.store.call(
            "begin",
            header.run,
            hop=header.hop,
            kind=header.kind,
            nonce=self.nonce,
            mark=self.mark,
            fresh=self.fresh,
            redelivered=_redelivered(self.request),
            lost=int(conf.LOST_AFTER * 1000),
            max=conf.MAX_RESTARTS,
            worker=self.lease.worker,
            doc=self._blank(),
            error=encode(
                {"message": gettext("Its worker stopped %d times.") % conf.MAX_RESTARTS}
            ),
            **express.to_tell(header.run),
            **values,
        )

    def _blank(self) -> str:
        header = self.lease.header
        return Details(
            run=header.run,
            task=header.task,
            title=header.title,
            attempts=self.lease.attempts,
            pausable=header.pausable,
        ).members()

    def _make(self) -> Answer:
        """The store does not know the run: the history may, else it is made again."""
        header, row = self.lease.header, self._row()
        if self.unread and self._goes_on():
            self._wait("only the history knows whether it goes on")
        return self._call(
            make=True,
            epoch=secrets.token_hex(4),
            owner=row.owner if row else header.owner,  # it may have been claimed
            queued=header.queued or None,
            # The script counts this retry.
            attempt=self.lease.attempt - (header.kind == "retry"),
            cursor=row.cursor if row else "",
        )

    def _row(self) -> Run | None:
        """The history's, if it can be read; raises Ignore where the run is over."""
        header = self.lease.header
        self.unread = time.monotonic() < _Asking.rest
        if self.unread:
            return None
        try:
            row = history.read([header.run]).get(header.run)
        except history.ERRORS as error:
            logger.warning("The history cannot be read for %s: %r", header.run, error)
            self.unread = True
            _Asking.rest = time.monotonic() + REST
            return None
        if row is not None and history.over(row, header.hop):
            if row.state == CANCELLED:
                revoke(self.task, self.request)
            logger.info("Message of run %s dropped: %s", header.run, row.state)
            raise Refused(f"The history says {row.state}.")
        return row

    def _begun(self, answer: Answer) -> None:
        lease, progress = self.lease, self.lease.progress
        number, cursor, doc, silence = answer.extra
        head = answer.snapshot(doc)
        again = _redelivered(self.request) or self.mark
        if again and answer.was in (RUNNING, WAITING):
            counters.bump("restarts")
        transition(lease.header.task, answer, lease.worker)
        lease.number, lease.started = int(number), head.started
        lease.attempt = progress.attempt = head.attempt
        lease.silence = int(silence) / 1000
        if cursor and not self.is_late:
            progress._saved = progress.cursor_text = lease.cursor = cursor.decode()
        if not self.is_late:
            known = json.loads(b"{" + doc + b"}") if doc else {}
            progress.restore(
                known.get("current") or 0,
                known.get("total"),
                known.get("unit") or "",
                known.get("message") or "",
            )
            if lease.header.kind != "replace":  # whose document may be the last task's
                lease.sent = lease.numbers()
            self._keep_pace(head, known.get("samples") or [])
        lease.spoke = lease.heard = time.monotonic()
        lease.obey(answer.asked)
        if not answer.told:
            get_reporter().send(head)

    def _keep_pace(self, head: Snapshot, samples: list[tuple[float, float]]) -> None:
        """What another service does goes on between two polls. (Of a later attempt,
        and of a run that was paused, nobody knows when it began.)"""
        lease = self.lease
        since_start = head.attempt == 1 and not lease.header.pausable
        if lease.header.kind == "poll" and since_start and head.started:
            points = [(at, done) for at, done in samples]
            lease.go_on(points, (head.now - head.started) / 1000)

    def _ended(self, answer: Answer) -> None:
        """A wish that waited was fulfilled, or the hop has begun too often."""
        transition(self.lease.header.task, answer, self.lease.worker)
        snapshot = self._record()
        if snapshot is not None and not answer.told:
            get_reporter().send(snapshot)
        if answer.state == CANCELLED:
            revoke(self.task, self.request)
        elif answer.state == FAILED:
            reason = RuntimeError(json.loads(answer.snapshot().error)["message"])
            _tell_celery(self.task, "mark_as_failure", self.request, reason)
        raise Refused(answer.state)

    def _record(self) -> Snapshot | None:
        """Write a pause or an end to the history, and return it; None where the run
        is neither paused nor over, or cannot be read: whoever reads it will."""
        try:
            stored = self.store.read([self.lease.id]).get(self.lease.id)
        except ERRORS as error:  # what the script said is said, and no body begins
            _trip(error)
            return None
        if stored is None or not history.settled(stored.snapshot):
            return None
        record(stored.snapshot, hop=stored.hop, cursor=stored.cursor)
        return stored.snapshot

    def _again(self, mark: str, wait: float) -> None:
        """Publish this message again, same hop, to come back when the lease may be
        lost: it holds no slot meanwhile, and an early redelivery is not wasted. It
        came in time, so it does not expire."""
        header = replace(self.lease.header, mark=mark)
        try:
            countdown = max(wait, 0) + 0.05
            publish_again(self.task, header, countdown=countdown, expires=None)
        except Exception as error:  # kombu's transports raise what they like
            with suppress(*ERRORS):
                get_store().call("unmark", header.run, mark=mark)
            raise Reject(f"could not be parked: {error!r}", requeue=True) from error


def _trip(error: Exception) -> None:
    breaker.trip(error)
    get_reporter().watch_the_store()  # nobody else may have anything to say


def _redelivered(request: Any) -> bool:
    return bool((request.delivery_info or {}).get("redelivered"))


def _comes_again(request: Any, header: Header) -> bool:
    """Whether the message, or the one it is a copy of, may have had a body before."""
    return _redelivered(request) or header.mark != ""


def publish_again(task: Task[Any, Any], header: Header, **options: Any) -> None:
    """Publish the message at hand again under the run's id, with this header."""
    signature = Task.signature_from_request(task, task.request, **options)
    headers = {**(signature.options.get("headers") or {}), **header.as_headers()}
    signature.set(headers=headers).apply_async()


def revoke(task: Task[Any, Any], request: Any) -> None:
    """Celery's result says REVOKED, too."""
    _tell_celery(task, "mark_as_revoked", request, "cancelled")


def _tell_celery(task: Task[Any, Any], mark: str, request: Any, reason: object) -> None:
    """Celery's own result is a courtesy: its backend may fail, or hang for long."""

    def tell() -> None:
        with suppress(Exception):
            keep = not task.ignore_result
            getattr(task.backend, mark)(
                request.id, reason, request=request, store_result=keep
            )

    spawn(tell) if get_reporter().is_this_thread() else tell()
