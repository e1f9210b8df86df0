"""End the process that holds a run which does not answer.

Celery's `revoke(terminate=True)` finds a request by its id, and that may be a parked
duplicate: this names the process that the lease names.
"""

from __future__ import annotations

from typing import Final

from celery import current_app
from django.utils.translation import gettext as _

from channels_progress.errors import Invalid
from channels_progress.publish import connection
from channels_progress.read import unavailable
from channels_progress.run import RUNNING
from channels_progress.store import ERRORS, get_store
from channels_progress.worker import Worker

REPLY_TIMEOUT: Final = 1.5  # s


def force(id: str) -> None:
    """End the process of a running run; Invalid says why where that cannot be done."""
    try:
        stored = get_store().read([id]).get(id)
    except ERRORS as error:
        raise unavailable() from error
    if stored is None or stored.snapshot.state != RUNNING:
        return
    holder = Worker.of(stored.worker)
    try:
        with connection().clone() as broker:
            replies = current_app.control.broadcast(
                "progress_force",
                arguments={"id": id, "pid": holder.pid},
                destination=[holder.node],
                reply=True,
                timeout=REPLY_TIMEOUT,
                limit=1,
                connection=broker,
            )
    except Exception as error:  # kombu's transports raise what they like
        raise unavailable() from error
    answer = replies[0][holder.node] if replies else {}
    if "ok" in answer:
        return
    pool = answer.get("pool")
    if pool and pool != "prefork":
        raise Invalid(
            _(
                "A task in the pool “%s” cannot be ended by force: it shares its "
                "process with others. It ends when its code looks next, or with its "
                "worker."
            )
            % pool
        )
    raise Invalid(_("Its worker did not answer; it may be gone, or busy."))
