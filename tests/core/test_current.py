"""What a task author touches: counting, tracking, stopping, checkpoints."""

import contextlib
import itertools
import sys
import threading
import traceback
from decimal import Decimal

import pytest
from celery.exceptions import Ignore

from channels_progress import Cancelled, Paused, Progress, Superseded
from channels_progress.current import enter, leave
from channels_progress.current import progress as current


@pytest.fixture
def progress():
    """The current run's progress; `woken` counts how often the reporter was."""
    woken = []
    progress = Progress(wake=lambda: woken.append(1))
    progress_woken[progress] = woken
    enter(progress)
    yield progress
    leave()
    del progress_woken[progress]


progress_woken = {}


def woken(progress):
    return len(progress_woken[progress])


def at_each(progress, items):
    """What a viewer sees in the body of each step."""
    return [progress.current for _ in items]


# -- Counting ---------------------------------------------------------------------


def test_advance_counts(progress):
    current.advance()
    current.advance(2.5)
    progress.advance()
    progress.advance(0)
    assert current.current == progress.current == 4.5


def test_set_says_how_many(progress):
    current.advance(7)
    current.set(3, total=10)
    current.advance()
    assert (progress.current, progress.total) == (4, 10)


def test_set_keeps_the_total_it_is_not_told(progress):
    current.set(3, total=10)
    current.set(4)
    assert progress.total == 10


def test_skip_is_done_but_no_work(progress):
    current.skip(5)
    current.advance()
    assert (progress.current, progress.skipped) == (6, 5)


def test_restore_goes_on(progress):
    progress.restore(7, 10, "row", "Importing")
    progress.advance()
    assert (progress.current, progress.total, progress.unit) == (8, 10, "row")
    assert progress.message == "Importing"


def test_threads_of_one_task_lose_no_step(progress):
    shared = current.get()

    def work():
        for _ in range(1000):
            shared.advance()
            shared.advance(2)

    threads = [threading.Thread(target=work) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert progress.current == 12_000


@pytest.mark.parametrize("odd", [float("nan"), Decimal("2.5"), "7", None, object()])
def test_odd_numbers_do_not_fail_the_task(progress, odd):
    current.set(odd, total=odd)
    current.advance(odd)
    current.skip(odd)
    current.advance(0.5)
    current.set(1)
    assert progress.current == 1


# -- Waking the reporter ----------------------------------------------------------


def test_the_first_step_wakes_the_reporter_and_the_next_do_not(progress):
    current.advance()
    current.advance()
    current.message = "on"
    assert woken(progress) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda: current.advance(),
        lambda: current.advance(2),
        lambda: current.set(1),
        lambda: current.skip(),
        lambda: setattr(current, "message", "on"),
        lambda: current.checkpoint(1),
        lambda: current.flush(),
        lambda: current.get().advance(),
        lambda: next(current.track([1])),
        lambda: next(current.iterate([1])),
    ],
)
def test_a_change_wakes_a_reporter_that_rests(progress, change):
    current.advance()
    progress.rest()
    change()
    assert woken(progress) == 2


def test_a_step_of_track_wakes_a_reporter_that_rests(progress):
    steps = current.track([1, 2, 3])
    next(steps)
    progress.rest()
    before = woken(progress)
    next(steps)
    next(steps)
    assert woken(progress) == before + 1


# -- track ------------------------------------------------------------------------


def test_track_yields_everything_and_counts_what_is_done(progress):
    assert at_each(progress, current.track("abc", "Reading", unit="row")) == [0, 1, 2]
    assert progress.current == 3
    assert (progress.total, progress.unit, progress.message) == (3, "row", "Reading")


def test_track_without_a_length_has_no_total(progress):
    assert list(current.track(iter("ab"))) == ["a", "b"]
    assert (progress.current, progress.total) == (2, None)


def test_track_without_an_end_has_no_total(progress):
    assert next(current.track(itertools.count())) == 0
    assert next(current.track(range(10**30))) == 0
    assert progress.total is None


def test_track_believes_the_total_it_is_told(progress):
    list(current.track(iter("ab"), total=5))
    assert progress.total == 5


def test_a_second_track_begins_at_zero(progress):
    list(current.track("abc"))
    assert at_each(progress, current.track("ab", "Again")) == [0, 1]


def test_track_keeps_the_words_it_is_not_told(progress):
    current.unit, current.message = "row", "Importing"
    list(current.track("ab"))
    assert (progress.unit, progress.message) == ("row", "Importing")


def test_an_inner_track_leaves_the_numbers_to_the_outer_one(progress):
    seen = [progress.current for _ in current.track("ab") for _ in current.track("xyz")]
    assert seen == [0, 0, 0, 1, 1, 1]
    assert (progress.current, progress.total) == (2, 2)


def test_advance_in_a_track_counts_beside_it(progress):
    for _ in current.track("ab", total=4):
        current.advance()
    assert progress.current == 4


def test_set_in_a_track_holds(progress):
    seen = []
    for _ in current.track(range(3), total=100):
        current.set(10)
        seen.append(progress.current)
    assert seen == [10, 10, 10]
    assert progress.current == 11


def test_a_track_that_is_left_counts_what_was_done(progress):
    for item in current.track("abcd"):
        if item == "c":
            break
    assert progress.current == 2
    assert at_each(progress, current.track("ab")) == [0, 1]


def test_a_track_whose_body_fails_counts_what_was_done(progress):
    def body():
        for item in current.track("abc"):
            assert item != "b"

    with pytest.raises(AssertionError):
        body()
    assert progress.current == 1


def test_a_track_that_never_began_counts_nothing(progress):
    current.track("abc")
    assert progress.current == 0


def test_counting_is_seen_from_another_thread_while_an_item_is_fetched(progress):
    fetching, look = threading.Event(), threading.Event()
    seen = []

    def slow():
        yield "a"
        fetching.set()
        assert look.wait(10)
        yield "b"

    def watch():
        assert fetching.wait(10)
        seen.append(progress.current)
        look.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    list(progress.track(slow()))
    watcher.join()
    assert seen == [1]


# -- Stopping ---------------------------------------------------------------------

STEPS = {
    "advance": lambda: current.advance(),
    "advance by 2": lambda: current.advance(2),
    "set": lambda: current.set(1),
    "skip": lambda: current.skip(),
    "raise_if_cancelled": lambda: current.raise_if_cancelled(),
    "track": lambda: list(current.track("ab")),
    "iterate": lambda: list(current.iterate("ab")),
    "message": lambda: setattr(current, "message", "on"),
    "checkpoint": lambda: current.checkpoint(1),
    "flush": lambda: current.flush(),
    "get": lambda: current.get().advance(),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("stop", [Cancelled, Paused, Superseded])
def test_a_stop_surfaces_at_the_next_step_and_again_at_each_further_one(
    progress, step, stop
):
    progress.stop(stop("Enough."))
    for _ in range(3):
        with pytest.raises(stop, match="Enough"):
            step()


def test_a_stop_is_celerys_ignore():
    assert all(issubclass(stop, Ignore) for stop in (Cancelled, Paused, Superseded))


def test_a_stop_surfaces_in_the_middle_of_a_track(progress):
    done = []

    def body():
        for item in current.track("abcd"):
            done.append(item)
            if item == "b":
                progress.stop(Cancelled())

    with pytest.raises(Cancelled):
        body()
    assert done == ["a", "b"]
    assert progress.current == 2


def test_a_stop_surfaces_in_an_inner_track(progress):
    def body():
        for _ in current.track("ab"):
            for _ in current.track("xyz"):
                progress.stop(Cancelled())

    with pytest.raises(Cancelled):
        body()


def test_cleaning_up_runs(progress):
    cleaned = []

    def body():
        try:
            current.advance()
        finally:
            cleaned.append(True)

    progress.stop(Cancelled())
    with pytest.raises(Cancelled):
        body()
    assert cleaned


def test_the_first_word_is_not_taken_back(progress):
    progress.stop(Cancelled())
    progress.stop(Paused())
    with pytest.raises(Cancelled):
        current.advance()


def test_superseded_is_nothing_else(progress):
    progress.stop(Cancelled())
    progress.stop(Superseded())
    progress.stop(Cancelled())
    with pytest.raises(Superseded):
        current.advance()


def test_nothing_is_raised_without_a_stop(progress):
    current.raise_if_cancelled()


def test_to_flush_takes_no_stop_back(progress):
    progress.stop(Cancelled())
    with contextlib.suppress(Cancelled):
        current.flush()
    with pytest.raises(Cancelled):
        current.advance()


def test_a_body_that_swallows_its_stop_does_not_gather_tracebacks(progress):
    progress.stop(Cancelled())

    def depth():
        try:
            current.advance()
        except Cancelled as error:
            return len(traceback.extract_tb(error.__traceback__))

    assert depth() == depth() == depth()


# -- Checkpoints ------------------------------------------------------------------


def test_the_first_attempt_has_no_cursor(progress):
    current.checkpoint({"row": 40})
    assert current.cursor is None
    assert progress.cursor_text == '{"row":40}'


def test_the_next_attempt_has_the_last_ones_cursor():
    assert Progress(cursor_text='{"row":40}').cursor == {"row": 40}


def test_a_checkpoint_may_have_4_kib(progress):
    current.checkpoint("x" * 4094)
    with pytest.raises(ValueError, match=r"may have 4096 bytes, this one has 4097"):
        current.checkpoint("x" * 4095)
    assert len(progress.cursor_text) == 4096


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}])
def test_a_checkpoint_must_be_json(progress, value):
    with pytest.raises(ValueError, match="must be a JSON value, got"):
        current.checkpoint(value)


# -- Outside a run ----------------------------------------------------------------


def test_outside_a_run_the_same_code_works():
    current.unit = "row"
    for _ in current.track("abc", "Reading"):
        current.advance(2)
        current.message = "on"
    current.set(3, total=4)
    current.skip()
    current.checkpoint(1)
    current.flush()
    current.raise_if_cancelled()
    assert list(current.iterate("ab")) == ["a", "b"]
    assert current.cursor is None


def test_two_bodies_outside_a_run_do_not_count_for_each_other():
    one, other = current.get(), current.get()
    one.advance()
    assert (one.current, other.current) == (1, 0)


def test_a_run_is_left_behind(progress):
    leave()
    current.advance()
    assert progress.current == 0
