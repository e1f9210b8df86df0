"""One open socket: who looks, at what, and the way to them."""

from __future__ import annotations

import json
from typing import Any

from channels_progress.access import Viewer
from channels_progress.outbox import Outbox


class Place:
    """One socket's watch on one run."""

    __slots__ = ("ref", "token")

    def __init__(self, token: str | None, ref: str | int | None) -> None:
        self.token, self.ref = token, ref


class Seat:
    """One socket: who looks, at what, and the way to them."""

    __slots__ = ("outbox", "places", "slot", "until", "viewer")

    def __init__(self, viewer: Viewer, outbox: Outbox) -> None:
        self.viewer, self.outbox = viewer, outbox
        self.places: dict[str, Place] = {}
        self.until: str | None = None
        """The run whose end closes this socket."""
        self.slot = 0

    def tell(self, payload: dict[str, Any]) -> None:
        self.outbox.put(json.dumps(payload, separators=(",", ":")))
