"""Rate and time remaining of a run: smooth, and unknown until it can be honest."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

# Seconds of the past that hold 90 % of the weight; indicatif's choice, and its method:
# an exponential average over time (not over reports), applied twice, without the bias
# of its start from zero.
WINDOW = 15.0

# At least as many usual steps are in the window, so that slow ones do not make it jump.
STEPS = 10

# Seconds of evidence below which there is no estimate.
EVIDENCE = 1.0

# Seconds without a step after which no pace is honest; `SLOW` in snapshot.js.
STILL = 10.0


class Estimate:
    """The pace of a counter that is looked at from time to time.

    Times are seconds of `clock`; the rate is in units per second.
    """

    __slots__ = ("_at", "_clock", "_current", "_done", "_pace", "_step")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at: float | None = None
        self._current = self._done = self._step = 0.0
        self._pace = _Pace()

    def update(
        self, current: float, skipped: float = 0, at: float | None = None
    ) -> None:
        """Take note of the counter, `skipped` of whose units took no work, as it is
        now or was `at` some time.

        A counter that fell starts the estimate anew.
        """
        now = self._clock() if at is None else at
        since = self._at  # once: the reporter and an end may come at the same time
        done = current - skipped
        if since is None or current < self._current or done < self._done:
            self._at, self._done = now, done
            self._step, self._pace = 0.0, _Pace()
        elif done > self._done:
            if now <= since:
                return  # the next report brings these units, with the time they took
            self._step = done - self._done
            self._pace = self._pace.after(self._step, now - since)
            self._done, self._at = done, now
        elif current > self._current:
            self._at = now  # skipping is neither work nor a stall
        self._current = current

    @property
    def rate(self) -> float | None:
        """Units per second; `None` before a second of evidence, falling in a stall."""
        idle = self.idle
        if self._pace.steps == 0 or self._pace.age + idle < EVIDENCE:
            return None
        if idle <= 0:
            return self._pace.rate
        # As if the next step, as large as the last one, ended right now: that cannot
        # raise the rate, and lowers it only once the step takes longer than usual.
        return min(self._pace.rate, self._pace.after(self._step, idle, late=True).rate)

    def remaining(self, total: float | None) -> float | None:
        """Seconds until `total`; `None` if the rate is unknown or the total wrong.

        Between two reports it counts down, and counts up once the next one is late.
        """
        if total is None or self._current > total:
            return None
        left = total - self._current
        if left == 0:
            return 0.0
        rate = self.rate
        if not rate:
            return None
        step = min(self._step, left)
        usual = step / self._pace.rate
        return (left - step) / rate + abs(usual - self.idle)

    @property
    def idle(self) -> float:
        """Seconds since the counter last moved."""
        return 0.0 if self._at is None else self._clock() - self._at


class _Pace:
    """A doubly smoothed rate after `steps` in `age` seconds; a value, never changed."""

    __slots__ = ("_double", "_single", "_weight", "age", "steps")

    def __init__(
        self,
        steps: int = 0,
        age: float = 0.0,
        weight: float = 0.0,
        single: float = 0.0,
        double: float = 0.0,
    ) -> None:
        self.steps = steps
        self.age = age
        self._weight = weight
        self._single = single
        self._double = double

    def after(self, units: float, seconds: float, *, late: bool = False) -> _Pace:
        """Return the pace once `units` more took `seconds` (above 0).

        A step that is `late`, still under way, does not say how long one usually is.
        """
        steps, age = self.steps + 1, self.age + seconds
        usual = self.age / self.steps if late else age / steps
        fade = -math.log(10) * seconds / max(WINDOW, STEPS * usual)
        old, new = math.exp(fade), -math.expm1(fade)
        weight = self._weight * old + new
        single = self._single * old + units / seconds * new
        double = self._double * old + single / weight * new
        return _Pace(steps, age, weight, single, double)

    @property
    def rate(self) -> float:
        return self._double / self._weight
