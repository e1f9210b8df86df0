"""The tray of every page: what the viewer has under way, and what became of it."""

from django import template

from HomeApp.my_runs import under_way

register = template.Library()


@register.inclusion_tag("HomeApp/tray_button.html", takes_context=True)
def tray_button(context):
    """What opens the tray, with the number of active runs."""
    return {"runs": _runs(context)}


@register.inclusion_tag("HomeApp/tray.html", takes_context=True)
def tray(context):
    """The tray, and a place for news. It comes last, as it lies over the page."""
    names = ("request", "csrf_token")
    return {name: context.get(name) for name in names} | {"runs": _runs(context)}


def _runs(context):
    """The viewer's active runs, asked for once a page; it is one query."""
    request = context.get("request")
    if request is None:
        return []
    if not hasattr(request, "runs_under_way"):
        request.runs_under_way = under_way(request)
    return request.runs_under_way
