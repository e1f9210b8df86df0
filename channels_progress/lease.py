"""The right to speak for a run, as its process holds it, and what it says."""

from __future__ import annotations

import itertools
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from channels_progress import express, history
from channels_progress.conf import conf
from channels_progress.current import Cancelled, Paused, Progress, Superseded
from channels_progress.estimate import STILL, Estimate
from channels_progress.header import Header
from channels_progress.legible import MESSAGE_CHARACTERS, TITLE_CHARACTERS, number, text
from channels_progress.run import Details, Snapshot
from channels_progress.store import Call, Store

logger = logging.getLogger("channels_progress")


def significant(value: float | None, digits: int = 4) -> float | None:
    """Rounded for the wire."""
    return None if value is None else float(f"{value:.{digits}g}")


class Samples:
    """A few dozen points of an attempt's curve; when there are too many, every other
    one goes, and the next come half as often."""

    MOST = 48

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock, self.since, self.gap = clock, clock(), 0.0
        self.points: list[tuple[float, float]] = []

    def go_on(self, points: list[tuple[float, float]], seconds: float) -> None:
        """Add to the points of an attempt that began `seconds` ago."""
        self.since, self.points = self.clock() - seconds, points
        if len(points) >= self.MOST / 2:
            self.gap = (points[-1][0] - points[0][0]) / len(points)

    def add(self, current: float) -> None:
        seconds = round(self.clock() - self.since, 2)
        if self.points and seconds - self.points[-1][0] < self.gap:
            return
        self.points.append((seconds, current))
        if len(self.points) > self.MOST:
            self.points = self.points[::2]
            self.gap = (seconds - self.points[0][0]) / (self.MOST / 2)


@dataclass(eq=False, slots=True)
class Lease:
    """One attempt of a run in this process: its progress and what is known of it."""

    header: Header
    progress: Progress
    attempts: int | None
    worker: str
    number: int = 0
    """0 as long as nobody could be asked for it: the body runs mute."""
    attempt: int = 1
    begin: Callable[[Store], None] | None = None
    """Asks for the lease, where that was not possible before the body; by the store
    of the thread that calls it."""
    again_after: Callable[[], None] | None = None
    """Publishes the message again once the body is over: it should not have begun,
    but what holds the run now may need it."""
    started: int | None = None
    asked: str | None = None
    estimate: Estimate = field(default_factory=Estimate)
    due: float = 0.0
    """When the reporter looks at it again (monotonic seconds)."""
    heard: float = field(default_factory=time.monotonic)
    """When the store last accepted a word of it."""
    spoke: float = 0.0
    """When it last reported or beat."""
    told: float = 0.0
    """When it last reported a change."""
    missed: float | None = None
    """Since when its run has vanished from the store."""
    sent: object = None
    cursor: str = ""
    silence: float = 0.0
    """Seconds: the longest time without a word so far, of any attempt."""
    samples: Samples = field(default_factory=lambda: Samples())
    result: str = "null"
    succeeded: bool = False
    ended: bool = False
    polls: bool = False
    """Whether it has ended as a poll, after which another message goes on."""
    revoke: Callable[[], None] | None = None
    """Says in Celery's result that it was cancelled, where a viewer stopped it."""
    sequence: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def id(self) -> str:
        return self.header.run

    def go_on(self, points: list[tuple[float, float]], seconds: float) -> None:
        """Go on with the pace of an attempt that began `seconds` ago."""
        self.samples.go_on(points, seconds)
        for at, done in points:
            self.estimate.update(done, at=self.samples.since + at)

    def numbers(self) -> tuple[float, float | None, str, str, str]:
        """What a report would say, to be compared with what the last one said."""
        p = self.progress
        current, total = number(p.current) or 0, number(p.total)
        if total is not None and total < 0:
            total = None
        unit, message = text(p.unit, 40), text(p.text, MESSAGE_CHARACTERS)
        return current, total, unit, message, p.cursor_text

    def members(self) -> str:
        """The lease holder's part of the envelope."""
        current, total, unit, message, _cursor = self.numbers()
        self.estimate.update(current, self.progress.skipped)
        self.samples.add(max(0, current - self.progress.skipped))
        # A poll is a change, of which no page can tell that nothing has moved.
        known = self.header.kind != "poll" or self.estimate.idle < STILL
        left = None if total is None else self.estimate.remaining(total)
        return Details(
            run=self.id,
            task=self.header.task,
            title=text(self.header.title, TITLE_CHARACTERS),
            attempts=self.attempts,
            current=max(0, current),
            total=total,
            unit=unit,
            message=message,
            rate=significant(self.estimate.rate) if known else None,
            remaining=significant(left)
            if known and (self.polls or not self.ended)
            else None,
            result=self.result,
            succeeded=self.succeeded,
            pausable=self.header.pausable,
            silence=round(self.silence, 1) if self.ended else None,
            samples=self.samples.points if self.ended else None,
        ).members()

    def call(self, verb: str, doc: str | None, **values: object) -> Call:
        """A write under this lease's fence."""
        cursor = self.progress.cursor_text
        return Call(
            verb,
            self.id,
            {
                "lease": self.number,
                "seq": next(self.sequence),
                "doc": doc,
                "cursor": cursor if cursor != self.cursor else None,
                "lost": int(conf.LOST_AFTER * 1000),
                **(express.to_tell(self.id) if doc else {}),  # a beat tells nothing
                **values,
            },
        )

    def whole(self, call: Call) -> Call | None:
        """The same write, for a store that has lost the run: it brings all back. None
        where the history says that nothing is left to say."""
        owner = self.header.owner
        try:
            row = history.find(self.id)
        except history.ERRORS as error:
            logger.warning("The history cannot be read for %s: %r", self.id, error)
        else:
            if row is not None and history.over(row, self.header.hop):
                return None
            owner = row.owner if row is not None else owner  # it may have been claimed
        values = {
            **call.values,
            "restore": True,
            "seq": next(self.sequence),
            "doc": call.values.get("doc") or self.members(),
            "epoch": secrets.token_hex(4),
            "owner": owner,
            "hop": self.header.hop,
            "attempt": self.attempt,
            "queued": self.header.queued or None,
            "started": self.started,
            "asked": self.asked,
            "cursor": self.progress.cursor_text or None,
            "worker": self.worker,
        }
        return Call(call.verb, call.id, values)

    def snapshot(self, end: Call) -> Snapshot:
        """The run as it ends by this call, so far as its worker knows, and by its
        clock."""
        said, now = end.values, int(time.time() * 1000)
        now = max(now, self.started or self.header.queued)
        return Snapshot(
            id=self.id,
            now=now,
            epoch="",
            rev=0,
            state=str(said["state"]),
            asked=None,
            attempt=self.attempt,
            reason=str(said["reason"]) or None,
            due=None,
            queued=self.header.queued,
            started=self.started,
            ended=now,
            seen=now,
            changed=now,
            error=str(said["error"]) or "null",
            members=str(said["doc"]),
            owner=self.header.owner,
        )

    def hear(self) -> None:
        """The store has accepted a word of it."""
        now = time.monotonic()
        self.silence = max(self.silence, now - self.heard)
        self.heard, self.missed = now, None

    def again(self) -> None:
        """The store has not heard it: say it soon, even if nothing changes."""
        self.sent, self.due = None, 0.0

    def obey(self, asked: str | None) -> None:
        """Hand a viewer's wish to the body."""
        self.asked = asked
        if asked == "cancel":
            self.progress.stop(Cancelled("A cancel was asked for."))
        elif asked == "pause" and self.header.pausable:
            self.progress.stop(Paused("A pause was asked for."))

    def supersede(self) -> None:
        self.progress.stop(Superseded("Another attempt of this run has begun."))
