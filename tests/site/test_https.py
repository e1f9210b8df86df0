"""HTTPS=1: the site behind a proxy that ends TLS."""

from importlib import util

import pytest

FORWARDED = {"x-forwarded-proto": "https"}


@pytest.fixture
def behind_a_proxy(settings, monkeypatch):
    monkeypatch.setenv("HTTPS", "1")
    spec = util.find_spec("CeleryProgressbar.settings")
    told = util.module_from_spec(spec)
    spec.loader.exec_module(told)
    for name in vars(told):
        if name.startswith(("SECURE_", "SESSION_COOKIE_", "CSRF_COOKIE_")):
            setattr(settings, name, getattr(told, name))


def test_a_page_is_shown_over_tls_only(behind_a_proxy, site, client):
    plain = client.get("/")
    assert plain["Location"] == "https://testserver/"
    assert client.get("/", headers=FORWARDED).status_code == 200


def test_every_cookie_is_for_tls_only(behind_a_proxy, site, client):
    response = client.get("/", headers=FORWARDED)
    assert set(response.cookies) == {"csrftoken", "progress_viewer"}
    assert all(cookie["secure"] for cookie in response.cookies.values())


def test_a_balancer_asks_for_the_health_without_tls(behind_a_proxy, site, client):
    assert client.get("/healthz").json()["web"]["state"] == "up"
