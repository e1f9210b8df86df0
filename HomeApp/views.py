"""The pages: one for each task, where it is started, and one for each run."""

from uuid import uuid4

from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from channels_progress import access, catalogue, runs
from channels_progress.errors import Invalid, ProgressError

# Where each task is started, and so where "Run again" leads.
PAGES = {
    "gen_random": "start",
    "fft_random": "fft_random",
    "import_rows": "import_rows",
}


@never_cache
@access.offers_start
@require_http_methods(["GET", "HEAD", "POST"])
def task(request, slug):
    """The page that starts a task. A POST starts it and leads to its run."""
    declared = catalogue.get(slug)
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
    # The key makes a form that is sent twice start one run.
    context = {"slug": slug, "form": form, "problem": problem, "key": uuid4().hex}
    context["title"] = declared.title
    return render(request, f"HomeApp/{slug}.html", context, status=status)


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
        "page": PAGES.get(envelope["task"], "start"),
        "result_template": f"HomeApp/results/{envelope['task']}.html",
    }
    return render(request, "HomeApp/run.html", context)
