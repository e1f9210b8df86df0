"""How the web publishes a run: it never waits long, and tries again only over another
connection, where one was cut."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, Final

from celery import current_app
from django.utils import translation
from kombu.exceptions import OperationalError
from kombu.pools import producers

from channels_progress import catalogue
from channels_progress.header import Header, Kind
from channels_progress.models import Run

PUBLISH_TIMEOUT: Final = 2.0  # s
# A restart of the broker cuts all connections. Redis's come back by themselves; of the
# others, each says so at once when it is used, and kombu keeps ten.
AT_ONCE: Final = 0.5  # s
KEPT: Final = 10

_failed = -math.inf
"""When a broker that hangs last took no message (monotonic seconds)."""


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
    task = current_app.tasks[row.task]
    send = partial(
        task.apply_async,
        kwargs=row.kwargs,
        task_id=row.pk,
        # Nobody waits here for Celery's result: it would be subscribed to, and a
        # backend that is down would block for 20 s. The header tells the worker.
        headers={**header.as_headers(), "ignore_result": bool(task.ignore_result)},
        ignore_result=True,
        retry=False,
    )
    until, left = time.monotonic() + AT_ONCE, KEPT if _is_amqp() else 0
    while True:
        try:
            with _producer() as producer:
                send(producer=producer)
            return
        except OperationalError:  # published or not: what is there twice begins once
            left -= 1
            if left < 0 or time.monotonic() > until:
                raise


@contextmanager
def _producer() -> Iterator[Any]:
    """One of kombu's. Who waits for it, while its holder waits for the broker in vain,
    does not wait for the broker as well."""
    global _failed
    came = time.monotonic()
    producer = producers[connection()].acquire(block=True, timeout=PUBLISH_TIMEOUT)
    if _failed > came:
        producer.release()
        raise OperationalError("The broker took no message just now.")
    taken = time.monotonic()
    with producer:
        try:
            yield producer
        except OperationalError:
            if time.monotonic() - taken > AT_ONCE:
                _failed = time.monotonic()
            if _is_amqp():
                # Its farewell would wait for a broker that hangs, twice.
                producer.connection.collect()
            raise


def _is_amqp() -> bool:
    return bool(connection().transport.driver_type == "amqp")
