"""Where a socket comes from: only a page of this site may open one."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, parse_cookie
from django.utils.http import is_same_domain

logger = logging.getLogger("channels_progress")

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


def cookies_of(scope: Mapping[str, Any]) -> dict[str, str]:
    """The cookies of a scope, whether a middleware has read them or not."""
    if "cookies" in scope:
        return dict(scope["cookies"])
    values = [value for name, value in scope.get("headers", ()) if name == b"cookie"]
    return parse_cookie(b"; ".join(values).decode("latin-1"))


class Handshake(HttpRequest):
    """A socket's opening request, as far as Django's rules of host and scheme go."""

    def __init__(self, scope: Mapping[str, Any]) -> None:
        super().__init__()
        self.socket_scheme = scope.get("scheme", "ws")
        host, port = scope.get("server") or ("", None)
        self.META = {"SERVER_NAME": host, "SERVER_PORT": str(port or 0)}
        self.COOKIES = cookies_of(scope)
        for name, value in scope.get("headers", ()):
            if b"_" not in name:  # which a server's own X-Forwarded-Proto cannot have
                key = "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
                self.META[key] = value.decode("latin-1")

    def _get_scheme(self) -> str:
        return "https" if self.socket_scheme in ("wss", "https") else "http"


class OriginMiddleware:
    """Let only pages of this site, or of CSRF_TRUSTED_ORIGINS, open a socket.

    A browser sends cookies with every socket, whoever's page opens it, and CSRF tokens
    with none: the origin is all there is to check.
    """

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and (reason := distrust(scope)):
            logger.warning("A socket to %.200r was refused: %s", scope["path"], reason)
            await refuse(scope, receive, send)
        else:
            await self.application(scope, receive, send)


def distrust(scope: Mapping[str, Any]) -> str:
    """Why this socket's origin is not trusted; empty where it is."""
    origins = [value for name, value in scope.get("headers", ()) if name == b"origin"]
    if len(origins) != 1:
        return f"it has {len(origins) or 'no'} Origin headers; a browser sends one."
    origin = origins[0].decode("latin-1")
    request = Handshake(scope)
    try:
        own = f"{'https' if request.is_secure() else 'http'}://{request.get_host()}"
    except DisallowedHost as error:
        return str(error)
    if origin == own or origin in settings.CSRF_TRUSTED_ORIGINS or _wild(origin):
        return ""
    return (
        f"its Origin is {origin[:200]!r}, and this site is {own!r}. If that is a page "
        "of yours, add it to CSRF_TRUSTED_ORIGINS; behind a proxy that ends TLS, set "
        "SECURE_PROXY_SSL_HEADER."
    )


def _wild(origin: str) -> bool:
    """Whether a trusted origin with a `*.` covers this one, as for Django's CSRF."""
    try:
        parsed = urlsplit(origin)
    except ValueError:
        return False
    return any(
        trusted.scheme == parsed.scheme
        and is_same_domain(parsed.netloc, trusted.netloc.lstrip("*"))
        for trusted in map(urlsplit, settings.CSRF_TRUSTED_ORIGINS)
        if "*" in trusted.netloc
    )


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """An ASGI application that answers a socket with 403 before it opens."""
    await receive()
    await send({"type": "websocket.close", "code": 4403})
