"""The history's rows: written when a run is created, paused and ended."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from django.db import (
    DatabaseError,
    InterfaceError,
    close_old_connections,
    connections,
    router,
)
from django.db.models import Q
from django.db.transaction import mark_for_rollback_on_error

from channels_progress.models import Run
from channels_progress.run import FINISHED, HEAD, PAUSED, RUNNING, Details, Snapshot

ERRORS = (DatabaseError, InterfaceError)
EARLY: Final = 10_000  # ms in which a worker finds a store that is back


def moment(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None


def close(
    snapshot: Snapshot,
    *,
    hop: int | None = None,
    cursor: str = "",
    early: bool = False,
) -> None:
    """Write a pause or an end; a run that has succeeded keeps its row, and one that
    has ended at all where this is said before the store has heard it (`early`)."""
    values: dict[str, Any] = {
        "state": snapshot.state,
        "document": snapshot.as_dict() | ({"early": True} if early else {}),
        "ended": moment(snapshot.ended) if snapshot.finished else None,
    }
    if hop is not None:
        values["hop"] = hop
    if cursor:
        values["cursor"] = cursor
    # A pause may be written late.
    sure = snapshot.finished and not early
    where = "state <> 'succeeded'" if sure else "ended IS NULL"
    written = _update(snapshot.id, values, where)
    if not written and sure:
        told_early = Run.objects.filter(pk=snapshot.id, document__early=True)
        written = bool(told_early.update(**values))
    if not written and not Run.objects.filter(pk=snapshot.id).exists():
        Run.objects.create(
            id=snapshot.id,
            owner=snapshot.owner,
            task=values["document"].get("task") or "",
            title=values["document"].get("title") or "",
            **values,
        )


def _update(id: str, values: dict[str, Any], where: str) -> bool:
    """Write to a run's row, in SQL as in `look`; whether it was there to be written."""
    connection = connections[router.db_for_write(Run)]
    quote = connection.ops.quote_name
    fields = [field for field in Run._meta.concrete_fields if field.name in values]
    columns = ", ".join(f"{quote(str(field.column))} = %s" for field in fields)
    saved = [field.get_db_prep_save(values[field.name], connection) for field in fields]
    table = quote(Run._meta.db_table)
    # A caller's transaction is as broken by an error here as by one of the ORM.
    with mark_for_rollback_on_error(connection.alias), connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {table} SET {columns} WHERE id = %s AND {where}", [*saved, id]
        )
        return bool(cursor.rowcount)


def settled(snapshot: Snapshot) -> bool:
    """Whether the store's word is one to be written, whoever finds it. (A withdrawn run
    is START's to write, and may be open again.)"""
    return snapshot.reason != "withdrawn" and snapshot.state in (PAUSED, *FINISHED)


def reopen(id: str, *, hop: int) -> bool:
    """Write that a paused or withdrawn run goes on; False where it has ended."""
    goes_on = Q(ended=None) | Q(document__reason="withdrawn")
    rows = Run.objects.filter(goes_on, pk=id)
    return bool(rows.update(state="", ended=None, hop=hop))


def over(row: Run, hop: int) -> bool:
    """Whether a message of this hop has nothing more to say of the run."""
    return row.state in FINISHED or (row.state == PAUSED and row.hop >= hop)


def is_early(row: Run) -> bool:
    """Whether its worker has written this end before the store had heard it."""
    return bool((row.document or {}).get("early"))


def overrules(row: Run, stored: Snapshot) -> bool:
    """Whether the run has ended by its row, and the store has missed it. Of an end that
    its worker wrote early, the store may hear a moment after it is back."""
    if row.ended is None or stored.finished:
        return False
    if not is_early(row):
        return True
    heard = max(stored.seen, int(row.ended.timestamp() * 1000))
    return stored.now - heard > 2 * stored.lost_after + EARLY


def find(id: str) -> Run | None:
    """This run's row, for a thread that lives long."""
    close_old_connections()
    return Run.objects.filter(pk=id).first()


def look(id: str, owner: str) -> tuple[bool, int]:
    """Whether there is this run, and how many of the owner's are unfinished.

    In SQL: Django takes ten times as long to write two queries as to be answered.
    """
    with connections[Run.objects.db].cursor() as cursor:
        cursor.execute(LOOK, [id, id, owner])
        exists, unfinished = cursor.fetchone()
    return bool(exists), unfinished


LOOK: Final = f"""
    SELECT COUNT(CASE WHEN id = %s THEN 1 END),
           COUNT(CASE WHEN ended IS NULL THEN 1 END)
    FROM {Run._meta.db_table}
    WHERE id = %s OR (owner = %s AND ended IS NULL)
"""


def read(ids: Iterable[str]) -> dict[str, Run]:
    return Run.objects.in_bulk(list(ids))


def snapshot(row: Run, lost_after: int) -> Snapshot:
    """A row as a snapshot. An unfinished one without a hash reads as lost."""
    now = int(time.time() * 1000)
    created = int(row.created.timestamp() * 1000)
    document: dict[str, Any] = row.document or {}
    if row.state:
        return _document_snapshot(row, document, now)
    details = Details(run=row.pk, task=row.slug, title=row.title)
    return Snapshot(
        id=row.pk,
        now=now,
        epoch="",
        rev=0,
        state=RUNNING,
        asked=None,
        attempt=1,
        reason=None,
        due=None,
        queued=created,
        started=None,
        ended=None,
        seen=min(created, now - lost_after - 1),
        changed=created,
        error="null",
        members=details.members(),
        owner=row.owner,
        lost_after=lost_after,
    )


HEAD_NAMES = frozenset({*HEAD, "type", "v", "now", "early"})


def _document_snapshot(row: Run, document: dict[str, Any], now: int) -> Snapshot:
    members = {k: v for k, v in document.items() if k not in HEAD_NAMES}
    return Snapshot(
        id=row.pk,
        now=max(now, document.get("now") or 0),
        epoch=document.get("epoch") or "",
        rev=document.get("rev") or 0,
        state=row.state,
        asked=document.get("asked"),
        attempt=document.get("attempt") or 1,
        reason=document.get("reason"),
        due=None,
        queued=document.get("queued") or 0,
        started=document.get("started"),
        ended=document.get("ended"),
        seen=document.get("seen") or 0,
        changed=document.get("changed") or 0,
        error=json.dumps(document.get("error")),
        members=json.dumps(members)[1:-1],
        owner=row.owner,
    )
