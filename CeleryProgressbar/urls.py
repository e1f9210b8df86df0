"""The site's URLs: HomeApp's pages, the HTTP twin of the wire, the admin."""

from django.contrib import admin
from django.urls import include, path

from channels_progress.health import healthz

urlpatterns = [
    path("", include("HomeApp.urls")),
    path("progress/", include("channels_progress.urls")),
    path("healthz", healthz),
    path("i18n/", include("django.conf.urls.i18n")),
    path("admin/", admin.site.urls),
]
