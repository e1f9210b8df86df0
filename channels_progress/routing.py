"""The sockets, for the project's `URLRouter`."""

from __future__ import annotations

from django.urls import path

from channels_progress.consumers import ProgressConsumer, StartConsumer

websocket_urlpatterns = [
    path("ws/progress/", ProgressConsumer.as_asgi()),
    path("ws/start/<slug:task>/", StartConsumer.as_asgi()),
]
