"""A run as it is now: from the store, else from the history."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Iterable
from typing import Final

from django.db.models import F, QuerySet
from django.utils.translation import gettext as _

from channels_progress import history
from channels_progress.conf import conf
from channels_progress.errors import Forbidden, ProgressError, Unavailable
from channels_progress.log import told
from channels_progress.models import Run
from channels_progress.run import Snapshot
from channels_progress.store import ERRORS, Stored, get_store

logger = logging.getLogger("channels_progress")

QUIET: Final = 10.0  # s between two log lines of one kind; an outage has many

_told: dict[str, float] = {}


def unavailable() -> Unavailable:
    """The error for a part that cannot be reached; its cause is logged."""
    _tell()
    return Unavailable(_("The service cannot be reached at the moment."))


def _tell() -> None:
    """Log the exception that is being handled, if there is one."""
    error, now = sys.exc_info()[1], time.monotonic()
    kind = type(error).__name__
    if error is not None and now - _told.get(kind, -math.inf) > QUIET:
        _told[kind] = now
        logger.warning("What viewers ask for is unavailable: %s", told(error))


def read(
    ids: Iterable[str], rows_of: Callable[[list[str]], dict[str, Run]] | None = None
) -> dict[str, Snapshot | ProgressError]:
    """The runs as they are now, in one round trip: the store, else the history.

    An unknown id gives Forbidden, one that nobody can answer for Unavailable. `rows_of`
    reads the history, where it is not to be read in this thread.
    """
    wanted = list(dict.fromkeys(ids))
    stored: dict[str, Stored] = {}
    store_down = False
    try:
        stored = get_store().read(wanted)
    except ERRORS:
        store_down = True
        _tell()
    found: dict[str, Snapshot | ProgressError] = {
        id: run.snapshot for id, run in stored.items()
    }
    # Who has been heard lately cannot have ended: the history need not be asked.
    heard = conf.HEARTBEAT_INTERVAL * 2500
    asked = [
        id
        for id in wanted
        if id not in stored or not _current(stored[id].snapshot, heard)
    ]
    if not asked:
        return found
    lost_after = int(conf.LOST_AFTER * 1000)
    try:
        rows = (rows_of or history.read)(asked)
    except history.ERRORS:
        for id in asked:
            found.setdefault(id, unavailable())
        return found
    for id in asked:
        row = rows.get(id)
        if id in stored:
            if row is not None and history.overrules(row, stored[id].snapshot):
                found[id] = history.snapshot(row, lost_after)
        elif row is None:
            found[id] = Forbidden()
        elif store_down and (not row.ended or history.is_early(row)):
            found[id] = unavailable()
        else:
            found[id] = history.snapshot(row, lost_after)
    return found


def _current(snapshot: Snapshot, heard: float) -> bool:
    return snapshot.finished or snapshot.now - snapshot.seen < heard


def get(id: str) -> Snapshot:
    """One run as it is now. Raises Forbidden where it is unknown, or Unavailable."""
    found = read([id])[id]
    if isinstance(found, ProgressError):
        raise found
    return found


def active(owners: Iterable[str], limit: int = 50) -> list[Snapshot]:
    """The unfinished runs of these owners, newest first. Raises Unavailable."""
    return _snapshots(_rows(owners).filter(ended=None)[:limit])


def listing(owners: Iterable[str], limit: int = 50, offset: int = 0) -> list[Snapshot]:
    """The active runs of these owners, newest first, then the others by their end.

    Raises Unavailable.
    """
    rows = _rows(owners).order_by(F("ended").desc(nulls_first=True), "-created")
    return _snapshots(rows[offset : offset + limit])


def _rows(owners: Iterable[str]) -> QuerySet[Run]:
    return Run.objects.filter(owner__in=[owner for owner in owners if owner])


def _snapshots(rows: QuerySet[Run]) -> list[Snapshot]:
    """Each row as it is now; a run that has vanished since is left out."""
    try:
        found = list(rows)
    except history.ERRORS as error:
        raise unavailable() from error
    unfinished = [row.pk for row in found if row.ended is None]
    now = read(unfinished) if unfinished else {}
    lost_after = int(conf.LOST_AFTER * 1000)
    snapshots = []
    for row in found:
        one = now.get(row.pk) or history.snapshot(row, lost_after)
        if isinstance(one, Unavailable):
            raise unavailable() from one
        if isinstance(one, Snapshot):
            if row.ended is None and one.finished and history.settled(one):
                _close(one)
            snapshots.append(one)
    return snapshots


def _close(snapshot: Snapshot) -> None:
    """The history has missed an end: whoever was to write it may have died."""
    try:
        history.close(snapshot)
    except history.ERRORS as error:
        logger.warning("The end of run %s is not written: %r", snapshot.id, error)
