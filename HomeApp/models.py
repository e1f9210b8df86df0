"""The table that imports fill, and how far each import has come."""

import json
from collections.abc import Iterable
from typing import BinaryIO

from django.db import models, transaction
from django.db.models import F
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from HomeApp import measurements
from HomeApp.measurements import SENSOR_LENGTH, Batch, Reason, Row

# Of an import's bad rows, so many reasons are kept.
KEPT_REASONS = 100

# Of those, as many as fit are in the run's result, in bytes of JSON.
RESULT_BYTES = 3000


class Measurement(models.Model):
    """What a sensor measured at a moment; a later import replaces the value."""

    when = models.DateTimeField(_("when"))
    sensor = models.CharField(_("sensor"), max_length=SENSOR_LENGTH)
    value = models.FloatField(_("value"))

    class Meta:
        verbose_name = _("measurement")
        verbose_name_plural = _("measurements")
        constraints = [
            models.UniqueConstraint(
                fields=["when", "sensor"], name="one_value_of_a_sensor_at_a_moment"
            )
        ]

    def __str__(self):
        return f"{self.when:%Y-%m-%d %H:%M:%S} {self.sensor}: {self.value}"

    @classmethod
    def upsert(cls, rows: Iterable[Row]) -> int:
        """Insert or update `rows`, and return how many were new.

        Of rows with the same moment and sensor the last one counts. They are written
        in the order of their key, so that two imports cannot lock each other out.
        """
        values = {(row.when, row.sensor): row.value for row in rows}
        known = cls.objects.filter(
            when__in={when for when, _sensor in values},
            sensor__in={sensor for _when, sensor in values},
        ).values_list("when", "sensor")
        new = len(values.keys() - set(known))
        cls.objects.bulk_create(
            [
                cls(when=when, sensor=sensor, value=value)
                for (when, sensor), value in sorted(values.items())
            ],
            update_conflicts=True,
            unique_fields=["when", "sensor"],
            update_fields=["value"],
        )
        return new


class Overtaken(Exception):
    """Another attempt has taken this batch: the row says where to go on."""


class ImportReport(models.Model):
    """How far an import has come; its row moves in the same transaction as the data.

    So however often the worker dies, and even if two attempts run at once, each row of
    the file is counted and written exactly once.
    """

    run = models.CharField(_("run"), primary_key=True, max_length=64)
    path = models.CharField(_("path"), max_length=255, help_text=_("in the storage"))
    name = models.CharField(_("file"), max_length=255)
    offset = models.PositiveBigIntegerField(_("offset"), help_text=_("in bytes"))
    line = models.PositiveIntegerField(_("line"), help_text=_("the next one"))
    total = models.PositiveIntegerField(_("rows in the file"))
    rows = models.PositiveIntegerField(_("rows done"), default=0)
    inserted = models.PositiveIntegerField(_("inserted"), default=0)
    bad = models.PositiveIntegerField(_("bad rows"), default=0)
    reasons = models.JSONField(_("reasons"), default=list, blank=True)
    seconds = models.FloatField(_("seconds of work"), default=0)
    attempts = models.PositiveIntegerField(_("attempts"), default=1)
    created = models.DateTimeField(_("created"), auto_now_add=True)
    ended = models.DateTimeField(_("ended"), null=True, blank=True)

    class Meta:
        verbose_name = _("import report")
        verbose_name_plural = _("import reports")
        ordering = ["-created"]

    # What a batch moves.
    COUNTED = ["rows", "inserted", "bad", "reasons", "seconds"]

    def __str__(self):
        return f"{self.name} ({self.run})"

    @classmethod
    def begin(cls, run: str, path: str, name: str, file: BinaryIO) -> "ImportReport":
        """Return the report of `run` for a further attempt, or a new one."""
        if cls.objects.filter(pk=run, ended=None).update(attempts=F("attempts") + 1):
            return cls.objects.get(pk=run)
        offset, line = measurements.after_header(file)
        report, _created = cls.objects.get_or_create(
            pk=run,
            defaults={
                "path": path,
                "name": name,
                "offset": offset,
                "line": line,
                "total": measurements.count(file),
            },
        )
        return report

    def paused(self) -> None:
        """Note that this attempt will go on: a resume is not a further one."""
        type(self).objects.filter(pk=self.pk).update(attempts=F("attempts") - 1)

    @property
    def updated(self) -> int:
        """How many good rows replaced a value, of an earlier import or of this one."""
        return self.rows - self.bad - self.inserted

    def take(self, batch: Batch, seconds: float) -> None:
        """Write the next batch, `seconds` after the last one, or raise Overtaken."""
        with transaction.atomic():
            # The write comes first: it locks the row, so the second of two waits here.
            here = type(self).objects.filter(pk=self.pk, offset=batch.start)
            if not here.update(offset=batch.end, line=batch.line):
                raise Overtaken(self.run)
            self.offset, self.line = batch.end, batch.line
            self.rows += batch.count
            self.inserted += Measurement.upsert(batch.good)
            self.bad += len(batch.bad)
            self.reasons += batch.bad[: KEPT_REASONS - len(self.reasons)]
            self.seconds += seconds
            self.save(update_fields=self.COUNTED)

    def finish(self, seconds: float) -> None:
        """Close the report, `seconds` after the last batch."""
        self.ended = timezone.now()
        self.seconds += seconds
        self.save(update_fields=["ended", "seconds"])

    def shown_reasons(self) -> list[Reason]:
        """The kept reasons against bad rows; the text of each is in this language."""
        return [Reason(*reason) for reason in self.reasons]

    def receipt(self) -> dict[str, object]:
        """The import in numbers, with as many reasons as fit the run's result."""
        receipt = {
            "file": self.name,
            "rows": self.rows,
            "inserted": self.inserted,
            "updated": self.updated,
            "bad": self.bad,
            "seconds": round(self.seconds, 2),
            "attempts": self.attempts,
            "reasons": [],
        }
        size = len(json.dumps(receipt))
        for reason in self.shown_reasons():
            entry = {**reason._asdict(), "text": str(reason)}
            size += len(json.dumps(entry)) + 2
            if size > RESULT_BYTES:
                break
            receipt["reasons"].append(entry)
        return receipt
