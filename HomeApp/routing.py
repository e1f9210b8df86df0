"""The site's sockets: its own, and those of the app."""

from django.urls import path, re_path

from channels_progress.origin import refuse
from channels_progress.routing import websocket_urlpatterns
from HomeApp.consumers import WSConsumer

ws_urlpatterns = [
    path("ws/start/<slug:task>/", WSConsumer.as_asgi()),
    *websocket_urlpatterns,
    re_path("", refuse),  # any other address; without it the router raises
]
