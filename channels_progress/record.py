"""What workers write to the history: an end or a pause, later where that fails.

A database may hang for long and the reporter must go on speaking, so a thread of its
own tries again.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from _queue import SimpleQueue  # gevent replaces `queue`'s with greenlets'
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from django.db import DataError, close_old_connections

from channels_progress import history
from channels_progress.reporter import get_reporter
from channels_progress.run import Snapshot
from channels_progress.threads import spawn

logger = logging.getLogger("channels_progress")

PAUSE: Final = 2.0  # s between two tries


class Recorder:
    """What one process still owes the history, in its order."""

    def __init__(self) -> None:
        self._owed: SimpleQueue[Any] = SimpleQueue()
        self._lock = threading.Lock()
        self._started = self._behind = False

    def write(self, write: Callable[[], None], what: str, *, wait: bool = True) -> None:
        """Write now, or as soon as the database answers again; in another thread
        where the calling one must not wait."""
        if wait and not self._behind:
            try:
                write()
                return
            except history.ERRORS as error:
                logger.warning("%s waits for the history: %r", what, error)
        self._owed.put(write)
        self._behind = True  # its time is spent once an outage, not once a run
        with self._lock:
            started, self._started = self._started, True
        if not started:
            spawn(self._run)

    def drain(self, seconds: float) -> None:
        """Wait until nothing is owed, for a process about to end."""
        if self._behind:
            done = threading.Event()
            self._owed.put(done.set)
            if not done.wait(seconds):
                logger.warning("The history missed ends when the process ended.")

    def _run(self) -> None:
        while True:
            write = self._owed.get()
            while get_reporter().catching_up:  # the store first: viewers wait for it
                time.sleep(0.05)
            while not self._pay(write):
                time.sleep(PAUSE)
            self._behind = not self._owed.empty()

    def _pay(self, write: Callable[[], None]) -> bool:
        try:
            close_old_connections()
            try:
                write()
            finally:
                close_old_connections()
        except DataError:  # it would never be taken, and what follows would wait
            logger.exception("The history refuses what it is owed.")
        except history.ERRORS:
            return False
        except Exception:  # the next ones are owed all the same
            logger.exception("The history refuses what it is owed.")
        return True


def record(snapshot: Snapshot, *, hop: int | None = None, cursor: str = "") -> None:
    """Write an end or a pause to the history."""
    write = partial(history.close, snapshot, hop=hop, cursor=cursor)
    wait = not get_reporter().is_this_thread()
    get_recorder().write(write, f"The end of run {snapshot.id}", wait=wait)


_recorder: Recorder | None = None


def get_recorder() -> Recorder:
    """This process's recorder; a fork makes its own."""
    global _recorder
    if _recorder is None:
        _recorder = Recorder()
    return _recorder


def _forget() -> None:
    global _recorder
    _recorder = None


os.register_at_fork(after_in_child=_forget)
