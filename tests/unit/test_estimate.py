import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels_progress.estimate import EVIDENCE, Estimate

seconds = st.floats(0.01, 20, allow_nan=False)
speeds = st.floats(0.01, 1e6, allow_nan=False)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def go(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def estimate(clock):
    return Estimate(clock)


def run(estimate, clock, speed, duration, every=0.25, current=0.0):
    """Report `speed` units per second for `duration` seconds; the last count."""
    for _ in range(round(duration / every)):
        clock.go(every)
        current += speed * every
        estimate.update(current)
    return current


def test_nothing_is_known_before_the_first_report(estimate):
    assert estimate.rate is None
    assert estimate.remaining(100) is None


def test_one_report_is_no_evidence_however_old_it_is(estimate, clock):
    estimate.update(5)
    clock.go(60)
    assert estimate.rate is None
    assert estimate.remaining(100) is None


def test_reports_without_progress_are_no_evidence(estimate, clock):
    for _ in range(10):
        estimate.update(0)
        clock.go(2)
    assert estimate.rate is None


def test_less_than_a_second_is_no_evidence(estimate, clock):
    estimate.update(0)
    clock.go(EVIDENCE - 0.01)
    estimate.update(50)
    assert estimate.rate is None
    clock.go(0.01)
    assert estimate.rate == pytest.approx(50, rel=0.02)


def test_units_done_before_the_first_report_are_not_in_the_rate(estimate, clock):
    estimate.update(40_000)
    clock.go(2)
    estimate.update(40_020)
    assert estimate.rate == pytest.approx(10)


def test_remaining_is_what_is_left_at_this_rate(estimate, clock):
    estimate.update(0)
    run(estimate, clock, speed=20, duration=10)
    assert estimate.remaining(1000) == pytest.approx(40)


def test_remaining_is_unknown_without_a_total_and_beyond_it(estimate, clock):
    estimate.update(0)
    run(estimate, clock, speed=20, duration=10)
    assert estimate.remaining(None) is None
    assert estimate.remaining(199) is None


def test_nothing_remains_at_the_total(estimate, clock):
    estimate.update(100)
    assert estimate.remaining(100) == 0


def test_a_change_of_pace_takes_about_the_window_to_be_believed(estimate, clock):
    estimate.update(0)
    current = run(estimate, clock, speed=10, duration=60)
    current = run(estimate, clock, speed=20, duration=1, current=current)
    assert 10 < estimate.rate < 10.5
    run(estimate, clock, speed=20, duration=30, current=current)
    assert estimate.rate == pytest.approx(20, rel=0.06)


def test_a_stall_lowers_the_rate_and_raises_the_time_remaining(estimate, clock):
    estimate.update(0)
    current = run(estimate, clock, speed=100, duration=10)
    rates, times = [], []
    for _ in range(60):
        clock.go(2)
        estimate.update(current)
        rates.append(estimate.rate)
        times.append(estimate.remaining(2000))
    assert all(a > b for a, b in itertools.pairwise(rates))
    assert all(a < b for a, b in itertools.pairwise(times))
    assert rates[-1] < 1
    assert times[-1] > 1000


def test_a_slow_step_is_not_a_stall(estimate, clock):
    for step in range(20):
        estimate.update(step)
        clock.go(30)
    estimate.update(20)
    rate = estimate.rate
    clock.go(29.9)
    assert estimate.rate == rate
    clock.go(300)
    assert estimate.rate < 0.7 * rate


def test_time_remaining_counts_down_within_a_slow_step(estimate, clock):
    for step in range(10):
        estimate.update(step)
        clock.go(30)
    estimate.update(10)
    assert estimate.remaining(12) == pytest.approx(60)
    clock.go(20)
    assert estimate.remaining(12) == pytest.approx(40)
    clock.go(10)
    assert estimate.remaining(12) == pytest.approx(30)
    clock.go(30)
    assert estimate.remaining(12) > 60


def test_a_late_last_step_is_not_promised_for_now(estimate, clock):
    for step in range(10):
        estimate.update(step)
        clock.go(10)
    clock.go(50)
    assert estimate.remaining(10) == pytest.approx(50)


def test_a_counter_that_falls_starts_the_estimate_anew(estimate, clock):
    estimate.update(0)
    run(estimate, clock, speed=100, duration=10)
    clock.go(1)
    estimate.update(10)
    assert estimate.rate is None
    clock.go(2)
    estimate.update(14)
    assert estimate.rate == pytest.approx(2)


def test_skipped_units_are_done_but_not_in_the_rate(estimate, clock):
    estimate.update(0)
    clock.go(0.25)
    estimate.update(40_000, skipped=40_000)
    assert estimate.rate is None
    clock.go(2)
    estimate.update(40_020, skipped=40_000)
    assert estimate.rate == pytest.approx(10)
    assert estimate.remaining(40_120) == pytest.approx(10)


def test_skipping_for_long_is_not_a_stall(estimate, clock):
    estimate.update(0)
    for skipped in range(1000, 61_000, 1000):
        clock.go(1)
        estimate.update(skipped, skipped)
    clock.go(2)
    estimate.update(60_020, 60_000)
    assert estimate.rate == pytest.approx(10)


def test_a_report_in_the_same_instant_is_not_lost(estimate, clock):
    estimate.update(0)
    clock.go(2)
    estimate.update(10)
    estimate.update(20)
    clock.go(2)
    estimate.update(20)
    assert estimate.rate == pytest.approx(5, rel=0.3)
    estimate.update(30)
    clock.go(2)
    estimate.update(40)
    assert estimate.rate > 5


def test_time_remaining_of_uneven_steps_hardly_jumps(clock):
    """The steps of gen_random: 3 to 10 points, each followed by points / 2 seconds."""
    jumps = []
    for seed in range(20):
        estimate, steps, current = Estimate(clock), random.Random(seed), 0
        estimate.update(0)
        shown = []
        while current < 1000:
            points = steps.randint(3, 10)
            clock.go(0.001)
            estimate.update(current := current + points)
            for _ in range(points * 2):
                clock.go(0.25)
                estimate.update(current)
                if current > 100:
                    shown.append(estimate.remaining(1500))
        jumps += [abs(b - a) / a for a, b in itertools.pairwise(shown)]
    assert max(jumps) < 0.2
    assert sum(jump > 0.05 for jump in jumps) < 0.01 * len(jumps)


@given(speeds, st.lists(seconds, min_size=2, max_size=40))
def test_a_steady_pace_is_told_exactly(speed, gaps):
    clock = Clock()
    estimate, current = Estimate(clock), 0.0
    estimate.update(0)
    clock.go(EVIDENCE)
    estimate.update(current := speed * EVIDENCE)
    for gap in gaps:
        clock.go(gap)
        current += speed * gap
        estimate.update(current)
        assert estimate.rate == pytest.approx(speed, rel=1e-6)


@given(st.lists(st.tuples(seconds, st.integers(1, 10**9)), min_size=1, max_size=40))
def test_the_rate_stays_among_the_rates_that_were_seen(reports):
    clock = Clock()
    estimate, current = Estimate(clock), 0
    estimate.update(0)
    seen = []
    for gap, units in reports:
        start = clock.now
        clock.go(gap)
        seen.append(units / (clock.now - start))
        current += units
        estimate.update(current)
        if estimate.rate is not None:
            assert 0.999 * min(seen) <= estimate.rate <= 1.001 * max(seen)
            assert estimate.remaining(current + 1) >= 0


@given(
    st.lists(
        st.tuples(st.floats(0, 1e5), st.floats(-1e12, 1e12), st.integers(0, 10**6)),
        max_size=30,
    )
)
def test_no_report_breaks_it(reports):
    clock = Clock()
    estimate = Estimate(clock)
    for gap, current, skipped in reports:
        clock.go(gap)
        estimate.update(current, skipped)
        rate, remaining = estimate.rate, estimate.remaining(current + 100)
        assert rate is None or rate > 0
        assert remaining is None or remaining >= 0
