"""One structured line a transition, for those who run it at night."""

from __future__ import annotations

import logging
from typing import Final

from channels_progress.header import Header
from channels_progress.store import Answer

logger: Final = logging.getLogger("channels_progress.transitions")


def transition(header: Header, answer: Answer, worker: str = "") -> None:
    """Log where a run went, as `key=value` pairs and as fields of the record."""
    snapshot = answer.snapshot()
    fields = {
        "run": header.run,
        "task": header.task,
        "attempt": snapshot.attempt,
        "from": answer.was,
        "to": snapshot.state,
        "reason": snapshot.reason or "",
        "worker": worker,
    }
    line = " ".join(f"{name}={value}" for name, value in fields.items())
    logger.info("%s", line, extra={"progress": fields})
