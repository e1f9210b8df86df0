"""Who carries what sockets are sent: one task, not one a socket.

A thousand tasks at once cost more than the sends themselves. Servers seldom let a send
wait; where one does, it keeps its courier, and another one takes over the rest. Between
two turns of a courier, whatever else is due on the event loop gets its own: a crowd of
viewers must not keep a newcomer's handshake waiting.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final
from weakref import WeakKeyDictionary

Errand = Callable[[], Awaitable[None]]

TURN: Final = 0.01  # s


class Couriers:
    """Those of one event loop. At most one is on the road and has not had to wait."""

    def __init__(self) -> None:
        self._errands: deque[Errand] = deque()
        self._active: asyncio.Task[None] | None = None

    def send(self, errand: Errand) -> None:
        """Do this soon, in the order of asking."""
        self._errands.append(errand)
        if self._active is None:
            self._dispatch()

    def _dispatch(self) -> None:
        loop = asyncio.get_running_loop()
        self._active = courier = loop.create_task(self._carry())
        courier.add_done_callback(self._release)

    async def _carry(self) -> None:
        loop = asyncio.get_running_loop()
        # Runs when this task first waits, or has had its turn.
        loop.call_soon(self._release, asyncio.current_task())
        end = loop.time() + TURN
        while self._errands:
            await self._errands.popleft()()
            if loop.time() > end:
                break

    def _release(self, courier: asyncio.Task[None] | None) -> None:
        if self._active is courier:
            self._active = None
            if self._errands:
                self._dispatch()


_couriers: WeakKeyDictionary[asyncio.AbstractEventLoop, Couriers] = WeakKeyDictionary()


def couriers() -> Couriers:
    """The running event loop's."""
    loop = asyncio.get_running_loop()
    found = _couriers.get(loop)
    if found is None:
        found = _couriers[loop] = Couriers()
    return found
