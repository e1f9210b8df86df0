"""The HTTP twin of the sockets; include it under a path of the project's choice."""

from __future__ import annotations

from django.urls import path

from channels_progress import views

app_name = "channels_progress"

urlpatterns = [
    path("start/<slug:task>/", views.start, name="start"),
    path("runs/", views.listing, name="runs"),
    path("runs/<str:run>/", views.run, name="run"),
    path("runs/<str:run>/cancel/", views.cancel, name="cancel"),
    path("runs/<str:run>/pause/", views.pause, name="pause"),
    path("runs/<str:run>/resume/", views.resume, name="resume"),
]
