"""What a task author touches: `progress`, the current run's.

Everything here only changes numbers in memory; the reporter's thread carries them
out. Outside a run the same code works and reports nowhere.
"""

from __future__ import annotations

import json
import math
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar, Token
from itertools import compress, repeat
from operator import length_hint
from typing import Any, Final, NamedTuple, TypeVar

from celery.exceptions import Ignore

from channels_progress.iterate import plan, size
from channels_progress.legible import CURSOR_BYTES, MESSAGE_CHARACTERS, number, text

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


class _Calm:
    """A flag that is true, at the price of a C loop's look at it."""

    __slots__ = ("progress",)

    def __init__(self, progress: Progress) -> None:
        self.progress = progress


class _Alert(_Calm):
    """The same flag while a step has to look; the reporter changes its class."""

    __slots__ = ()

    def __bool__(self) -> bool:
        self.progress._look()
        return True


# `repeat` tells how often it was asked, and C asks it: no step of Python counts.
_MANY: Final = 1 << 62


def _asked(ticks: repeat[Any]) -> int:
    return _MANY - length_hint(ticks)


def _count(n: Any) -> float:
    """`n` as something to add up; what is no finite number counts as 0."""
    if isinstance(n, float):
        return n if math.isfinite(n) else 0
    return number(n) or 0


def _words(value: Any) -> str:
    """`value` as text, now: a lazy one in the body's language, not the reporter's."""
    return value if isinstance(value, str) else text(value, MESSAGE_CHARACTERS)


class _Base(NamedTuple):
    """What is counted besides single steps: units, and the outermost loop's items."""

    advanced: float = 0
    loop: weakref.ref[Any] | None = None
    fetched: repeat[Any] = repeat(None, _MANY)

    def looped(self) -> int:
        """Steps that the loop has done: an item counts when the next is asked for."""
        while True:
            loop = self.loop() if self.loop is not None else None
            fetching = loop is not None and loop.gi_running
            fetched = _asked(self.fetched)
            if loop is None or loop.gi_running == fetching:
                return max(0, fetched if fetching else fetched - 1)


class Progress:
    """The progress of one attempt; threads that a task starts may share it."""

    __slots__ = (
        "_alert",
        "_base",
        "_flag",
        "_iterated",
        "_iterating",
        "_lock",
        "_saved",
        "_stop",
        "_tick",
        "_ticks",
        "_wake",
        "attempt",
        "cursor_text",
        "skipped",
        "text",
        "total",
        "unit",
    )

    def __init__(
        self, wake: Callable[[], None] = _nothing, cursor_text: str = ""
    ) -> None:
        # Single steps are counted by `_ticks`; the rest by this, which is replaced as
        # a whole, so that the reporter never sees half a change.
        self._base = _Base()
        self._ticks: repeat[Any] = repeat(None, _MANY)
        self._tick = self._ticks.__next__
        self._lock = threading.Lock()
        self._iterating = False
        self._iterated = 0
        self._stop: Stop | None = None
        # Whether a step has to look: the reporter sleeps, or the body is to stop.
        self._alert = True
        self._flag = _Alert(self)
        self._wake = wake
        self.attempt = 1
        """Which try of the run this is, as its viewers see it."""
        self._saved = cursor_text
        self.cursor_text = cursor_text
        self.skipped: float = 0
        self.total: Any = None
        self.unit: Any = ""
        self.text = ""

    # -- What the reporter does ---------------------------------------------------

    def restore(self, current: float, total: Any, unit: Any, message: str) -> None:
        """Go on from the numbers of the same attempt's earlier message."""
        self._base = _Base(current)
        self.total, self.unit, self.text = total, unit, message

    def rest(self) -> None:
        """The reporter goes to sleep: the next step has to wake it."""
        self._raise_flag()

    def stop(self, stop: Stop) -> None:
        """Let the body end at its next step. A first word is not taken back, except
        that a superseded attempt is nothing else."""
        if self._stop is None or isinstance(stop, Superseded):
            self._stop = stop
            self._raise_flag()

    def _raise_flag(self) -> None:
        self._alert = True
        self._flag.__class__ = _Alert

    def _look(self) -> None:
        self._alert = False
        self._flag.__class__ = _Calm  # type: ignore[assignment]
        if self._stop is not None:
            self._raise_flag()
            self.raise_if_cancelled()
        self._wake()

    # -- What a task author does --------------------------------------------------

    @property
    def current(self) -> float:
        """Units done so far."""
        base = self._base
        return base.advanced + _asked(self._ticks) + base.looped()

    def get(self) -> Progress:
        """This object, to hand to a thread that the task starts itself."""
        return self

    def advance(self, n: float = 1) -> None:
        """Count `n` more units as done."""
        if n == 1:
            self._tick()
        else:
            self._add(n)
        if self._alert:
            self._look()

    def _add(self, n: float) -> None:
        with self._lock:
            advanced = self._base.advanced + _count(n)
            self._base = self._base._replace(advanced=advanced)

    def set(self, current: float, total: Any = None) -> None:
        """Say how many units are done, and of how many where that is known."""
        with self._lock:
            base = self._base
            advanced = _count(current) - _asked(self._ticks) - base.looped()
            self._base = base._replace(advanced=advanced)
        if total is not None:
            self.total = total
        if self._alert:
            self._look()

    def skip(self, n: int = 1) -> None:
        """Count `n` units as done that an earlier attempt did: not in the rate."""
        self._add(n)
        self.skipped += _count(n)
        if self._alert:
            self._look()

    @property
    def message(self) -> str:
        """A line of text beside the bar, at most 500 characters."""
        return self.text

    @message.setter
    def message(self, message: Any) -> None:
        self.text = _words(message)
        if self._alert:
            self._look()

    def raise_if_cancelled(self) -> None:
        """Raise Cancelled, Paused or Superseded where the body is to end."""
        if self._stop is not None:
            # It is raised again and again: without this, its traceback would grow.
            raise self._stop.with_traceback(None)

    def flush(self) -> None:
        """Let the reporter look now; it does not wait for the network."""
        self._look()

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
        # A weak reference, so that a loop that is left early is over.
        itself: list[weakref.ref[Any]] = []
        loop = self._outer(itself, iterable, message, total, unit)
        itself.append(weakref.ref(loop))
        return loop

    def _outer(
        self,
        itself: list[weakref.ref[Any]],
        iterable: Iterable[T],
        message: Any,
        total: float | None,
        unit: str | None,
    ) -> Iterator[T]:
        if self._looping():
            yield from self._inner(iterable)
            return
        self._begin(size(iterable) if total is None else total, message, unit)
        # One pass through C a step: it counts and looks at the flag.
        fetched = repeat(self._flag, _MANY)
        with self._lock:
            self._base = self._base._replace(loop=itself.pop(), fetched=fetched)
        unfinished = 1
        try:
            yield from compress(iterable, fetched)
            unfinished = 0
        finally:
            done = max(0, _asked(fetched) - unfinished)
            with self._lock:
                self._base = _Base(self._base.advanced + done)

    def _begin(self, total: Any, message: Any, unit: Any) -> None:
        """Numbers from the beginning, for a loop."""
        with self._lock:
            self._base = _Base(-_asked(self._ticks))
        self.total = total
        if unit is not None:
            self.unit = unit
        if message is not None:
            self.text = _words(message)
        if self._alert:
            self._look()

    def _looping(self) -> bool:
        return self._iterating or self._base.loop is not None

    def _inner(self, iterable: Iterable[T]) -> Iterator[T]:
        for item in iterable:
            self.raise_if_cancelled()
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
            cursor_text = json.dumps(value, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"A checkpoint must be a JSON value, got {value!r}: {error}"
            ) from None
        self._keep(cursor_text)
        if self._alert:
            self._look()

    def _keep(self, cursor_text: str) -> None:
        if len(cursor_text) > CURSOR_BYTES:
            raise ValueError(
                f"A checkpoint may have {CURSOR_BYTES} bytes, this one has "
                f"{len(cursor_text)}. Keep a position in it, and the data elsewhere."
            )
        self.cursor_text = cursor_text

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
        time. With `key` (of an item, a JSON value, each larger than the one before)
        it is the last finished item's, and a queryset is asked only for the rows
        after it where `key` names a field: `key="pk"`. Of several such loops, one
        after the other, those are skipped that an earlier attempt has left behind.

        At least once, never exactly once: the steps after the last checkpoint that
        arrived run again. Inside another loop it leaves numbers and cursor to that.
        """
        if self._looping():
            yield from self._inner(iterable)
            return
        self._iterated += 1
        steps, done, of = plan(iterable, key, self.cursor, self._iterated)
        self._begin(of if total is None else total, message, unit)
        if done:
            self.skip(done)
        self._iterating = True
        try:
            for item, cursor in steps:
                yield item
                self._keep(cursor)
                self.advance()
        finally:
            self._iterating = False


_NOWHERE: Final = Progress()
_current: ContextVar[Progress] = ContextVar("progress", default=_NOWHERE)
_get: Final = _current.get


def enter(progress: Progress) -> Token[Progress]:
    """Make `progress` the current one of this task."""
    return _current.set(progress)


def leave() -> None:
    """The task is over."""
    _current.set(_NOWHERE)


def _active() -> Progress:
    """The current run's progress; outside a run, one that nobody listens to."""
    found = _get()
    return Progress() if found is _NOWHERE else found


class _Member:
    """A member of the current run's progress. `__getattr__` would do the same, and cost
    each `progress.advance` a fifth of its time."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type) -> Any:
        return self if instance is None else getattr(_get(), self.name)

    def __set__(self, instance: object, value: Any) -> None:
        setattr(_get(), self.name, value)


class CurrentProgress:
    """`progress`: the current run's, as `celery.current_task` is the current task."""

    __slots__ = ()

    attempt = _Member()
    checkpoint = _Member()
    current = _Member()
    cursor = _Member()
    flush = _Member()
    message = _Member()
    raise_if_cancelled = _Member()
    set = _Member()
    skip = _Member()
    total = _Member()
    unit = _Member()

    def advance(self, n: float = 1) -> None:
        """Count `n` more units as done."""
        found = _get()
        if n == 1:
            found._tick()
        else:
            found._add(n)
        if found._alert:
            found._look()

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
