"""Small plots, drawn by the server as SVG."""

from bisect import bisect_right
from itertools import pairwise

from django import template

from channels_progress import words

register = template.Library()

WIDTH, HEIGHT = 600, 160  # of the drawing's own units; the page stretches it
TOP = 8  # units above the highest point
PEAKS = 3


@register.inclusion_tag("HomeApp/spectrum.html")
def spectrum(result):
    """The mean spectrum of `fft_random`, and where its highest peaks are in hertz."""
    values, (first, last) = result["spectrum"], result["hertz"]
    step = WIDTH / max(1, len(values) - 1)
    scale = (HEIGHT - TOP) / (max(values, default=0) or 1)
    points = [
        f"{i * step:.1f},{HEIGHT - value * scale:.1f}" for i, value in enumerate(values)
    ]
    band = (last - first + 1) / max(1, len(values))  # hertz that share a value
    hertz = sorted(int(first + i * band + (band - 1) / 2) for i in peaks(values))
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "points": " ".join(points),
        "first": first,
        "last": last,
        "peaks": hertz,
        "transforms": result["transforms"],
    }


def peaks(values):
    """The positions of the highest local maxima, at most PEAKS, highest first."""
    inner = range(1, len(values) - 1)
    tops = [i for i in inner if values[i - 1] < values[i] >= values[i + 1]]
    return sorted(tops, key=values.__getitem__, reverse=True)[:PEAKS]


BINS = 24  # of a rate over time
SHORT = 1.0  # seconds; samples of less are too few and too coarse


@register.inclusion_tag("HomeApp/rate.html")
def rate_plot(envelope):
    """The rate over time of a finished run's last attempt; nothing if it was short."""
    # An attempt begins with nothing done; its first sample may come after some work.
    samples = [(0, 0), *(envelope.get("samples") or [])]
    values = rates(samples)
    if samples[-1][0] < SHORT or len(values) < 2 or not any(values):
        return {}
    step, scale = WIDTH / len(values), (HEIGHT - TOP) / max(values)
    inner = [((i + 0.5) * step, value) for i, value in enumerate(values)]
    curve = [(0, values[0]), *inner, (WIDTH, values[-1])]
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "points": " ".join(f"{x:.1f},{HEIGHT - y * scale:.1f}" for x, y in curve),
        "lowest": words.rate(min(values), envelope["unit"]),
        "highest": words.rate(max(values), envelope["unit"]),
        "seconds": words.took(int(1000 * samples[-1][0])),
        "last": envelope["attempt"] > 1,
    }


def rates(samples):
    """Units a second in up to BINS equal parts of the time from first to last sample.

    `samples` are pairs of seconds and a count, in the order of time. A count that
    falls has the rate 0.
    """
    bins = min(BINS, len(samples) - 1)
    if bins < 1 or samples[-1][0] <= samples[0][0]:
        return []
    width = (samples[-1][0] - samples[0][0]) / bins
    edges = [samples[0][0] + i * width for i in range(bins + 1)]
    counts = [at(samples, edge) for edge in edges]
    return [max(0, b - a) / width for a, b in pairwise(counts)]


def at(samples, seconds):
    """The count at a moment between two samples, on a straight line."""
    after = bisect_right(samples, seconds, key=lambda sample: sample[0])
    if after in (0, len(samples)):
        return samples[min(after, len(samples) - 1)][1]
    (t0, a), (t1, b) = samples[after - 1 : after + 1]
    return a + (b - a) * (seconds - t0) / (t1 - t0)
