"""Start a run: a row, a hash, a message; what cannot be published is withdrawn."""

from __future__ import annotations

import hashlib
import logging
import secrets
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple

from celery import Task, current_app
from django.db import DataError, IntegrityError, transaction
from django.http import QueryDict
from django.utils.datastructures import MultiValueDict
from django.utils.translation import gettext as _

from channels_progress import catalogue, history
from channels_progress.conf import conf
from channels_progress.errors import Invalid, TooMany
from channels_progress.header import Kind
from channels_progress.legible import TITLE_CHARACTERS, text
from channels_progress.log import told, transition
from channels_progress.models import Run
from channels_progress.publish import publish
from channels_progress.read import get, unavailable
from channels_progress.run import QUEUED, Details, Snapshot
from channels_progress.store import ERRORS, Store, get_store, nonce

logger = logging.getLogger("channels_progress")

NAMESPACE: Final = uuid.UUID("5f1d3c0e-8a0b-4c55-9d53-6f0b7f0a9e11")
# What the history says against a row, or against the transaction around it: it can be
# reached, and coming back later would help nobody.
REFUSED: Final = (IntegrityError, DataError, transaction.TransactionManagementError)
# A run queued this long without a beginning is published again by its own key.
REPUBLISH_AFTER: Final = 3000  # ms


class Started(NamedTuple):
    """A run's id, its snapshot, and whether this very call made it."""

    run: str
    snapshot: Snapshot
    new: bool


def submit(
    slug: str,
    params: Mapping[str, Any] | QueryDict,
    *,
    owner: str,
    files: MultiValueDict[str, Any] | None = None,
    key: str | None = None,
) -> Started:
    """Start a declared task from outside; its form validates the parameters.

    Raises Invalid with the form's errors, TooMany, or Unavailable where store, broker
    or history cannot be reached; an error of the form's own queries is not caught.
    """
    declared = catalogue.get(slug)
    if declared is None:
        known = ", ".join(sorted(catalogue.all()))
        raise Invalid(
            _("There is no task of this name; there are: %s.") % known,
            {"task": [_("Unknown task.")]},
        )
    id = run_id(owner, key)
    with _history():
        exists, unfinished = history.look(id, owner)
    if exists and (again := _again(id)) is not None:
        return again
    form = declared.form(params, files)
    if not form.is_valid():
        errors = {name: [str(e) for e in texts] for name, texts in form.errors.items()}
        name, texts = next(iter(errors.items()))
        raise Invalid(f"{name}: {texts[0]}", errors)
    _admit(owner, unfinished)  # before an upload is kept, for whoever may not start
    task_kwargs = getattr(form, "task_kwargs", None)
    kwargs = task_kwargs() if task_kwargs else form.cleaned_data
    return _start(declared.task, kwargs, owner, id, str(declared.title))


def run_id(owner: str, key: str | None) -> str:
    """The id of a run: the same for the same owner and key."""
    if not key:
        return str(uuid.uuid4())
    return str(uuid.uuid5(NAMESPACE, f"{owner}\n{key}"))


def start(
    task: Task[Any, Any] | str,
    kwargs: dict[str, Any] | None = None,
    *,
    owner: Any,
    title: str = "",
    key: str | None = None,
) -> Started:
    """Start a task as a run and return at once.

    `task` is a Celery task or a declared task's slug, `owner` a request, a user, a
    scope or an owner's name. With the same owner and `key` it is the same run.
    Inside a transaction the run is created and published on commit.

    Raises Invalid for a slug that is not declared, TooMany, or Unavailable where store,
    broker or history cannot be reached. A transaction around it may go on after that,
    unless its own connection is gone.
    """
    from channels_progress import access  # a project's own rule may import us

    if isinstance(task, str):
        declared = catalogue.get(task)
        if declared is None:
            raise Invalid(f"There is no declared task {task!r}.")
        task = declared.task
    owner = access.owner(owner)
    id = run_id(owner, key)
    with _history():
        exists, unfinished = history.look(id, owner)
    if exists and (again := _again(id)) is not None:
        return again
    _admit(owner, unfinished)
    return _start(task, kwargs or {}, owner, id, title)


def _start(
    task: Task[Any, Any], kwargs: dict[str, Any], owner: str, id: str, title: str
) -> Started:
    row = Run(
        id=id,
        owner=owner,
        task=task.name,
        title=text(title, TITLE_CHARACTERS),
        kwargs=kwargs,
    )
    try:
        with _history():
            row.save(force_insert=True)
    except IntegrityError:  # the same key, at the same moment
        if (again := _again(id)) is not None:
            return again
        raise
    if transaction.get_connection().in_atomic_block:
        transaction.on_commit(partial(_launch, row, new=True))
        queued = replace(history.snapshot(row, lost_after=0), state=QUEUED)
        return Started(id, queued, True)
    return Started(id, _launch(row, new=True), True)


@contextmanager
def _history() -> Iterator[None]:
    """Around one statement to the history; Unavailable where it cannot be reached.

    One statement needs no transaction; in somebody's, it must not break theirs.
    """
    try:
        alone = transaction.get_connection().get_autocommit()
        with nullcontext() if alone else transaction.atomic():
            yield
    except REFUSED:
        raise
    except history.ERRORS as error:
        raise unavailable() from error


def _admit(owner: str, unfinished: int) -> None:
    """Raises TooMany, or Unavailable where nobody can count."""
    store = get_store()
    digest = hashlib.blake2b(owner.encode(), digest_size=16).hexdigest()
    try:
        admitted = store.admit(
            {"all": conf.STARTS_PER_MINUTE_ALL, digest: conf.STARTS_PER_MINUTE}
        )
    except ERRORS as error:
        raise unavailable() from error
    if not admitted:
        raise TooMany(_("Too many starts in the last minute; try again in a minute."))
    if unfinished >= conf.UNFINISHED_RUNS:
        raise TooMany(
            _("There are %d unfinished runs already; wait for one to end.")
            % conf.UNFINISHED_RUNS
        )


def _again(id: str) -> Started | None:
    """What the same key finds: its run, published once more where nobody took it.

    None where there is no such run yet.
    """
    with _history():
        row = Run.objects.filter(pk=id).first()
    if row is None:
        return None
    try:
        stored = get_store().read([id]).get(id)
    except ERRORS as error:
        raise unavailable() from error
    if stored is None and row.ended is None and row.state == "":
        _launch(row)  # the web died before the store knew, or the store lost it
    elif stored is not None and stored.snapshot.reason == "withdrawn":
        with _history():
            reopened = history.reopen(id, hop=stored.hop + 1)
        if reopened:
            _launch(row)
    elif stored is not None and stored.snapshot.state == QUEUED and not row.ended:
        waited = stored.snapshot.now - stored.snapshot.changed
        if waited > REPUBLISH_AFTER:
            kind: Kind = "resume" if stored.snapshot.reason == "resume" else "start"
            try:
                publish(row, stored.hop, kind, stored.snapshot.queued)
            except Exception as error:  # kombu's transports raise what they like
                raise unavailable() from error
    return Started(id, get(id), False)


def _launch(row: Run, *, new: bool = False) -> Snapshot:
    """Create the run in the store and publish it, or withdraw it; the run then."""
    store = get_store()
    declared = catalogue.get(row.slug)
    task = current_app.tasks[row.task]
    details = Details(
        run=row.pk,
        task=row.slug,
        title=row.title,
        attempts=None if task.max_retries is None else task.max_retries + 1,
        pausable=bool(declared and declared.pausable),
    )
    members = details.members()
    try:
        answer = store.call(
            "create",
            row.pk,
            nonce=nonce(),
            owner=row.owner,
            epoch=secrets.token_hex(4),
            doc=members,
            hop=row.hop,
        )
    except ERRORS as error:
        if new:
            row.delete()
        raise unavailable() from error
    # What is queued and nobody has begun may be published twice: its first try may
    # have died, or the answer to it got lost.
    if answer.state != QUEUED:
        return get(row.pk)
    if answer.code == "created":
        transition(row.slug, answer)
    queued, hop = answer.snapshot(members, owner=row.owner), int(answer.extra[0])
    try:
        publish(row, hop, "start", queued.queued)
    except Exception as error:  # kombu's transports raise what they like
        logger.warning("Run %s could not be queued: %s", row.pk, told(error))
        if _withdraw(store, row, hop):
            raise unavailable() from error
        return get(row.pk)
    return queued


def _withdraw(store: Store, row: Run, hop: int) -> bool:
    """Take a run back that could not be published; False where it has begun."""
    try:
        answer = store.call("withdraw", row.pk, hop=hop)
    except ERRORS:
        return True  # still queued there: the same key publishes it once more
    if answer.code != "done":
        return False
    transition(row.slug, answer)
    history.close(answer.snapshot(_members(store, row.pk)))
    return True


def _members(store: Store, id: str) -> str:
    stored = store.read([id]).get(id)
    return stored.snapshot.members if stored else ""
