"""What happens before a body, in a real worker: it takes the lease, or does not run."""

import contextlib
import json
import os
import sqlite3
import subprocess
import threading
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis
from celery.result import AsyncResult
from django.db import OperationalError, connection

from CeleryProgressbar.celery import app
from channels_progress import Superseded, begin, history, progress, reporter, runs
from channels_progress.begin import dead
from channels_progress.bury import bury
from channels_progress.current import Progress
from channels_progress.header import Header
from channels_progress.lease import Lease
from channels_progress.models import Run
from channels_progress.record import get_recorder
from channels_progress.reporter import breaker, get_reporter
from channels_progress.store import get_store
from channels_progress.worker import MAIN, Worker
from tests.core import tasks
from tests.core.conftest import NODE, endless, set_intervals, until
from tests.core.hand import Hand, lease
from tests.stack import Valkey, wait_for

OWN = f"{NODE}|{MAIN}|{os.getpid()}"  # how a lease is signed here
OTHER = "elsewhere|abc|1"


@pytest.fixture
def hand(worker, transactional_db, play):
    """A run in the store whose messages are published by the test."""
    return Hand(get_store())


def deliver(
    hand,
    body,
    *,
    task=tasks.late,
    hop=1,
    kind="start",
    pausable=False,
    kept=False,
    queue="celery",
    **more,
):
    """Publish a message of the run; its body does `body(task)`."""
    header = Header(
        run=hand.id,
        owner="o",
        task="late",
        hop=hop,
        kind=kind,
        pausable=pausable,
        kept=kept,
    )
    task.apply_async(
        kwargs=tasks.kwargs_of(body),
        task_id=hand.id,
        headers=header.as_headers(),
        queue=queue,
        **more,
    )


def redeliver(hand, body, **options):
    """The same, as Redis delivers it again after the visibility timeout."""
    queue = uuid.uuid4().hex
    deliver(hand, body, queue=queue, **options)
    client = redis.Redis.from_url(app.conf.broker_url)
    message = json.loads(client.rpop(queue))
    info = message["properties"]["delivery_info"]
    info |= {"redelivered": True, "routing_key": "celery"}
    client.lpush("celery", json.dumps(message))
    client.close()


def finished(hand):
    """The run, once it has ended and its body is over."""
    return until(hand.id, "succeeded")


def closed(hand, state="cancelled", ended=datetime(2026, 1, 1, tzinfo=UTC)):
    """What another writer has said of the run, in the history only."""
    Run.objects.create(
        id=hand.id, owner="o", task="core.late", state=state, document={}, ended=ended
    )


def nothing_runs():
    return not (get_reporter().leases or get_reporter().busy)


def dropped(hand, caplog, why):
    """Wait until a message of this run was dropped; another's may come late."""
    line = f"{hand.id} dropped: {why}"
    wait_for(lambda: line in caplog.text, f"a message of {line}")


# -- The lease is taken -----------------------------------------------------------


def test_the_lease_names_the_process(hand, gate):
    hand.create()
    deliver(hand, lambda task: gate.wait())
    gate.arrival()
    assert hand.stored.worker == OWN
    gate.open()
    finished(hand)


def test_a_begin_is_one_structured_line_in_the_log(hand, caplog):
    hand.create()
    deliver(hand, lambda task: None)
    finished(hand)

    def lines():
        found = [r.progress for r in caplog.records if hasattr(r, "progress")]
        return found if len(found) == 2 else None

    first, last = wait_for(lines, "two lines")
    assert (first["run"], first["from"], first["to"]) == (hand.id, "queued", "running")
    assert (last["from"], last["to"], last["worker"]) == ("running", "succeeded", OWN)


def test_a_process_that_died_here_is_not_waited_for(hand):
    hand.create()
    first = lease(hand.begin(worker=OWN))
    deliver(hand, lambda task: "again")
    assert finished(hand).attempt == 2
    assert hand.stored.lease > first


def test_a_lost_lease_is_taken_over(hand):
    hand.create()
    hand.begin(worker=OTHER)
    hand.silence()
    deliver(hand, lambda task: "again")
    assert finished(hand).attempt == 2


def test_a_redelivery_of_a_lost_run_is_published_afresh(hand):
    hand.create()
    hand.begin(worker=OTHER)
    hand.silence()
    fresh = []
    redeliver(hand, lambda task: fresh.append(dict(task.request.delivery_info)))
    assert finished(hand).attempt == 2
    assert [info["redelivered"] for info in fresh] == [False]


# -- Duplicates -------------------------------------------------------------------


def test_a_duplicate_is_parked_and_never_runs_beside_the_original(
    hand, gate, settings, caplog
):
    set_intervals(settings, LOST_AFTER=1, HEARTBEAT_INTERVAL=0.2)
    begun = []

    def body(task):
        begun.append(task)
        gate.wait()

    hand.create()
    deliver(hand, body)
    gate.arrival()
    deliver(hand, body)
    wait_for(lambda: hand.field("mark"), "the duplicate parked")
    gate.open()
    dropped(hand, caplog, "succeeded")
    assert len(begun) == 1


def test_a_parked_duplicate_takes_over_once_the_original_is_lost(hand, settings):
    set_intervals(settings, LOST_AFTER=1)
    hand.create()
    hand.begin(worker=OTHER)
    deliver(hand, lambda task: "again")
    assert finished(hand).attempt == 2


def test_a_second_duplicate_is_dropped(hand, caplog):
    hand.create()
    hand.begin(worker=OTHER)
    deliver(hand, lambda task: None)
    wait_for(lambda: hand.field("mark"), "the duplicate parked")
    deliver(hand, lambda task: None)
    dropped(hand, caplog, "dropped")
    runs.cancel(hand.id)


def test_two_messages_at_once_in_one_process_run_one_body(hand, settings, caplog):
    set_intervals(settings, LOST_AFTER=1, HEARTBEAT_INTERVAL=0.2)
    begun, pause = [], threading.Event()

    def body(task):
        begun.append(task)
        pause.wait(0.3)

    hand.create()
    for _ in range(8):
        deliver(hand, body)
    finished(hand)
    dropped(hand, caplog, "succeeded")
    assert len(begun) == 1


def test_a_duplicate_that_cannot_be_parked_goes_back(hand, monkeypatch, settings):
    set_intervals(settings, LOST_AFTER=600)
    hand.create()
    hand.begin(worker=OTHER)
    failures = []

    class Failing(type(app.amqp)):
        @property
        def send_task_message(self):
            def refuse(*args, **kwargs):
                failures.append(args)
                raise OSError("the broker is gone")

            return refuse

    deliver(hand, lambda task: "again")
    with monkeypatch.context() as patched:
        patched.setattr(app.amqp, "__class__", Failing)
        wait_for(lambda: len(failures) > 1, "the message back, and again")
    wait_for(lambda: hand.field("mark"), "the duplicate parked")
    runs.cancel(hand.id)


# -- Refused ----------------------------------------------------------------------


@pytest.mark.parametrize("state", ["succeeded", "failed", "paused"])
def test_a_message_of_a_run_that_is_over_or_paused_is_dropped(hand, caplog, state):
    hand.create()
    hand.end(lease(hand.begin()), 1, state)
    deliver(hand, lambda task: pytest.fail("it ran"))
    dropped(hand, caplog, state)
    assert hand.snapshot.state == state


def test_a_message_of_a_cancelled_run_is_dropped_and_celery_says_revoked(hand, caplog):
    hand.create()
    hand.cancel()
    deliver(hand, lambda task: pytest.fail("it ran"))
    dropped(hand, caplog, "cancelled")
    wait_for(lambda: AsyncResult(hand.id).state == "REVOKED", "Celery's result")


def test_a_message_of_an_older_hop_is_dropped(hand, caplog):
    hand.create()
    hand.end(lease(hand.begin()), 1, "waiting", next=2)
    deliver(hand, lambda task: pytest.fail("it ran"))
    dropped(hand, caplog, "old")


def test_a_cancel_that_nobody_could_hear_is_fulfilled(hand):
    Run.objects.create(id=hand.id, owner="o", task="core.late")
    hand.create()
    hand.begin(worker=OTHER)
    hand.cancel()
    hand.silence()
    deliver(hand, lambda task: pytest.fail("it ran"))
    until(hand.id, "cancelled")
    wait_for(lambda: AsyncResult(hand.id).state == "REVOKED", "Celery's result")
    wait_for(lambda: Run.objects.get(pk=hand.id).state == "cancelled", "the row")


def test_a_pause_that_nobody_could_hear_is_fulfilled(hand):
    Run.objects.create(id=hand.id, owner="o", task="core.late")
    hand.create()
    hand.begin(worker=OTHER)
    hand.pause()
    hand.silence()
    deliver(hand, lambda task: pytest.fail("it ran"))
    until(hand.id, "paused")
    wait_for(lambda: Run.objects.get(pk=hand.id).state == "paused", "the row")


def test_a_message_that_began_three_times_in_vain_has_failed(hand):
    Run.objects.create(id=hand.id, owner="o", task="core.late")
    hand.create()
    for _ in range(3):
        hand.begin(worker=OTHER)
        hand.silence()
    deliver(hand, lambda task: pytest.fail("it ran"))
    snapshot = until(hand.id, "failed")
    sentence = "Its worker stopped 3 times."
    assert snapshot.as_dict()["error"] == {"message": sentence}
    wait_for(lambda: AsyncResult(hand.id).state == "FAILURE", "Celery's result")
    wait_for(lambda: Run.objects.get(pk=hand.id).state == "failed", "the row")


# -- The store has lost the run ---------------------------------------------------


def test_what_nobody_knows_is_made_again(hand):
    deliver(hand, lambda task: "done")
    snapshot = finished(hand)
    assert (snapshot.attempt, snapshot.owner) == (1, "o")


def test_a_retry_that_nobody_knows_is_the_attempt_that_its_message_says(hand):
    deliver(hand, lambda task: "done", hop=3, kind="retry", retries=2)
    assert finished(hand).attempt == 3


def test_a_redelivery_that_nobody_knows_is_another_attempt(hand):
    """What a viewer has seen of the one before must not run backwards."""
    redeliver(hand, lambda task: "done")
    assert finished(hand).attempt == 2


def test_a_poll_after_a_retry_that_nobody_knows_is_the_same_attempt(hand):
    deliver(hand, lambda task: "done", hop=3, kind="poll", retries=1)
    assert finished(hand).attempt == 2


def test_the_cursor_of_the_history_is_gone_on_from(hand):
    Run.objects.create(id=hand.id, owner="o", task="core.late", cursor='{"row":4}')
    cursors = []
    deliver(hand, lambda task: cursors.append(progress.cursor))
    finished(hand)
    assert cursors == [{"row": 4}]


def test_what_the_history_says_is_cancelled_is_revoked(hand, caplog):
    closed(hand)
    deliver(hand, lambda task: pytest.fail("it ran"))
    wait_for(lambda: AsyncResult(hand.id).state == "REVOKED", "Celery's result")
    assert hand.stored is None


@pytest.mark.parametrize("state", ["succeeded", "paused"])
def test_what_is_over_or_paused_in_the_history_does_not_run(hand, state):
    Run.objects.create(id=hand.id, owner="o", task="core.late", state=state)
    ran = []
    deliver(hand, ran.append)
    wait_for(lambda: get_store().client.llen("celery") == 0, "the message taken")
    deliver(other := Hand(get_store()), lambda task: "later")
    finished(other)
    assert not ran
    assert hand.stored is None


def test_a_history_that_cannot_be_read_keeps_nothing_from_running(hand):
    with hidden_table():
        deliver(hand, lambda task: "done")
        wait_for(lambda: hand.stored and hand.snapshot.finished, "the end")
    wait_for(Run.objects.filter(pk=hand.id, state="succeeded").exists, "the row")


def test_what_comes_again_waits_for_a_history_that_cannot_be_read(hand, quick, caplog):
    """The store has lost the run, and the history alone knows of its end."""
    closed(hand, "succeeded")
    with hidden_table():
        redeliver(hand, lambda task: pytest.fail("it ran"))
        wait_for(lambda: caplog.text.count(f"{hand.id}] ignored") > 1, "it is put off")
        assert hand.stored is None
    dropped(hand, caplog, "succeeded")


def test_a_history_that_cannot_be_read_is_asked_once_for_many(store, play, monkeypatch):
    """The store answers, and says that their workers are silent."""
    asked = []

    def fail(ids):
        asked.append(ids)
        raise OperationalError("the database hangs")

    hands = [Hand(store) for _ in range(3)]
    monkeypatch.setattr(begin, "REST", 60)
    with monkeypatch.context() as broken:
        broken.setattr(history, "read", fail)
        for hand in hands:
            hand.create()
            redeliver(hand, lambda task: None)
        for hand in hands:
            wait_for(
                lambda h=hand: h.stored.snapshot.state == "succeeded", "it has run"
            )
    assert len(asked) == 1


def test_what_has_a_cursor_waits_for_a_history_that_cannot_be_read(hand, quick, caplog):
    Run.objects.create(id=hand.id, owner="o", task="core.late", cursor='{"row":4}')
    cursors = []
    with hidden_table():
        deliver(hand, lambda task: cursors.append(progress.cursor), kind="poll")
        wait_for(lambda: f"{hand.id}] ignored" in caplog.text, "it is put off")
    finished(hand)
    assert cursors == [{"row": 4}]


class hidden_table:
    """The history cannot be read or written, by anybody."""

    def __enter__(self):
        self.rename("channels_progress_run", "hidden")

    def __exit__(self, *exc):
        self.rename("hidden", "channels_progress_run")

    def rename(self, old, new):
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {old} RENAME TO {new}")


# -- The store does not answer ----------------------------------------------------


@pytest.fixture(scope="module")
def other_server(tmp_path_factory):
    server = Valkey(tmp_path_factory.mktemp("away"))
    yield server.start()
    server.close()


@pytest.fixture
def away(other_server, settings, hand):
    """A store of its own, which the test may stop; the broker stays up."""
    server, url = other_server, settings.CHANNELS_PROGRESS["REDIS_URL"]
    server.flush()
    set_intervals(settings, REDIS_URL=server.url, HEARTBEAT_INTERVAL=0.1)
    reporter._forget()  # as in a new process
    yield server
    if not server.running:
        server.start()
    wait_for(lambda: not (breaker.open or get_reporter().busy), "everything said")
    set_intervals(settings, REDIS_URL=url)
    reporter._forget()


@pytest.fixture
def far(away):
    """A run in that store."""
    return Hand(get_store())


def test_a_body_runs_mute_until_the_store_answers(far, away, gate):
    far.create()
    away.kill()
    deliver(far, lambda task: (progress.set(4, total=10), gate.wait()))
    gate.arrival()
    away.start()
    snapshot = until(far.id, "running")
    assert snapshot.attempt == 1
    wait_for(lambda: runs.get(far.id).as_dict()["current"] == 4, "the numbers")
    gate.open()
    finished(far)


def test_a_body_that_ends_while_the_store_is_away_is_said_later(far, away):
    far.create()
    away.kill()
    done = threading.Event()
    deliver(far, lambda task: done.set() or {"n": 3})
    assert done.wait(10)
    wait_for(lambda: get_reporter().later, "the end kept")
    away.start()
    assert finished(far).as_dict()["result"] == {"n": 3}


def test_a_store_that_died_in_the_middle_gets_the_end_later(far, away, gate):
    far.create()
    deliver(far, lambda task: gate.wait())
    gate.arrival()
    away.kill()
    gate.open()
    wait_for(lambda: get_reporter().later, "the end kept")
    away.start()
    assert finished(far).attempt == 1


def test_many_short_tasks_spend_the_time_for_a_dead_store_once(far, away):
    hands = [Hand(get_store()) for _ in range(30)]
    for hand in hands:
        hand.create()
    done = []
    away.freeze()
    since = time.monotonic()
    for hand in hands:
        deliver(hand, done.append)
    wait_for(lambda: len(done) == 30, "the bodies")
    took = time.monotonic() - since
    away.thaw()
    for hand in hands:
        finished(hand)
    assert took < 15  # s; not 30 x 1 s


def test_what_comes_late_never_takes_a_lease_that_speaks(far, away, settings, caplog):
    """Its message comes once more, for whoever holds the lease may need it."""
    caplog.set_level("INFO", "channels_progress")
    set_intervals(settings, LOST_AFTER=3)
    far.create()
    speaking = lease(far.begin(worker=OTHER))
    away.freeze()
    stopped = threading.Event()

    def body(task):
        try:
            endless(task)
        except Superseded:
            stopped.set()
            raise

    deliver(far, body)
    wait_for(lambda: breaker.open, "the outage noticed")
    away.thaw()
    assert stopped.wait(10)
    assert far.stored.lease == speaking
    far.end(speaking, 1)
    dropped(far, caplog, "succeeded")


def test_a_redelivery_in_an_outage_waits_for_the_store(far, away, caplog):
    """The first may still run, somewhere."""
    far.create()
    far.begin(worker=OTHER)
    far.silence()
    away.freeze()
    begun = []
    redeliver(far, lambda task: begun.append(breaker.open))
    wait_for(lambda: f"{far.id}] ignored" in caplog.text, "it is put off")
    away.thaw()
    assert finished(far).attempt == 2
    assert begun == [False]


def test_no_body_begins_mute_beside_another_of_its_process(
    far, away, gate, settings, caplog
):
    """The store cannot be asked, but this process knows: the message waits."""
    caplog.set_level("INFO", "channels_progress")
    set_intervals(settings, LOST_AFTER=1)
    far.create()
    deliver(far, lambda task: gate.wait())
    gate.arrival()
    away.freeze()
    wait_for(lambda: breaker.open, "the outage noticed")
    deliver(far, lambda task: pytest.fail("it ran"))
    wait_for(lambda: "ignored" in caplog.text, "the message put off")
    away.thaw()
    gate.open()
    assert finished(far).attempt == 1
    dropped(far, caplog, "succeeded")


@pytest.mark.parametrize(
    ("why", "attempt"), [("resume", 1), ("retry", 2), ("kept", 2), ("poll", 1)]
)
def test_what_has_a_cursor_does_not_begin_without_it(far, away, caplog, why, attempt):
    far.create()
    number = lease(far.begin(worker=OTHER))
    far.report(number, 1, cursor='{"row":4}')
    if why == "resume":
        far.end(number, 2, "paused")
        far.resume()
    else:
        far.end(number, 2, "waiting", next=2)
    away.freeze()
    cursors = []
    message = {"kind": why, "pausable": why in ("resume", "retry")}
    if why == "kept":
        message |= {"kind": "retry", "kept": True}
    deliver(far, lambda task: cursors.append(progress.cursor), hop=2, **message)
    wait_for(lambda: caplog.text.count(f"{far.id}] ignored") > 2, "put off, and again")
    away.thaw()
    assert finished(far).attempt == attempt
    assert cursors == [{"row": 4}]


@pytest.mark.parametrize("state", ["cancelled", "succeeded"])
def test_what_is_over_in_the_history_does_not_begin_in_an_outage(
    far, away, caplog, state
):
    caplog.set_level("INFO", "channels_progress")
    far.create()
    closed(far, state)
    away.kill()
    deliver(far, lambda task: pytest.fail("it ran"))
    wait_for(lambda: f"{far.id}] ignored" in caplog.text, "the message put off")


def test_an_older_message_does_not_begin_beside_a_later_one(far, away, gate, caplog):
    far.create()
    far.end(lease(far.begin()), 1, "waiting", next=2)
    deliver(far, lambda task: gate.wait(), hop=2, kind="retry")
    gate.arrival()
    away.freeze()
    deliver(far, lambda task: pytest.fail("it ran"))
    wait_for(lambda: f"{far.id}] ignored" in caplog.text, "the message put off")
    away.thaw()
    gate.open()
    assert finished(far).attempt == 2


def test_an_end_in_an_outage_is_in_the_history_at_once(far, away):
    """This process may be killed before the store is back."""
    far.create()
    Run.objects.create(id=far.id, owner="o", task="core.late")
    away.kill()
    deliver(far, lambda task: "done")
    row = wait_for(lambda: Run.objects.filter(pk=far.id, state="succeeded"), "the end")
    assert (row[0].document["result"], row[0].owner) == ("done", "o")
    assert row[0].document["early"]
    away.start()
    after = finished(far)
    wait_for(lambda: "early" not in row.all()[0].document, "the store's own word")
    assert row.all()[0].document["ended"] == after.ended


@pytest.fixture
def written(monkeypatch):
    """Whether each end was written early; with `written.fails`, none can be."""
    written, close = SimpleNamespace(early=[], fails=False), history.close

    def note(snapshot, *, early=False, **more):
        if written.fails:
            raise OperationalError("the database is down")
        written.early.append(early)
        close(snapshot, early=early, **more)

    monkeypatch.setattr(history, "close", note)
    return written


def test_an_early_end_that_waits_for_the_database_may_be_needless(far, away, written):
    """The store is back by then, and its word is the one to be written."""
    far.create()
    away.kill()
    written.fails = True
    deliver(far, lambda task: None)
    wait_for(lambda: get_recorder()._behind, "the row owed")
    away.start()
    finished(far)
    written.fails = False
    wait_for(lambda: written.early, "the row")
    get_recorder().drain(10)
    assert written.early == [False]


def test_what_the_history_calls_over_does_not_begin_again(hand, caplog):
    """The store has missed its end, and its worker seems lost."""
    hand.create()
    hand.begin(worker=OTHER)
    hand.silence()
    closed(hand, "succeeded")
    caplog.set_level("INFO", "channels_progress")
    redeliver(hand, lambda task: pytest.fail("it ran"))
    dropped(hand, caplog, "succeeded")
    assert hand.stored.snapshot.attempt == 1


def test_of_two_bodies_in_one_process_the_older_stops(hand, gate, slow):
    """Nobody would carry its beats, so it would never hear of it."""
    stopped = threading.Event()

    def body(task):
        try:
            gate.wait()
            endless(task)
        except Superseded:
            stopped.set()
            raise

    hand.create()
    deliver(hand, body)
    gate.arrival()
    hand.silence()
    deliver(hand, lambda task: gate.open() or stopped.wait(10))
    assert finished(hand).attempt == 2
    assert stopped.is_set()


def test_an_end_that_its_writer_died_of_is_written_by_the_next_message(hand, caplog):
    caplog.set_level("INFO", "channels_progress")
    Run.objects.create(id=hand.id, owner="o", task="core.late")
    hand.end(hand.running(), 1, "failed")
    deliver(hand, lambda task: pytest.fail("it ran"))
    dropped(hand, caplog, "failed")
    assert Run.objects.get(pk=hand.id).state == "failed"


def test_a_process_that_waits_for_the_store_has_nothing_to_say(far, away, caplog):
    caplog.set_level("INFO", "channels_progress")
    far.create()
    away.kill()
    deliver(far, lambda task: None, kind="poll")
    wait_for(lambda: f"{far.id}] ignored" in caplog.text, "the message put off")
    get_reporter().drain(10)
    assert "still under way" not in caplog.text
    away.start()
    finished(far)


def test_a_retry_in_an_outage_is_the_next_attempt(far, away):
    def body(task):
        if task.request.retries == 0:
            progress.set(3)
            away.kill()
            raise task.retry(countdown=1)
        return "second"

    far.create()
    deliver(far, body)
    wait_for(lambda: breaker.open, "the outage noticed")
    away.start()
    assert finished(far).attempt == 2


def test_a_run_comes_back_though_the_history_cannot_be_read(far, away, gate, quick):
    far.create()
    deliver(far, lambda task: gate.wait())
    gate.arrival()
    with hidden_table():
        far.lose()
        wait_for(lambda: far.stored, "the run back")
    gate.open()
    finished(far)


def test_a_database_that_hangs_silences_no_run(far, away, gate):
    other = Hand(get_store())
    for hand in (far, other):
        hand.create()
    deliver(other, lambda task: gate.wait())
    gate.arrival()
    away.freeze()
    deliver(far, lambda task: "done")
    wait_for(lambda: get_reporter().later, "the end kept")
    with contextlib.closing(sqlite3.connect(connection.settings_dict["NAME"])) as lock:
        lock.execute("BEGIN IMMEDIATE")
        away.thaw()
        wait_for(lambda: far.snapshot.finished, "the end said")
        seen = other.snapshot.seen
        wait_for(lambda: other.snapshot.seen > seen, "a beat", timeout=10)
    gate.open()
    finished(other)


def test_what_should_not_have_begun_says_no_end(far, away):
    far.create()
    far.end(lease(far.begin(worker=OTHER)), 1, "failed")
    away.freeze()
    done = threading.Event()
    deliver(far, lambda task: done.set())
    assert done.wait(10)
    wait_for(lambda: get_reporter().later, "the end kept")
    away.thaw()
    wait_for(lambda: not get_reporter().later, "the end said")
    assert far.snapshot.state == "failed"


def test_a_run_that_the_store_lost_comes_back_with_everything(far, away, gate, quick):
    far.create()

    def body(task):
        progress.set(4, total=10)
        progress.checkpoint({"row": 4})
        gate.wait()

    deliver(far, body)
    gate.arrival()
    wait_for(lambda: far.stored.cursor, "the report")
    before = far.snapshot
    far.lose()
    wait_for(lambda: far.stored, "the run back")
    after = far.snapshot
    assert after.epoch != before.epoch
    assert (after.attempt, after.started) == (before.attempt, before.started)
    assert after.as_dict()["current"] == 4
    assert (far.stored.cursor, after.owner) == ('{"row":4}', "o")
    gate.open()
    finished(far)


def test_a_run_that_was_claimed_comes_back_as_its_new_owners(far, away, gate, quick):
    far.create()
    deliver(far, lambda task: gate.wait())
    gate.arrival()
    Run.objects.create(id=far.id, owner="user:1", task="core.late")
    far.lose()
    wait_for(lambda: far.stored, "the run back")
    assert far.snapshot.owner == "user:1"
    gate.open()
    finished(far)


def test_an_end_after_the_store_lost_the_run_is_kept(far, away, gate, slow):
    far.create()
    deliver(far, lambda task: gate.wait())
    gate.arrival()
    far.lose()
    gate.open()
    assert finished(far).owner == "o"


@pytest.mark.parametrize("fate", ["end", "bury"])
def test_a_run_without_a_row_gets_one_with_its_owner(hand, fate):
    hand.create()
    if fate == "end":
        deliver(hand, lambda task: None)
    else:
        header = Header(run=hand.id, owner="o", task="late")
        bury(header, "failed", "error", {"message": "It died."})
    row = wait_for(lambda: Run.objects.filter(pk=hand.id).first(), "the row")
    assert row.owner == "o"


def test_an_end_that_the_history_has_is_not_said_again(far, away, gate, slow):
    far.create()
    deliver(far, lambda task: gate.wait())
    gate.arrival()
    runs.cancel(far.id)
    closed(far)
    far.lose()
    gate.open()
    wait_for(nothing_runs, "the body over")
    assert far.stored is None
    assert Run.objects.get(pk=far.id).state == "cancelled"


def test_a_run_that_another_has_paused_is_not_brought_back(far, away, quick):
    far.create()
    deliver(far, endless)
    until(far.id, "running")
    closed(far, state="paused", ended=None)
    far.lose()
    wait_for(lambda: not get_reporter().leases, "the body stopped")
    assert far.stored is None
    assert runs.get(far.id).shown == "paused"


def test_a_run_that_the_history_says_is_over_stops(far, away, quick):
    far.create()
    deliver(far, endless)
    until(far.id, "running")
    closed(far)
    far.lose()
    wait_for(lambda: not get_reporter().leases, "the body stopped")
    assert runs.get(far.id).shown == "cancelled"


# -- Whose process is dead --------------------------------------------------------


@pytest.fixture
def asking():
    header = Header(run=str(uuid.uuid4()), owner="o", task="t")
    return Lease(header=header, progress=Progress(), attempts=1, worker=OWN)


def test_another_workers_process_is_not_known_to_be_dead(asking):
    for holder in ("elsewhere|abc|1", "", f"{NODE}|{MAIN}|?"):
        assert not dead(Worker.of(holder), 7, asking)


def test_a_living_child_is_not_dead(asking):
    assert not dead(Worker(NODE, MAIN, os.getppid()), 7, asking)


def test_a_child_that_is_gone_is_dead(asking):
    child = subprocess.Popen(["true"])
    child.wait()
    assert dead(Worker(NODE, MAIN, child.pid), 7, asking)


def test_a_child_that_nobody_waited_for_is_dead(asking):
    child = subprocess.Popen(["true"])
    stat = Path(f"/proc/{child.pid}/stat")
    wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] == "Z", "a zombie")
    try:
        assert dead(Worker(NODE, MAIN, child.pid), 7, asking)
    finally:
        child.wait()


def test_what_this_process_does_not_hold_is_dead(asking, store):
    assert dead(Worker.of(OWN), 7, asking)


@pytest.mark.parametrize("number", [0, 7])
def test_what_this_process_holds_or_asks_for_is_not_dead(asking, store, number):
    holder = Lease(
        header=asking.header,
        progress=Progress(),
        attempts=1,
        worker=OWN,
        number=number,
    )
    get_reporter().busy.add(holder)
    try:
        assert not dead(Worker.of(OWN), 7, asking)
    finally:
        get_reporter().busy.discard(holder)
