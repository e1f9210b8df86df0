"""Asking that a run ends, pauses or goes on; and what its row says then."""

import threading

import pytest
from celery.backends.redis import RedisBackend
from celery.result import AsyncResult
from celery.signals import before_task_publish
from django.db import OperationalError

from CeleryProgressbar.celery import app
from channels_progress import publish, runs
from channels_progress.ask import _close
from channels_progress.errors import Forbidden, Invalid, Unavailable
from channels_progress.models import Run
from channels_progress.run import Details
from tests.core import tasks
from tests.core.conftest import (
    before_the_row_is_written,
    endless,
    set_intervals,
    until,
)
from tests.core.hand import Hand, lease
from tests.ports import free_port
from tests.stack import wait_for

pytestmark = pytest.mark.usefixtures("transactional_db")

NOBODY_LISTENS = f"redis://127.0.0.1:{free_port()}/0"


@pytest.fixture
def hop(store, valkey, monkeypatch, declare):
    """A started run whose messages no worker gets, moved by hand."""
    declare(tasks.stoppable, pausable=True)
    use_broker(monkeypatch, valkey.url.replace("/0", "/9"))
    started = runs.start(tasks.stoppable, {"body": "?"}, owner="asker")
    yield Hand(store, started.run)
    monkeypatch.undo()
    publish.connection.cache_clear()


@pytest.fixture
def when_published():
    """`when_published(act)`: `act()` before each message is out, in this test only."""
    receivers = []

    def connect(act):
        receivers.append(lambda **_: act())
        before_task_publish.connect(receivers[-1])

    yield connect
    for receiver in receivers:
        before_task_publish.disconnect(receiver)


def use_broker(monkeypatch, url):
    monkeypatch.setattr(app.conf, "broker_write_url", url)
    publish.connection.cache_clear()


def begun(hop):
    hop.begin()
    return hop.stored.lease


def row(owner="asker"):
    return Run.objects.get(owner=owner)


# -- cancel -----------------------------------------------------------------------


def test_a_queued_run_is_cancelled_at_once(hop):
    assert runs.cancel(hop.id).shown == "cancelled"
    assert row().state == "cancelled"
    assert row().ended
    assert hop.begin().code == "cancelled"


def test_what_the_web_moves_is_one_structured_line_each_in_the_log(hop, caplog):
    caplog.set_level("INFO", "channels_progress")
    for ask in (runs.pause, runs.resume, runs.cancel, runs.cancel):
        ask(hop.id)
    lines = [r.progress for r in caplog.records if hasattr(r, "progress")]
    assert [(line["from"], line["to"], line["reason"]) for line in lines] == [
        ("queued", "paused", ""),
        ("paused", "queued", "resume"),
        ("queued", "cancelled", "asked"),
    ]
    assert {(line["run"], line["task"]) for line in lines} == {(hop.id, "stoppable")}


def test_a_waiting_run_is_cancelled_at_once(hop):
    hop.end(begun(hop), 1, "waiting", reason="retry", next=2)
    assert runs.cancel(hop.id).shown == "cancelled"
    assert row().hop == 2


def test_a_running_run_is_cancelling(hop):
    begun(hop)
    assert runs.cancel(hop.id).shown == "cancelling"
    assert row().ended is None


def test_a_lost_run_is_cancelled_at_once(hop):
    number = begun(hop)
    hop.silence()
    assert runs.cancel(hop.id).shown == "cancelled"
    assert hop.end(number, 1).code == "superseded"


def test_a_paused_run_is_cancelled_at_once(hop):
    runs.pause(hop.id)
    assert runs.cancel(hop.id).shown == "cancelled"
    assert row().state == "cancelled"


def test_a_finished_run_stays_what_it_is(hop):
    hop.end(begun(hop), 1)
    assert runs.cancel(hop.id).shown == "succeeded"


def test_an_end_that_the_history_missed_is_written_by_the_next_cancel(hop):
    hop.cancel()
    assert row().ended is None
    assert runs.cancel(hop.id).shown == "cancelled"
    assert row().state == "cancelled"


def test_a_run_that_the_store_has_lost_is_over_in_the_history(hop):
    hop.lose()
    assert runs.cancel(hop.id).shown == "cancelled"
    assert row().state == "cancelled"


def test_what_was_cancelled_before_the_store_knew_it_never_runs(hop):
    hop.lose()
    runs.cancel(hop.id)
    assert hop.create().state == "cancelled"
    assert hop.begin().code == "cancelled"


def revoked(hop):
    wait_for(lambda: AsyncResult(hop.id).state == "REVOKED", "Celery's result")


def test_celery_says_revoked_where_no_message_comes_that_would(hop):
    runs.pause(hop.id)
    runs.cancel(hop.id)
    revoked(hop)


def test_celery_says_revoked_of_a_lost_run(hop):
    begun(hop)
    hop.silence()
    runs.cancel(hop.id)
    revoked(hop)


def test_nobody_waits_for_celerys_result(hop, monkeypatch):
    begun(hop)
    hop.silence()
    asked, answer, told = threading.Event(), threading.Event(), []

    def hang(*args, **options):
        asked.set()
        answer.wait(10)
        told.append(True)

    monkeypatch.setattr(RedisBackend, "mark_as_revoked", hang)
    assert runs.cancel(hop.id).shown == "cancelled"
    assert asked.wait(10)
    assert not told
    answer.set()
    wait_for(lambda: told, "Celery's result")


def test_an_unknown_run_cannot_be_cancelled(store):
    with pytest.raises(Forbidden):
        runs.cancel("unknown")


def test_without_the_store_nothing_is_asked(hop, settings):
    set_intervals(settings, REDIS_URL=NOBODY_LISTENS)
    for ask in (runs.cancel, runs.pause, runs.resume):
        with pytest.raises(Unavailable):
            ask(hop.id)


# -- pause and resume -------------------------------------------------------------


def test_a_queued_run_is_paused_at_once(hop):
    assert runs.pause(hop.id).shown == "paused"
    assert row().state == "paused"
    assert hop.begin().code == "paused"


def test_a_running_run_is_asked_to_pause(hop):
    begun(hop)
    snapshot = runs.pause(hop.id)
    assert (snapshot.shown, snapshot.asked) == ("running", "pause")


def test_a_run_that_was_resumed_meanwhile_is_not_written_as_paused(hop):
    runs.pause(hop.id)
    runs.resume(hop.id)
    _close(hop.id)  # as the end of a pause that took its time
    assert row().state == ""


def test_a_run_that_has_vanished_meanwhile_is_not_written(hop):
    hop.lose()
    _close(hop.id)
    assert row().state == ""


def test_a_task_that_keeps_no_checkpoints_cannot_be_paused(hop, store):
    other = runs.start(tasks.late, {"body": "?"}, owner="asker")
    with pytest.raises(Invalid, match="keeps no checkpoints"):
        runs.pause(other.run)
    assert runs.get(other.run).state == "queued"


def test_a_paused_run_is_published_again_as_the_next_hop(hop):
    runs.pause(hop.id)
    snapshot = runs.resume(hop.id)
    assert (snapshot.shown, snapshot.reason) == ("queued", "resume")
    assert (row().state, row().hop) == ("", 2)
    assert hop.begin(hop=1).code == "old"
    assert hop.begin(hop=2, kind="resume").code == "begun"


def test_a_cancel_in_the_middle_of_a_resume_stays(hop, when_published):
    runs.pause(hop.id)
    published = []
    when_published(lambda: published.append(True))
    with before_the_row_is_written(lambda: runs.cancel(hop.id)):
        assert runs.resume(hop.id).shown == "cancelled"
    assert (row().state, published) == ("cancelled", [])
    assert row().ended


def test_a_resume_that_the_history_refuses_is_a_pause_again(hop):
    def refuse():
        raise OperationalError("database is locked")

    runs.pause(hop.id)
    with before_the_row_is_written(refuse), pytest.raises(Unavailable):
        runs.resume(hop.id)
    assert (hop.snapshot.state, row().state) == ("paused", "paused")
    assert runs.resume(hop.id).shown == "queued"


def test_a_task_that_has_replaced_the_runs_own_cannot_be_paused(hop):
    number = begun(hop)
    hop.end(number, 1, "waiting", reason="replace", next=2)
    number = lease(hop.begin(hop=2, kind="replace"))
    doc = Details(run=hop.id, task="stoppable").members()  # as it says of itself
    hop.report(number, 1, doc=doc)
    with pytest.raises(Invalid, match="keeps no checkpoints"):
        runs.pause(hop.id)


def test_a_run_that_is_not_paused_is_not_resumed(hop):
    begun(hop)
    assert runs.resume(hop.id).shown == "running"


def test_an_unknown_run_cannot_be_resumed(store):
    with pytest.raises(Forbidden):
        runs.resume("unknown")


def test_a_paused_run_survives_an_emptied_store(hop):
    number = begun(hop)
    hop.report(number, 1, cursor='{"row":4}')
    hop.end(number, 2, "paused", doc=hop.doc(current=4, total=10))
    stored = hop.stored
    runs.history.close(stored.snapshot, hop=stored.hop, cursor=stored.cursor)
    hop.lose()
    snapshot = runs.resume(hop.id)
    assert (snapshot.shown, snapshot.as_dict()["current"]) == ("queued", 4)
    assert hop.begin(hop=2, kind="resume").extra[1] == b'{"row":4}'


def test_a_run_that_the_store_lost_unpaused_is_not_resumed(hop):
    hop.lose()
    assert runs.resume(hop.id).shown == "lost"


def test_a_resume_that_cannot_be_published_is_a_pause_again(hop, monkeypatch):
    runs.pause(hop.id)
    use_broker(monkeypatch, NOBODY_LISTENS)
    with pytest.raises(Unavailable):
        runs.resume(hop.id)
    assert runs.get(hop.id).shown == "paused"
    assert row().state == "paused"
    assert hop.begin(hop=2, kind="resume").code == "paused"


def test_a_resume_that_nobody_can_take_back_is_unavailable(
    hop, settings, monkeypatch, when_published
):
    runs.pause(hop.id)
    use_broker(monkeypatch, NOBODY_LISTENS)
    when_published(lambda: set_intervals(settings, REDIS_URL=NOBODY_LISTENS))
    with pytest.raises(Unavailable):
        runs.resume(hop.id)
    assert hop.snapshot.state == "queued"


def test_a_resumed_run_that_ends_at_once_stays_ended(play, declare, quick):
    declare(tasks.stoppable, pausable=True)
    begun = []

    def body(task):
        begun.append(task)
        if len(begun) == 1:
            endless(task)
        raise ZeroDivisionError

    run = play(body, task=tasks.stoppable)
    until(run, "running")
    runs.pause(run)
    until(run, "paused")
    runs.resume(run)
    until(run, "failed")
    wait_for(lambda: row("player").state == "failed", "the history told as well")


def test_the_history_is_told_before_the_message_is_out(hop, when_published):
    """A run may end before its `resume` returns: its row must not be opened then."""
    runs.pause(hop.id)
    states = []
    when_published(lambda: states.append(row().state))
    runs.resume(hop.id)
    assert states == [""]
