"""From a started task to its end, in a real worker."""

import math
import threading
from datetime import date
from decimal import Decimal

import numpy as np
import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from celery import chain, chord, group
from celery.app.trace import build_tracer
from celery.backends.redis import RedisBackend
from celery.exceptions import Ignore, Reject
from celery.result import AsyncResult
from django.utils import translation
from django.utils.translation import gettext, gettext_lazy

from CeleryProgressbar.celery import app
from channels_progress import Cancelled, Superseded, TaskError, progress, runs
from channels_progress.errors import Invalid
from channels_progress.log import logger as transitions
from channels_progress.models import Run
from channels_progress.reporter import get_reporter
from tests.core import tasks
from tests.core.conftest import endless, until
from tests.core.hand import Hand
from tests.stack import wait_for


def once(first):
    """A body that does `first(task)` the first time, and returns the second."""
    begun = []

    def body(task):
        begun.append(task)
        if len(begun) == 1:
            first(task)
        return len(begun)

    return body


def test_a_body_speaks_the_language_of_whoever_started_it(play):
    def language(task):
        return translation.get_language()

    def failing(task):
        raise RuntimeError("for the log only")

    with translation.override("de"):
        german, failed = play(language), play(failing)
    english = play(language)
    assert until(german, "succeeded").as_dict()["result"] == "de"
    assert until(english, "succeeded").as_dict()["result"] == "en"
    with translation.override("de"):
        said = gettext("Something went wrong.")
    assert until(failed, "failed").as_dict()["error"]["message"] == said


def test_a_lazy_message_is_in_that_language_while_it_runs(play, gate, quick):
    def body(task):
        progress.message = gettext_lazy("Something went wrong.")
        gate.wait()

    with translation.override("de"):
        run = play(body)
        said = gettext("Something went wrong.")
    wait_for(lambda: runs.get(run).as_dict()["message"], "a message")
    assert runs.get(run).as_dict()["message"] == said


# -- Success and failure ----------------------------------------------------------


def test_a_task_that_returns_has_succeeded(play):
    def body(task):
        for _ in progress.track("abc", "Reading", unit="row"):
            pass
        return {"rows": 3}

    envelope = until(play(body, title="Rows"), "succeeded").as_dict()
    assert (envelope["current"], envelope["total"], envelope["percent"]) == (3, 3, 100)
    assert (envelope["unit"], envelope["message"]) == ("row", "Reading")
    assert (envelope["title"], envelope["result"]) == ("Rows", {"rows": 3})
    assert envelope["remaining"] is None


def test_the_end_is_in_the_history(play):
    run = play(lambda task: "done")
    envelope = until(run, "succeeded").as_dict()
    row = wait_for(Run.objects.filter(pk=run).exclude(ended=None).first, "the row")
    assert (row.state, row.task, row.owner) == ("succeeded", "core.late", "player")
    assert row.document["result"] == envelope["result"] == "done"
    assert row.document["rev"] == envelope["rev"]


def test_a_task_that_stops_short_of_its_total_has_succeeded_at_100(play):
    run = play(lambda task: progress.set(3, total=10))
    envelope = until(run, "succeeded").as_dict()
    assert (envelope["current"], envelope["percent"]) == (3, 100)


def test_without_a_total_nothing_is_known_even_at_the_end(play):
    run = play(lambda task: progress.advance(3))
    envelope = until(run, "succeeded").as_dict()
    assert (envelope["current"], envelope["total"]) == (3, None)
    assert envelope["percent"] is None


def test_the_text_of_a_task_error_is_shown(play):
    def body(task):
        progress.set(3, total=10)
        raise TaskError("Row 17: not a number")

    envelope = until(play(body), "failed").as_dict()
    assert envelope["error"] == {"message": "Row 17: not a number"}
    assert (envelope["percent"], envelope["reason"]) == (30, "error")


def test_the_text_of_another_error_is_only_in_the_log(play, caplog):
    def body(task):
        raise RuntimeError("password=hunter2")

    snapshot = until(play(body), "failed")
    error = snapshot.as_dict()["error"]
    assert error["message"] == "Something went wrong."
    assert "hunter2" not in snapshot.envelope()
    record = next(r for r in caplog.records if error["reference"] in r.getMessage())
    assert "hunter2" in str(record.exc_info[1])


def test_a_soft_time_limit_says_so(play):
    def body(task):
        raise SoftTimeLimitExceeded()

    snapshot = until(play(body), "failed")
    assert snapshot.reason == "time_limit"
    assert snapshot.as_dict()["error"] == {"message": "It took longer than it may."}


@pytest.fixture
def no_backend(worker, monkeypatch):
    """Celery's result backend is away, once; the store is not. Were it away for
    longer, a pool of threads would never let go of the message."""
    errors = [ConnectionError("the backend is away")]
    really = RedisBackend.store_result

    def away(*args, **options):
        if errors:
            raise errors.pop()
        return really(*args, **options)

    monkeypatch.setattr(RedisBackend, "store_result", away)
    yield
    assert not errors


@pytest.mark.parametrize(
    ("error", "message"),
    [(TaskError("Row 17"), "Row 17"), (ValueError(), "Something went wrong.")],
)
def test_a_failure_that_celery_cannot_keep_is_one(play, no_backend, error, message):
    def body(task):
        raise error

    run = play(body)
    snapshot = until(run, "failed")
    assert (snapshot.reason, snapshot.as_dict()["error"]["message"]) == (
        "error",
        message,
    )


def test_a_success_that_celery_cannot_keep_is_one(play, no_backend):
    assert until(play(lambda task: 5), "succeeded").as_dict()["result"] == 5


def test_a_retry_that_celery_cannot_keep_is_one(play, no_backend):
    def body(task):
        raise task.retry(countdown=600)

    run = play(body)
    snapshot = until(run, "waiting")
    assert snapshot.reason == "retry"
    assert snapshot.due > snapshot.now + 590_000
    runs.cancel(run)


@pytest.fixture
def trace(monkeypatch):
    """`trace(task, name=function)` gives a task a method and lets Celery see it."""

    def trace(task, **methods):
        for name, method in methods.items():
            monkeypatch.setattr(task, name, method, raising=False)
        tracer = build_tracer(task.name, task, app=app, loader=app.loader)
        monkeypatch.setattr(task, "__trace__", tracer)

    return trace


def test_what_fails_before_it_begins_has_failed(play, trace, caplog):
    def before_start(*args):
        raise RuntimeError("password=hunter2")

    trace(tasks.silent, before_start=before_start)
    snapshot = until(play(lambda task: 5, task=tasks.silent), "failed")
    error = snapshot.as_dict()["error"]
    assert error["message"] == "Something went wrong."
    assert any(error["reference"] in r.getMessage() for r in caplog.records)


def test_what_celery_cannot_even_mark_as_started_has_failed(play, trace, no_backend):
    trace(tasks.early, track_started=True)
    assert until(play(lambda task: 5, task=tasks.early), "failed").reason == "error"


def test_a_soft_time_limit_in_the_end_itself_costs_no_end(play):
    limits = [SoftTimeLimitExceeded()]

    def limit(record):
        if "to=succeeded" in record.getMessage() and limits:
            raise limits.pop()
        return True

    transitions.addFilter(limit)
    try:
        run = play(lambda task: 5)
        wait_for(Run.objects.filter(pk=run, state="succeeded").exists, "the row")
    finally:
        transitions.removeFilter(limit)
    assert not limits


def test_a_thread_of_the_task_counts_for_it(play):
    def body(task):
        shared = progress.get()
        thread = threading.Thread(target=lambda: shared.advance(5))
        thread.start()
        thread.join()

    assert until(play(body), "succeeded").as_dict()["current"] == 5


# -- Weird values -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("current", "total", "expected"),
    [
        (5, 0, (5, 0, 0)),
        (5, -1, (5, None, None)),
        (-5, 10, (0, 10, 0)),
        (15, 10, (15, 10, 99)),
        (5, math.nan, (5, None, None)),
        (math.nan, 10, (0, 10, 0)),
        (math.inf, 10, (0, 10, 0)),
        (Decimal("2.5"), Decimal(10), (2.5, 10, 25)),
        (date(2025, 1, 2), date(2025, 1, 2), (0, None, None)),
        (np.int64(5), np.float32(10), (5, 10, 50)),
        (5, np.arange(3), (5, None, None)),
        (10**30, 10**30, (0, None, None)),
    ],
)
def test_weird_numbers_are_legible(play, gate, quick, current, total, expected):
    def body(task):
        progress.set(current, total=total)
        progress.message = "set"
        gate.wait()

    run = play(body)

    def seen():
        envelope = runs.get(run).as_dict()
        return envelope if envelope["message"] == "set" else None

    envelope = wait_for(seen, "the message")
    numbers = tuple(envelope[name] for name in ("current", "total", "percent"))
    assert numbers == expected
    gate.open()
    until(run, "succeeded")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (gettext_lazy("Reading"), "Reading"),
        (date(2025, 1, 2), "2025-01-02"),
        (Decimal("2.50"), "2.50"),
        ("\ud800", "?"),
        ("a\x00b", "a�b"),
        ("x" * 1_000_000, "x" * 499 + "…"),
        (None, ""),
        (np.arange(3), "[0 1 2]"),
        ("<b>&\u2028", "<b>&\u2028"),
    ],
    ids=range(9),
)
def test_weird_words_are_legible(play, gate, quick, message, expected):
    def body(task):
        progress.message = progress.unit = message
        progress.advance()
        gate.wait()

    run = play(body)
    wait_for(lambda: runs.get(run).as_dict()["current"] == 1, "the report")
    assert runs.get(run).as_dict()["message"] == expected
    gate.open()
    until(run, "succeeded")


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (date(2025, 1, 2), "2025-01-02"),
        (Decimal("2.50"), "2.50"),
        ({1}, [1]),
        (np.arange(2), [0, 1]),
        (math.nan, "nan"),
        ("\ud800", "?"),
        ("x" * 5000, {"truncated": True, "bytes": 5002}),
        (object, "<class 'object'>"),
    ],
    ids=str,
)
def test_weird_results_are_legible(play, result, expected):
    run = play(lambda task: result, task=tasks.silent)
    assert until(run, "succeeded").as_dict()["result"] == expected


def test_a_result_that_celery_cannot_keep_is_a_failure_that_says_so(play):
    envelope = until(play(lambda task: {1, 2}), "failed").as_dict()
    assert envelope["error"]["message"] == (
        "It returned or passed on a value that is not JSON."
    )


def test_one_runs_odd_value_silences_no_other_run(play, gate, quick):
    class Odd:
        def __eq__(self, other):
            raise RuntimeError("not to be compared")

        __hash__ = None

    def odd(task):
        for _ in range(1 << 40):
            progress.unit = Odd()
            progress.advance()

    def body(task):
        progress.advance()
        gate.wait()

    runs_ = [play(odd), play(body)]
    wait_for(lambda: runs.get(runs_[1]).as_dict()["current"] == 1, "the report")
    wait_for(lambda: runs.get(runs_[0]).as_dict()["current"] > 1, "the odd one's")
    runs.cancel(runs_[0])
    gate.open()
    until(runs_[0], "cancelled")
    until(runs_[1], "succeeded")


# -- Waiting: retry, poll, replace, reject ----------------------------------------


def test_a_retry_waits_and_is_the_next_attempt(play):
    def first(task):
        progress.set(5, total=10)
        raise task.retry(countdown=600)

    run = play(once(first))
    snapshot = until(run, "waiting")
    envelope = snapshot.as_dict()
    assert (snapshot.reason, envelope["attempt"], envelope["attempts"]) == (
        "retry",
        1,
        4,
    )
    assert 590_000 < snapshot.due - snapshot.now <= 600_000
    assert envelope["current"] == 5
    assert not get_reporter().leases
    assert runs.cancel(run).shown == "cancelled"


def test_the_next_attempt_begins_at_zero(play, gate):
    def body(task):
        if task.request.retries == 0:
            progress.set(5, total=10)
            raise task.retry(countdown=0)
        gate.wait()

    run = play(body)
    gate.arrival()
    envelope = until(run, "running").as_dict()
    assert (envelope["attempt"], envelope["current"], envelope["total"]) == (2, 0, None)
    gate.open()
    until(run, "succeeded")


def test_tries_are_counted_until_the_last_one_fails(play):
    def body(task):
        raise task.retry(exc=TaskError("Not today."), countdown=0)

    envelope = until(play(body), "failed").as_dict()
    assert (envelope["attempt"], envelope["attempts"]) == (4, 4)
    assert envelope["error"] == {"message": "Not today."}


def test_an_endless_task_has_no_last_attempt(play):
    run = play(lambda task: None, task=tasks.endless)
    assert until(run, "succeeded").as_dict()["attempts"] is None


def test_a_poll_goes_on_as_the_same_attempt_as_often_as_it_likes(play):
    begun = []

    def body(task):
        begun.append(progress.current)
        progress.advance()
        if len(begun) < 6:
            raise task.poll(countdown=0)

    envelope = until(play(body), "succeeded").as_dict()
    assert begun == [0, 1, 2, 3, 4, 5]
    assert envelope["attempt"] == 1


def test_a_poll_goes_on_at_the_pace_of_those_before(play):
    left = []

    def body(task):
        left.append(runs.get(task.request.id).as_dict()["remaining"])
        progress.set(10 * len(left), total=100)
        if len(left) < 6:
            raise task.poll(countdown=0.4)

    envelope = until(play(body), "succeeded").as_dict()
    assert left[:2] == [None, None]
    assert 0 < left[-1] < 60
    assert 0 < envelope["rate"] < 30
    assert envelope["samples"][-1][0] > 5 * 0.4
    assert {10, 30, 60} <= {count for _seconds, count in envelope["samples"]}


@pytest.fixture
def second():
    """Set once the next message's body has begun."""
    return threading.Event()


def test_a_poll_that_begins_before_the_last_one_ended_has_its_numbers(
    play, slow, second
):
    begun = []

    def body(task):
        begun.append(progress.current)
        if len(begun) > 1:
            second.set()
            return
        progress.set(3)
        get_reporter().drain(10)
        progress.set(4)
        polling = task.poll(countdown=0)
        assert second.wait(30)
        raise polling

    until(play(body), "succeeded")
    assert begun == [0, 4]


def test_a_retry_that_begins_before_the_last_one_ended_has_its_cursor(
    play, slow, second
):
    cursors = []

    def body(task):
        cursors.append(progress.cursor)
        if len(cursors) > 1:
            second.set()
            return
        progress.checkpoint(3)
        get_reporter().drain(10)
        progress.checkpoint(4)
        try:
            task.retry(countdown=0)
        finally:
            assert second.wait(30)

    assert until(play(body), "succeeded").attempt == 2
    assert cursors == [None, 4]


@pytest.mark.parametrize("ends", [lambda: 5, Ignore])
def test_a_retry_that_is_not_thrown_follows_all_the_same(play, ends):
    def body(task):
        if task.request.retries == 0:
            task.retry(countdown=0, throw=False)
            ended = ends()
            if isinstance(ended, Ignore):
                raise ended
            return ended
        return "second"

    snapshot = until(play(body), "succeeded")
    assert (snapshot.attempt, snapshot.as_dict()["result"]) == (2, "second")


def test_a_poll_waits_without_a_slot(play):
    def body(task):
        raise task.poll(countdown=600)

    run = play(body)
    snapshot = until(run, "waiting")
    assert snapshot.reason == "poll"
    assert snapshot.due > snapshot.now + 590_000
    runs.cancel(run)


def test_a_poll_outside_a_run_is_a_retry(worker, store):
    begun = []

    def body(task):
        begun.append(task)
        if len(begun) < 6:
            raise task.poll(countdown=0)
        return "done"

    tasks.late.apply_async(kwargs=tasks.kwargs_of(body))
    wait_for(lambda: len(begun) == 6, "the last poll")


REPLACEMENTS = {
    "task": lambda s: s,
    "chain": lambda s: chain(s, s.clone()),
    "group": lambda s: group(s, s.clone()),
    "chord": lambda s: chord([s, s.clone()], s.clone()),
    "chain to a group": lambda s: chain(s, group(s.clone(), s.clone())),
    "chord to a group": lambda s: chord([s, s.clone()], group(s.clone(), s.clone())),
}


@pytest.mark.parametrize("made_of", REPLACEMENTS.values(), ids=REPLACEMENTS)
def test_a_replacement_goes_on_as_the_same_run(play, made_of):
    seen = []

    def part(*args):
        seen.append(args)
        return "part"

    name = tasks.kwargs_of(part)

    def body(task):
        progress.set(5, total=10)
        raise task.replace(made_of(tasks.late.s(**name).set(immutable=True)))

    run = play(body)
    snapshot = until(run, "succeeded")
    assert snapshot.attempt == 1
    assert "part" in str(snapshot.as_dict()["result"])


def test_a_replacement_cannot_be_paused(play, gate, quick, declare):
    """Neither before it begins nor while it runs, whichever is heard first."""
    declare(tasks.stoppable, pausable=True)
    name, begun = tasks.kwargs_of(lambda task: gate.wait()), threading.Event()

    def body(task):
        try:
            raise task.replace(tasks.late.s(**name).set(countdown=0.01))
        except Ignore:
            begun.wait(10)
            raise

    run = play(body, task=tasks.stoppable)
    gate.arrival()
    wait_for(lambda: "pausable" not in runs.get(run).as_dict(), "the button gone")
    begun.set()
    with pytest.raises(Invalid, match="keeps no checkpoints"):
        runs.pause(run)
    gate.open()
    until(run, "succeeded")


def test_what_is_to_be_replaced_cannot_be_paused(play, declare):
    declare(tasks.stoppable, pausable=True)
    name = tasks.kwargs_of(lambda task: None)

    def body(task):
        raise task.replace(tasks.late.s(**name).set(countdown=600))

    run = play(body, task=tasks.stoppable)
    until(run, "waiting")
    with pytest.raises(Invalid, match="keeps no checkpoints"):
        runs.pause(run)
    runs.cancel(run)


def test_a_replacement_goes_through_all_its_items(play):
    name = tasks.kwargs_of(lambda task: list(progress.iterate("xyz")))

    def body(task):
        list(progress.iterate("ab"))
        raise task.replace(tasks.early.s(**name))

    assert until(play(body), "succeeded").as_dict()["result"] == ["x", "y", "z"]


def test_a_plain_task_may_be_replaced(worker, store):
    name = tasks.kwargs_of(lambda task: "other")

    def body(task):
        raise task.replace(tasks.late.s(**name))

    result = tasks.late.apply_async(kwargs=tasks.kwargs_of(body))
    wait_for(result.ready, "the result")
    assert result.result == "other"


def test_a_rejected_message_has_failed(play):
    def body(task):
        raise Reject("no", requeue=False)

    snapshot = until(play(body), "failed")
    assert snapshot.reason == "rejected"
    assert snapshot.as_dict()["error"] == {"message": "The task rejected its message."}


def test_a_message_that_is_put_back_comes_again(play):
    def first(task):
        raise Reject("later", requeue=True)

    snapshot = until(play(once(first)), "succeeded")
    assert snapshot.attempt == 2


def test_a_task_that_ignores_itself_is_cancelled_with_the_reason(play):
    def body(task):
        raise Ignore()

    snapshot = until(play(body), "cancelled")
    assert snapshot.reason == "ignored"
    error = snapshot.as_dict()["error"]
    assert error == {"message": "The task ended without a result."}


# -- The process is torn down -----------------------------------------------------


def test_with_late_acknowledgement_the_message_comes_back(play):
    def body(task):
        raise SystemExit(1)

    snapshot = until(play(body), "failed")
    assert (snapshot.reason, snapshot.attempt) == ("restarts", 3)


def test_with_early_acknowledgement_the_run_has_failed(play):
    def body(task):
        raise SystemExit(1)

    snapshot = until(play(body, task=tasks.early), "failed")
    assert snapshot.reason == "worker_stopped"
    assert snapshot.as_dict()["error"] == {"message": "Its worker was stopped."}


# -- Cancelled, paused, superseded ------------------------------------------------


def test_a_running_run_stops_at_its_next_step(play, quick):
    cleaned = []

    def body(task):
        try:
            endless(task)
        finally:
            cleaned.append(True)

    run = play(body)
    wait_for(lambda: runs.get(run).as_dict()["current"] > 1, "progress")
    assert runs.cancel(run).shown in {"cancelling", "cancelled"}
    snapshot = until(run, "cancelled")
    assert snapshot.reason == "asked"
    assert snapshot.as_dict()["percent"] == 0
    assert cleaned
    wait_for(lambda: AsyncResult(run).state == "REVOKED", "Celery's result")


def test_a_body_that_swallows_the_cancel_gets_it_again(play, quick):
    caught = []

    def body(task):
        while len(caught) < 3:
            try:
                endless(task)
            except Cancelled:
                caught.append(True)
        endless(task)

    run = play(body)
    until(run, "running")
    runs.cancel(run)
    until(run, "cancelled")
    assert len(caught) == 3


def test_a_body_that_finishes_all_the_same_has_succeeded(play, gate, quick):
    def body(task):
        gate.wait()
        return "done"

    run = play(body)
    gate.arrival()
    runs.cancel(run)
    gate.open()
    assert until(run, "succeeded").as_dict()["result"] == "done"


def test_a_body_that_fails_while_it_stops_is_cancelled(play, quick):
    def body(task):
        try:
            endless(task)
        except Cancelled:
            raise RuntimeError("while cleaning up") from None

    run = play(body)
    until(run, "running")
    runs.cancel(run)
    assert until(run, "cancelled").as_dict()["error"] is None


def test_a_pause_frees_the_worker_and_resume_goes_on_from_the_cursor(
    play, quick, declare
):
    declare(tasks.stoppable, title="Stoppable", pausable=True)
    begun = []

    def body(task):
        begun.append((progress.cursor, progress.current))
        if len(begun) == 1:
            progress.set(4, total=10)
            progress.checkpoint({"row": 4})
            endless(task)

    run = play(body, task=tasks.stoppable)
    until(run, "running")
    runs.pause(run)
    snapshot = until(run, "paused")
    assert (snapshot.asked, snapshot.attempt) == (None, 1)
    row = wait_for(Run.objects.filter(pk=run, state="paused").first, "the row")
    assert row.cursor == '{"row":4}'
    runs.resume(run)
    assert until(run, "succeeded").attempt == 1
    assert begun[1][0] == {"row": 4}


def test_a_pause_that_a_cancel_overtakes_is_revoked(play, gate, quick, declare):
    declare(tasks.stoppable, pausable=True)

    def body(task):
        try:
            endless(task)
        finally:
            gate.wait()

    run = play(body, task=tasks.stoppable)
    until(run, "running")
    runs.pause(run)
    gate.arrival()
    assert runs.cancel(run).shown == "cancelling"
    gate.open()
    until(run, "cancelled")
    wait_for(lambda: AsyncResult(run).state == "REVOKED", "Celery's result")


def test_a_superseded_body_stops_and_says_nothing_more(play, store, quick):
    ends = []

    def body(task):
        try:
            endless(task)
        except Superseded as error:
            ends.append(error)
            raise

    run = play(body)
    until(run, "running")
    other = Hand(store, run)
    assert other.begin(hop=2, kind="retry").code == "begun"
    wait_for(lambda: ends and not get_reporter().leases, "the old body over")
    assert runs.get(run).shown == "running"
    number = other.stored.lease
    assert other.end(number, 1).code == "ok"


def test_the_next_attempt_has_the_cursor(play):
    cursors = []

    def body(task):
        cursors.append(progress.cursor)
        progress.checkpoint({"row": 40})
        if len(cursors) == 1:
            raise task.retry(countdown=0)

    until(play(body), "succeeded")
    assert cursors == [None, {"row": 40}]


# -- What is no run ---------------------------------------------------------------


@pytest.fixture
def plain(worker, store, transactional_db):
    """Start a body as a plain task; Celery's result."""

    def start(body, **options):
        return tasks.late.apply_async(kwargs=tasks.kwargs_of(body), **options)

    return start


def test_a_plain_task_reports_nowhere(plain, store):
    leases = []

    def body(task):
        progress.advance()
        leases.append(dict(get_reporter().leases))
        return "done"

    result = plain(body)
    wait_for(result.ready, "the result")
    assert leases == [{}]
    assert store.read([result.id]) == {}
    assert not Run.objects.filter(pk=result.id).exists()


def test_headers_that_somebody_copied_make_no_run(plain, play, store):
    copied = []

    def body(task):
        copied.append(dict(task.request.headers))

    until(play(body), "succeeded")
    result = plain(lambda task: "done", headers=copied[0])
    wait_for(result.ready, "the result")
    assert store.read([result.id]) == {}


def test_eager_and_direct_calls_report_nowhere(store):
    name = tasks.kwargs_of(lambda task: progress.advance())
    assert tasks.late.apply(kwargs=name).state == "SUCCESS"
    assert tasks.late(**name) is None
    assert not get_reporter().leases
