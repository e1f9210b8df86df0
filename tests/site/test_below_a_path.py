"""FORCE_SCRIPT_NAME: the site below a path of its host."""

import pytest
from channels.routing import URLRouter
from django.urls import path

from CeleryProgressbar.asgi import under_script_name


@pytest.mark.parametrize("known", ["", "/sub"], ids=["unknown", "known"])
@pytest.mark.parametrize("asked", ["/sub/ws/", "/ws/"], ids=["whole", "stripped"])
async def test_sockets_are_found_whatever_server_and_proxy_do(settings, known, asked):
    settings.FORCE_SCRIPT_NAME = "/sub"
    found = []

    async def socket(scope, receive, send):
        found.append(scope["url_route"])

    application = under_script_name(URLRouter([path("ws/", socket)]))
    await application({"path": asked, "root_path": known}, None, None)
    assert found
