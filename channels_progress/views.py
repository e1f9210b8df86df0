"""The HTTP twin of the sockets: 202 and poll."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

from django.core.exceptions import BadRequest, SuspiciousOperation
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseRedirect,
    JsonResponse,
    UnreadablePostError,
)
from django.http.multipartparser import MultiPartParserError
from django.shortcuts import render
from django.urls import reverse
from django.utils.cache import get_conditional_response, patch_cache_control
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe

from channels_progress import access, history, runs, wire
from channels_progress.csrf import asks_for_page, csrf_checked
from channels_progress.errors import Malformed, ProgressError
from channels_progress.read import unavailable
from channels_progress.run import Snapshot

LISTED: Final = 50  # runs
# What Django reads as a form; without a body there may be no type.
FORMS: Final = ("application/x-www-form-urlencoded", "multipart/form-data", "")
UNPARSABLE: Final = (
    BadRequest,
    MultiPartParserError,
    SuspiciousOperation,
    UnreadablePostError,
)

Answer = Callable[..., HttpResponseBase]
Refusal = Callable[[HttpRequest, ProgressError], HttpResponseBase]


def _as_json(request: HttpRequest, error: ProgressError) -> HttpResponseBase:
    return JsonResponse(error.payload(), status=error.status)


def _as_asked(request: HttpRequest, error: ProgressError) -> HttpResponseBase:
    """A page with the way back, for a person whose browser runs no script; or JSON."""
    if not asks_for_page(request):
        return _as_json(request, error)
    context = {"error": error, "next": _next(request)}
    page = "channels_progress/refused.html"
    return render(request, page, context, status=error.status)


def answers_json(view: Answer, refusal: Refusal = _as_json) -> Answer:
    """Decorate a view whose errors are the wire's, told as `refusal` tells them.

    Nothing it says may be cached.
    """

    @functools.wraps(view)
    def wrapper(request: HttpRequest, /, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            try:
                response = view(request, *args, **kwargs)
            except UNPARSABLE as error:
                raise Malformed(_("The request cannot be read: %s") % error) from None
            except history.ERRORS as error:
                raise unavailable() from error
        except ProgressError as error:
            response = refusal(request, error)
        patch_cache_control(response, private=True, no_store=True)
        return response

    return wrapper


# -- Runs -------------------------------------------------------------------------


@require_POST
@answers_json
@csrf_checked
@access.offers_start
def start(request: HttpRequest, task: str) -> HttpResponseBase:
    """Start a task: from a form, or from JSON as on the wire, `params` and `key`.

    202 with the run's envelope, its token, and its address as `Location`.
    """
    if request.content_type == "application/json":
        body = wire.parse(request.body)
        key, params = body.pop("key", None), wire.params(body.get("params", body))
        files = None
    elif request.content_type not in FORMS:
        raise Malformed(_("Send a form, or JSON as application/json."))
    else:
        params, files = request.POST.copy(), request.FILES
        key = params.pop("key", [None])[-1]
        params.pop("csrfmiddlewaretoken", None)
    viewer = access.viewer_of(request)
    started = runs.submit(
        task, params, owner=viewer.owner, files=files, key=wire.key(key)
    )
    envelope = started.snapshot.as_dict()
    envelope["token"] = access.token(viewer, started.run)
    response = JsonResponse(envelope, status=202)
    response["Location"] = reverse("channels_progress:run", args=[started.run])
    return response


@require_safe
@answers_json
def listing(request: HttpRequest) -> HttpResponseBase:
    """The viewer's runs: the active ones, then the recent."""
    viewer = access.viewer_of(request)
    found = runs.listing(viewer.identities, LISTED) if viewer.identities else []
    return _json(f'{{"runs":[{",".join(one.envelope() for one in found)}]}}')


@require_safe
@answers_json
def run(request: HttpRequest, run: str) -> HttpResponseBase:
    """A run's envelope; `?token=` may grant it. 304 while its ETag holds."""
    snapshot = _allowed(request, run, "watch", request.GET.get("token"))
    etag = f'"{snapshot.epoch}:{snapshot.rev}:{snapshot.shown}"'
    response = _json(snapshot.envelope())
    response["ETag"] = etag
    return get_conditional_response(request, etag=etag, response=response) or response


def _asks(verb: str, ask: Callable[..., Snapshot]) -> Answer:
    """The view that asks a run to change; a page without scripts names a `next`."""

    @require_POST
    @functools.partial(answers_json, refusal=_as_asked)
    @csrf_checked
    def view(request: HttpRequest, run: str) -> HttpResponseBase:
        _allowed(request, run, verb, request.POST.get("token"))
        force = verb == "cancel" and request.POST.get("force") == "true"
        snapshot = ask(run, **({"force": True} if force else {}))
        if asks_for_page(request) and (target := _next(request)):
            return HttpResponseRedirect(target, status=303)
        return _json(snapshot.envelope(), status=202)

    return view


cancel = _asks("cancel", runs.cancel)
pause = _asks("pause", runs.pause)
resume = _asks("resume", runs.resume)


def _allowed(
    request: HttpRequest, run: str, action: str, token: str | None
) -> Snapshot:
    # First of all: a session that was looked at shows in the answer's `Vary`, which
    # must be the same for a run that does not exist.
    viewer = access.viewer_of(request)
    snapshot = runs.get(wire.run_id(run))
    access.require(viewer, snapshot, action, token)
    return snapshot


def _next(request: HttpRequest) -> str:
    """The page of this site that a form leads on to, or nothing."""
    try:
        url = request.POST.get("next", "")
    except UNPARSABLE:  # which is what is being told
        return ""
    ours = url_has_allowed_host_and_scheme(
        url, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return url if ours else ""


def _json(text: str, status: int = 200) -> HttpResponse:
    return HttpResponse(text, content_type="application/json", status=status)
