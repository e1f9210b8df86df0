"""What was measured: a value for each repetition, and what it is held against."""

from dataclasses import asdict, dataclass, field
from statistics import median, quantiles


def percentile(values, percent):
    """The smallest value that `percent` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


@dataclass
class Check:
    """A budget: `of` beside `by`, repetition by repetition; or `of` alone."""

    of: str
    by: str = ""
    at_most: float | None = None
    at_least: float | None = None


@dataclass
class Row:
    """One measure: the same repetitions for every arm."""

    measure: str
    unit: str
    values: dict[str, list[float]]
    checks: list[Check] = field(default_factory=list)
    samples: dict[str, list[float]] = field(default_factory=dict)
    """What a plot shows, where that is more than the values."""

    as_dict = asdict


def spread(values):
    """Median, lower and upper quartile."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return middle, low, high


def ratios(row, check):
    """`of` in units of `by`, for each repetition."""
    ours = row.values[check.of]
    if not check.by:
        return ours
    return [a / b for a, b in zip(ours, row.values[check.by], strict=True)]


def met(row, check):
    """Whether the median keeps the budget; None where there is none."""
    value = median(ratios(row, check))
    if check.at_most is not None:
        return value <= check.at_most
    if check.at_least is not None:
        return value >= check.at_least
    return None
