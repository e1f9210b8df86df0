"""Django's defence against forged requests, refusing in the wire's words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.utils.decorators import decorator_from_middleware
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt

from channels_progress.errors import Forbidden

View = TypeVar("View", bound=Callable[..., Any])


class Forged(Forbidden):
    """A request that does not prove to come from a page of this site."""

    def __init__(self) -> None:
        super().__init__()
        self.message = _("The CSRF check failed. Reload this page and try again.")


class Csrf(CsrfViewMiddleware):
    """Django's own, whose refusal is JSON for who does not ask for a page."""

    def process_view(self, request: HttpRequest, *view: Any) -> Any:
        refusal: HttpResponseBase | None = super().process_view(request, *view)
        if refusal is None or asks_for_page(request):
            return refusal
        return JsonResponse(Forged().payload(), status=Forged.status)


_check = decorator_from_middleware(Csrf)


def csrf_checked(view: View) -> View:
    """Decorate a view, below whatever answers for a form that cannot be read.

    It is exempt from the project's own middleware, which would read the form first.
    """
    return cast(View, csrf_exempt(_check(view)))


def asks_for_page(request: HttpRequest) -> bool:
    """Whether a person sent it from a page without scripts."""
    return "text/html" in request.headers.get("Accept", "")
