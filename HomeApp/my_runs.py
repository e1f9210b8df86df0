"""A viewer's runs: all of them, those under way, and one of them once more."""

from datetime import UTC, datetime

from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from channels_progress import access, catalogue, history, runs
from channels_progress.errors import Forbidden, Invalid, ProgressError
from channels_progress.models import Run
from channels_progress.read import unavailable
from HomeApp import uploads
from HomeApp.views import start_page

PAGE = 20  # runs
TRAY = 20  # runs


@never_cache
@access.offers_start
@require_safe
def listing(request):
    """What the viewer has started: first what is under way, then what has ended."""
    number = page_number(request.GET.get("page"))
    identities = access.viewer_of(request).identities
    try:
        found = runs.listing(identities, PAGE + 1, PAGE * (number - 1))
    except ProgressError as error:
        context = {"error": error, "retry": True, "page": "runs"}
        return render(request, "HomeApp/no_run.html", context, status=error.status)
    context = {
        "page": "runs",
        "number": number,
        "runs": with_time(found[:PAGE]),
        "active": any(not one.finished for one in found),
        "newer": number - 1,
        "older": number + 1 if len(found) > PAGE else 0,
    }
    return render(request, "HomeApp/my_runs.html", context)


@never_cache
@require_safe
def tray(request):
    """The viewer's runs under way, as a fragment of a page."""
    return render(request, "HomeApp/tray_rows.html", {"runs": under_way(request)})


def under_way(request):
    """The viewer's newest active runs; none where they cannot be read."""
    try:
        return runs.active(access.viewer_of(request).identities, TRAY)
    except ProgressError:
        return []


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@access.offers_start
def again(request, run):
    """Start a run with the parameters of another one that the viewer may cancel, as who
    may only watch it gets no button. A GET, as after a change of language, leads back.
    """
    if request.method != "POST":
        return redirect("run", run)
    slug = ""
    try:
        snapshot = runs.get(str(run))
        access.require(request, snapshot, "cancel")
        slug = snapshot.task
        started = start_again(request, str(run), slug)
    except ProgressError as error:
        context = {"error": error, "start": start_page(slug)}
        return render(request, "HomeApp/no_start.html", context, status=error.status)
    return redirect("run", started.run)


def start_again(request, run, slug):
    declared = catalogue.get(slug)
    row = row_of(run)
    if row is None:
        raise Forbidden()
    if declared is None:
        raise Invalid(_("This task cannot be started any more."))
    if "path" in row.kwargs and not uploads.kept(row.kwargs["path"]):
        raise Invalid(_("The uploaded file is no longer here. Please upload it again."))
    return runs.start(
        declared.task,
        row.kwargs,
        owner=request,
        title=str(declared.title),
        key=request.POST.get("key"),
    )


def row_of(run):
    try:
        return Run.objects.filter(pk=run).first()
    except history.ERRORS as error:
        raise unavailable() from error


def page_number(text):
    # Python refuses to read a number of thousands of digits.
    is_short = text and text.isdecimal() and len(text) < 5
    return max(1, int(text)) if is_short else 1


def with_time(snapshots):
    """Each snapshot with the moment of its start."""
    return [
        {"snapshot": one, "when": datetime.fromtimestamp(one.queued / 1000, UTC)}
        for one in snapshots
    ]
