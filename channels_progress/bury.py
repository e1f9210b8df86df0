"""The end of a run in the name of those who cannot speak any more.

A worker says it of its own child that died or is being killed, and of a message that
it dropped.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from django.conf import settings
from django.utils import translation
from django.utils.functional import Promise

from channels_progress.header import Header
from channels_progress.legible import encode
from channels_progress.log import transition
from channels_progress.record import record
from channels_progress.reporter import breaker, get_reporter
from channels_progress.run import LOST, RUNNING
from channels_progress.store import ERRORS, Store, get_store
from channels_progress.worker import Worker

Error = Mapping[str, str | Promise]
"""A `message`, lazy or not, and perhaps a `reference`."""


def bury(
    header: Header,
    state: str,
    reason: str,
    error: Error | None,
    pid: int | None = None,
    *,
    begun: bool = True,
) -> None:
    """End a run whose child is dead or dying, or whose message was dropped.

    `error` is what a viewer may know, said in the run's language. `pid` is the
    child's; a lease that another process holds is left alone. Of a message that was
    dropped before its body (not `begun`), another copy may run: such a body goes on.
    """
    reporter = get_reporter()
    said = (header, state, reason, error, pid, begun)
    try:
        _bury(get_store(), *said, lost=not begun)
    except ERRORS as failure:
        breaker.trip(failure)
        # Who seems lost just after an outage may be about to speak.
        reporter.keep(lambda: _bury(reporter.store, *said, lost=False))


def _bury(
    store: Store,
    header: Header,
    state: str,
    reason: str,
    error: Error | None,
    pid: int | None,
    begun: bool,
    *,
    lost: bool,
) -> None:
    """`lost`: end it also where its worker is."""
    stored = store.read([header.run]).get(header.run)
    lease = None
    if stored is not None and stored.snapshot.state == RUNNING:
        holder = Worker.of(stored.worker)
        # On gevent `pid` names a greenlet; only the main process itself shares its own.
        mine = begun and holder.ours and holder.pid in (pid, os.getpid())
        if not mine and not (lost and stored.snapshot.shown == LOST):
            return
        lease = stored.lease
    with translation.override(header.language or settings.LANGUAGE_CODE):
        said = encode(error) if error else ""
    answer = store.call(
        "bury",
        header.run,
        hop=header.hop,
        lease=lease,
        state=state,
        reason=reason,
        error=said,
    )
    if answer.code != "ok":
        return
    transition(header.task, answer, str(Worker.here()))
    if stored is not None:
        snapshot = answer.snapshot(stored.snapshot.members, owner=stored.snapshot.owner)
    else:
        snapshot = answer.snapshot(owner=header.owner)
    get_reporter().send(snapshot)
    record(snapshot, hop=header.hop)
