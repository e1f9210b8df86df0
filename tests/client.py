"""A client of the wire that shares no code with the app: what a page or script does."""

import asyncio
import contextlib
import json
import uuid

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

PATIENCE = 60.0  # seconds
FINISHED = {"succeeded", "failed", "cancelled"}


class Closed(Exception):
    """The socket was closed with `code` before what was waited for came."""

    def __init__(self, code, reason=""):
        super().__init__(f"closed with {code} {reason}".strip())
        self.code = code


class Visitor:
    """Somebody with cookies, as `GET /` gives them; each visitor is another viewer."""

    def __init__(self, url):
        self.url = url
        self.ws_url = url.replace("http", "ws", 1)
        # Who looks for a proxy reads an environment that changes in the meantime.
        self.http = httpx.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False)

    async def arrive(self):
        (await self.http.get("/")).raise_for_status()
        return self

    async def aclose(self):
        await self.http.aclose()

    async def __aenter__(self):
        return await self.arrive()

    async def __aexit__(self, *exc):
        await self.aclose()

    @property
    def cookie(self):
        return "; ".join(f"{c.name}={c.value}" for c in self.http.cookies.jar)

    @contextlib.asynccontextmanager
    async def socket(self, path="/ws/progress/", *, origin=True, **options):
        """An open `Socket`; `origin` is the page's own unless another is given."""
        async with connect(
            self.ws_url + path,
            origin=self.url if origin is True else origin,
            additional_headers={"Cookie": self.cookie},
            open_timeout=PATIENCE,
            proxy=None,
            **options,
        ) as connection:
            yield Socket(connection)

    async def run(self, run, token=None):
        """`GET` the run's envelope over HTTP."""
        params = {"token": token} if token else {}
        return await self.http.get(f"/progress/runs/{run}/", params=params)


class Socket:
    """One WebSocket; `seen` keeps every message that has come."""

    def __init__(self, connection):
        self.connection = connection
        self.seen = []

    async def send(self, action, **fields):
        await self.connection.send(json.dumps({"action": action, **fields}))

    async def start(self, task, params=None, key=None, **fields):
        """Start a run; returns the `started` message."""
        ref = uuid.uuid4().hex
        await self.send(
            "start",
            task=task,
            params=params or {},
            key=key or uuid.uuid4().hex,
            ref=ref,
            **fields,
        )
        return await self.until(lambda m: m.get("ref") == ref)

    async def watch(self, run, token=None, **fields):
        """Watch a run; returns its snapshot, or the error."""
        await self.send("watch", run=run, token=token, **fields)
        return await self.until(lambda m: m.get("run") == run or m["type"] == "error")

    async def next(self, kind=None, timeout=PATIENCE):
        """The next message, of the type `kind` if that is given; raises `Closed`."""
        return await self.until(lambda m: kind in (None, m["type"]), timeout)

    async def until(self, predicate, timeout=PATIENCE):
        """The first message to come for which `predicate` holds; raises `Closed`."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    message = json.loads(await self.connection.recv())
                    self.seen.append(message)
                    if predicate(message):
                        return message
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else 1006
            raise Closed(code, closed.rcvd.reason if closed.rcvd else "") from None
        except TimeoutError:
            last = self.seen[-1] if self.seen else None
            raise AssertionError(f"not within {timeout:g} s; last: {last}") from None

    async def until_state(self, *states, run=None, timeout=PATIENCE):
        """The first envelope, of `run` if given, whose state is one of `states`."""
        return await self.until(
            lambda m: (
                m["type"] == "run" and m["state"] in states and run in (None, m["run"])
            ),
            timeout,
        )

    async def until_finished(self, run=None, timeout=PATIENCE):
        return await self.until_state(*FINISHED, run=run, timeout=timeout)

    async def until_closed(self, timeout=PATIENCE):
        """Read until the server closes; returns the close code."""
        try:
            await self.until(lambda m: False, timeout)
        except Closed as closed:
            return closed.code

    def runs(self, run=None):
        """The envelopes seen, in the order in which they came."""
        return [m for m in self.seen if m["type"] == "run" and run in (None, m["run"])]
