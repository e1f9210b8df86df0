"""Uploads go with the last run that read them."""

from django.dispatch import receiver

from channels_progress.models import Run
from channels_progress.signals import pruned
from HomeApp import uploads


@receiver(pruned)
def prune_uploads(sender, before, dry_run, **kwargs):
    """Remove the uploads from before a time that no run in the history has read."""
    if dry_run:
        return None
    runs = Run.objects.filter(task="HomeApp.tasks.import_rows")
    needed = set(runs.values_list("kwargs__path", flat=True))
    return f"{uploads.prune(before, needed)} uploads removed"
