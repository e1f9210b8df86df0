import pytest
from celery import shared_task

from channels_progress import Cancelled, Paused, TaskError, progress
from channels_progress.testing import ProgressRecorder, run_inline

ROWS = ["a", "b", "c", "d"]


@shared_task
def copy(rows):
    done = []
    for row in progress.track(rows, "Copying", unit="row"):
        done.append(row)
    progress.message = "Closing"
    return done


@shared_task(bind=True)
def resume(self, rows):
    return list(progress.iterate(rows, "Resuming"))


@shared_task
def fail():
    progress.set(3, total=4)
    raise TaskError("Row 4: not a number")


def test_an_inline_run_gives_the_result_and_every_percent_once():
    seen = run_inline(copy, ROWS)
    assert seen.result == ROWS
    assert seen.percents == [0, 25, 50, 75, 100]
    assert seen.messages == ["Copying", "Closing"]
    assert (seen.last.current, seen.last.total, seen.last.unit) == (4, 4, "row")


def test_a_plain_function_runs_inline_as_well():
    def plain(*, n):
        progress.advance(n)

    seen = run_inline(plain, n=7)
    assert [step.current for step in seen.steps] == [7]
    assert seen.percents == [None]


def test_a_failure_is_raised_and_its_percent_stays():
    with pytest.raises(TaskError, match="Row 4"), ProgressRecorder() as seen:
        fail()
    assert seen.percents == [75]


def test_the_counted_end_is_not_yet_the_end():
    with ProgressRecorder() as seen:
        progress.set(4, total=4)
        percents = seen.percents
    assert percents == [99]
    assert seen.percents == [100]


def test_a_cancel_is_raised_at_the_step_that_has_come_so_far():
    with pytest.raises(Cancelled), ProgressRecorder(cancel_at=2) as seen:
        copy(ROWS)
    assert seen.last.current == 2
    assert seen.percents == [0, 25, 50]


def test_a_cancel_comes_again_at_each_further_step():
    with ProgressRecorder() as seen:
        seen.cancel()
        for _ in range(2):
            with pytest.raises(Cancelled):
                progress.advance()


def test_a_paused_task_goes_on_from_its_cursor():
    with pytest.raises(Paused), ProgressRecorder(pause_at=2) as seen:
        resume(ROWS)
    assert seen.cursors == [{"done": 1}, {"done": 2}]
    with ProgressRecorder(cursor=seen.cursors[-1]) as again:
        assert resume(ROWS) == ["c", "d"]
    assert [step.current for step in again.steps] == [0, 2, 3, 4]
    assert again.percents == [0, 50, 75, 100]


def test_outside_the_block_nothing_is_noted():
    with ProgressRecorder() as seen:
        pass
    progress.advance()
    assert [step.current for step in seen.steps] == [0]


def test_nothing_seen_has_no_last_step():
    with pytest.raises(IndexError):
        _ = ProgressRecorder().last
