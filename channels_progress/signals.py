"""What a project may listen to; the runs themselves are followed on the wire."""

from __future__ import annotations

from typing import Final

from django.dispatch import Signal

# `progress_prune` has removed the history from before the datetime `before`, or with
# `dry_run` would have: a receiver removes what it keeps beside its runs (uploads), and
# returns what to report of it as a text, or None. It never raises for long: what it
# raises is reported, and the command fails at its end.
pruned: Final = Signal()
