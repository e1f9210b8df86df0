"""The base class of every task, named once as `Celery(..., task_cls=...)`.

Tasks whose message carries our header are runs; all others are left alone.
"""

from __future__ import annotations

from typing import Any

from celery import Task
from celery.canvas import Signature, _chain, chord, group
from celery.exceptions import Ignore
from celery.worker import state as worker_state
from django.conf import settings
from django.utils import translation
from django.utils.translation import gettext_lazy

from channels_progress.begin import begin, publish_again
from channels_progress.bury import bury
from channels_progress.header import Header
from channels_progress.lease import Lease
from channels_progress.reporter import breaker
from channels_progress.run import CANCELLED
from channels_progress.store import ERRORS, get_store


class Polling(Ignore):  # type: ignore[misc]  # Celery has no types
    """The run waits for something elsewhere; its next message is published."""

    def __init__(self, countdown: float) -> None:
        super().__init__(f"polls again in {countdown} s")
        self.countdown = countdown


def header_of(request: Any) -> Header | None:
    """The header of the message at hand, if it is a run's."""
    if request.is_eager or request.called_directly:
        return None
    return Header.of(request.headers, request.id)


class ProgressTask(Task):  # type: ignore[misc]  # Celery has no types
    """Celery's Task, with `before_start`, `retry` and `replace` for runs."""

    Request = "channels_progress.request:ProgressRequest"

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Take the run's lease; a refused body does not run."""
        if (header := header_of(self.request)) is not None:
            if task_id in worker_state.revoked:
                # Where tasks share the worker's process, Celery runs them all the same.
                said = {"message": gettext_lazy("It was revoked.")}
                bury(header, CANCELLED, "revoked", said, begun=False)
                raise Ignore("It was revoked.")
            translation.activate(header.language or settings.LANGUAGE_CODE)
            begin(self, header)
        super().before_start(task_id, args, kwargs)

    def signature_from_request(
        self, request: Any = None, *args: Any, **kwargs: Any
    ) -> Signature:
        """The next attempt's message, which `Task.retry` publishes."""
        signature = super().signature_from_request(request, *args, **kwargs)
        header = header_of(self.request if request is None else request)
        if header is not None:
            _tell(self)
            _put(signature, header.next("retry", kept=_kept(self)))
        return signature

    def retry(self, *args: Any, **kwargs: Any) -> Any:
        """Celery's, which comes back only with `throw=False`: what the body does then
        is no end, since the next attempt's message is out."""
        self.request.progress_retry = super().retry(*args, **kwargs)
        return self.request.progress_retry

    def replace(self, sig: Signature) -> Any:
        """Go on as another task under this run's id, with the numbers and no cursor."""
        if (header := header_of(self.request)) is not None:
            sig, last = self._with_a_last_task(sig)
            _put(last, header.next("replace"))  # Celery copies no headers
            _tell(self)
            self.request.progress_replaced = True
        return super().replace(sig)

    def _with_a_last_task(self, sig: Signature) -> tuple[Signature, Signature]:
        """The signature, and its task that runs last: the results of a group are
        gathered by one more, as Celery does it."""
        match sig:
            case group():
                return self._with_a_last_task(
                    sig | self.app.tasks["celery.accumulate"].s(index=0)
                )
            case chord():
                sig.body, last = self._with_a_last_task(sig.body)
            case _chain():
                end, last = self._with_a_last_task(sig.tasks[-1])
                sig.tasks = [*sig.tasks[:-1], end]
            case _:
                last = sig
        return sig, last

    def poll(self, countdown: float = 5.0) -> Polling:
        """`raise self.poll(5)` to be called again without holding a worker.

        The same run and attempt goes on in `countdown` seconds, with the numbers it
        has; `max_retries` does not limit it.
        """
        header = header_of(self.request)
        if header is None:
            raise self.retry(countdown=countdown, max_retries=1 << 30)
        _tell(self)
        following = header.next("poll", kept=_kept(self))
        publish_again(self, following, countdown=countdown)
        return Polling(countdown)


def _tell(task: Task[Any, Any]) -> None:
    """Let the store know all that was said, before a message is published that may
    begin before this one has ended."""
    lease: Lease | None = getattr(task.request, "progress_lease", None)
    if lease is not None and lease.number and not breaker.open:
        try:
            get_store().call_one(lease.call("report", lease.members()))
        except ERRORS as error:
            breaker.trip(error)


def _kept(task: Task[Any, Any]) -> bool:
    """Whether the body has kept a cursor, or may have: a main process does not know."""
    lease: Lease | None = getattr(task.request, "progress_lease", None)
    return lease is None or lease.progress.cursor_text != ""


def _put(signature: Signature, header: Header) -> None:
    headers = {**(signature.options.get("headers") or {}), **header.as_headers()}
    signature.options["headers"] = headers
