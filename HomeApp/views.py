"""The pages: one for each task, where it is started, and one for each run."""

from uuid import uuid4

from django.http import Http404
from django.shortcuts import redirect, render, resolve_url
from django.template import TemplateDoesNotExist
from django.template.loader import get_template
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from channels_progress import access, catalogue, runs
from channels_progress.errors import Invalid, ProgressError
from HomeApp.forms import TroubleForm
from HomeApp.receipts import Receipt
from HomeApp.trouble import SEEN


@never_cache
@access.offers_start
@require_http_methods(["GET", "HEAD", "POST"])
def task(request, slug):
    """The page that starts a task. A POST starts it and leads to its run."""
    declared = catalogue.get(slug)
    if declared is None:
        raise Http404
    form, problem, status = declared.form(), None, 200
    if request.method == "POST":
        try:
            started = runs.submit(
                slug,
                request.POST,
                files=request.FILES,
                owner=access.owner(request),
                key=request.POST.get("key"),
            )
            return redirect("run", started.run)
        except ProgressError as error:
            form = declared.form(request.POST, request.FILES)
            problem = None if isinstance(error, Invalid) else error.message
            status = error.status
    context = {
        "task": declared,
        "page": slug,
        "form": form,
        "problem": problem,
        "key": uuid4().hex,  # a form that is sent twice starts one run
    }
    names = [f"HomeApp/{slug}.html", "HomeApp/task.html"]
    return render(request, names, context, status=status)


@never_cache
@access.offers_start
@require_safe
def trouble(request):
    """The page of the tasks that go wrong."""
    tasks = [
        {"slug": slug, "title": declared.title, "seen": SEEN[slug]}
        for slug, declared in catalogue.all().items()
        if declared.form is TroubleForm
    ]
    context = {"page": "trouble", "tasks": tasks, "form": TroubleForm()}
    return render(request, "HomeApp/trouble.html", context | {"key": uuid4().hex})


@never_cache
@access.offers_start
@require_safe
def run(request, run):
    """A run as it is now; the page keeps itself up to date, with or without scripts."""
    try:
        snapshot = runs.get(str(run))
        access.require(request, snapshot, "watch")
    except ProgressError as error:
        context = {"error": error, "retry": error.status == 503}
        return render(request, "HomeApp/no_run.html", context, status=error.status)
    envelope = snapshot.as_dict()
    context = {
        "snapshot": snapshot,
        "run": envelope,
        "file": source_file(snapshot.task),
        "again": resolve_url("again", run),
        "receipt": Receipt.of(envelope),
        "result_template": result_template(envelope),
    }
    return render(request, "HomeApp/run.html", context)


def start_page(slug):
    """The address of the page that starts this task."""
    declared = catalogue.get(slug)
    if declared is None or slug == "gen_random":
        return resolve_url("start")
    if declared.form is TroubleForm:
        return resolve_url("trouble")
    return resolve_url("task", slug)


def source_file(slug):
    """Where to read the task; None for one that is not declared any more."""
    declared = catalogue.get(slug)
    return declared and declared.task.__module__.replace(".", "/") + ".py"


def result_template(envelope):
    """The template that shows a run's result; None where there is nothing to show."""
    result = envelope["result"]
    if envelope["state"] != "succeeded" or not result or "truncated" in result:
        return None
    try:
        return get_template(f"HomeApp/results/{envelope['task']}.html")
    except TemplateDoesNotExist:
        return None
