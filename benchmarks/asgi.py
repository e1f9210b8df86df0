"""The site, with two peers behind the same middleware: a bare consumer, and
celery-progress's."""

import CeleryProgressbar.asgi as site

# isort: split
from celery_progress.websockets.routing import urlpatterns as celery_progress
from channels.auth import AuthMiddlewareStack
from channels.consumer import AsyncConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import path

from channels_progress.origin import OriginMiddleware
from HomeApp.routing import ws_urlpatterns


class Bare(AsyncConsumer):
    """Accepts, and does nothing."""

    async def websocket_connect(self, message):
        await self.send({"type": "websocket.accept"})


*ours, refuse = ws_urlpatterns
peers = [path("ws/bare/", Bare.as_asgi()), *celery_progress]
sockets = URLRouter([*ours, *peers, refuse])

app = ProtocolTypeRouter(
    {
        "http": site.django_application,
        "websocket": OriginMiddleware(AuthMiddlewareStack(sockets)),
    }
)
