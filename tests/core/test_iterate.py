"""`progress.iterate`: it goes on where an earlier attempt stopped."""

from datetime import date
from types import SimpleNamespace

import pytest

from channels_progress import Cancelled, Progress
from channels_progress.models import Run


def attempt(progress=None):
    """The next attempt, with the cursor that the last one left."""
    return Progress(cursor_text=progress.cursor_text if progress else "")


def first_two(progress, *args, **options):
    """Do two steps and die in the third; what was done."""
    done = []
    for item in progress.iterate(*args, **options):
        if len(done) == 2:
            break
        done.append(item)
    return done


def test_the_first_attempt_does_everything():
    progress = attempt()
    assert list(progress.iterate("abc", "Reading", unit="row")) == ["a", "b", "c"]
    assert (progress.current, progress.total, progress.skipped) == (3, 3, 0)
    assert (progress.unit, progress.message) == ("row", "Reading")


def test_the_next_attempt_skips_what_is_done_and_counts_it():
    last = attempt()
    assert first_two(last, "abcd") == ["a", "b"]
    progress = attempt(last)
    steps = progress.iterate("abcd")
    assert next(steps) == "c"
    assert (progress.current, progress.skipped) == (2, 2)
    assert list(steps) == ["d"]
    assert progress.current == 4


def test_a_step_is_done_when_the_next_is_asked_for():
    progress = attempt()
    steps = progress.iterate("ab")
    next(steps)
    assert (progress.current, progress.cursor_text) == (0, "")
    next(steps)
    assert (progress.current, progress.cursor_text) == (1, '{"done":1}')


def test_a_step_that_was_cancelled_in_is_kept():
    progress = attempt()
    steps = progress.iterate("ab")
    next(steps)
    progress.stop(Cancelled())
    with pytest.raises(Cancelled):
        next(steps)
    assert progress.cursor_text == '{"done":1}'


def test_without_a_length_there_is_no_total():
    progress = attempt()
    assert list(progress.iterate(iter("ab"))) == ["a", "b"]
    assert progress.total is None


def test_the_total_it_is_told_holds():
    progress = attempt()
    list(progress.iterate(iter("ab"), total=5))
    assert progress.total == 5


def test_with_a_key_the_order_may_have_gained_items():
    last = attempt()
    assert first_two(last, [10, 20, 30], key=lambda n: n) == [10, 20]
    assert list(attempt(last).iterate([5, 10, 20, 25, 30], key=lambda n: n)) == [25, 30]


def test_a_key_of_several_parts_goes_on():
    rows = [(1, 1), (1, 2), (2, 1)]
    last = attempt()
    first_two(last, rows, key=lambda row: row)
    assert list(attempt(last).iterate(rows, key=lambda row: row)) == [(2, 1)]


@pytest.mark.parametrize("key", [date(2026, 1, 2), float("nan")])
def test_a_key_must_be_json(key):
    with pytest.raises(ValueError, match=r"key of progress.iterate must be a JSON"):
        list(attempt().iterate("ab", key=lambda item: key))


def test_a_key_is_no_longer_than_a_checkpoint():
    with pytest.raises(ValueError, match="may have 4096 bytes"):
        list(attempt().iterate("ab", key=lambda item: item * 5000))


def test_of_two_loops_each_is_gone_on_with_where_it_was_left():
    def play(progress, die_in=""):
        done = []
        for items in ("abc", "xyz"):
            for item in progress.iterate(items):
                if item == die_in:
                    return done
                done.append(item)
        return done

    first = attempt()
    assert play(first, die_in="b") == ["a"]
    second = attempt(first)
    assert play(second, die_in="y") == ["b", "c", "x"]
    third = attempt(second)
    assert play(third) == ["y", "z"]
    assert (third.current, third.total) == (3, 3)


def test_a_loop_that_has_no_length():
    class Stream:
        def __len__(self):
            raise TypeError("unknown")

        def __iter__(self):
            return iter("ab")

    progress = attempt()
    assert list(progress.iterate(Stream())) == list(progress.track(Stream()))
    assert progress.total is None


def test_a_key_may_name_an_attribute():
    rows = [SimpleNamespace(id=n) for n in (1, 2, 3)]
    last = attempt()
    first_two(last, rows, key="id")
    assert [row.id for row in attempt(last).iterate(rows, key="id")] == [3]


def test_a_track_inside_leaves_the_numbers_alone():
    progress = attempt()
    seen = [
        progress.current for _ in progress.iterate("ab") for _ in progress.track("xy")
    ]
    assert seen == [0, 0, 1, 1]
    assert (progress.current, progress.total) == (2, 2)


@pytest.mark.parametrize("outer", ["track", "iterate"])
def test_inside_another_loop_it_leaves_numbers_and_cursor_alone(outer):
    progress = attempt()
    loop = getattr(progress, outer)
    seen = [progress.current for _ in loop("ab") for _ in progress.iterate("xy")]
    assert seen == [0, 0, 1, 1]
    assert progress.cursor_text == ("" if outer == "track" else '{"done":2}')


def test_a_track_after_it_begins_at_zero():
    progress = attempt()
    first_two(progress, "abcd")
    assert [progress.current for _ in progress.track("ab")] == [0, 1]


def test_a_cursor_of_ones_own_is_not_understood():
    progress = attempt()
    progress.checkpoint({"offset": 7})
    with pytest.raises(ValueError, match=r"cursor \{'offset': 7\} is not one of"):
        list(attempt(progress).iterate("ab"))


@pytest.mark.django_db
def test_a_queryset_is_asked_only_for_the_rows_that_are_left(
    django_assert_num_queries,
):
    for n in range(4):
        Run.objects.create(id=f"r{n}", owner="o", task="t")
    last = attempt()
    done = [row.pk for row in first_two(last, Run.objects.all(), key="pk")]
    progress = attempt(last)
    with django_assert_num_queries(2):
        left = [row.pk for row in progress.iterate(Run.objects.all(), key="pk")]
    assert done + left == ["r0", "r1", "r2", "r3"]
    assert (progress.current, progress.total, progress.skipped) == (4, 4, 2)


@pytest.mark.django_db
def test_rows_that_are_gone_when_they_are_done_still_count():
    for n in range(4):
        Run.objects.create(id=f"r{n}", owner="o", task="t")
    last = attempt()
    for row in first_two(last, Run.objects.all(), key="pk"):
        Run.objects.filter(pk=row.pk).delete()
    progress = attempt(last)
    list(progress.iterate(Run.objects.all(), key="pk"))
    assert (progress.current, progress.total) == (4, 4)


@pytest.mark.django_db
def test_rows_of_a_loop_that_is_over_are_only_counted(django_assert_num_queries):
    Run.objects.create(id="r0", owner="o", task="t")
    last = attempt()
    list(last.iterate(Run.objects.all(), key="pk"))
    list(last.iterate("ab"))
    with django_assert_num_queries(1):
        assert not list(attempt(last).iterate(Run.objects.all(), key="pk"))


@pytest.mark.django_db
def test_rows_are_kept_apart_though_their_key_is_a_date():
    for n in range(3):
        Run.objects.create(id=f"r{n}", owner="o", task="t")
    last = attempt()
    rows = Run.objects.all()
    done = [row.pk for row in first_two(last, rows, key="created")]
    left = [row.pk for row in attempt(last).iterate(rows, key="created")]
    assert done + left == ["r0", "r1", "r2"]
