"""The web process's one place on the channel layer: it hears of the watched runs.

The layer is never the truth, so nothing here raises: what cannot be heard is read.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from typing import Any, Final

from channels.layers import get_channel_layer

from channels_progress import runs
from channels_progress.conf import conf
from channels_progress.log import told

logger = logging.getLogger("channels_progress")

PATIENCE: Final = 0.5  # s that a read waits for the groups to be joined
LAYER_TIMEOUT: Final = 5.0  # s for one call of the layer
LEAVE_TIMEOUT: Final = 1.0  # s
BACKOFF: Final = (0.1, 2.0)  # s, first and longest pause of a layer that is down
AT_ONCE: Final = 100  # groups joined or left at once


class Ear:
    """One channel, in the groups of the runs that are wanted, and no others."""

    def __init__(
        self, heard: Callable[[dict[str, Any]], None], joined: Callable[[str], None]
    ) -> None:
        self._layer = get_channel_layer(conf.CHANNEL_LAYER)
        self._on_heard, self._on_joined = heard, joined
        self._channel: str | None = None
        self._wanted: set[str] = set()
        self._joined: set[str] = set()
        self._doubted: set[str] = set()
        self._failed: set[str] = set()
        self._listener: asyncio.Task[None] | None = None
        self._mover: asyncio.Task[None] | None = None
        self._given_up: asyncio.Task[None] | None = None

    def want(self, run: str) -> None:
        """Hear of this run from now on, as soon as the layer lets us."""
        self._wanted.add(run)
        self._move()

    def drop(self, run: str) -> None:
        self._wanted.discard(run)
        self._move()

    def renew(self, runs: Iterable[str] | None = None) -> None:
        """Join the groups of these runs, or all, once more: a layer may forget."""
        self._doubted.update(self._joined if runs is None else runs)
        self._move()

    def retry(self) -> None:
        """Try again what failed."""
        if self._failed:
            self._failed.clear()
            self._move()

    async def settled(self) -> None:
        """Return when every wanted group is joined, or after PATIENCE seconds."""
        mover = self._mover
        if mover is not None and mover is not self._given_up:
            _, pending = await asyncio.wait({mover}, timeout=PATIENCE)
            if pending:  # who comes next does not wait for the same thing again
                self._given_up = mover

    async def leave(self) -> None:
        """Leave every group and stop, in a process that ends."""
        self._wanted.clear()
        self._move()
        if self._mover is not None:
            await asyncio.wait({self._mover}, timeout=LEAVE_TIMEOUT)
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait({self._listener}, timeout=LEAVE_TIMEOUT)

    def _todo(self) -> set[str]:
        doubted = self._doubted & self._wanted
        return ((self._wanted ^ self._joined) | doubted) - self._failed

    def _move(self) -> None:
        if self._layer is not None and self._mover is None and self._todo():
            self._mover = asyncio.get_running_loop().create_task(self._moves())

    async def _moves(self) -> None:
        try:
            while todo := list(self._todo())[:AT_ONCE]:
                if self._channel is None and not await self._listen():
                    self._failed.update(todo)
                    continue
                await asyncio.gather(*map(self._turn, todo))
        finally:
            self._mover = None

    async def _turn(self, run: str) -> None:
        """Join or leave one group, whichever is wanted by now."""
        layer, group = self._layer, runs.group(run)
        self._doubted.discard(run)
        try:
            async with asyncio.timeout(LAYER_TIMEOUT):
                if run in self._wanted:
                    # Where no answer comes, it may be one to leave all the same.
                    self._joined.add(run)
                    await layer.group_add(group, self._channel)
                    self._on_joined(run)
                else:
                    await layer.group_discard(group, self._channel)
                    self._joined.discard(run)
        except Exception as error:  # layers raise what their servers' clients raise
            self._failed.add(run)
            self._doubted.add(run)
            if isinstance(error, RuntimeError):  # the layer was flushed: a new channel
                self._reset()
            logger.debug(
                "The group of run %s could not be changed: %s", run, told(error)
            )

    async def _listen(self) -> bool:
        """Open the channel and listen to it; False where the layer is down."""
        try:
            async with asyncio.timeout(LAYER_TIMEOUT):
                self._channel = await self._layer.new_channel()
        except Exception as error:  # see _turn
            logger.warning("The channel layer cannot be reached: %s", told(error))
            return False
        loop = asyncio.get_running_loop()
        self._listener = loop.create_task(self._hear(self._channel))
        return True

    def _reset(self) -> None:
        self._channel = None
        self._doubted |= self._joined
        if self._listener is not None:
            self._listener.cancel()

    async def _hear(self, channel: str | None) -> None:
        pause, longest = BACKOFF
        while True:
            try:
                message = await self._layer.receive(channel)
            except Exception as error:  # see _turn
                logger.warning("The channel layer cannot be heard: %s", told(error))
                await asyncio.sleep(pause * random.uniform(0.5, 1))
                pause = min(2 * pause, longest)
                self.renew()
                continue
            pause = BACKOFF[0]
            try:
                self._on_heard(message)
            except Exception:  # one bad message must not make the process deaf
                logger.exception("A group message was not understood: %.500r", message)
