"""What a viewer may wish of a run: that it ends, pauses, or goes on."""

from __future__ import annotations

import logging
import secrets
from functools import partial

from celery import current_app
from celery.app.task import Context
from django.utils.translation import gettext as _

from channels_progress import catalogue, history
from channels_progress.begin import revoke
from channels_progress.conf import conf
from channels_progress.errors import Forbidden, Invalid
from channels_progress.force import force as end_by_force
from channels_progress.layer import tell
from channels_progress.log import told, transition
from channels_progress.models import Run
from channels_progress.publish import publish
from channels_progress.read import get, unavailable
from channels_progress.run import FINISHED, PAUSED, QUEUED, RUNNING, WAITING, Snapshot
from channels_progress.store import ERRORS, get_store, nonce
from channels_progress.threads import spawn

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
    snapshot = get(id)
    declared = catalogue.get(snapshot.task)
    replaced = snapshot.epoch and not snapshot.as_dict().get("pausable")
    if declared is None or not declared.pausable or replaced:
        raise Invalid(_("This task cannot be paused: it keeps no checkpoints."))
    return _ask(id, "pause")


def _ask(id: str, verb: str) -> Snapshot:
    store, lost = get_store(), int(conf.LOST_AFTER * 1000)
    try:
        answer = store.call(verb, id, lost=lost)
        if answer.code == "missing" and verb == "cancel":
            row = Run.objects.filter(pk=id, ended=None).first()
            if row is not None:
                answer = store.call(verb, id, lost=lost, **_seed(row))
        if answer.code == "done":
            _close(id)
    except ERRORS as error:
        raise unavailable() from error
    if answer.code in ("done", "asked"):
        tell(id)
    snapshot = get(id)
    if answer.code == "done" and answer.was != answer.state:
        transition(snapshot.task, answer)
        if verb == "cancel" and answer.was not in (QUEUED, WAITING):
            _revoke(id)
    return snapshot


def _revoke(id: str) -> None:
    """Say it in Celery's result: no message may come any more that would."""
    row = Run.objects.filter(pk=id).first()
    task = current_app.tasks.get(row.task) if row is not None else None
    if task is not None:
        # Its backend may hang for long, and nobody here waits for it.
        spawn(partial(revoke, task, Context(id=id)))


def resume(id: str) -> Snapshot:
    """Publish a paused run again; it goes on from its cursor."""
    store = get_store()
    row = Run.objects.filter(pk=id).first()
    if row is None:
        raise Forbidden()
    try:
        seed = _seed(row) if row.state == PAUSED else {}
        answer = store.call("resume", id, nonce=nonce(), **seed)
    except ERRORS as error:
        raise unavailable() from error
    if answer.code != "resumed":
        return get(id)
    hop = int(answer.extra[0])
    transition(row.slug, answer)
    try:
        # Before it may end.
        if not history.reopen(id, hop=hop):  # it was cancelled meanwhile
            return cancel(id)
        publish(row, hop, "resume", answer.snapshot().queued)
    except Exception as error:  # the database's, or what a transport of kombu likes
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
    except (*ERRORS, *history.ERRORS) as error:
        raise unavailable() from error


def _close(id: str) -> None:
    """Write what the store says to the history, unless the run goes on already."""
    stored = get_store().read([id]).get(id)
    if stored is not None and stored.snapshot.state in (PAUSED, *FINISHED):
        history.close(stored.snapshot, hop=stored.hop, cursor=stored.cursor)


def _seed(row: Run) -> dict[str, object]:
    """What makes a run's hash again, where the store has lost it."""
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
