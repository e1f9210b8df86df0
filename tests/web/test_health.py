"""/healthz: what it says of the parts, and how soon."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.test import Client

from channels_progress import health

URL = "/healthz"


def states(response):
    return {part: said["state"] for part, said in response.json().items()}


def test_everything_is_up(site, client):
    response = client.get(URL)
    assert response.status_code == 200
    assert list(states(response).items()) == [
        ("web", "up"),
        ("store", "up"),
        ("broker", "up"),
    ]
    assert response["Cache-Control"] == "no-store"


def test_a_store_that_is_down_is_named(site, client, settings):
    settings.CHANNELS_PROGRESS = {"REDIS_URL": "redis://127.0.0.1:1/0"}
    response = client.get(URL)
    assert response.status_code == 503
    assert states(response) == {"web": "up", "store": "down", "broker": "up"}


@pytest.fixture
def hanging(monkeypatch):
    """A store that hangs until the test is over; how often it was looked at."""
    release, looks = threading.Event(), []

    def hang():
        looks.append(1)
        release.wait()

    monkeypatch.setattr(health, "CHECK_TIMEOUT", 0.2)
    monkeypatch.setitem(health.LOOKS, "store", health.Look(hang))
    yield looks
    release.set()


def test_a_part_that_hangs_is_down_after_a_second(hanging, site, client):
    assert client.get(URL).json()["store"] == {"state": "down", "ms": 200}


def test_a_part_that_hangs_costs_one_look_and_no_other_part(hanging, site):
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: Client().get(URL), range(20)))
    assert len(hanging) == 1
    assert {states(answer)["web"] for answer in answers} == {"up"}
    assert {states(answer)["store"] for answer in answers} == {"down"}


def test_a_part_that_is_back_is_up_at_the_next_look(site, client, settings):
    before = settings.CHANNELS_PROGRESS
    settings.CHANNELS_PROGRESS = {"REDIS_URL": "redis://127.0.0.1:1/0"}
    assert states(client.get(URL))["store"] == "down"
    settings.CHANNELS_PROGRESS = before
    assert states(client.get(URL))["store"] == "up"
