"""Viewers, as cheap as they can be: they note when messages come, and parse little.

A protocol a socket and no library: a message costs this process some 10 µs, so that it
is never what is measured.
"""

import asyncio
import base64
import json
import os
import re
import struct
import threading
from urllib.parse import urlsplit

from benchmarks.desk import ticks

CURRENT = re.compile(rb'"current": ?(\d+)')
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


class Viewer(asyncio.Protocol):
    """One WebSocket; `heard(viewer, text)` is called for each message."""

    def __init__(self, url, cookie, heard):
        self.url, self.cookie, self.heard = urlsplit(url), cookie, heard
        self.open, self.closed = loop.create_future(), loop.create_future()
        self.said = 0
        self.heard_at = self.last = None
        self.opened = False
        self.buffer = b""

    def connection_made(self, transport):
        self.transport = transport
        address = self.url
        key = base64.b64encode(os.urandom(16)).decode()
        target = address.path + (f"?{address.query}" if address.query else "")
        lines = [
            f"GET {target} HTTP/1.1",
            f"Host: {address.netloc}",
            f"Origin: http://{address.netloc}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
            f"Cookie: {self.cookie}",
        ]
        transport.write("\r\n".join([*lines, "", ""]).encode())

    def data_received(self, data):
        self.buffer += data
        if not self.opened:
            head, found, rest = self.buffer.partition(b"\r\n\r\n")
            if not found:
                return
            if b" 101 " not in head.partition(b"\r\n")[0]:
                self.fail(ConnectionError(head.decode(errors="replace")))
                return
            self.buffer, self.opened = rest, True
            self.open.set_result(ticks())
        while (frame := self.frame()) is not None:
            kind, body = frame
            if kind == TEXT:
                self.heard(self, body)
            elif kind == PING:
                self.write(PONG, body)
            elif kind == CLOSE:
                self.transport.close()

    def frame(self):
        """The next whole frame, as its opcode and body."""
        buffer = self.buffer
        if len(buffer) < 2:
            return None
        size, start = buffer[1], 2
        if size == 126:
            start = 4
            size = int.from_bytes(buffer[2:4], "big")
        elif size == 127:
            start = 10
            size = int.from_bytes(buffer[2:10], "big")
        if len(buffer) < max(start, start + size):
            return None
        self.buffer = buffer[start + size :]
        return buffer[0] & 15, buffer[start : start + size]

    def write(self, kind, body):
        """Send a frame, masked with zeros."""
        size = len(body)
        head = bytes([128 | kind, 128 | size]) if size < 126 else b""
        head = head or struct.pack("!BBH", 128 | kind, 254, size)
        self.transport.write(head + bytes(4) + body)

    def send(self, **frame):
        self.write(TEXT, json.dumps(frame).encode())

    def fail(self, error):
        if not self.open.done():
            self.open.set_exception(error)

    def connection_lost(self, error):
        self.fail(error or ConnectionError("closed"))
        self.closed.set_result(None)


# -- What the process is asked to do --------------------------------------------------

loop = asyncio.new_event_loop()
groups = {}


class Group:
    """Viewers who note how old each message was: its `current` is when it was said."""

    def __init__(self):
        self.viewers, self.ages = [], []

    def heard(self, viewer, text):
        now = ticks()
        viewer.last, viewer.heard_at = text, viewer.heard_at or now
        found = CURRENT.search(text)
        if found and (said := int(found[1])) > viewer.said:
            viewer.said = said
            self.ages.append(now - said)

    async def open(self, urls, cookie, frames, at_once):
        for first in range(0, len(urls), at_once):
            part = slice(first, first + at_once)
            some = await asyncio.gather(*(self.dial(u, cookie) for u in urls[part]))
            self.viewers += some
            for viewer, frame in zip(some, frames[part], strict=True):
                await viewer.open
                if frame:
                    viewer.send(**frame)

    async def dial(self, url, cookie):
        address = urlsplit(url)
        _, viewer = await loop.create_connection(
            lambda: Viewer(url, cookie, self.heard), address.hostname, address.port
        )
        return viewer


def run():
    """Become a process of viewers."""
    threading.Thread(target=loop.run_forever, daemon=True).start()


def ask(coroutine):
    return asyncio.run_coroutine_threadsafe(coroutine, loop).result()


def open_group(name, urls, cookie="", frames=None, at_once=50):
    """Open a viewer for each address, as many at once as a server's backlog takes, and
    send each its frame."""
    group = groups[name] = Group()
    ask(group.open(urls, cookie, frames or [None] * len(urls), at_once))


def take(name):
    """The ages in µs of what has come since the last time."""
    group = groups[name]
    ages, group.ages = group.ages, []
    return ages


def last(name):
    """The newest message of a group's first viewer."""
    return groups[name].viewers[0].last


def click(url, cookie):
    """µs from opening a socket until it is open, and until it brings a run."""
    return ask(_click(url, cookie))


async def _click(url, cookie):
    group, asked, heard = Group(), ticks(), loop.create_future()

    def first(viewer, text):
        if not heard.done() and b'"type":"run"' in text:
            heard.set_result(ticks())

    group.heard = first
    viewer = await group.dial(url, cookie)
    opened, brought = await viewer.open, await heard
    await viewer.closed  # the run is over
    return opened - asked, brought - asked


def storm(urls, cookie, frames, waiting):
    """Seconds until all are open, and with frames until each has got its first message.

    `waiting` of them ask to be let in at the same time: more would wait in the kernel.
    """
    return ask(_storm(urls, cookie, frames, waiting))


async def _storm(urls, cookie, frames, waiting):
    group = groups["storm"] = Group()
    turns, begin = asyncio.Semaphore(waiting), ticks()

    async def come(url, frame):
        async with turns:
            viewer = await group.dial(url, cookie)
            group.viewers.append(viewer)
            opened = await viewer.open
        if frame is None:
            return opened
        viewer.send(**frame)
        while viewer.heard_at is None:
            await asyncio.sleep(0.005)
        return viewer.heard_at

    times = await asyncio.gather(*map(come, urls, frames))
    return (max(times) - begin) / 1e6


def close_group(name):
    for viewer in groups.pop(name).viewers:
        loop.call_soon_threadsafe(viewer.transport.abort)
