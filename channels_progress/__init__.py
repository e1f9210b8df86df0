"""Live progress of Celery tasks in the browser, told truthfully."""

from channels_progress.catalogue import startable
from channels_progress.current import (
    Cancelled,
    Paused,
    Progress,
    Superseded,
    TaskError,
    progress,
)

__all__ = [
    "Cancelled",
    "Paused",
    "Progress",
    "Superseded",
    "TaskError",
    "progress",
    "startable",
]
