"""`{% task_progress run %}`: a live bar, already right when the page arrives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final
from uuid import uuid4

from django import template
from django.http import HttpRequest
from django.template.context import Context
from django.urls import get_script_prefix, reverse
from django.utils.translation import gettext as _

from channels_progress import access, runs, words
from channels_progress.errors import Forbidden
from channels_progress.run import (
    CANCELLING,
    FINISHED,
    PAUSED,
    QUEUED,
    RUNNING,
    WAITING,
    Snapshot,
)

register = template.Library()

NOBODY: Final = "00000000-0000-0000-0000-000000000000"
"""Stands for the run in addresses of an element that has no run yet."""


@register.inclusion_tag("channels_progress/assets.html")
def progress_assets(*units: str) -> dict[str, Any]:
    """The style, the script and its words, once in a page's head.

    `units` are the names of the things that this site's tasks count, in the singular.
    """
    return {"words": {"words": words.words(), "units": words.forms(units)}}


@register.inclusion_tag("channels_progress/task_progress.html", takes_context=True)
def task_progress(context: Context, run: Any = None, again: str = "") -> dict[str, Any]:
    """The bar of `run`: a Snapshot, what `runs.start` returned, an id, or nothing yet.

    A POST to the address `again` starts such a run once more; it gets a `key`, so
    that a form which is sent twice starts one.
    """
    values = _values(context, run)
    return values | {"again": again if values["may"] else "", "key": uuid4().hex}


@register.inclusion_tag(
    "channels_progress/task_progress_compact.html", takes_context=True
)
def task_progress_compact(
    context: Context, run: Any = None, href: str = ""
) -> dict[str, Any]:
    """The same on a line or two, for lists; its title is a link to `href`."""
    values = _values(context, run)
    if envelope := values["envelope"]:  # in a list nobody looks at these two
        values["text"] = json.dumps({**envelope, "result": None, "samples": None})
    return values | {"href": href}


def _values(context: Context, run: Any) -> dict[str, Any]:
    request: HttpRequest = context["request"]
    snapshot = _snapshot(run)
    envelope = snapshot.as_dict() if snapshot else None
    run_id = snapshot.id if snapshot else NOBODY
    may = _may(request, snapshot)
    return {
        "may": may,
        "envelope": envelope,
        "text": snapshot.envelope() if snapshot else "",
        "token": access.token(request, run_id) if snapshot else "",
        "socket": f"{get_script_prefix()}ws/progress/",
        "src": reverse("channels_progress:run", args=[run_id]),
        "shown": words.shown(envelope) if envelope else {},
        "actions": list(_actions(run_id, envelope)) if may else [],
        "next": request.get_full_path(),
        "csrf_token": context.get("csrf_token"),
    }


@register.simple_tag
def start_socket(task: str) -> str:
    """The address of a task's start socket, for <start-button>."""
    return f"{get_script_prefix()}ws/start/{task}/"


def _snapshot(run: Any) -> Snapshot | None:
    if not run or isinstance(run, Snapshot):
        return run or None
    return getattr(run, "snapshot", None) or runs.get(str(run))


def _may(request: HttpRequest, snapshot: Snapshot | None) -> bool:
    """Whether this viewer gets buttons; who has a token may only watch."""
    try:
        if snapshot is not None:
            access.require(request, snapshot, "cancel")
    except Forbidden:
        return False
    return True


def _actions(run_id: str, envelope: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """Every button; those that do not fit the state are there and hidden."""
    labels = {
        "cancel": _("Cancel"),
        "force": _("Force it to stop"),
        "pause": _("Pause"),
        "resume": _("Resume"),
    }
    for verb, label in labels.items():
        action = "cancel" if verb == "force" else verb
        url = reverse(f"channels_progress:{action}", args=[run_id])
        yield {"verb": verb, "label": label, "url": url, "fits": _fits(verb, envelope)}


def _fits(verb: str, envelope: dict[str, Any] | None) -> bool:
    """VERBS of task-progress.js, where no script runs."""
    if envelope is None or envelope["state"] in FINISHED:
        return False
    state: str = envelope["state"]
    if verb == "pause":
        active = state in (QUEUED, RUNNING, WAITING) and not envelope["asked"]
        return active and bool(envelope.get("pausable"))
    return {"cancel": state != CANCELLING, "resume": state == PAUSED}.get(verb, False)
