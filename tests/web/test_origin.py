"""Where a socket comes from."""

import pytest
from channels.testing import WebsocketCommunicator

from channels_progress.origin import OriginMiddleware


async def opened(origin, host=b"testserver", scheme=None, extra=()):
    """Whether a socket with these headers is let in."""

    async def application(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})

    headers = [(b"host", host), *extra]
    if origin is not None:
        headers.append((b"origin", origin))
    socket = WebsocketCommunicator(OriginMiddleware(application), "/ws/", headers)
    if scheme:
        socket.scope["scheme"] = scheme
    is_open, _ = await socket.connect()
    await socket.wait()
    return is_open


@pytest.mark.parametrize(
    ("origin", "options", "trusted"),
    [
        (b"http://testserver", {}, True),
        (b"http://testserver:8000", {"host": b"testserver:8000"}, True),
        (b"https://testserver", {"scheme": "wss"}, True),
        (b"http://[::1]:80", {"host": b"[::1]:80"}, True),
        (b"http://testserver:8001", {"host": b"testserver:8000"}, False),
        (b"http://testserver", {"scheme": "wss"}, False),
        (b"https://testserver", {}, False),
        (b"http://sub.testserver", {}, False),
        (b"http://testserver.evil.example", {}, False),
        (b"http://evil.example", {"host": b"evil.example"}, False),
        (b"http://evil.example", {}, False),
        (b"http://[", {}, False),
        (b"null", {}, False),
        (b"", {}, False),
        (None, {}, False),
        (b"http://testserver", {"extra": [(b"origin", b"http://a.example")]}, False),
        # CSRF_TRUSTED_ORIGINS
        (b"https://app.example", {}, True),
        (b"http://app.example", {}, False),
        (b"https://deep.wild.example", {}, True),
        (b"https://wild.example.evil.example", {}, False),
        # The proxy's word counts where the settings say so, and never another's.
        (b"https://testserver", {"extra": [(b"x-forwarded-proto", b"https")]}, True),
        (b"https://testserver", {"extra": [(b"x_forwarded_proto", b"https")]}, False),
    ],
)
async def test_a_socket_is_opened_by_a_page_of_this_site(
    settings, origin, options, trusted
):
    settings.ALLOWED_HOSTS = ["testserver", "[::1]"]
    settings.CSRF_TRUSTED_ORIGINS = ["https://app.example", "https://*.wild.example"]
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    assert await opened(origin, **options) is trusted


async def test_a_forwarded_host_counts_if_the_settings_say_so(settings):
    settings.ALLOWED_HOSTS = ["*"]
    forwarded = [(b"x-forwarded-host", b"site.example")]
    assert not await opened(b"http://site.example", extra=forwarded)
    settings.USE_X_FORWARDED_HOST = True
    assert await opened(b"http://site.example", extra=forwarded)


async def test_a_refusal_says_why_and_what_to_do(caplog):
    await opened(b"http://evil.example")
    assert "'http://evil.example'" in caplog.text
    assert "CSRF_TRUSTED_ORIGINS" in caplog.text
    caplog.clear()
    await opened(None)
    assert "no Origin" in caplog.text


async def test_other_protocols_pass():
    seen = []

    async def application(scope, receive, send):
        seen.append(scope["type"])

    await OriginMiddleware(application)({"type": "http"}, None, None)
    assert seen == ["http"]
