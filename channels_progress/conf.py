"""The settings: one dict, `CHANNELS_PROGRESS`, each entry with a default.

They are read when they are used, never at import, so tests may override them.
"""

from __future__ import annotations

from typing import Any, Final

from django.conf import settings

DEFAULTS: Final[dict[str, Any]] = {
    # Where the latest snapshot of each run is kept (Redis or Valkey).
    "REDIS_URL": "redis://127.0.0.1:6379/0",
    # Every key and group name begins with it.
    "PREFIX": "progress",
    # The entry of CHANNEL_LAYERS that carries the messages.
    "CHANNEL_LAYER": "default",
    # Seconds between two reports of a run at most; the first goes out at once.
    "REPORT_INTERVAL": 0.25,
    # Seconds between two signs of life of a worker with nothing to say.
    "HEARTBEAT_INTERVAL": 2.0,
    # Seconds of silence after which a running run reads as lost. A C call can
    # hold the GIL for 17 s, which silences every thread of its process.
    "LOST_AFTER": 30.0,
    # How often one message may begin without its cursor moving.
    "MAX_RESTARTS": 3,
    # Seconds between two looks of a web process at the runs its sockets watch.
    "RECONCILE_INTERVAL": 2.0,
    # Seconds between two `beat` messages on a socket: a page cannot see pings.
    "BEAT_INTERVAL": 15.0,
    # Seconds between two checks that a socket's viewer is still signed in.
    "SESSION_INTERVAL": 60.0,
    # Limits of a socket: bytes a frame, frames a second and at once, watched runs.
    "FRAME_BYTES": 16384,
    "FRAMES_PER_SECOND": 20,
    "FRAME_BURST": 128,
    "WATCHES": 64,
    # Limits of an owner, and of all owners together.
    "STARTS_PER_MINUTE": 300,
    "STARTS_PER_MINUTE_ALL": 6000,
    "UNFINISHED_RUNS": 1000,
    # Seconds a token that grants watching stays valid.
    "TOKEN_MAX_AGE": 7 * 86400,
    # The cookie that names an anonymous viewer.
    "COOKIE": "progress_viewer",
    # Dotted path of the rule that says who may do what.
    "MAY": "channels_progress.access.may",
    # Days that finished runs stay in the history before `progress_prune`.
    "HISTORY_DAYS": 30,
}


class Conf:
    """`conf.LOST_AFTER` is the project's value, else the default."""

    def __getattr__(self, name: str) -> Any:
        try:
            default = DEFAULTS[name]
        except KeyError:
            raise AttributeError(
                f"CHANNELS_PROGRESS has no setting {name!r}; it knows "
                f"{', '.join(DEFAULTS)}."
            ) from None
        return getattr(settings, "CHANNELS_PROGRESS", {}).get(name, default)


conf = Conf()
