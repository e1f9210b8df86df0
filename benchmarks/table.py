"""What was measured, as text and as the README's table."""

from pathlib import Path

from benchmarks.figures import Check, Row, met, ratios, spread
from benchmarks.page import fill

README = Path(__file__).with_name("README.md")
KEPT = {True: "yes", False: "**no**", None: ""}
HEAD = """\
| measure | ours | beside | | ours / beside | budget | kept |
|---|--:|---|--:|--:|--:|---|"""


def text(row):
    """For the terminal."""
    lines = [f"{row.measure} ({row.unit})"]
    for name, values in row.values.items():
        middle, low, high = (number(value) for value in spread(values))
        lines.append(f"    {name:36} {middle:>10}  {low} to {high}")
    for check in row.checks:
        middle, low, high = (number(value) for value in spread(ratios(row, check)))
        by = f" / {check.by}" if check.by else ""
        said = f"{budget(check)} {KEPT[met(row, check)]}"
        lines.append(f"  {check.of}{by}: {middle}  {low} to {high}  {said}")
    return "\n".join(lines)


def write(results):
    """Put machine, table and moments into the README."""
    measures = results["measures"]
    machine = ", ".join(f"{name} {value}" for name, value in results["machine"].items())
    rows = [row_of(row) for found in measures.values() for row in found["rows"]]
    when = "; ".join(
        f"{name} {found['when']} UTC, {found['seconds']} s, load before {found['load']}"
        for name, found in measures.items()
    )
    table = "\n".join([HEAD, *(line for row in rows for line in lines(row))])
    fill(README, f"{machine}\n\n{table}\n\nMeasured: {when}.\n")


def row_of(kept):
    checks = [Check(**check) for check in kept["checks"]]
    return Row(**{**kept, "checks": checks})


def lines(row):
    """A line for each check; for what has none, one for each value."""
    checks = row.checks or [Check(name) for name in row.values]
    for check in checks:
        unit = f" {row.unit}" if row.unit else ""
        beside = f"{number(spread(row.values[check.by])[0])}{unit}" if check.by else ""
        ratio = between(ratios(row, check)) if check.by else ""
        ours = f"{between(row.values[check.of])}{unit}"
        cells = [f"{row.measure}: {check.of}", ours, check.by, beside, ratio]
        yield f"| {' | '.join([*cells, budget(check), KEPT[met(row, check)]])} |"


def between(values):
    """Median and quartiles."""
    middle, low, high = map(number, spread(values))
    return middle if low == high else f"{middle} ({low} to {high})"


def budget(check):
    if check.at_most is not None:
        return f"at most {number(check.at_most)}"
    return "" if check.at_least is None else f"at least {number(check.at_least)}"


def number(value):
    """With three digits that say something."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.1e}"
