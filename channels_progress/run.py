"""The value object: what is known of a run at one moment, and its states.

Pure: no Django, no Celery, no Redis, no Channels. `Details` is what the holder of
the lease says; the rest of a `Snapshot` is what the store's script decides.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from channels_progress.legible import encode

QUEUED: Final = "queued"  # created; no worker has taken it yet
RUNNING: Final = "running"  # a worker holds the lease
WAITING: Final = "waiting"  # between two hops; `reason` and `due` say for what
PAUSED: Final = "paused"  # stopped by a viewer's wish; resume goes on
SUCCEEDED: Final = "succeeded"  # for ever
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"

LOST: Final = "lost"  # derived: running, and its worker silent for LOST_AFTER
CANCELLING: Final = "cancelling"  # derived: unfinished, and a cancel was asked

FINISHED: Final = frozenset({SUCCEEDED, FAILED, CANCELLED})
UNFINISHED: Final = frozenset({QUEUED, RUNNING, WAITING, PAUSED})

# Who may move what: (verb, from) -> the states it may lead to. `None` is no hash.
# The Lua script is tested against this table.
TRANSITIONS: Final[dict[tuple[str, str | None], frozenset[str]]] = {
    # The web, before publishing; set-if-absent. A withdrawn run is begun anew.
    ("create", None): frozenset({QUEUED}),
    ("create", CANCELLED): frozenset({QUEUED}),
    # A worker, before the body. A wish that waited is fulfilled instead, and a hop
    # that has begun too often without its cursor moving has failed.
    ("begin", None): frozenset({RUNNING}),
    ("begin", QUEUED): frozenset({RUNNING, CANCELLED, PAUSED, FAILED}),
    ("begin", WAITING): frozenset({RUNNING, CANCELLED, PAUSED, FAILED}),
    ("begin", RUNNING): frozenset({RUNNING, CANCELLED, PAUSED, FAILED}),
    # The lease holder; onto a vanished key it brings everything back, and so it does
    # onto one that was made again by somebody whose lease is older, or none.
    ("report", None): frozenset({RUNNING}),
    ("report", QUEUED): frozenset({RUNNING}),
    ("report", WAITING): frozenset({RUNNING}),
    ("report", RUNNING): frozenset({RUNNING}),
    ("end", None): FINISHED | {WAITING, PAUSED},
    ("end", QUEUED): FINISHED | {WAITING, PAUSED},
    ("end", WAITING): FINISHED | {WAITING, PAUSED},
    ("end", RUNNING): FINISHED | {WAITING, PAUSED},
    # A worker's main process, naming the hop. A child may die after its success.
    ("bury", RUNNING): FINISHED,
    ("bury", WAITING): FINISHED,
    ("bury", QUEUED): frozenset({FAILED, CANCELLED}),
    # The web. On `running` a wish is kept and told in the answer to a report.
    ("cancel", None): frozenset({CANCELLED}),  # only the history knows it
    ("cancel", QUEUED): frozenset({CANCELLED}),
    ("cancel", WAITING): frozenset({CANCELLED}),
    ("cancel", PAUSED): frozenset({CANCELLED}),
    ("cancel", RUNNING): frozenset({RUNNING, CANCELLED}),  # cancelled where lost
    ("pause", QUEUED): frozenset({PAUSED}),
    ("pause", WAITING): frozenset({PAUSED}),
    ("pause", RUNNING): frozenset({RUNNING}),
    ("resume", PAUSED): frozenset({QUEUED}),
    ("resume", None): frozenset({QUEUED}),  # the store lost it, the history did not
    ("repause", QUEUED): frozenset({PAUSED}),  # the resume could not be published
    ("withdraw", QUEUED): frozenset({CANCELLED}),  # the start could not be
}

# What the script returns of a run, in its order; the numbers are milliseconds since
# 1970 by Redis's clock, or counts.
HEAD: Final = (
    *("epoch", "rev", "state", "asked", "attempt", "reason", "due"),
    *("queued", "started", "ended", "seen", "changed", "error"),
)


def percent(current: float, total: float | None, succeeded: bool) -> int | None:
    """Whole percent, below 100 until the run has succeeded; None when unknown."""
    if total is None:
        return None
    if succeeded:
        return 100
    if total <= 0 or current <= 0:
        return 0
    if current >= total:
        return 99
    # 29 of 100 is 29 %, and so is 2.9 of 10, though a float is a bit less.
    return min(99, int(round(100 * current / total, 9)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What the holder of the lease says of a run: identity, numbers and text."""

    run: str
    task: str
    title: str = ""
    attempts: int | None = None
    """How many attempts there may be; None where nothing limits them."""
    current: float = 0
    total: float | None = None
    unit: str = ""
    message: str = ""
    rate: float | None = None
    """Units a second."""
    remaining: float | None = None
    """Seconds."""
    result: str = "null"
    """JSON."""
    succeeded: bool = False
    pausable: bool = False
    """Whether the task checkpoints, so that a pause can be resumed."""
    silence: float | None = None
    """Seconds of the longest silence of its workers, once it has ended."""
    samples: list[tuple[float, float]] | None = None
    """Seconds since the attempt began, and the units that it had done by then, without
    those that it skipped; once it has ended."""

    def members(self) -> str:
        """The envelope's members that the lease holder owns, as JSON text."""
        members = {name: getattr(self, name) for name in self.__slots__}
        succeeded, result = members.pop("succeeded"), members.pop("result")
        for name in ("pausable", "silence", "samples"):  # said where there is one
            if not members[name]:
                del members[name]
        members["percent"] = percent(self.current, self.total, succeeded)
        return f'{encode(members)[1:-1]},"result":{result}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything known about a run at one moment. Times are milliseconds since 1970
    by Redis's clock, 0 or None where there is none."""

    id: str
    now: int
    epoch: str
    rev: int
    state: str
    asked: str | None
    attempt: int
    reason: str | None
    due: int | None
    queued: int
    started: int | None
    ended: int | None
    seen: int
    changed: int
    error: str
    """JSON: null, or an object with `message` and perhaps `reference`."""
    members: str
    """The lease holder's part of the envelope, as JSON text."""
    owner: str = ""
    lost_after: int = 30_000

    @classmethod
    def of(
        cls,
        id: str,
        now: int,
        head: Sequence[bytes | None],
        members: bytes | str,
        **rest: Any,
    ) -> Snapshot:
        """From the script's values in the order of `HEAD`."""
        epoch, rev, state, asked, attempt, reason, due, *times, error = head
        queued, started, ended, seen, changed = (int(t) if t else None for t in times)
        return cls(
            id=id,
            now=now,
            epoch=(epoch or b"").decode(),
            rev=int(rev or 0),
            state=(state or b"").decode(),
            asked=asked.decode() if asked else None,
            attempt=int(attempt or 1),
            reason=reason.decode() if reason else None,
            due=int(due) if due else None,
            queued=queued or 0,
            started=started,
            ended=ended,
            seen=seen or 0,
            changed=changed or 0,
            error=error.decode() if error else "null",
            members=members.decode() if isinstance(members, bytes) else members,
            **rest,
        )

    @property
    def task(self) -> str:
        """The task's slug."""
        return str(self.as_dict().get("task") or "")

    @property
    def finished(self) -> bool:
        return self.state in FINISHED

    @property
    def lost(self) -> bool:
        """Running, and its worker has been silent for `lost_after` milliseconds."""
        return self.state == RUNNING and self.now - self.seen > self.lost_after

    @property
    def shown(self) -> str:
        """The state a viewer sees: the stored one, or `lost` or `cancelling`."""
        if self.lost:
            return LOST
        if self.asked == "cancel" and self.state in UNFINISHED:
            return CANCELLING
        return self.state

    def envelope(self) -> str:
        """The `run` message of the wire: a small head, spliced onto the members."""

        def word(value: str | None) -> str:
            return f'"{value}"' if value else "null"

        return (
            f'{{"type":"run","v":1,"now":{self.now},"epoch":"{self.epoch}",'
            f'"rev":{self.rev},"state":"{self.shown}","asked":{word(self.asked)},'
            f'"attempt":{self.attempt},"reason":{word(self.reason)},'
            f'"due":{self.due or "null"},"queued":{self.queued},'
            f'"started":{self.started or "null"},"ended":{self.ended or "null"},'
            f'"seen":{self.seen},"changed":{self.changed},"error":{self.error},'
            f"{self.members}}}"
        )

    def as_dict(self) -> dict[str, Any]:
        """The envelope as a dict."""
        envelope: dict[str, Any] = json.loads(self.envelope())
        return envelope
