"""The history: one row a run, written when it is created, paused and ended."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from channels_progress import legible, run


class Run(models.Model):
    """What is kept of a run in the database; the store has what changes."""

    class State(models.TextChoices):
        UNFINISHED = "", _("unfinished")
        PAUSED = run.PAUSED, _("paused")
        SUCCEEDED = run.SUCCEEDED, _("succeeded")
        FAILED = run.FAILED, _("failed")
        CANCELLED = run.CANCELLED, _("cancelled")

    id = models.CharField(_("run"), primary_key=True, max_length=64)
    owner = models.CharField(_("owner"), max_length=128)
    task = models.CharField(_("task"), max_length=255, help_text=_("Celery's name"))
    title = models.CharField(
        _("title"), max_length=legible.TITLE_CHARACTERS, blank=True
    )
    kwargs = models.JSONField(_("arguments"), default=dict, blank=True)
    state = models.CharField(
        _("state"), max_length=16, choices=State, default="", blank=True
    )
    document = models.JSONField(
        _("document"), null=True, blank=True, help_text=_("the last envelope")
    )
    cursor = models.TextField(_("cursor"), blank=True)
    hop = models.PositiveIntegerField(_("hop"), default=1)
    created = models.DateTimeField(_("created"), auto_now_add=True)
    ended = models.DateTimeField(_("ended"), null=True, blank=True)

    class Meta:
        ordering: ClassVar = ["-created"]
        verbose_name = _("run")
        verbose_name_plural = _("runs")
        indexes: ClassVar = [
            models.Index(fields=["owner", "-created"], name="progress_owner_created"),
            models.Index(fields=["owner", "ended"], name="progress_owner_ended"),
            models.Index(fields=["ended"], name="progress_ended"),
        ]

    def __str__(self) -> str:
        return f"{self.title or self.task} ({self.id})"

    @property
    def slug(self) -> str:
        """The task as viewers know it: the last part of Celery's name."""
        return self.task.rpartition(".")[2]
