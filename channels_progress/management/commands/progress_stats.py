"""`manage.py progress_stats`: the counters of all processes together."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from channels_progress import counters
from channels_progress.store import ERRORS


class Command(BaseCommand):
    help = "Print what web processes and workers have counted: a name, a number, what."
    requires_system_checks = ()

    def handle(self, **options: Any) -> None:
        try:
            since, numbers = counters.read_all()
        except ERRORS as error:
            raise CommandError(f"The store cannot be read: {error!r}") from error
        for name, number in numbers.items():
            self.stdout.write(f"{name:17} {number:9}  {counters.NAMES[name]}")
        if since is not None:
            self.stdout.write(f"since {datetime.fromtimestamp(since, UTC):%F %T} UTC")
