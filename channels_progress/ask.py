"""What a viewer may wish of a run: that it ends, pauses, or goes on."""

from __future__ import annotations

import logging
import secrets

from django.utils.translation import gettext as _

from channels_progress import catalogue, history
from channels_progress.conf import conf
from channels_progress.errors import Forbidden, Invalid
from channels_progress.force import force as end_by_force
from channels_progress.layer import tell
from channels_progress.log import told, transition
from channels_progress.models import Run
from channels_progress.publish import publish
from channels_progress.read import get, unavailable
from channels_progress.run import FINISHED, PAUSED, RUNNING, Snapshot
from channels_progress.store import ERRORS, get_store, nonce

logger = logging.getLogger("channels_progress")


def cancel(id: str, *, force: bool = False) -> Snapshot:
    """Ask that a run ends; what nobody holds is cancelled at once.

    `force` ends the process that holds a run which does not answer; Invalid says why
    where that cannot be done.
    """
    snapshot = _ask(id, "cancel")
    if force and snapshot.state == RUNNING:
        end_by_force(id)
        snapshot = get(id)
    return snapshot


def pause(id: str) -> Snapshot:
    """Ask that a run frees its worker; what nobody holds is paused at once.

    Invalid where the task does not checkpoint, since it could not go on.
    """
    declared = catalogue.get(get(id).task)
    if declared is None or not declared.pausable:
        raise Invalid(_("This task cannot be paused: it keeps no checkpoints."))
    return _ask(id, "pause")


def _ask(id: str, verb: str) -> Snapshot:
    store = get_store()
    try:
        answer = store.call(verb, id, lost=int(conf.LOST_AFTER * 1000))
        if answer.code == "done":
            _close(id)
    except ERRORS as error:
        raise unavailable() from error
    if answer.code == "missing" and verb == "cancel":
        _cancel_row(id)
    if answer.code in ("done", "asked"):
        tell(id)
    snapshot = get(id)
    if answer.code == "done" and answer.was != answer.state:
        transition(snapshot.task, answer)
    return snapshot


def _cancel_row(id: str) -> None:
    """The store has lost the run: the history says that it is over."""
    row = Run.objects.filter(pk=id, ended=None).first()
    if row is not None:
        history.cancel(row)


def resume(id: str) -> Snapshot:
    """Publish a paused run again; it goes on from its cursor."""
    store = get_store()
    row = Run.objects.filter(pk=id).first()
    if row is None:
        raise Forbidden()
    try:
        answer = store.call("resume", id, nonce=nonce(), **_seed(row))
    except ERRORS as error:
        raise unavailable() from error
    if answer.code != "resumed":
        return get(id)
    hop = int(answer.extra[0])
    transition(row.slug, answer)
    history.reopen(id, hop=hop)  # before it may end
    try:
        publish(row, hop, "resume", answer.snapshot().queued)
    except Exception as error:  # kombu's transports raise what they like
        logger.warning("Run %s could not be resumed: %s", id, told(error))
        _repause(row, hop)
        raise unavailable() from error
    tell(id)
    return get(id)


def _repause(row: Run, hop: int) -> None:
    try:
        answer = get_store().call("repause", row.pk, hop=hop)
        if answer.code == "done":
            transition(row.slug, answer)
            _close(row.pk)
    except ERRORS as error:
        raise unavailable() from error


def _close(id: str) -> None:
    """Write what the store says to the history, unless the run goes on already."""
    stored = get_store().read([id]).get(id)
    if stored is not None and stored.snapshot.state in (PAUSED, *FINISHED):
        history.close(stored.snapshot, hop=stored.hop, cursor=stored.cursor)


def _seed(row: Run) -> dict[str, object]:
    """What makes a paused run's hash again, where the store has lost it."""
    if row.state != PAUSED:
        return {}
    snapshot = history.snapshot(row, 0)
    return {
        "make": True,
        "epoch": secrets.token_hex(4),
        "owner": row.owner,
        "doc": snapshot.members,
        "hop": row.hop,
        "attempt": snapshot.attempt,
        "queued": snapshot.queued,
        "started": snapshot.started,
        "cursor": row.cursor,
    }
