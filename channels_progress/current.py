"""What a task author touches: `progress`, the current run's.

Everything here only changes numbers in memory; the reporter's thread carries them
out. Outside a run the same code works and reports nowhere.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sized
from contextvars import ContextVar, Token
from typing import Any, Final, TypeVar

from celery.exceptions import Ignore

from channels_progress.run import CURSOR_BYTES

T = TypeVar("T")


class Stop(Ignore):  # type: ignore[misc]  # Celery has no types
    """The body is to end at its next step; raised again at each further one."""


class Cancelled(Stop):
    """A viewer asked that the run ends."""


class Paused(Stop):
    """A viewer asked that the run frees its worker; resume goes on from the cursor."""


class Superseded(Stop):
    """Another attempt holds the lease; nothing this one says counts any more."""


class TaskError(Exception):
    """A failure whose text may be shown to a viewer."""


def _nothing() -> None:
    """Outside a run nobody is to be woken."""


class Progress:
    """The progress of one attempt; threads that a task starts may share it."""

    __slots__ = (
        "_advanced",
        "_alert",
        "_lock",
        "_saved",
        "_stop",
        "_tracked",
        "_tracking",
        "_wake",
        "cursor_text",
        "skipped",
        "text",
        "total",
        "unit",
    )

    def __init__(
        self, wake: Callable[[], None] = _nothing, cursor_text: str = ""
    ) -> None:
        self._advanced: float = 0
        self._tracked = 0  # written by `track` alone, which needs no lock for that
        self._tracking = False
        self._lock = threading.Lock()
        self._stop: Stop | None = None
        self._alert = True  # a step has to look: the reporter sleeps, or a stop
        self._wake = wake
        self._saved = cursor_text
        self.cursor_text = cursor_text
        self.skipped = 0
        self.total: Any = None
        self.unit: Any = ""
        self.text: Any = ""

    # -- What the reporter does ---------------------------------------------------

    def restore(self, current: float, total: Any, unit: Any, text: Any) -> None:
        """Go on from the numbers of the same attempt's earlier message."""
        self._advanced, self.total, self.unit, self.text = current, total, unit, text

    def rest(self) -> None:
        """The reporter goes to sleep: the next step has to wake it."""
        self._alert = True

    def stop(self, stop: Stop) -> None:
        """Let the body end at its next step. A first word is not taken back, except
        that a superseded attempt is nothing else."""
        if self._stop is None or isinstance(stop, Superseded):
            self._stop = stop
            self._alert = True

    def _look(self) -> None:
        self._alert = False
        if self._stop is not None:
            self._alert = True
            raise self._stop
        self._wake()

    # -- What a task author does --------------------------------------------------

    @property
    def current(self) -> float:
        """Units done so far."""
        return self._advanced + self._tracked

    def get(self) -> Progress:
        """This object, to hand to a thread that the task starts itself."""
        return self

    def advance(self, n: float = 1) -> None:
        """Count `n` more units as done."""
        with self._lock:
            self._advanced += n
        if self._alert:
            self._look()

    def set(self, current: float, total: Any = None) -> None:
        """Say how many units are done, and of how many where that is known."""
        with self._lock:
            self._advanced = current - self._tracked
        if total is not None:
            self.total = total
        if self._alert:
            self._look()

    def skip(self, n: int = 1) -> None:
        """Count `n` units as done that an earlier attempt did: not in the rate."""
        with self._lock:
            self._advanced += n
            self.skipped += n
        if self._alert:
            self._look()

    @property
    def message(self) -> Any:
        """A line of text beside the bar, at most 500 characters."""
        return self.text

    @message.setter
    def message(self, text: Any) -> None:
        self.text = text
        if self._alert:
            self._look()

    def raise_if_cancelled(self) -> None:
        """Raise Cancelled, Paused or Superseded where the body is to end."""
        if self._stop is not None:
            raise self._stop

    def flush(self) -> None:
        """Let the reporter look now; it does not wait for the network."""
        self._alert = False
        self._wake()

    def track(
        self,
        iterable: Iterable[T],
        message: Any = None,
        *,
        total: float | None = None,
        unit: str | None = None,
    ) -> Iterator[T]:
        """Yield from `iterable` and count each item when its step is done.

        The total is `len(iterable)` where it has one. Inside another `track` it
        leaves the numbers to the outer one.
        """
        if self._tracking:
            yield from self._inner(iterable)
            return
        self._tracking = True
        try:
            if total is None and isinstance(iterable, Sized):
                total = len(iterable)
            with self._lock:
                self._advanced, self._tracked = 0, 0
            self.total = total
            if unit is not None:
                self.unit = unit
            if message is not None:
                self.text = message
            if self._alert:
                self._look()
            for done, item in enumerate(iterable, 1):
                yield item
                self._tracked = done
                if self._alert:
                    self._look()
        finally:
            self._tracking = False
            with self._lock:
                self._advanced += self._tracked
                self._tracked = 0

    def _inner(self, iterable: Iterable[T]) -> Iterator[T]:
        for item in iterable:
            if self._stop is not None:
                raise self._stop
            yield item

    @property
    def cursor(self) -> Any:
        """What the last attempt has checkpointed, or None."""
        return json.loads(self._saved) if self._saved else None

    def checkpoint(self, value: Any) -> None:
        """Keep a JSON value of at most 4 KiB with the run for its next attempt.

        It travels with the next report: what was done since the last one that
        arrived may be done again. Raises ValueError where it cannot be kept.
        """
        try:
            text = json.dumps(value, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"A checkpoint must be a JSON value, got {value!r}: {error}"
            ) from None
        if len(text) > CURSOR_BYTES:
            raise ValueError(
                f"A checkpoint may have {CURSOR_BYTES} bytes, this one has "
                f"{len(text)}. Keep a position in it, and the data elsewhere."
            )
        self.cursor_text = text
        if self._alert:
            self._look()

    def iterate(
        self,
        iterable: Iterable[T],
        message: Any = None,
        *,
        key: Callable[[T], Any] | str | None = None,
        total: float | None = None,
        unit: str | None = None,
    ) -> Iterator[T]:
        """`track` that checkpoints by itself and skips what an earlier attempt did.

        Without `key` the cursor is a count, so the order must be the same each
        time. With `key` (of an item, rising in the iterable's order, a JSON value)
        it is the last finished item's, and a queryset is asked only for the rows
        after it where `key` names a field: `key="pk"`.

        At least once, never exactly once: the steps after the last checkpoint that
        arrived run again.
        """
        from channels_progress.iterate import plan

        steps, done, size = plan(iterable, key, self.cursor)
        if total is None:
            total = size
        with self._lock:
            self._advanced, self._tracked = 0, 0
        self.total = total
        if unit is not None:
            self.unit = unit
        if message is not None:
            self.text = message
        if done:
            self.skip(done)
        elif self._alert:
            self._look()
        for item, cursor in steps:
            yield item
            self.cursor_text = cursor
            self.advance()


_NOWHERE: Final = Progress()
_current: ContextVar[Progress] = ContextVar("progress")


def enter(progress: Progress) -> Token[Progress]:
    """Make `progress` the current one of this task."""
    return _current.set(progress)


def leave() -> None:
    """The task is over."""
    _current.set(_NOWHERE)


def _active() -> Progress:
    """The current run's progress; outside a run, one that nobody listens to."""
    found = _current.get(_NOWHERE)
    return Progress() if found is _NOWHERE else found


class CurrentProgress:
    """`progress`: the current run's, as `celery.current_task` is the current task."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(_current.get(_NOWHERE), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(_current.get(_NOWHERE), name, value)

    def advance(self, n: float = 1) -> None:
        """Count `n` more units as done."""
        _current.get(_NOWHERE).advance(n)

    def get(self) -> Progress:
        """The object itself, to hand to a thread that the task starts."""
        return _active()

    def track(self, iterable: Iterable[T], *args: Any, **kwargs: Any) -> Iterator[T]:
        """Yield from `iterable` and count each item when its step is done."""
        return _active().track(iterable, *args, **kwargs)

    def iterate(self, iterable: Iterable[T], *args: Any, **kwargs: Any) -> Iterator[T]:
        """`track` that checkpoints by itself and skips what an earlier attempt did."""
        return _active().iterate(iterable, *args, **kwargs)


progress: Final = CurrentProgress()
