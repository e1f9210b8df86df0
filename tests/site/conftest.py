"""The site's own pages, asked by Django's client; no worker runs: a test plays it."""

import itertools
import secrets

import pytest
from django.test import Client

from channels_progress import history, runs
from channels_progress.run import Details
from channels_progress.store import get_store


@pytest.fixture(autouse=True)
def media(settings, tmp_path):
    """Uploads of a test stay in its own folder."""
    settings.MEDIA_ROOT = tmp_path / "uploads"
    return settings.MEDIA_ROOT


@pytest.fixture
def site(store_server, transactional_db):
    """The site, with an empty store and database."""
    return store_server


@pytest.fixture
def visit(site):
    """`visit()`: somebody whom nobody knows, and who has opened the START page."""

    def visit():
        client = Client()
        assert client.get("/").status_code == 200
        return client

    return visit


@pytest.fixture
def visitor(visit):
    return visit()


@pytest.fixture
def stranger(visit):
    return visit()


@pytest.fixture
def done(visitor):
    """A run of the visitor that has succeeded; its id."""
    run = start(visitor, speed=7)
    Hand(run).end()
    return run


def start(client, task="gen_random", **params):
    """Start a task as this client; returns the run's id."""
    answer = client.post(f"/progress/start/{task}/", params)
    assert answer.status_code == 202, answer.content
    return answer.json()["run"]


class Hand:
    """A worker's hand on a run: the verbs of the store."""

    def __init__(self, run, **details):
        self.run = run
        self.task = runs.get(run).task
        self.details = {"total": 100, "unit": "point", **details}
        self.sequence = itertools.count(1)
        answer = get_store().call(
            "begin",
            run,
            hop=1,
            kind="start",
            nonce=secrets.token_hex(4),
            fresh="f",
            lost=30_000,
            max=3,
            worker="w|m|1",
            doc=self.members(),
        )
        self.lease = int(answer.extra[0])

    def members(self, **details):
        title = runs.get(self.run).as_dict()["title"]
        values = {"title": title, **self.details, **details}
        return Details(run=self.run, task=self.task, **values).members()

    def write(self, verb, details, **values):
        answer = get_store().call(
            verb,
            self.run,
            lease=self.lease,
            seq=next(self.sequence),
            doc=self.members(**details),
            lost=30_000,
            **values,
        )
        assert answer.code == "ok"

    def report(self, current, **details):
        self.write("report", {"current": current, **details})
        return self

    def end(self, state="succeeded", **details):
        """End the run, in the store and in the history."""
        details.setdefault("current", 100)
        self.write("end", {"succeeded": state == "succeeded", **details}, state=state)
        history.close(runs.get(self.run))
        return self


def age(run, seconds):
    """Let the worker of a run have been silent for so long."""
    store = get_store()
    seen = int(store.client.hget(store.key(run), "seen"))
    store.client.hset(store.key(run), "seen", seen - int(seconds * 1000))
