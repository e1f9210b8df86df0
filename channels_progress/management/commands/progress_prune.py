"""`manage.py progress_prune`: old runs go, lost ones get an end, missed ends a row."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from channels_progress import history
from channels_progress.conf import conf
from channels_progress.legible import encode
from channels_progress.log import moved
from channels_progress.models import Run
from channels_progress.run import FAILED, LOST
from channels_progress.signals import pruned
from channels_progress.store import ERRORS, get_store

BATCH: Final = 1000  # rows
LOST_DAYS: Final = 7  # as long as the store keeps a run that nobody speaks of
NOBODY: Final = "Its worker was lost, and no other one has taken it up."


class Command(BaseCommand):
    help = (
        "Remove the runs that ended more than HISTORY_DAYS days ago from the history, "
        f"and end those of which nothing was heard for {LOST_DAYS} days as failed. A "
        "paused run stays. An end that only the store knows, for two days, is written. "
        "Run it once a day."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--days", type=int, help="Instead of the setting HISTORY_DAYS."
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="Only say what would be done."
        )

    def handle(self, *, days: int | None, dry_run: bool, **options: Any) -> None:
        days = conf.HISTORY_DAYS if days is None else days
        if not 0 <= days <= 36500:
            raise CommandError(f"--days must be from 0 to 36500, got {days}.")
        before = timezone.now() - timedelta(days=days)
        said = [f"{self._remove(before, dry_run)} ended before {before:%F %H:%M}"]
        problems = []
        try:
            said.append(f"{self._write_missed(dry_run)} missed ends were written")
            said.append(f"{self._end_lost(dry_run)} lost were ended as failed")
        except ERRORS as error:
            problems.append(f"no lost run was ended, the store is down: {error!r}")
        for receiver, answer in pruned.send_robust(
            sender=Run, before=before, dry_run=dry_run
        ):
            if isinstance(answer, Exception):
                problems.append(f"{receiver.__qualname__}: {answer!r}")
            elif answer:
                said.append(str(answer))
        would = "Without --dry-run: " if dry_run else ""
        self.stdout.write(f"{would}Runs removed: {'; '.join(said)}.")
        if problems:
            raise CommandError("; ".join(problems))

    def _remove(self, before: datetime, dry_run: bool) -> int:
        """Remove the rows in batches, so that nobody waits long for the database."""
        rows = Run.objects.filter(ended__lt=before)
        if dry_run:
            return rows.count()
        removed = 0
        while ids := list(rows.order_by().values_list("pk", flat=True)[:BATCH]):
            removed += (
                Run.objects.filter(pk__in=ids).delete()[1].get(Run._meta.label, 0)
            )
        return removed

    def _write_missed(self, dry_run: bool) -> int:
        """Write the ends that only the store knows: whoever was to do it has died."""
        written = 0
        open_ones = Run.objects.filter(ended=None).values_list("pk", flat=True)
        for ids in _batches(list(open_ones)):
            for stored in get_store().read(ids).values():
                if stored.snapshot.finished and history.settled(stored.snapshot):
                    written += 1
                    if not dry_run:
                        history.close(stored.snapshot, hop=stored.hop)
        return written

    def _end_lost(self, dry_run: bool) -> int:
        """End what the store has forgotten; raises what the store raises."""
        long_ago = timezone.now() - timedelta(days=LOST_DAYS)
        rows = Run.objects.filter(ended=None, state="")
        lost = [
            *_vanished(rows.filter(created__lt=long_ago).values_list("pk", flat=True))
        ]
        if dry_run or not lost:
            return len(lost)
        # Was the store emptied just now? Then whoever lives brings its run back.
        time.sleep(conf.LOST_AFTER)
        still = [*_vanished(lost)]
        for ids in _batches(still):
            for row in rows.filter(pk__in=ids):
                seen = history.snapshot(row, lost_after=0)
                error = encode({"message": NOBODY})
                end = replace(
                    seen, state=FAILED, reason="lost", error=error, ended=seen.now
                )
                history.close(end)
                moved(row.slug, LOST, end)
        return len(still)


def _vanished(ids: Iterable[str]) -> Iterator[str]:
    """Those that the store does not know."""
    for batch in _batches(list(ids)):
        known = get_store().read(batch)
        yield from (id for id in batch if id not in known)


def _batches(ids: list[str]) -> Iterator[list[str]]:
    return (ids[first : first + BATCH] for first in range(0, len(ids), BATCH))
