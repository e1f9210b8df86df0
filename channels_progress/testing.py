"""Helpers for the tests of those who use the app: no Celery, no Redis, no sockets.

from channels_progress.testing import ProgressRecorder, run_inline

def test_import_says_how_far_it_is():
    seen = run_inline(import_rows, path="four_rows.csv")
    assert seen.result == {"imported": 4}
    assert seen.percents == [0, 25, 50, 75, 100]
    assert seen.last.message == "Importing"

def test_import_stops_where_it_is_cancelled():
    with pytest.raises(Cancelled), ProgressRecorder(cancel_at=2) as seen:
        import_rows("four_rows.csv")
    assert seen.last.current == 2

def test_import_goes_on_from_its_cursor():
    with ProgressRecorder(cursor={"done": 2}) as seen:
        import_rows("four_rows.csv")
    assert seen.steps[1].current == 2
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import groupby
from types import TracebackType
from typing import Any

from channels_progress.current import Cancelled, Paused, Progress, Stop, enter, leave
from channels_progress.legible import MESSAGE_CHARACTERS, number, text
from channels_progress.run import percent


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a viewer could have seen at one moment."""

    current: float
    total: float | None
    percent: int | None
    message: str
    unit: str
    cursor: Any
    """What was checkpointed last, or None."""


class ProgressRecorder:
    """Notes everything that a task says inside the `with` block, whose end is its.

    `cursor` is what an earlier attempt has checkpointed. With `cancel_at` or
    `pause_at`, Cancelled or Paused is raised at the first step that has come so far.
    """

    def __init__(
        self,
        *,
        cursor: Any = None,
        cancel_at: float | None = None,
        pause_at: float | None = None,
    ) -> None:
        saved = "" if cursor is None else json.dumps(cursor)
        self.progress = Progress(self._note, saved)
        self.steps: list[Step] = []
        self.result: Any = None
        """What the task has returned to `run_inline`."""
        self._cancel_at, self._pause_at = cancel_at, pause_at

    def __enter__(self) -> ProgressRecorder:
        enter(self.progress)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        leave()
        self._add(succeeded=error is None)

    def _note(self) -> None:
        self.progress.rest()  # the next step is noted as well
        self._add()
        if self._reached(self._cancel_at):
            self.cancel()
        elif self._reached(self._pause_at):
            self.pause()
        self.progress.raise_if_cancelled()

    def _reached(self, current: float | None) -> bool:
        return current is not None and self.last.current >= current

    def _add(self, *, succeeded: bool = False) -> None:
        current, total = number(self._current()) or 0, number(self.progress.total)
        step = Step(
            current=current,
            total=total,
            percent=percent(current, total, succeeded),
            message=text(self.progress.text, MESSAGE_CHARACTERS),
            unit=text(self.progress.unit, MESSAGE_CHARACTERS),
            cursor=json.loads(self.progress.cursor_text or "null"),
        )
        if self.steps and step == replace(self.last, percent=step.percent):
            self.steps[-1] = step  # nothing new, or the end, which makes 99 % 100
        else:
            self.steps.append(step)

    def _current(self) -> float:
        """The count; a loop that looks has already taken the item it will yield."""
        reference = self.progress._base.loop
        loop = reference() if reference is not None else None
        return self.progress.current - (loop is not None and loop.gi_running)

    # -- What a viewer does -------------------------------------------------------

    def cancel(self) -> None:
        """Let Cancelled be raised at the task's next step."""
        self._stop(Cancelled("A cancel was asked for."))

    def pause(self) -> None:
        """Let Paused be raised at the task's next step."""
        self._stop(Paused("A pause was asked for."))

    def _stop(self, stop: Stop) -> None:
        self.progress.stop(stop)

    # -- What was seen ------------------------------------------------------------

    @property
    def last(self) -> Step:
        """The last step; IndexError where there is none."""
        return self.steps[-1]

    @property
    def percents(self) -> list[int | None]:
        """The whole percents in their order, each once until it changes."""
        return [value for value, _ in groupby(step.percent for step in self.steps)]

    @property
    def messages(self) -> list[str]:
        """The messages in their order, each once until it changes; no empty ones."""
        return [value for value, _ in groupby(s.message for s in self.steps) if value]

    @property
    def cursors(self) -> list[Any]:
        """What was checkpointed, in its order."""
        found = (json.dumps(s.cursor) for s in self.steps if s.cursor is not None)
        return [json.loads(value) for value, _ in groupby(found)]


def run_inline(
    task: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> ProgressRecorder:
    """Call a task here and now; its steps and its `result`. Raises what it raises."""
    with ProgressRecorder() as recorder:
        recorder.result = task(*args, **kwargs)
    return recorder
