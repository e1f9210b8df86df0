"""The tray of every page: what the viewer has under way."""

from django import template

from HomeApp.my_runs import under_way

register = template.Library()


@register.inclusion_tag("HomeApp/tray.html", takes_context=True)
def tray(context):
    """The tray's button and its list; one query, or none for who owns nothing."""
    request = context.get("request")
    return {
        "request": request,
        "csrf_token": context.get("csrf_token"),
        "runs": under_way(request) if request else [],
    }


@register.inclusion_tag("HomeApp/toasts.html", takes_context=True)
def toasts(context):
    """Where the page says that a run has ended; its script fills it."""
    names = ("request", "csrf_token")
    return {name: context.get(name) for name in names}
