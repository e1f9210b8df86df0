"""The tasks that a visitor may start; each is an ordinary Celery task."""

import random
import time
from uuid import uuid4

import numpy as np
from celery import shared_task
from django.core.files.storage import default_storage
from django.db import InterfaceError, OperationalError, reset_queries
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from channels_progress import progress, startable
from channels_progress.current import Paused, TaskError
from HomeApp import elsewhere, forms, measurements, trouble
from HomeApp.models import ImportReport, Overtaken

__all__ = ["elsewhere", "fft_random", "gen_random", "import_rows", "trouble"]

# --- Random steps --------------------------------------------------------------------

# A pause looks this often whether somebody cancelled, in seconds.
SLICE = 0.2


@startable(forms.GenRandomForm, title=gettext_lazy("Random steps"))
@shared_task
def gen_random(speed=2.0):
    """Gain 3 to 10 points at a time until 100, `speed` of them a second."""
    points = steps = 0
    progress.unit = "point"
    progress.set(0, total=100)
    while points < 100:
        gain = min(random.randint(3, 10), 100 - points)
        points += gain
        steps += 1
        progress.set(points)
        pause(gain / speed)
    return {"steps": steps}


def pause(seconds):
    """Sleep, but end with the run."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        progress.raise_if_cancelled()
        time.sleep(min(left, SLICE))


# --- Fourier transforms --------------------------------------------------------------

POINTS = 2000  # of a signal, sampled over one second
TONES = {155: 0.12, 425: 0.3, 705: 0.18}  # amplitude by hertz, faint beside the noise
BATCH = 250  # transforms at once: some milliseconds, and 4 MB
PLOTTED = 100  # points of the result's spectrum


@startable(forms.FftRandomForm, title=gettext_lazy("Fourier transforms"))
@shared_task
def fft_random(n=10_000):
    """Average the spectra of `n` noisy signals until the tones in them stand out."""
    noise = np.random.default_rng()
    second = np.arange(POINTS) / POINTS
    tones = sum(a * np.sin(2 * np.pi * hz * second) for hz, a in TONES.items())
    tones = tones.astype(np.float32)
    power = np.zeros(POINTS // 2)
    progress.unit = "transform"
    progress.set(0, total=n)
    for start in range(0, n, BATCH):
        size = min(BATCH, n - start)
        signals = noise.standard_normal((size, POINTS), dtype=np.float32) + tones
        spectra = np.fft.rfft(signals)[:, 1:]  # without the constant part
        power += np.square(np.abs(spectra)).sum(axis=0)
        progress.advance(size)
    return {
        "transforms": n,
        "hertz": [1, POINTS // 2],
        "spectrum": plotted(np.sqrt(power / n) * 2 / POINTS),
    }


def plotted(spectrum):
    """Return the highest amplitude of each of PLOTTED bands, with 3 digits."""
    bands = np.array_split(spectrum, PLOTTED)
    return [float(f"{band.max():.3g}") for band in bands]


# --- CSV import ----------------------------------------------------------------------

ROWS = 1000  # of a transaction


@startable(forms.ImportRowsForm, title=gettext_lazy("CSV import"), pausable=True)
@shared_task(
    bind=True,
    # A database that is restarted or locked comes back; the import goes on from there.
    autoretry_for=(OperationalError, InterfaceError),
    retry_backoff=True,
    max_retries=5,
)
def import_rows(self, path, name=""):
    """Write the measurements of an uploaded CSV file into their table.

    The report moves in the transaction of each batch, so every attempt goes on where
    the last one stopped, and nothing is written or counted twice.
    """
    try:
        file = default_storage.open(path)
    except FileNotFoundError:
        raise TaskError(
            _("The uploaded file is no longer here. Please upload it again.")
        ) from None
    with file:
        return import_file(file, self.request.id or uuid4().hex, path, name)


def import_file(file, run, path, name):
    """Go on with the import of an open binary file; return its receipt."""
    if progress.cursor is None:
        progress.message = _("Counting the rows")
    report = ImportReport.begin(run, path, name, file)
    try:
        # It may have ended already, and only its acknowledgement was lost.
        while not report.ended:
            try:
                import_rest(file, report)
            except Overtaken:
                # By an attempt that could not be told yet that this one has begun.
                report.refresh_from_db()
    except Paused:
        report.paused()
        raise
    return report.receipt()


def import_rest(file, report):
    """Import what the report has not; raises Overtaken."""
    since = time.monotonic()
    progress.unit, progress.total = "row", report.total
    progress.skip(report.rows - progress.current)
    tell(report)
    for batch in measurements.batches(file, report.offset, report.line, ROWS):
        now = time.monotonic()
        report.take(batch, now - since)
        since = now
        reset_queries()  # with DEBUG, Django keeps them all
        progress.advance(batch.count)
        tell(report)
        # The report knows it better; this tells the run that the import moves.
        progress.checkpoint({"offset": report.offset, "rows": report.rows})
    report.finish(time.monotonic() - since)


def tell(report):
    """Say how many rows were bad so far, once there are any."""
    progress.message = (
        _("Bad rows: %(count)s") % {"count": report.bad} if report.bad else ""
    )
