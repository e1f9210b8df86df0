"""The site's URLs: HomeApp's pages, the HTTP twin of the wire, the admin."""

from django.contrib import admin
from django.shortcuts import redirect
from django.templatetags.static import static
from django.urls import include, path

from channels_progress.health import healthz


def icon(request):
    """For the pages that name none, as the admin's."""
    return redirect(static("HomeApp/icon.svg"))


urlpatterns = [
    path("", include("HomeApp.urls")),
    path("progress/", include("channels_progress.urls")),
    path("healthz", healthz),
    path("favicon.ico", icon),
    path("i18n/", include("django.conf.urls.i18n")),
    path("admin/", admin.site.urls),
]
