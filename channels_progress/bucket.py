"""How many frames a socket may send."""

from __future__ import annotations

from channels_progress.conf import conf


class Bucket:
    """FRAMES_PER_SECOND frames flow in, FRAME_BURST fit; whoever takes more is in
    debt, and at FRAME_BURST of debt it is a flood."""

    __slots__ = ("_level", "_then")

    def __init__(self, now: float) -> None:
        self._level, self._then = float(conf.FRAME_BURST), now

    def take(self, now: float) -> bool:
        """Take one; False where none was left. `now` is in seconds."""
        gained = (now - self._then) * conf.FRAMES_PER_SECOND
        self._level = min(conf.FRAME_BURST, self._level + gained) - 1
        self._then = now
        return self._level >= 0

    @property
    def flooded(self) -> bool:
        return bool(self._level < -conf.FRAME_BURST)
