"""Every word of the bar, once, for the page and for its script.

A sentence has {places}; `static/channels_progress/wording.js` fills the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext, pgettext

from channels_progress.errors import FORBIDDEN
from channels_progress.estimate import STILL
from channels_progress.run import FINISHED, LOST, RUNNING, WAITING

# A language's plural forms are told by what it says for 0, 1, 2 ... 20 things.
SAMPLES = range(21)

SILENT = 5  # s without a sign of life from the worker, as in line.js
TAKEN = 2  # s in the queue that need no remark
SOON = 3  # s that are not counted down where another service is asked again and again

# Below so many seconds, a time remaining is told in steps of so many: countdown.js.
COARSE = ((10, 1), (60, 5), (600, 15), (3600, 60), (math.inf, 300))


def words() -> dict[str, str]:
    """Every sentence by its name, in the active language."""
    return {
        "state.queued": pgettext("state", "Queued"),
        "state.running": pgettext("state", "Running"),
        "state.waiting": pgettext("state", "Waiting"),
        "state.paused": pgettext("state", "Paused"),
        "state.cancelling": pgettext("state", "Cancelling"),
        "state.lost": pgettext("state", "Lost"),
        "state.succeeded": pgettext("state", "Succeeded"),
        "state.failed": pgettext("state", "Failed"),
        "state.cancelled": pgettext("state", "Cancelled"),
        "percent": _("{n}%"),
        "count.of": _("{current} of {total} {unit}"),
        "count.open": _("{current} {unit}"),
        "count.past": _("{current}, where {total} {unit} were expected"),
        "rate.s": _("{n} {unit} per second"),
        "rate.min": _("{n} {unit} per minute"),
        "time.s": pgettext("seconds", "{n} s"),
        "time.min": pgettext("minutes", "{n} min"),
        "time.h": pgettext("hours", "{n} h"),
        "time.d": pgettext("days", "{n} d"),
        "attempt": _("{attempt}"),
        "attempt.of": _("{attempt} of {attempts}"),
        "reference": _("Reference: {reference}"),
        "line.offline": _("This browser is offline. What you see is {time} old."),
        "line.unreachable": _(
            "The server cannot be reached; trying again. What you see is {time} old."
        ),
        "line.unavailable": _(
            "The server has no news now; trying again. What you see is {time} old."
        ),
        "line.signed-out": _("You were signed out. Sign in again to follow this run."),
        "line.refused": _(FORBIDDEN),
        "line.queued": _("Queued for {time}, no worker has taken it yet."),
        "line.retry": _("The next try is due."),
        "line.retry.in": _("Next try in {time}."),
        "line.poll": _("Another service is at work; asking it how far it is."),
        "line.poll.in": _("Another service is at work; asking it again in {time}."),
        "line.redelivery": _("Its worker stopped. Another one will take it up."),
        "line.redelivery.in": _("Its worker stopped. It is taken up again in {time}."),
        "line.replace": _("Handed on; the next part starts soon."),
        "line.replace.in": _("Handed on; the next part starts in {time}."),
        "line.paused": _("No worker is held. It goes on from where it stopped."),
        "line.lost": _("No word from the worker for {time}. Another may take over."),
        "line.silent": _("The worker has been silent for {time}."),
        "line.slow": _("No change for {time}. The worker is alive, it is just slow."),
        "line.pausing": _("Asked to pause; it will at its next step."),
        "line.cancelling": _("Asked to stop; it will at its next step."),
        "line.unanswered": _("Asked to stop {time} ago, no answer."),
        "link.polling": _("No live connection here; asking every 2 seconds instead."),
        "problem": _("The server did not answer. Try again."),
    }


def shown(envelope: dict[str, Any]) -> dict[str, Any]:
    """What the bar's parts say, and its value: task-progress.js for the first look."""
    say, state, percent = words(), envelope["state"], envelope["percent"]
    error = envelope["error"] or {}
    return {
        "title": envelope["title"] or envelope["task"],
        "state": say[f"state.{state}"],
        "value": 100 if state == "succeeded" else percent,
        "percent": "" if percent is None else say["percent"].format(n=number(percent)),
        "count": count(envelope),
        "elapsed": elapsed(envelope),
        "attempt": attempt(envelope),
        "rate": pace(envelope),
        "remaining": remaining(envelope),
        "line": line(envelope),
        "tone": "trouble" if state == LOST or _silent(envelope) else "",
        "reference": say["reference"].format(**error) if "reference" in error else "",
        "again": state in FINISHED or state == LOST,
    }


def plural(unit: str, n: float) -> str:
    """The name of `n` things, from the catalogue, else by the English rule."""
    count = int(n) if n == int(n) else 2
    return ngettext(unit, f"{unit}s", count) if unit else ""


def forms(units: Iterable[str]) -> dict[str, list[str]]:
    """Each unit's name for 0, 1, 2 ... 20 things."""
    return {unit: [plural(unit, n) for n in SAMPLES] for unit in units}


def number(n: float) -> str:
    """`n` in the active language, with at most one decimal."""
    n = round(n, 1)
    whole = n == int(n)
    return number_format(n, decimal_pos=0 if whole else 1, force_grouping=True)


def duration(seconds: float) -> str:
    """Two neighbouring units at most, rounded down: 12 s, 4 min 20 s, 1 h 5 min."""
    say = words()
    left = int(seconds)
    sizes = {"d": 86400, "h": 3600, "min": 60, "s": 1}
    parts = []
    for unit, size in sizes.items():
        n, left = divmod(left, size)
        parts.append((unit, n))
    while len(parts) > 1 and not parts[0][1]:
        parts.pop(0)
    large, *small = parts[:2]
    shown = [large, *(part for part in small if part[1])]
    return " ".join(say[f"time.{unit}"].format(n=number(n)) for unit, n in shown)


def count(envelope: dict[str, Any]) -> str:
    """4,200 of 10,000 transforms; nothing where nothing is known."""
    current, total, unit = (envelope[name] for name in ("current", "total", "unit"))
    if total is None and not current:
        return ""
    if total is None:
        name, things = "count.open", plural(unit, current)
    else:
        name = "count.past" if current > total else "count.of"
        things = plural(unit, total)
    values = {"current": number(current), "total": number(total or 0), "unit": things}
    return words()[name].format(**values).strip()


def rate(n: float, unit: str) -> str:
    """`n` units a second, with three digits: 812 rows per second, 30 a minute."""
    name, n = ("rate.min", n * 60) if n < 1 else ("rate.s", n)
    digits = 0 if n >= 100 else 1 if n >= 10 else 2
    n = float(f"{n:.3g}")
    while digits and round(n, digits - 1) == n:
        digits -= 1
    shown = number_format(n, decimal_pos=digits, force_grouping=True)
    text = words()[name].format(n=shown, unit=plural(unit, n))
    return text.replace("  ", " ").strip()  # of things without a name


def pace(envelope: dict[str, Any]) -> str:
    """The rate while it is honest, and at the end the last one."""
    honest = envelope["state"] in FINISHED or _moves(envelope)
    n = envelope.get("rate") if honest else None
    return rate(n, envelope["unit"]) if n else ""


def remaining(envelope: dict[str, Any]) -> str:
    """The time that is left, as coarse as it is long; nothing while nobody can know."""
    seconds = envelope.get("remaining") if _moves(envelope) else None
    if seconds is None:
        return ""
    step = next(step for below, step in COARSE if seconds < below)
    return duration(max(1, int(seconds / step + 0.5) * step))


def _moves(envelope: dict[str, Any]) -> bool:
    """Whether a worker, or the service that it asks, is known to get on."""
    state, reason = envelope["state"], envelope["reason"]
    works = state == RUNNING or (state == WAITING and reason == "poll")
    rest: int = envelope["now"] - envelope["changed"]
    return works and rest <= STILL * 1000


def elapsed(envelope: dict[str, Any]) -> str:
    """How long the run took, or has taken so far; nothing before it began."""
    started, ended = envelope["started"], envelope["ended"]
    if not started:
        return ""
    return (
        took(ended - started) if ended else duration((envelope["now"] - started) / 1000)
    )


def took(ms: int) -> str:
    """How long something took; under ten seconds a tenth is worth telling."""
    if ms >= 10_000:
        return duration(ms / 1000)
    return words()["time.s"].format(n=number(max(0, ms) // 100 / 10))


def attempt(envelope: dict[str, Any]) -> str:
    """Which attempt this is, from the second on."""
    if envelope["attempt"] < 2:
        return ""
    name = "attempt.of" if envelope["attempts"] else "attempt"
    return words()[name].format(**envelope)


def _silent(envelope: dict[str, Any]) -> bool:
    """Whether the worker gives no sign of life, and is not yet called lost."""
    silence: int = envelope["now"] - envelope["seen"]
    return bool(envelope["state"] == RUNNING) and silence > SILENT * 1000


def line(envelope: dict[str, Any]) -> str:
    """What is going on when nothing seems to: line.js, where no script runs."""
    state, say = envelope["state"], words()

    def age(field: str) -> float:
        return max(0.0, float(envelope["now"] - envelope[field]) / 1000)

    if state == "queued":
        late = age("queued") > TAKEN
        return say["line.queued"].format(time=duration(age("queued"))) if late else ""
    if state == "waiting":
        reason = envelope["reason"] or "redelivery"
        name = f"line.{reason}"
        if name not in say:  # during a deploy, a worker may know more reasons
            return ""
        until = ((envelope["due"] or 0) - envelope["now"]) / 1000
        if until > (SOON if reason == "poll" else 0):
            return say[f"{name}.in"].format(time=duration(until + 1))
        return say[name]
    if state == "lost":
        return say["line.lost"].format(time=duration(age("seen")))
    if _silent(envelope):
        return say["line.silent"].format(time=duration(age("seen")))
    if state == "running" and envelope["asked"] == "pause":
        return say["line.pausing"]
    if state == "running" and age("changed") > STILL:
        return say["line.slow"].format(time=duration(age("changed")))
    return say.get(f"line.{state}", "") if state in ("paused", "cancelling") else ""
