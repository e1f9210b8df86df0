"""Who holds a lease: a worker's node, its main process, and the process itself."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from channels_progress.store import nonce

if TYPE_CHECKING:
    from celery.app.task import Context

in_child = False
"""Whether this process is a prefork worker's child."""

# A worker's main process and the children it forks share this word.
MAIN: Final = nonce()


class Worker(NamedTuple):
    """`node|main|pid`, as the store keeps it."""

    node: str
    main: str
    pid: int
    """0 where it is not known."""

    def __str__(self) -> str:
        return "|".join(map(str, self))

    @classmethod
    def of(cls, text: str) -> Worker:
        node, main, pid = [*text.split("|"), "", ""][:3]
        return cls(node, main, int(pid) if pid.isdigit() else 0)

    @classmethod
    def here(cls, request: Context | None = None) -> Worker:
        """This very process, which has got the request."""
        name = getattr(request, "hostname", None) or socket.gethostname()
        return cls(name, MAIN, os.getpid())

    @property
    def ours(self) -> bool:
        """Whether it is a process of this very worker."""
        return self.main == MAIN and self.pid != 0

    def gone(self) -> bool:
        """Whether the process, one of this machine, no longer lives."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        with suppress(OSError):  # killed, and not yet waited for: Linux says Z
            stat = Path(f"/proc/{self.pid}/stat").read_text()
            return stat.rpartition(")")[2].split()[0] in ("Z", "X")
        return False
