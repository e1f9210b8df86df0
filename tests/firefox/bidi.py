"""Just enough WebDriver BiDi to walk through a site with a stock Firefox."""

import asyncio
import base64
import contextlib
import functools
import itertools
import json
import time

import websockets

from tests.ports import free_port
from tests.stack import PATIENCE, Process, port_is_open

CLICKABLE = "element => element.scrollIntoView({ block: 'center' })"


class Firefox:
    """`async with Firefox(binary, directory) as firefox:` one headless browser."""

    def __init__(self, binary, directory, *, dark=False):
        scheme = f'"layout.css.prefers-color-scheme.content-override", {1 - dark}'
        (directory / "user.js").write_text(f"user_pref({scheme});\n")
        port = free_port()
        self._url = f"ws://127.0.0.1:{port}/session"
        self._port = port
        self._ids = itertools.count(1)
        arguments = ("--headless", "--no-remote", "--profile", directory)
        arguments += ("--remote-debugging-port", port)
        self._process = Process(directory / "firefox.log", binary, *arguments)

    async def __aenter__(self):
        try:
            self._process.start()
            ready = functools.partial(port_is_open, self._port)
            await asyncio.to_thread(self._process.wait_ready, ready, "Firefox")
            self._socket = await websockets.connect(self._url, max_size=None)
            await self.send("session.new", capabilities={})
            await self.send("session.subscribe", events=["log.entryAdded"])
        except BaseException:
            self._process.kill()
            raise
        self.errors = []
        return self

    async def __aexit__(self, *exc):
        with contextlib.suppress(Exception):  # it is killed anyhow
            await self.send("browser.close")
            await self._socket.close()
        self._process.kill()

    async def send(self, method, **params):
        """The result of a command; what the console says meanwhile is kept."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        await self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(await asyncio.wait_for(self._socket.recv(), PATIENCE))
            if answer.get("id") == number:
                assert answer["type"] == "success", answer
                return answer["result"]
            self._note(answer)

    def _note(self, event):
        entry = event.get("params", {})
        if event.get("method") == "log.entryAdded" and entry["level"] == "error":
            frames = entry.get("stackTrace", {}).get("callFrames", [])
            where = [f"{f['url']}:{f['lineNumber']}" for f in frames]
            self.errors.append(" ".join([entry["text"], *where]))

    async def open(self, base_url, width=1280, height=900):
        """A tab of its own."""
        made = await self.send("browsingContext.create", type="tab")
        page = Page(self, made["context"], base_url)
        await page.resize(width, height)
        return page


class Page:
    """A tab: it goes to addresses, looks for elements and uses the keyboard."""

    def __init__(self, firefox, context, base_url):
        self._firefox = firefox
        self._context = context
        self._base_url = base_url

    def _send(self, method, **params):
        return self._firefox.send(method, context=self._context, **params)

    async def resize(self, width, height):
        viewport = {"width": width, "height": height}
        await self._send("browsingContext.setViewport", viewport=viewport)

    async def goto(self, path):
        url = self._base_url + path
        await self._send("browsingContext.navigate", url=url, wait="complete")

    async def evaluate(self, expression):
        """A number, a text, a truth value or None."""
        answer = await self._firefox.send(
            "script.evaluate",
            expression=expression,
            target={"context": self._context},
            awaitPromise=True,
        )
        assert answer["type"] == "success", answer["exceptionDetails"]["text"]
        return answer["result"].get("value")

    async def wait_for(self, expression):
        """Until the expression is true, also through a navigation."""
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(AssertionError):  # between two pages
                if await self.evaluate(expression):
                    return
            assert time.monotonic() < deadline, f"never true: {expression}"
            await asyncio.sleep(0.05)

    async def see(self, selector):
        """Wait until an element is there and takes room; returns its shared id."""
        seen = "?.getClientRects().length"
        await self.wait_for(f"document.querySelector({json.dumps(selector)}){seen}")
        locator = {"type": "css", "value": selector}
        found = await self._send("browsingContext.locateNodes", locator=locator)
        return found["nodes"][0]["sharedId"]

    async def click(self, selector):
        """As a mouse does, in the middle of the element."""
        node = {"sharedId": await self.see(selector)}
        await self._firefox.send(
            "script.callFunction",
            functionDeclaration=CLICKABLE,
            arguments=[node],
            target={"context": self._context},
            awaitPromise=False,
        )
        origin = {"type": "element", "element": node}
        actions = [
            {"type": "pointerMove", "x": 0, "y": 0, "origin": origin},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        source = {"type": "pointer", "id": "mouse", "actions": actions}
        await self._send("input.performActions", actions=[source])

    async def press(self, *keys):
        """Keys one after the other: characters, or a WebDriver key such as TAB."""
        moves = ("keyDown", "keyUp")
        actions = [{"type": move, "value": key} for key in keys for move in moves]
        source = {"type": "key", "id": "keys", "actions": actions}
        await self._send("input.performActions", actions=[source])

    async def choose_file(self, selector, path):
        node = {"sharedId": await self.see(selector)}
        await self._send("input.setFiles", element=node, files=[str(path)])

    async def screenshot(self, path):
        taken = await self._send("browsingContext.captureScreenshot", origin="document")
        path.write_bytes(base64.b64decode(taken["data"]))
