"""What views and consumers call: start, read, cancel, pause and resume a run.

Everything here blocks, for a bounded time; coroutines call it through `in_thread`.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

from asgiref.sync import async_to_sync
from celery import Task, current_app
from channels.layers import get_channel_layer
from django.db import close_old_connections, transaction
from django.http import QueryDict
from django.utils.datastructures import MultiValueDict
from django.utils.translation import gettext as _
from kombu.pools import producers

from channels_progress import catalogue, history
from channels_progress.conf import conf
from channels_progress.errors import (
    Forbidden,
    Invalid,
    ProgressError,
    TooMany,
    Unavailable,
)
from channels_progress.header import Header, Kind
from channels_progress.models import Run
from channels_progress.run import (
    HEAD,
    QUEUED,
    TITLE_CHARACTERS,
    Details,
    Snapshot,
    text,
)
from channels_progress.store import ERRORS, Store, Stored, get_store, nonce

P = ParamSpec("P")
T = TypeVar("T")
logger = logging.getLogger("channels_progress")

NAMESPACE: Final = uuid.UUID("5f1d3c0e-8a0b-4c55-9d53-6f0b7f0a9e11")
# A run queued this long without a beginning is published again by its own key.
REPUBLISH_AFTER: Final = 3000  # ms
PUBLISH_TIMEOUT: Final = 2.0  # s
THREAD_TIMEOUT: Final = 3.0  # s


class Started(NamedTuple):
    """A run's id, its snapshot, and whether this very call made it."""

    run: str
    snapshot: Snapshot
    new: bool


def group(id: str) -> str:
    """The channel-layer group of a run: never the user's own characters."""
    digest = hashlib.blake2b(id.encode("utf-8", "replace"), digest_size=16).hexdigest()
    return f"{conf.PREFIX}.{digest}"


def _unavailable() -> Unavailable:
    return Unavailable(_("The service cannot be reached at the moment."))


# -- Starting ---------------------------------------------------------------------


def submit(
    slug: str,
    params: Mapping[str, Any] | QueryDict,
    *,
    owner: str,
    files: MultiValueDict[str, Any] | None = None,
    key: str | None = None,
) -> Started:
    """Start a declared task from outside; its form validates the parameters.

    Raises Invalid with the form's errors, TooMany, or Unavailable.
    """
    declared = catalogue.get(slug)
    if declared is None:
        known = ", ".join(sorted(catalogue.all()))
        raise Invalid(
            _("There is no task of this name; there are: %s.") % known,
            {"task": [_("Unknown task.")]},
        )
    id = run_id(owner, key) if key else None
    if id is not None and (again := _again(id)) is not None:
        return again
    form = declared.form(params, files)
    if not form.is_valid():
        errors = {name: [str(e) for e in texts] for name, texts in form.errors.items()}
        name, texts = next(iter(errors.items()))
        raise Invalid(f"{name}: {texts[0]}", errors)
    task_kwargs = getattr(form, "task_kwargs", None)
    kwargs = task_kwargs() if task_kwargs else form.cleaned_data
    return start(declared.task, kwargs, owner=owner, title=str(declared.title), key=key)


def run_id(owner: str, key: str | None) -> str:
    """The id of a run: the same for the same owner and key."""
    if key is None:
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
    """
    from channels_progress import access  # a project's own rule may import us

    if isinstance(task, str):
        declared = catalogue.get(task)
        if declared is None:
            raise Invalid(f"There is no declared task {task!r}.")
        task = declared.task
    owner = access.owner(owner)
    id = run_id(owner, key)
    _admit(owner)
    row, new = Run.objects.get_or_create(
        id=id,
        defaults={
            "owner": owner,
            "task": task.name,
            "title": text(title, TITLE_CHARACTERS),
            "kwargs": kwargs or {},
        },
    )
    if not new and (again := _again(id)) is not None:
        return again
    transaction.on_commit(partial(_launch, row))
    if transaction.get_connection().in_atomic_block:
        return Started(id, history.snapshot(row, lost_after=1 << 60), new)
    return Started(id, get(id), new)


def _admit(owner: str) -> None:
    store = get_store()
    digest = hashlib.blake2b(owner.encode(), digest_size=16).hexdigest()
    try:
        admitted = store.admit("all", conf.STARTS_PER_MINUTE_ALL) and store.admit(
            digest, conf.STARTS_PER_MINUTE
        )
    except ERRORS as error:
        raise _unavailable() from error
    if not admitted:
        raise TooMany(_("Too many starts in the last minute; try again in a minute."))
    if Run.objects.filter(owner=owner, ended=None).count() >= conf.UNFINISHED_RUNS:
        raise TooMany(
            _("There are %d unfinished runs already; wait for one to end.")
            % conf.UNFINISHED_RUNS
        )


def _again(id: str) -> Started | None:
    """What the same key finds: its run, published once more where nobody took it.

    None where there is no such run yet.
    """
    row = Run.objects.filter(pk=id).first()
    if row is None:
        return None
    try:
        stored = get_store().read([id]).get(id)
    except ERRORS as error:
        raise _unavailable() from error
    if stored is None and row.ended is None and row.state == "":
        _launch(row)  # the web died before the store knew, or the store lost it
    elif stored is not None and stored.snapshot.reason == "withdrawn":
        history.reopen(id, hop=stored.hop + 1)
        _launch(row)
    elif stored is not None and stored.snapshot.state == QUEUED:
        waited = stored.snapshot.now - stored.snapshot.changed
        if waited > REPUBLISH_AFTER:
            kind: Kind = "resume" if stored.snapshot.reason == "resume" else "start"
            _publish(row, stored.hop, kind, stored.snapshot.queued)
    return Started(id, get(id), False)


def _launch(row: Run) -> None:
    """Create the run in the store and publish it, or leave neither."""
    store = get_store()
    declared = catalogue.get(row.task.rpartition(".")[2])
    task = current_app.tasks[row.task]
    details = Details(
        run=row.pk,
        task=row.task.rpartition(".")[2],
        title=row.title,
        attempts=None if task.max_retries is None else task.max_retries + 1,
        pausable=bool(declared and declared.pausable),
    )
    try:
        answer = store.call(
            "create",
            row.pk,
            nonce=nonce(),
            owner=row.owner,
            epoch=secrets.token_hex(4),
            doc=details.members(),
            hop=row.hop,
        )
    except ERRORS as error:
        _forget(row.pk)
        raise _unavailable() from error
    if answer.code != "created":
        return
    hop = int(answer.extra[0])
    try:
        _publish(row, hop, "start", answer.snapshot().queued)
    except Exception as error:  # kombu's transports raise what they like
        logger.warning("Run %s could not be queued: %r", row.pk, error)
        if _withdraw(store, row, hop):
            raise _unavailable() from error


def _withdraw(store: Store, row: Run, hop: int) -> bool:
    """Take a run back that could not be published; False where it has begun."""
    try:
        answer = store.call("withdraw", row.pk, hop=hop)
    except ERRORS:
        return True  # still queued there: the same key publishes it once more
    if answer.code != "done":
        return False
    history.close(answer.snapshot(_members(store, row.pk)))
    return True


def _members(store: Store, id: str) -> str:
    stored = store.read([id]).get(id)
    return stored.snapshot.members if stored else ""


def _forget(id: str) -> None:
    Run.objects.filter(pk=id, ended=None).delete()


@cache
def _connection() -> Any:
    """The broker as the web sees it: it never waits long, and never tries again."""
    options = dict(current_app.conf.broker_transport_options or {})
    if current_app.connection_for_write().transport.driver_type == "redis":
        options |= {
            "socket_timeout": PUBLISH_TIMEOUT,
            "socket_connect_timeout": PUBLISH_TIMEOUT,
        }
    else:
        options |= {"read_timeout": PUBLISH_TIMEOUT, "write_timeout": PUBLISH_TIMEOUT}
        options["confirm_publish"] = True
    return current_app.connection_for_write(
        connect_timeout=PUBLISH_TIMEOUT, transport_options=options
    )


def _publish(row: Run, hop: int, kind: Kind, queued: int) -> None:
    slug = row.task.rpartition(".")[2]
    declared = catalogue.get(slug)
    header = Header(
        run=row.pk,
        owner=row.owner,
        task=slug,
        title=row.title,
        hop=hop,
        kind=kind,
        queued=queued,
        pausable=bool(declared and declared.pausable),
    )
    pool = producers[_connection()]
    with pool.acquire(block=True, timeout=PUBLISH_TIMEOUT) as producer:
        current_app.tasks[row.task].apply_async(
            kwargs=row.kwargs,
            task_id=row.pk,
            headers=header.as_headers(),
            producer=producer,
            retry=False,
        )


# -- Reading ----------------------------------------------------------------------


def read(ids: Iterable[str]) -> dict[str, Snapshot | ProgressError]:
    """The runs as they are now, in one round trip: the store, else the history.

    An unknown id gives Forbidden, one that nobody can answer for Unavailable.
    """
    wanted = list(dict.fromkeys(ids))
    stored: dict[str, Stored] = {}
    store_down = False
    try:
        stored = get_store().read(wanted)
    except ERRORS:
        store_down = True
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
        rows = history.read(asked)
    except history.ERRORS:
        for id in asked:
            found.setdefault(id, _unavailable())
        return found
    for id in asked:
        row = rows.get(id)
        if id in stored:
            if row is not None and row.ended and not stored[id].snapshot.finished:
                found[id] = history.snapshot(row, lost_after)
        elif row is None:
            found[id] = Forbidden()
        elif store_down and not row.ended:
            found[id] = _unavailable()
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


def listing(owners: Iterable[str], limit: int = 50) -> list[Snapshot]:
    """The active runs of these owners, newest first, then the recent finished ones."""
    rows = Run.objects.filter(owner__in=[owner for owner in owners if owner])
    try:
        active = list(rows.filter(ended=None)[:limit])
        recent = list(rows.exclude(ended=None)[: max(0, limit - len(active))])
    except history.ERRORS as error:
        raise _unavailable() from error
    now = read([row.pk for row in active]) if active else {}
    lost_after = int(conf.LOST_AFTER * 1000)
    snapshots = [s for row in active if isinstance(s := now.get(row.pk), Snapshot)]
    return snapshots + [history.snapshot(row, lost_after) for row in recent]


# -- Asking -----------------------------------------------------------------------


def cancel(id: str) -> Snapshot:
    """Ask that a run ends; what nobody holds is cancelled at once."""
    return _ask(id, "cancel")


def pause(id: str) -> Snapshot:
    """Ask that a run frees its worker; what nobody holds is paused at once."""
    return _ask(id, "pause")


def _ask(id: str, verb: str) -> Snapshot:
    store = get_store()
    try:
        answer = store.call(verb, id, lost=int(conf.LOST_AFTER * 1000))
    except ERRORS as error:
        raise _unavailable() from error
    if answer.code == "done":
        stored = store.read([id])[id]
        history.close(stored.snapshot, hop=stored.hop, cursor=stored.cursor)
        logger.info("Run %s: %s asked, %s at once", id, verb, stored.snapshot.state)
    if answer.code in ("done", "asked"):
        tell(id)
    return get(id)


def resume(id: str) -> Snapshot:
    """Publish a paused run again; it goes on from its cursor."""
    store = get_store()
    row = Run.objects.filter(pk=id).first()
    if row is None:
        raise Forbidden()
    try:
        answer = store.call("resume", id, nonce=nonce(), **_seed(row))
    except ERRORS as error:
        raise _unavailable() from error
    if answer.code != "resumed":
        return get(id)
    hop = int(answer.extra[0])
    try:
        _publish(row, hop, "resume", answer.snapshot().queued)
    except Exception as error:  # kombu's transports raise what they like
        logger.warning("Run %s could not be resumed: %r", id, error)
        store.call("repause", id, hop=hop)
        raise _unavailable() from error
    history.reopen(id, hop=hop)
    tell(id)
    return get(id)


def _seed(row: Run) -> dict[str, object]:
    """What makes a paused run's hash again, where the store has lost it."""
    if row.state != "paused":
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


HEAD_FIELDS: Final = (*HEAD, "now")


def message(snapshot: Snapshot) -> dict[str, Any]:
    """The group message that carries a snapshot; `from_message` reads it."""
    head = {name: getattr(snapshot, name) for name in HEAD_FIELDS}
    return {
        "type": "progress.run",
        "run": snapshot.id,
        "head": head,
        "text": snapshot.members,
    }


def tell(id: str) -> None:
    """Tell the watchers that the store has news of a run; losing it costs 2 s."""
    layer = get_channel_layer(conf.CHANNEL_LAYER)
    if layer is None:
        return
    message = {"type": "progress.run", "run": id, "head": None, "text": None}
    try:
        async_to_sync(layer.group_send)(group(id), message)
    except Exception as error:  # the layer is never the truth: reconcile covers it
        logger.debug("The watchers of %s could not be told: %r", id, error)


# -- From a coroutine -------------------------------------------------------------

_executor = ThreadPoolExecutor(max_workers=8, thread_name_prefix="progress")


async def in_thread(
    function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call a blocking function of this app from a coroutine; Unavailable after 3 s.

    It runs on threads of its own, so a store, database or broker that hangs cannot
    hold up the site's other work.
    """

    def call() -> T:
        close_old_connections()
        try:
            return function(*args, **kwargs)
        finally:
            close_old_connections()

    future = asyncio.get_running_loop().run_in_executor(_executor, call)
    try:
        return await asyncio.wait_for(future, THREAD_TIMEOUT)
    except TimeoutError as error:
        raise _unavailable() from error
    except history.ERRORS as error:
        raise _unavailable() from error
