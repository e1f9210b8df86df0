"""How the web publishes a run: it never waits long, and never tries again."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from celery import current_app
from django.utils import translation
from kombu.pools import producers

from channels_progress import catalogue
from channels_progress.header import Header, Kind
from channels_progress.models import Run

PUBLISH_TIMEOUT: Final = 2.0  # s


@cache
def connection() -> Any:
    """The broker as the web knows it: 2 s for a connection, 2 s for an answer."""
    options = dict(current_app.conf.broker_transport_options or {})
    if current_app.connection_for_write().transport.driver_type == "redis":
        options |= {
            "socket_timeout": PUBLISH_TIMEOUT,
            "socket_connect_timeout": PUBLISH_TIMEOUT,
        }
    else:
        options |= {"read_timeout": PUBLISH_TIMEOUT, "write_timeout": PUBLISH_TIMEOUT}
        options["confirm_publish"] = True
    return current_app.connection_for_write(
        connect_timeout=PUBLISH_TIMEOUT, transport_options=options
    )


def publish(row: Run, hop: int, kind: Kind, queued: int) -> None:
    """Publish the run's message with this hop; raises what kombu's transport does."""
    declared = catalogue.get(row.slug)
    header = Header(
        run=row.pk,
        owner=row.owner,
        task=row.slug,
        title=row.title,
        hop=hop,
        kind=kind,
        queued=queued,
        pausable=bool(declared and declared.pausable),
        language=translation.get_language() or "",
    )
    pool = producers[connection()]
    with pool.acquire(block=True, timeout=PUBLISH_TIMEOUT) as producer:
        task = current_app.tasks[row.task]
        task.apply_async(
            kwargs=row.kwargs,
            task_id=row.pk,
            # Nobody waits here for Celery's result: it would be subscribed to, and a
            # backend that is down would block for 20 s. The header tells the worker.
            headers={**header.as_headers(), "ignore_result": bool(task.ignore_result)},
            ignore_result=True,
            producer=producer,
            retry=False,
        )
