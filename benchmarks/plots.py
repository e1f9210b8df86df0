"""The plots beside the README."""

from pathlib import Path

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt

from benchmarks.figures import met, ratios, spread
from benchmarks.table import row_of

PLOTS = Path(__file__).with_name("plots")
COLOURS = {
    "ours": "#2563eb",
    "bare limit": "#6b7280",
    "stored first": "#059669",
    "celery-progress": "#d97706",
}
LINES = {"daphne": "-", "uvicorn": "--"}


def draw(results):
    """Every plot whose measure is there."""
    plt.rcParams.update(
        {
            "svg.fonttype": "none",  # text stays text
            "svg.hashsalt": "benchmarks",  # the same figures, the same file
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "figure.facecolor": "white",
        }
    )
    PLOTS.mkdir(exist_ok=True)
    rows = {
        name: [row_of(row) for row in found["rows"]]
        for name, found in results["measures"].items()
    }
    for name, plot in (("budgets", budgets), ("step", step), ("latency", latency)):
        figure = plot(rows)
        if figure is not None:
            figure.tight_layout()
            figure.savefig(PLOTS / f"{name}.svg", metadata={"Date": None})
            plt.close(figure)


def budgets(rows):
    """How much of each budget is used: median and quartiles."""
    used = []
    for row in [row for each in rows.values() for row in each]:
        for check in row.checks:
            limit = check.at_most or check.at_least
            if not limit:
                continue
            of = ratios(row, check)
            shares = (
                [x / limit for x in of] if check.at_most else [limit / x for x in of]
            )
            label = f"{row.measure}: {check.of}".replace("`", "")
            used.append((label, *spread(shares), met(row, check)))
    figure, axes = plt.subplots(figsize=(8, 0.26 * len(used) + 0.9))
    for place, (_, middle, low, high, kept) in enumerate(reversed(used)):
        colour = "#2563eb" if kept else "#dc2626"
        axes.plot([low, high], [place, place], color=colour, linewidth=2)
        axes.plot(middle, place, "o", color=colour, markersize=5)
    axes.axvline(1, color="#111827", linewidth=1)
    axes.set_yticks(range(len(used)), [label for label, *_ in reversed(used)])
    axes.set_xscale("log")
    axes.set_xlabel("share of the budget that is used (right of the line: too much)")
    return figure


def step(rows):
    """What a step costs, by way."""
    if "step" not in rows:
        return None
    values = rows["step"][0].values
    names = list(values)[::-1]
    figure, axes = plt.subplots(figsize=(7, 2.6))
    for place, name in enumerate(names):
        middle = max(spread(values[name])[0], 1)
        colour = COLOURS["ours" if name in ("track", "advance()") else "bare limit"]
        axes.barh(place, middle, color=colour)
        axes.text(middle * 1.15, place, f"{middle:,.0f} ns", va="center")
    axes.set_yticks(range(len(names)), names)
    axes.set_xscale("log")
    axes.set_xlim(right=3e8)
    axes.set_xlabel("nanoseconds added a step (the bare loop: its own)")
    return figure


def latency(rows):
    """The share of messages that had come after so many milliseconds."""
    if "latency" not in rows:
        return None
    figure, axes = plt.subplots(figsize=(7, 3.4))
    for name, ages in rows["latency"][0].samples.items():
        way, _, server = name.partition(", ")
        ages = sorted(age / 1000 for age in ages)
        share = [100 * n / len(ages) for n in range(1, len(ages) + 1)]
        axes.plot(ages, share, LINES[server], color=COLOURS[way], label=name)
    axes.set_xscale("log")
    axes.set_xlabel("ms from advance() in the worker to the message on the socket")
    axes.set_ylabel("% of messages")
    axes.legend(frameon=False)
    return figure
