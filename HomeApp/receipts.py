"""What is left to say of a run that has ended."""

from django.utils.translation import gettext as _
from django.utils.translation import pgettext

from channels_progress import history, words
from channels_progress.run import FINISHED
from HomeApp.models import ImportReport

# Reasons of an end that the worker did not say itself.
DIED = frozenset({"worker_lost", "worker_stopped", "time_limit", "restarts", "lost"})


class Receipt:
    """The numbers of a finished run, as pairs of a label and a text."""

    def __init__(self, envelope):
        self.envelope = envelope
        self.report = report_of(envelope["run"])

    @classmethod
    def of(cls, envelope):
        """The receipt of a run, or None while it goes on."""
        return cls(envelope) if envelope["state"] in FINISHED else None

    @property
    def began(self):
        return bool(self.envelope["started"])

    @property
    def facts(self):
        return [(label, text) for label, text in self._facts() if text]

    def _facts(self):
        run = self.envelope
        yield _("Done"), words.count(run | {"current": self.done, "total": None})
        if self.report:
            yield _("Inserted"), words.number(self.report.inserted)
            yield _("Updated"), words.number(self.report.updated)
            yield _("Bad, left out"), words.number(self.report.bad)
        yield _("Not reached"), self.left and words.number(self.left)
        yield _("Time"), words.elapsed(run)
        yield _("Mean rate"), self.rate and words.rate(self.rate, run["unit"])
        yield pgettext("receipt", "Attempts"), words.number(run["attempt"])
        yield _("Longest silence"), self.silence and words.took(self.silence)

    @property
    def silence(self):
        """In milliseconds. A worker that died said nothing of it, and nothing since."""
        run = self.envelope
        said = int((run.get("silence") or 0) * 1000)
        died = run["reason"] in DIED and self.began
        return max(said, run["ended"] - run["seen"]) if died else said

    @property
    def done(self):
        return self.report.rows if self.report else self.envelope["current"]

    @property
    def left(self):
        """How many units a run that did not succeed has not come to."""
        total = self.report.total if self.report else self.envelope["total"]
        if self.envelope["state"] == "succeeded" or total is None:
            return 0
        return max(0, total - self.done)

    @property
    def rate(self):
        """Units a second from begin to end; an import knows its seconds of work."""
        run = self.envelope
        seconds = ((run["ended"] or 0) - (run["started"] or 0)) / 1000
        if self.report:
            seconds = self.report.seconds
        return self.done / seconds if seconds > 0 else 0

    @property
    def reasons(self):
        """The first of the reasons against an import's bad rows."""
        return self.report.shown_reasons() if self.report else []


def report_of(run):
    """An import's report, or None. A database that is down has none either: the store
    still knows the run's own numbers, and they are better than no page."""
    try:
        return ImportReport.objects.filter(pk=run).first()
    except history.ERRORS:
        return None
