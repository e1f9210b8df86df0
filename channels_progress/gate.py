"""A few starts at once, in a process of which many are asked for."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

from channels_progress import runs
from channels_progress.errors import Unavailable
from channels_progress.read import unavailable

P = ParamSpec("P")
T = TypeVar("T")

AT_ONCE: Final = 6  # of the 8 threads; the others read what viewers wait for


class Gate:
    """Who waits for a turn is not timed out, since nothing is down; unless somebody
    found meanwhile that something is: then all who wait are told at once."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._failed = -math.inf

    async def in_thread(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As `runs.in_thread`, when it is our turn."""
        now = asyncio.get_running_loop().time
        came = now()
        async with self._turns:
            if self._failed > came:
                raise unavailable()
            try:
                return await runs.in_thread(function, *args, **kwargs)
            except Unavailable:
                self._failed = now()
                raise
