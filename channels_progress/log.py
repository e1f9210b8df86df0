"""What is logged, for those who run it at night: one line a transition, and causes."""

from __future__ import annotations

import logging
from typing import Final

from channels_progress.run import Snapshot
from channels_progress.store import Answer

logger: Final = logging.getLogger("channels_progress.transitions")


def transition(task: str, answer: Answer, worker: str = "") -> None:
    """Log where a run of `task` (its slug) went. Without a `worker`, it was the web."""
    moved(task, answer.was, answer.snapshot(), worker)


def moved(task: str, before: str, snapshot: Snapshot, worker: str = "") -> None:
    """Log a run's way from the state `before`, as `key=value` pairs and as the dict
    `progress` of the record."""
    fields = {
        "run": snapshot.id,
        "task": task,
        "attempt": snapshot.attempt,
        "from": before,
        "to": snapshot.state,
        "reason": snapshot.reason or "",
        "worker": worker,
    }
    line = " ".join(f"{name}={value}" for name, value in fields.items())
    logger.info("%s", line, extra={"progress": fields})


def told(error: BaseException) -> str:
    """An error's kind and its text: the repr of redis-py's has no text."""
    return f"{type(error).__name__}: {error}"
