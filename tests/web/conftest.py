"""Sockets and requests against the site's own application, with a real Valkey; no
worker runs: a test plays it by `Hand`."""

import itertools
import json
import secrets
import uuid

import pytest
from channels.testing import WebsocketCommunicator
from django.test import Client

from CeleryProgressbar.asgi import application
from channels_progress import access, layer, runs
from channels_progress.conf import conf
from channels_progress.run import Details
from channels_progress.store import get_store

PATIENCE = 10  # seconds
HOST = b"testserver"


@pytest.fixture
def site(store_server, transactional_db, settings):
    """The site, with an empty store and database and short intervals."""
    settings.CHANNELS_PROGRESS = {
        **settings.CHANNELS_PROGRESS,
        "RECONCILE_INTERVAL": 0.2,
    }
    return store_server


@pytest.fixture
def configure(settings):
    """Change settings of the app."""

    def configure(**values):
        settings.CHANNELS_PROGRESS = {**settings.CHANNELS_PROGRESS, **values}

    return configure


def anonymous():
    """A viewer without an account, as their cookie makes them."""
    cookie = access._signer().sign(secrets.token_urlsafe(8))
    return f"{conf.COOKIE}={cookie}"


def owner_of(cookie):
    """The owner's name of an anonymous viewer."""
    name, _, value = cookie.partition("=")
    return access.viewer_of({"cookies": {name: value}}).owner


def signed_in(user):
    """The session cookie of a user."""
    client = Client()
    client.force_login(user)
    return f"sessionid={client.cookies['sessionid'].value}"


class Tab:
    """One socket of a viewer's page."""

    def __init__(self, path="/ws/progress/", cookie="", origin=b"http://testserver"):
        headers = [(b"host", HOST), (b"cookie", cookie.encode())]
        if origin is not None:
            headers.append((b"origin", origin))
        self.socket = WebsocketCommunicator(application, path, headers)
        self.seen = []

    async def __aenter__(self):
        opened, _ = await self.socket.connect(PATIENCE)
        assert opened
        return self

    async def __aexit__(self, *exc):
        await self.socket.disconnect(timeout=PATIENCE)

    async def send(self, action, **fields):
        await self.socket.send_json_to({"action": action, **fields})

    async def next(self):
        """The next message; beats are passed over."""
        while (message := await self.socket.receive_json_from(PATIENCE)) == {
            "type": "beat"
        }:
            pass
        self.seen.append(message)
        return message

    async def until(self, **members):
        """The first message with these members."""
        while not members.items() <= (message := await self.next()).items():
            pass
        return message

    async def closed(self):
        """The close code, after whatever comes before it."""
        while True:
            output = await self.socket.receive_output(PATIENCE)
            if output["type"] == "websocket.close":
                return output["code"]
            self.seen.append(json.loads(output["text"]))

    async def start(self, key=None, **params):
        """Start `gen_random`; returns `started` and the first snapshot."""
        key = key or uuid.uuid4().hex
        await self.send("start", task="gen_random", params=params, key=key, ref="s")
        return await self.until(type="started"), await self.until(type="run")

    async def watch(self, run, token=None):
        """Watch a run; returns the snapshot or the error."""
        await self.send("watch", run=run, token=token, ref="w")
        return await self.next()

    async def silent(self):
        """Whether nothing is on its way."""
        return await self.socket.receive_nothing(0.1, 0.01)


class Hand:
    """A worker's hand on a run: the verbs of the store, and the messages after them."""

    def __init__(self, run):
        self.run = run
        self.sequence = itertools.count(1)
        self.lease = 0

    def details(self, current=0, **details):
        return Details(
            run=self.run, task="gen_random", total=100, current=current, **details
        )

    def begin(self):
        answer = get_store().call(
            "begin",
            self.run,
            hop=1,
            kind="start",
            nonce=secrets.token_hex(4),
            fresh="f",
            lost=30_000,
            max=3,
            worker="w|m|1",
            doc=self.details().members(),
        )
        self.lease = int(answer.extra[0])
        return answer.snapshot(self.details().members())

    def write(self, verb, current, **values):
        doc = self.details(current, succeeded=values.get("state") == "succeeded")
        answer = get_store().call(
            verb,
            self.run,
            lease=self.lease,
            seq=next(self.sequence),
            doc=doc.members(),
            lost=30_000,
            **values,
        )
        assert answer.code == "ok"
        return answer.snapshot(doc.members())

    def report(self, current):
        """Write to the store only: the message is lost."""
        return self.write("report", current)

    def end(self, state="succeeded", current=100):
        return self.write("end", current, state=state)

    async def tell(self, snapshot):
        await layer.send([snapshot])


@pytest.fixture
def begun(site):
    """A run of `owner`, taken by a worker."""

    async def begun(owner="u:1"):
        started = await runs.in_thread(
            runs.start, "gen_random", {"speed": 1}, owner=owner
        )
        hand = Hand(started.run)
        hand.begin()
        return hand

    return begun
