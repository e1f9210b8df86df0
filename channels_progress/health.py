"""Whether the parts of a site are up, for balancers and for a person at night."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from celery import current_app
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.utils.cache import patch_cache_control
from django.views.decorators.http import require_safe

from channels_progress.conf import conf
from channels_progress.store import Store

CHECK_TIMEOUT: Final = 1.0  # s


def _store() -> None:
    store = Store(conf.REDIS_URL, conf.PREFIX, timeout=CHECK_TIMEOUT)
    try:
        store.ping()
    finally:
        store.close()


def _broker() -> None:
    options = dict(current_app.conf.broker_transport_options or {})
    if current_app.connection_for_write().transport.driver_type == "redis":
        options |= {
            "socket_timeout": CHECK_TIMEOUT,
            "socket_connect_timeout": CHECK_TIMEOUT,
        }
    connection = current_app.connection_for_write(
        connect_timeout=CHECK_TIMEOUT, transport_options=options
    )
    with connection, connection.channel():
        pass  # opening a channel asks the broker for an answer


class Look:
    """A look at one part, shared by all who ask meanwhile: a part that hangs costs one
    thread, however often a balancer asks."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="healthz")
        self._future: Future[tuple[bool, float]] | None = None

    def begin(self) -> Future[tuple[bool, float]]:
        """Whether it is up, and how many seconds it took to find out."""
        with self._lock:
            if self._future is None or self._future.done():
                self._future = self._thread.submit(self._timed)
            return self._future

    def _timed(self) -> tuple[bool, float]:
        begun = time.monotonic()
        try:
            self._check()
            up = True
        except Exception:  # whatever keeps it from answering, it is down
            up = False
        return up, time.monotonic() - begun


LOOKS: Final = {"store": Look(_store), "broker": Look(_broker)}


@require_safe
def healthz(request: HttpRequest) -> HttpResponseBase:
    """Whether web, store and broker are up, and how many ms it took to find out."""
    begun = time.monotonic()
    futures = {part: look.begin() for part, look in LOOKS.items()}
    found = {"web": (True, 0.0)}  # who answers is up
    for part, future in futures.items():
        found[part] = _result(future, begun + CHECK_TIMEOUT - time.monotonic())
    parts = {
        part: {"state": "up" if up else "down", "ms": round(seconds * 1000, 1)}
        for part, (up, seconds) in found.items()
    }
    healthy = all(up for up, _ in found.values())
    response = JsonResponse(parts, status=200 if healthy else 503)
    patch_cache_control(response, no_store=True)
    return response


def _result(future: Future[tuple[bool, float]], seconds: float) -> tuple[bool, float]:
    try:
        return future.result(max(0, seconds))
    except TimeoutError:
        return False, CHECK_TIMEOUT
