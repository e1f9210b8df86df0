"""A message as a worker's main process sees it: it speaks where a child cannot."""

from __future__ import annotations

from typing import Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.signals import task_unknown
from celery.worker import state as worker_state
from celery.worker.control import control_command
from celery.worker.request import Request
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy

from channels_progress.bury import bury
from channels_progress.end import over_limit
from channels_progress.header import HEADER, Header
from channels_progress.run import CANCELLED, FAILED, SUCCEEDED


class ProgressRequest(Request):  # type: ignore[misc]  # Celery has no types
    """Celery's Request, which buries a run whose message ends here."""

    _comes_back = False

    def __init_subclass__(cls) -> None:
        """Celery makes a class for each task, with an `on_success` of its own. Where a
        body tore itself down (SystemExit), pools without processes hand it what was
        raised; it fails at that, and so would leave the message to nobody."""
        succeed = cls.on_success

        def on_success(self: Any, outcome: Any, **kwargs: Any) -> Any:
            if isinstance(outcome, ExceptionInfo):
                return self.on_failure(outcome)
            return succeed(self, outcome, **kwargs)

        cls.on_success = on_success

    def _header(self) -> Header | None:
        return Header.of({HEADER: self._request_dict.get(HEADER)}, self.id)

    def _bury(
        self, state: str, reason: str, message: str | Promise, *, begun: bool = True
    ) -> None:
        if (header := self._header()) is not None:
            error = {"message": message} if message else None
            bury(header, state, reason, error, self.worker_pid, begun=begun)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        super().on_timeout(soft, timeout)
        if not soft and self._header() and (self.task.acks_on_timeout is not False):
            self._bury(FAILED, "time_limit", over_limit(timeout))

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> Any:
        result = super().on_failure(exc_info, send_failed_event, return_ok)
        error = exc_info.exception
        error = getattr(error, "exc", error)
        if isinstance(error, TimeLimitExceeded):
            return result  # on_timeout has spoken
        if not isinstance(error, WorkerLostError | SystemExit | KeyboardInterrupt):
            return result  # the child has spoken
        if self._already_cancelled or self._already_revoked:
            return result
        if self._success_was_stored():  # then Celery puts no message back, either
            self._bury(SUCCEEDED, "", "")
        elif not self._comes_back:
            self._bury(FAILED, "worker_lost", gettext_lazy("Its worker process died."))
        return result

    def _retry_worker_lost(self, exc: Exception, exc_info: Any) -> bool:
        self._comes_back = super()._retry_worker_lost(exc, exc_info)
        return self._comes_back

    def reject(self, requeue: bool = False) -> None:
        """Note whether the message comes back."""
        self._comes_back = requeue
        super().reject(requeue)

    def _announce_cancelled(self, emit_retry: bool = True) -> None:
        super()._announce_cancelled(emit_retry)
        if not self.task.acks_late:
            self._bury(
                FAILED, "worker_stopped", gettext_lazy("Its worker was stopped.")
            )

    def _announce_revoked(
        self, reason: str, terminated: bool, signum: Any, expired: bool
    ) -> None:
        super()._announce_revoked(reason, terminated, signum, expired)
        if expired:
            reason, said = "expired", gettext_lazy("It was not begun in time.")
        else:
            reason, said = "revoked", gettext_lazy("It was revoked.")
        self._bury(CANCELLED, reason, said, begun=terminated)


def on_unknown(message: Any, name: str, id: str, **_: Any) -> None:
    """A worker that does not know a task drops its message."""
    header = Header.of(message.headers, id)
    if header is not None:
        error = {"message": gettext_lazy("No worker knows this task.")}
        bury(header, FAILED, "unknown_task", error)


task_unknown.connect(on_unknown, dispatch_uid="channels_progress")


@control_command(  # type: ignore[untyped-decorator]
    args=[("id", str), ("pid", int)]
)
def progress_force(state: Any, id: str, pid: int) -> dict[str, Any]:
    """Kill the child of this worker that runs `id` in process `pid`."""
    pool = state.consumer.pool
    name = type(pool).__module__.rpartition(".")[2].replace("thread", "threads")
    if name != "prefork":
        return {"error": "cannot", "pool": name}
    for request in list(worker_state.active_requests):
        if request.id == id and request.worker_pid == pid:
            request.terminate(pool, signal="KILL")
            return {"ok": f"killed {pid}"}
    return {"error": "gone", "pool": name}
