"""What views and consumers call: start, read, cancel, pause and resume a run.

Everything here blocks, for a bounded time; coroutines call it through `in_thread`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, TypeVar

from django.db import OperationalError, close_old_connections, connections
from django.utils import translation

from channels_progress import history
from channels_progress.ask import cancel, pause, resume
from channels_progress.errors import ProgressError
from channels_progress.layer import group
from channels_progress.models import Run
from channels_progress.read import active, get, listing, read, unavailable
from channels_progress.run import Snapshot
from channels_progress.start import Started, start, submit

P = ParamSpec("P")
T = TypeVar("T")

THREAD_TIMEOUT: Final = 3.0  # s
HISTORY_TIMEOUT: Final = 1.0  # s
GIVEN_UP: Final = 30.0  # s; an answer may never come, where a new question has one

__all__ = [
    "Started",
    "active",
    "cancel",
    "get",
    "group",
    "in_thread",
    "listing",
    "pause",
    "read",
    "resume",
    "start",
    "submit",
]


def _keep_files_open() -> None:
    """Let a thread that lives as long as the process keep its SQLite connection.

    The last one to close writes the whole log back into the file and waits for the
    disk; and to open one costs as much as two queries.
    """
    for connection in connections.all():
        if connection.vendor == "sqlite":
            lasting = {**connection.settings_dict, "CONN_MAX_AGE": None}
            connection.settings_dict = lasting


def _threads(number: int, name: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(number, name, _keep_files_open)


_executor = _threads(8, "progress")
# What pages wait for has threads that neither a database nor a broker can keep.
_readers = _threads(2, "progress-read")
_lookers = _threads(8, "progress-history")


async def in_thread(
    function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call a blocking function of this app from a coroutine; Unavailable after 3 s.

    It runs on threads of its own, so a store, database or broker that hangs cannot
    hold up the site's other work. Texts are in the coroutine's language.
    """
    return await _in(_executor, partial(function, *args, **kwargs))


async def _in(executor: ThreadPoolExecutor, function: Callable[[], T]) -> T:
    language = translation.get_language()

    def call() -> T:
        with translation.override(language):
            return _with_connections(function)

    future = asyncio.get_running_loop().run_in_executor(executor, call)
    try:
        return await asyncio.wait_for(future, THREAD_TIMEOUT)
    except TimeoutError as error:
        raise unavailable() from error
    except history.ERRORS as error:
        raise unavailable() from error


def _with_connections(function: Callable[[], T]) -> T:
    """Call it without the connections that its thread has kept for too long."""
    close_old_connections()
    try:
        return function()
    finally:
        close_old_connections()


class Reader:
    """Reads for pages that wait for the store, and for the history only for a moment:
    a database that takes longer counts as one that is down."""

    def __init__(self) -> None:
        self._look: Future[dict[str, Run]] | None = None
        self._looked = 0.0

    async def read(self, ids: list[str]) -> dict[str, Snapshot | ProgressError]:
        """As `read`, from a coroutine."""
        return await _in(_readers, partial(read, ids, self._rows_of))

    def _rows_of(self, ids: list[str]) -> dict[str, Run]:
        now = time.monotonic()
        hangs = self._look is not None and not self._look.done()
        if hangs and now - self._looked < GIVEN_UP:
            raise OperationalError("The database does not answer.")
        look = _lookers.submit(partial(_with_connections, partial(history.read, ids)))
        self._look, self._looked = look, now
        try:
            return look.result(HISTORY_TIMEOUT)
        except TimeoutError as error:
            raise OperationalError("The database does not answer.") from error
