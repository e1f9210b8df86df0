"""The ASGI application: Django for HTTP, Channels for WebSockets."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "CeleryProgressbar.settings")

# Loads the apps, so it comes before every import that needs them.
django_application = get_asgi_application()

from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402

from channels_progress.access import OriginMiddleware  # noqa: E402
from HomeApp.routing import ws_urlpatterns  # noqa: E402

application = ProtocolTypeRouter(
    {
        "http": django_application,
        # The origin is checked first: a foreign page costs no session lookup.
        "websocket": OriginMiddleware(AuthMiddlewareStack(URLRouter(ws_urlpatterns))),
    }
)
