"""One watched run: what is known of it, and what replaces it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from channels_progress.conf import conf
from channels_progress.run import HEAD, RUNNING, Snapshot
from channels_progress.seat import Seat


def offer(seen: Snapshot | None, new: Snapshot, *, live: bool) -> bool | None:
    """Whether `new` replaces `seen`; None where only the store can tell.

    Ordered by epoch and rev. A message of another epoch is not believed, a read is.
    """
    if seen is None or seen.epoch != new.epoch:
        return None if live else True
    if new.rev == seen.rev:
        return not live and new.shown != seen.shown
    return new.rev > seen.rev


class Topic:
    """One watched run, and the newest that is known of it."""

    __slots__ = (
        "_text",
        "due",
        "fresh",
        "heard",
        "held",
        "id",
        "seats",
        "silent",
        "snapshot",
        "told",
        "vanished",
    )

    def __init__(self, id: str) -> None:
        self.id = id
        self.snapshot: Snapshot | None = None
        self.seats: set[Seat] = set()
        self.held = 0
        """How many are about to take a seat."""
        self.due = 0.0
        """When the store is to be read again, unless something is heard before."""
        self.fresh = False
        """Joined just now: what was published meanwhile may have been missed."""
        self.heard = 0
        """The newest rev that a message brought, or that needed none."""
        self.silent: float | None = None
        """Since when the store could not be read."""
        self.told = False
        """Whether the viewers know that."""
        self.vanished: float | None = None
        """Since when the store has lost the run."""
        self._text: str | None = None

    @property
    def text(self) -> str:
        """The envelope; encoded once."""
        if self._text is None:
            assert self.snapshot is not None
            self._text = self.snapshot.envelope()
        return self._text

    def show(self, snapshot: Snapshot) -> None:
        self.snapshot, self._text = snapshot, None


def live(topic: Topic, message: dict[str, Any]) -> Snapshot | None:
    """The snapshot that a message carries, or None: then the store has it."""
    head, text, seen = message.get("head"), message.get("text"), topic.snapshot
    if seen is None or not isinstance(head, dict) or not isinstance(text, str):
        return None
    try:
        # The script has no null: it says false.
        values: dict[str, Any] = {
            name: None if head[name] is False else head[name] for name in (*HEAD, "now")
        }
    except KeyError:  # of another version
        return None
    return Snapshot(
        id=topic.id,
        members=text,
        owner=seen.owner,
        lost_after=int(conf.LOST_AFTER * 1000),
        **values,
    )


def vanished(seen: Snapshot, found: Snapshot) -> bool:
    """Whether the history alone is left of a run of which more was seen."""
    return bool((seen.epoch or seen.started) and not found.epoch and not found.finished)


def outlive(seen: Snapshot, found: Snapshot, seconds: float) -> Snapshot:
    """What to show of a run that the store lost `seconds` ago.

    A worker that lives brings it back at its next word. If it says none for as long as
    a worker may be silent, the run is lost, at the point where it was seen last.
    """
    silent = seen.now - seen.seen + 1000 * seconds
    patience = 1000 * conf.RECONCILE_INTERVAL
    if silent < (seen.lost_after if seen.state == RUNNING else patience):
        return seen
    return replace(
        found,
        members=seen.members,
        attempt=seen.attempt,
        started=seen.started,
        seen=min(seen.seen, found.now - found.lost_after - 1),
    )
