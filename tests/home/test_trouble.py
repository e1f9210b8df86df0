import pytest
from celery.exceptions import Retry

from channels_progress import Progress, TaskError, catalogue
from channels_progress.current import enter, leave
from HomeApp import trouble
from HomeApp.forms import TroubleForm

QUICK = 0.05  # seconds


@pytest.fixture
def progress():
    progress = Progress()
    enter(progress)
    yield progress
    leave()


@pytest.mark.parametrize(
    "slug",
    [
        "fail_midway",
        "retry_twice",
        "crash_process",
        "hang_silently",
        "no_total",
        "wrong_total",
        "above_total",
    ],
)
def test_each_trouble_is_startable_and_says_what_it_does(slug):
    declared = catalogue.get(slug)
    assert declared.form is TroubleForm
    assert declared.task.name == f"HomeApp.tasks.{slug}"
    assert declared.task.__doc__


def test_failing_stops_at_60_with_a_reason(progress):
    with pytest.raises(TaskError, match="Step 61 of 100 is missing"):
        trouble.fail_midway(seconds=QUICK)
    assert (progress.current, progress.total) == (60, 100)


@pytest.mark.parametrize(("retries", "reached"), [(0, 40), (1, 70)])
def test_the_first_two_tries_give_up(progress, retries, reached):
    task = trouble.retry_twice
    task.push_request(retries=retries, is_eager=True, called_directly=False)
    try:
        with pytest.raises(Retry):
            task.run(seconds=QUICK)
    finally:
        task.pop_request()
    assert progress.current == reached


def test_the_third_try_succeeds(progress):
    task = trouble.retry_twice
    task.push_request(retries=2)
    try:
        task.run(seconds=QUICK)
    finally:
        task.pop_request()
    assert progress.current == 100


def test_no_process_is_killed_that_is_the_whole_worker(progress):
    with pytest.raises(TaskError, match="no child process"):
        trouble.crash_process(seconds=QUICK)


def test_a_hanging_task_ends_some_day(progress):
    trouble.hang_silently(seconds=QUICK / 10)
    assert progress.current == 100


def test_without_a_total_there_is_only_a_count(progress):
    count = trouble.no_total(seconds=QUICK)["steps"]
    assert (progress.current, progress.total) == (count, None)


def test_a_wrong_total_is_put_right(progress):
    trouble.wrong_total(seconds=QUICK)
    assert (progress.current, progress.total) == (100, 100)
    assert progress.message == "There are 50 steps more than it seemed."


def test_a_count_may_pass_its_total(progress):
    trouble.above_total(seconds=QUICK)
    assert (progress.current, progress.total) == (100, 80)
