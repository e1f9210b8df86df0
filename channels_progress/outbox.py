"""What waits to be sent on one socket, and the close that ends it.

A slow reader costs little: of each run only the latest envelope waits. A courier comes
only while there is something to send.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any, Final, cast

from channels.sessions import InstanceSessionWrapper

from channels_progress import counters
from channels_progress.courier import couriers
from channels_progress.origin import Send

logger = logging.getLogger("channels_progress")

SEND_TIMEOUT: Final = 10.0  # s; uvicorn's send waits for the reader, daphne's never
CLOSE_TIMEOUT: Final = 1.0  # s
GOODBYE: Final = 10.0  # s that daphne waits for a reader to answer its close
FRAMES: Final = 256  # other frames that may wait; one who reads none of them is gone
COME_BACK: Final = 1013


class Outbox:
    """The way out of one socket. Created in the task that serves the socket."""

    __slots__ = (
        "_busy",
        "_code",
        "_couriers",
        "_frames",
        "_runs",
        "_send",
        "_sender",
        "_since",
        "_task",
        "open",
    )

    def __init__(self, send: Send) -> None:
        self._send = _direct(send)
        self._frames: list[str] = []
        self._runs: dict[str, str] = {}
        self._code: int | None = None
        self._couriers = couriers()
        self._busy = False
        """Whether a courier is asked for or here."""
        self._sender: asyncio.Task[Any] | None = None
        """The courier, while it is here."""
        self._since = 0.0
        self._task = asyncio.current_task()
        self.open = True
        """False once nothing can be sent any more."""

    @property
    def closing(self) -> bool:
        """Whether a close was asked for; nothing that comes in counts any more."""
        return self._code is not None or not self.open

    def put(self, text: str) -> None:
        """Send a frame after those that wait, and before every waiting envelope."""
        if self.closing:
            return
        if len(self._frames) >= FRAMES:
            self.drop("it does not read")
            return
        self._frames.append(text)
        self._start()

    def put_run(self, run: str, text: str) -> None:
        """Send a run's envelope, in the place of one that still waits."""
        if self.closing:
            return
        self._runs[run] = text
        self._start()

    def beat(self, text: str) -> None:
        """Send a sign of life, unless something is on its way anyway."""
        if not self._busy:
            self.put(text)

    def close(self, code: int) -> None:
        """Close the socket after what waits."""
        if not self.closing:
            self._code = code
            self._start()

    def expire(self, now: float) -> None:
        """Give up who has not taken a frame for SEND_TIMEOUT; `now` is the loop's.

        One clock for all sockets: a timer for each frame costs more than its task.
        """
        if self._sender is not None and now - self._since > SEND_TIMEOUT:
            self._sender.cancel()
            self.drop("a frame was not taken in time")

    def shut(self) -> None:
        """The socket has gone: nothing waits any longer."""
        self.open = False
        self._frames.clear()
        self._runs.clear()

    def drop(self, reason: str) -> None:
        """Give the socket up, and end the task that serves it."""
        if self.open:
            counters.bump("sockets_dropped")
            logger.info("A socket was dropped: %s", reason)
            self.shut()
            if self._task is not None:
                self._task.cancel()

    def _start(self) -> None:
        if not self._busy:
            self._busy = True
            self._couriers.send(self._drain)

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        self._sender = asyncio.current_task()
        try:
            while (message := self._next()) is not None:
                self._since = loop.time()
                await self._send(message)
            if self._code is not None and self.open:
                self.open = False
                taken = await close(self._send, self._code)
                if not taken and self._task is not None:
                    # A flood that goes on would keep it from its end.
                    self._task.cancel()
        except Exception as error:  # servers raise what they like when a reader is gone
            self.drop(f"sending failed: {error!r}")
        finally:
            self._busy, self._sender = False, None

    def _next(self) -> dict[str, Any] | None:
        if self._frames:
            return {"type": "websocket.send", "text": self._frames.pop(0)}
        if self._runs:
            run = next(iter(self._runs))
            return {"type": "websocket.send", "text": self._runs.pop(run)}
        return None


def _direct(send: Send) -> Send:
    """Without Channels' session wrapper: it looks at the session at every frame, and
    can save it only with an HTTP response."""
    wrapper = getattr(send, "__self__", None)
    if isinstance(wrapper, InstanceSessionWrapper):
        return cast(Send, wrapper.real_send)
    return send


async def close(send: Send, code: int) -> bool:
    """Close a socket; where the server refuses the code, with one of 4000 to 4099.

    Whatever it is but 1000 and 44xx, the page comes back. False is for a reader who
    does not take it; the server drops them once the application has ended.
    """
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT):
            await send({"type": "websocket.close", "code": code})
    except TimeoutError:
        return False
    except Exception:
        await send({"type": "websocket.close", "code": 3000 + code})
    return True


def teach_daphne() -> None:
    """Let daphne, where it is the server, close with every code of RFC 6455.

    It closes by a method of autobahn that raises on 1008 or 1013, and drops who sends
    a frame that is too large without a word, where the RFC has 1009. And who does not
    answer a close within 1 s is cut off with all that is still on the way to them: a
    slow line would lose the end of its run.
    """
    module = sys.modules.get("daphne.ws_protocol")
    if module is None:
        return

    def serverClose(self: Any, code: int | None = None) -> None:
        self.sendCloseFrame(code=1000 if code is None else code, isReply=False)

    module.WebSocketProtocol.serverClose = serverClose
    module.WebSocketProtocol.failByDrop = False
    module.WebSocketProtocol.closeHandshakeTimeout = GOODBYE
