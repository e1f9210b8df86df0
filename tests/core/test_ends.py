"""What a body's end means, from Celery's state and value."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from celery import states
from celery.exceptions import Ignore, Reject, Retry
from celery.worker import state as worker_state
from kombu.exceptions import EncodeError

from channels_progress import (
    Cancelled,
    Paused,
    Superseded,
    TaskError,
    lifecycle,
    worker,
)
from channels_progress.current import Progress
from channels_progress.end import End, end_of
from channels_progress.header import Header
from channels_progress.lease import Lease
from channels_progress.lifecycle import finish
from channels_progress.task import Polling
from tests.core.hand import lease as number_of

LATE = SimpleNamespace(acks_late=True, request=SimpleNamespace())
EARLY = SimpleNamespace(acks_late=False, request=SimpleNamespace())
REPLACED = SimpleNamespace(
    acks_late=True, request=SimpleNamespace(progress_replaced=True)
)


def end(state, value=None, task=LATE):
    header = Header(run="r1", owner="o", task="t")
    lease = Lease(header=header, progress=Progress(), attempts=1, worker="")
    return end_of(task, lease, state, value)


@pytest.mark.parametrize(
    ("state", "value", "task", "expected"),
    [
        (states.SUCCESS, "done", LATE, ("succeeded", "")),
        (states.FAILURE, TaskError("no"), LATE, ("failed", "error")),
        (states.FAILURE, EncodeError("no"), LATE, ("failed", "error")),
        (states.FAILURE, SoftTimeLimitExceeded(), LATE, ("failed", "time_limit")),
        (states.FAILURE, TimeLimitExceeded(3), LATE, ("failed", "time_limit")),
        (states.RETRY, Retry(when=5), LATE, ("waiting", "retry")),
        (states.IGNORED, Cancelled(), LATE, ("cancelled", "asked")),
        (states.IGNORED, Paused(), LATE, ("paused", "")),
        (states.IGNORED, Polling(5), LATE, ("waiting", "poll")),
        (states.IGNORED, Ignore(), LATE, ("cancelled", "ignored")),
        (states.IGNORED, Ignore(), REPLACED, ("waiting", "replace")),
        (states.REJECTED, Reject(requeue=True), LATE, ("waiting", "redelivery")),
        (states.REJECTED, Reject(requeue=False), LATE, ("failed", "rejected")),
        (None, None, LATE, ("waiting", "redelivery")),
        (None, None, EARLY, ("failed", "worker_stopped")),
    ],
)
def test_an_end(state, value, task, expected):
    found = end(state, value, task)
    assert (found.state, found.reason) == expected


def test_a_superseded_body_says_nothing():
    assert end(states.IGNORED, Superseded()) is None


def test_a_child_that_is_torn_down_leaves_it_to_its_main_process(monkeypatch):
    monkeypatch.setattr(worker, "in_child", False)
    lifecycle.on_process_init()
    assert end(None, task=EARLY) is None
    assert end(None, task=LATE).state == "waiting"


def test_what_celery_raises_to_stop_a_solo_worker_is_no_error(monkeypatch):
    monkeypatch.setattr(worker_state, "should_terminate", 1)
    assert end(states.FAILURE, NotImplementedError()).reason == "worker_stopped"


def test_the_same_error_is_one_while_the_worker_runs():
    assert end(states.FAILURE, NotImplementedError()).reason == "error"


def test_a_retry_says_when():
    assert end(states.RETRY, Retry(when=5)).delay == 5
    later = datetime.now(UTC) + timedelta(hours=1)
    assert 3500 < end(states.RETRY, Retry(when=later)).delay <= 3600


def test_a_retry_that_is_due_already_says_so():
    past = Retry(when=datetime.now(UTC) - timedelta(seconds=5))
    assert end(states.RETRY, past).delay == 0


def test_a_retry_that_does_not_say_when_has_no_time():
    assert end(states.RETRY, Retry()).delay is None


@pytest.mark.parametrize("state", [states.RETRY, states.IGNORED])
def test_a_message_that_has_a_successor_is_done_with(state):
    value = Polling(5) if state == states.IGNORED else Retry(when=5)
    assert end(state, value).successor


def test_a_message_that_comes_back_has_none():
    assert not end(states.REJECTED, Reject(requeue=True)).successor
    assert not end(None).successor


# -- Said by a body that began mute -----------------------------------------------


def mute(run, begin):
    """A lease that could not be asked for before its body."""
    header = Header(run=run.id, owner="o", task="t")
    return Lease(
        header=header, progress=Progress(), attempts=1, worker="w|m|1", begin=begin
    )


def test_an_end_asks_for_its_lease_first(run, transactional_db):
    def late(store):
        lease.number, lease.begin = number_of(run.begin()), None

    run.create()
    lease = mute(run, late)
    assert not finish(lease, End("succeeded"))
    assert run.snapshot.state == "succeeded"


def test_a_message_that_should_not_have_begun_has_no_end(run, transactional_db):
    def refused(store):
        lease.begin = None

    lease = mute(run, refused)
    assert not finish(lease, End("succeeded"))
    assert run.stored is None
