import itertools
import json
import time

import numpy as np
import pytest

from channels_progress import Cancelled, Progress, catalogue
from channels_progress.current import enter, leave
from HomeApp import forms, tasks


@pytest.fixture
def steps():
    """Enter a progress that notes (current, total) at each step."""
    steps = []

    def note():
        steps.append((progress.current, progress.total))
        progress.rest()

    progress = Progress(note)
    enter(progress)
    yield steps, progress
    leave()


def test_gen_random_goes_to_100_in_steps_of_3_to_10(steps):
    seen, _ = steps
    result = tasks.gen_random(speed=1000)
    assert seen[0] == (0, 100)
    assert seen[-1] == (100, 100)
    gains = [b - a for (a, _), (b, _) in itertools.pairwise(seen)]
    assert all(3 <= gain <= 10 for gain in gains[:-1])
    assert 1 <= gains[-1] <= 10
    assert result == {"steps": len(gains)}


def test_gen_random_takes_its_points_by_speed_in_seconds(steps):
    start = time.monotonic()
    tasks.gen_random(speed=400)
    assert time.monotonic() - start >= 0.25


def test_a_pause_hears_a_cancel(steps):
    _, progress = steps
    progress.stop(Cancelled())
    start = time.monotonic()
    with pytest.raises(Cancelled):
        tasks.pause(60)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("n", [1, 250, 1100])
def test_fft_random_counts_transforms_and_fits_its_result(steps, n):
    _, progress = steps
    result = tasks.fft_random(n=n)
    assert progress.current == progress.total == n
    assert progress.unit == "transform"
    assert result["transforms"] == n
    assert len(result["spectrum"]) == 100
    assert len(json.dumps(result)) < 2000


def test_fft_random_moves_in_small_steps(steps):
    seen, _ = steps
    tasks.fft_random(n=1100)
    assert [current for current, _ in seen] == [0, 250, 500, 750, 1000, 1100]


def test_the_mean_spectrum_brings_out_the_tones():
    spectrum = np.array(tasks.fft_random(n=2000)["spectrum"])
    bands = np.array_split(np.arange(1, 1001), 100)
    for hertz, amplitude in tasks.TONES.items():
        (band,) = [i for i, band in enumerate(bands) if hertz in band]
        assert spectrum[band] == pytest.approx(amplitude, rel=0.2)
    assert np.median(spectrum) < 0.06


@pytest.mark.parametrize(
    ("slug", "form", "pausable"),
    [
        ("gen_random", forms.GenRandomForm, False),
        ("fft_random", forms.FftRandomForm, False),
        ("import_rows", forms.ImportRowsForm, True),
    ],
)
def test_each_task_is_startable_under_its_own_name(slug, form, pausable):
    assert getattr(tasks, slug).name == f"HomeApp.tasks.{slug}"
    declared = catalogue.get(slug)
    assert (declared.form, declared.pausable) == (form, pausable)
