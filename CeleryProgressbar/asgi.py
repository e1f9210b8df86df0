"""The ASGI application: Django for HTTP, Channels for WebSockets."""

import os
import sys

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "CeleryProgressbar.settings")

# Loads the apps, so it comes before every import that needs them.
django_application = get_asgi_application()

from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.conf import settings  # noqa: E402

from channels_progress.origin import OriginMiddleware  # noqa: E402
from HomeApp.routing import ws_urlpatterns  # noqa: E402

if "daphne.http_protocol" in sys.modules:
    from . import large_bodies

    django_application = large_bodies.install(django_application)


def under_script_name(inner):
    """Route below FORCE_SCRIPT_NAME, as Django does for HTTP by itself."""
    prefix = settings.FORCE_SCRIPT_NAME or ""

    async def application(scope, receive, send):
        below = {"path": scope["path"].removeprefix(prefix), "root_path": ""}
        await inner({**scope, **(below if prefix else {})}, receive, send)

    return application


application = ProtocolTypeRouter(
    {
        "http": django_application,
        # The origin is checked first: a foreign page costs no session lookup.
        "websocket": OriginMiddleware(
            AuthMiddlewareStack(under_script_name(URLRouter(ws_urlpatterns)))
        ),
    }
)
