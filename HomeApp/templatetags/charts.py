"""Small plots, drawn by the server as SVG."""

from django import template

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
