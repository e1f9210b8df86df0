"""A message as a worker's main process sees it: it speaks where a child cannot."""

import os
import subprocess
import uuid
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from billiard.einfo import ExceptionInfo
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.concurrency.prefork import TaskPool
from celery.result import AsyncResult
from celery.worker import state as worker_state
from celery.worker.request import Request

from CeleryProgressbar.celery import app
from channels_progress import publish, runs
from channels_progress.bury import bury
from channels_progress.errors import Invalid, Unavailable
from channels_progress.force import force
from channels_progress.header import Header
from channels_progress.models import Run
from channels_progress.reporter import get_reporter
from channels_progress.request import ProgressRequest, progress_force
from channels_progress.worker import MAIN
from tests.core import tasks
from tests.core.conftest import set_intervals, until
from tests.core.hand import Hand
from tests.ports import free_port
from tests.stack import wait_for

CHILD = 4_000_000  # above every process id of Linux
ITS_CHILD = f"node|{MAIN}|{CHILD}"


@pytest.fixture
def hand(store, transactional_db):
    """A run that a child of this worker has begun."""
    hand = Hand(store)
    hand.create()
    hand.begin(worker=ITS_CHILD)
    Run.objects.create(id=hand.id, owner="o", task="core.late")
    yield hand
    get_reporter().drain(10)


@pytest.fixture
def receive(valkey):
    """The request that a main process makes of the run's message."""

    def receive(hand, task=tasks.early, header=True, pid=CHILD):
        queue = uuid.uuid4().hex
        headers = Header(run=hand.id, owner="o", task="t").as_headers()
        task.apply_async(
            kwargs={"body": "?"},
            task_id=hand.id,
            headers=headers if header else {},
            queue=queue,
        )
        with app.connection_for_read() as broker, broker.SimpleQueue(queue) as waiting:
            message = waiting.get(timeout=10)
            request = ProgressRequest(message, app=app, task=task, hostname="node")
            message.ack()
        request.worker_pid, request.time_start = pid, 1.0
        return request

    return receive


@pytest.fixture
def lose(monkeypatch):
    """Tell the request that its child died of an error."""

    def lose(request, error):
        try:
            raise error
        except BaseException:
            request.on_failure(ExceptionInfo())

    return lose


def state_of(hand):
    return hand.snapshot.state, hand.snapshot.reason


# -- A child that is killed -------------------------------------------------------


def test_a_hard_time_limit_is_said_while_the_child_still_lives(hand, receive):
    receive(hand).on_timeout(False, 3.0)
    assert state_of(hand) == ("failed", "time_limit")
    sentence = "It took longer than it may (3 s)."
    assert hand.snapshot.as_dict()["error"] == {"message": sentence}
    wait_for(lambda: Run.objects.get(pk=hand.id).state == "failed", "the row")


def test_a_soft_time_limit_is_the_bodys_to_say(hand, receive):
    receive(hand).on_timeout(True, 3.0)
    assert hand.snapshot.state == "running"


def test_a_hard_limit_that_puts_the_message_back_is_no_end(hand, receive, monkeypatch):
    monkeypatch.setattr(tasks.late, "acks_on_timeout", False)
    receive(hand, tasks.late).on_timeout(False, 3.0)
    assert hand.snapshot.state == "running"


def test_a_hard_limit_is_said_once(hand, receive, lose):
    request = receive(hand)
    request.on_timeout(False, 3.0)
    before = hand.rev
    lose(request, TimeLimitExceeded(3.0))
    assert hand.rev == before


@pytest.mark.parametrize("error", [WorkerLostError("killed"), SystemExit(1)])
def test_a_lost_child_is_said_where_the_message_does_not_come_back(
    hand, receive, lose, error
):
    lose(receive(hand), error)
    assert state_of(hand) == ("failed", "worker_lost")
    sentence = "Its worker process died."
    assert hand.snapshot.as_dict()["error"] == {"message": sentence}


def test_a_lost_child_is_not_said_where_the_message_comes_back(hand, receive, lose):
    lose(receive(hand, tasks.late), WorkerLostError("killed"))
    assert hand.snapshot.state == "running"


@pytest.mark.parametrize("task", [tasks.early, tasks.late])
def test_a_child_that_was_lost_after_its_success_has_succeeded(
    hand, receive, lose, task
):
    """Celery puts no message back then, whatever `reject_on_worker_lost` says."""
    app.backend.store_result(hand.id, "done", "SUCCESS")
    lose(receive(hand, task), WorkerLostError("killed"))
    assert hand.snapshot.state == "succeeded"


def test_a_lost_child_has_failed_where_its_last_retry_was_taken(
    hand, receive, lose, monkeypatch
):
    """Celery puts no message back then, whatever `reject_on_worker_lost` says."""
    monkeypatch.setattr(tasks.late, "retry_on_worker_lost", True)
    monkeypatch.setattr(tasks.late, "max_retries", 0)
    lose(receive(hand, tasks.late), WorkerLostError("killed"))
    assert state_of(hand) == ("failed", "worker_lost")


def test_a_lost_child_whose_message_is_published_again_is_not_said(
    hand, receive, lose, monkeypatch
):
    monkeypatch.setattr(tasks.early, "retry_on_worker_lost", True)
    monkeypatch.setattr(Request, "_retry_worker_lost", lambda *args: True)
    lose(receive(hand), WorkerLostError("killed"))
    assert hand.snapshot.state == "running"


def test_an_error_of_the_body_is_the_childs_to_say(hand, receive, lose):
    lose(receive(hand), ValueError("no"))
    assert hand.snapshot.state == "running"


def test_what_was_revoked_is_not_lost_as_well(hand, receive, lose):
    request = receive(hand)
    request._already_revoked = True
    lose(request, WorkerLostError("killed"))
    assert hand.snapshot.state == "running"


def test_another_process_is_left_alone(hand, receive):
    receive(hand, pid=CHILD + 1).on_timeout(False, 3.0)
    assert hand.snapshot.state == "running"


def test_another_workers_process_is_left_alone(store, receive, transactional_db):
    other = Hand(store)
    other.create()
    other.begin(worker=f"node|another|{CHILD}")
    receive(other).on_timeout(False, 3.0)
    assert other.snapshot.state == "running"


def test_a_message_of_no_run_says_nothing(hand, receive):
    receive(hand, header=False).on_timeout(False, 3.0)
    assert hand.snapshot.state == "running"


def test_what_the_child_left_waiting_is_refined(hand, receive):
    hand.end(hand.stored.lease, 1, "waiting", reason="redelivery")
    receive(hand).on_timeout(False, 3.0)
    assert state_of(hand) == ("failed", "time_limit")


def test_a_run_that_the_store_lost_is_not_buried(hand, receive):
    hand.lose()
    receive(hand).on_timeout(False, 3.0)
    assert hand.stored is None


# -- A worker that stops, or is told to -------------------------------------------


def test_a_worker_that_stops_at_once_says_so_where_nothing_comes_back(hand, receive):
    receive(hand)._announce_cancelled(emit_retry=False)
    assert state_of(hand) == ("failed", "worker_stopped")


def test_a_worker_that_stops_at_once_puts_the_message_back(hand, receive):
    receive(hand, tasks.late)._announce_cancelled(emit_retry=False)
    assert hand.snapshot.state == "running"


@pytest.mark.parametrize("why", ["expired", "revoked"])
def test_a_copy_that_is_dropped_leaves_the_running_one_alone(hand, receive, why):
    receive(hand)._announce_revoked(why, False, None, why == "expired")
    assert hand.snapshot.state == "running"


def test_a_copy_that_is_dropped_was_the_last_of_a_lost_run(hand, receive):
    hand.silence()
    receive(hand)._announce_revoked("expired", False, None, True)
    assert state_of(hand) == ("cancelled", "expired")


def test_after_an_outage_a_dropped_copy_ends_nothing(hand, receive, settings):
    """Who seems lost may be about to speak."""
    hand.silence()
    request, reporter = receive(hand), get_reporter()
    set_intervals(settings, REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    request._announce_revoked("expired", False, None, True)
    reporter.drain(10)
    assert hand.snapshot.state == "running"


def test_a_revoked_child_is_cancelled(hand, receive):
    receive(hand)._announce_revoked("terminated", True, 15, False)
    assert state_of(hand) == ("cancelled", "revoked")


# -- Messages that a real worker drops --------------------------------------------


def deliver(hand, name="core.late", **options):
    header = Header(run=hand.id, owner="o", task="late")
    app.send_task(
        name,
        kwargs=tasks.kwargs_of(lambda task: pytest.fail("it ran")),
        task_id=hand.id,
        headers=header.as_headers(),
        **options,
    )


@pytest.fixture
def queued(worker, store, transactional_db):
    hand = Hand(store)
    hand.create()
    yield hand
    get_reporter().drain(10)


def test_an_expired_message_is_cancelled_with_the_reason(queued):
    deliver(queued, expires=datetime(2020, 1, 1, tzinfo=UTC))
    snapshot = until(queued.id, "cancelled")
    assert snapshot.reason == "expired"
    assert snapshot.as_dict()["error"] == {"message": "It was not begun in time."}


def test_a_revoked_message_is_cancelled_with_the_reason(queued):
    worker_state.revoked.add(queued.id)
    deliver(queued)
    snapshot = until(queued.id, "cancelled")
    assert snapshot.reason == "revoked"
    assert snapshot.as_dict()["error"] == {"message": "It was revoked."}
    wait_for(lambda: AsyncResult(queued.id).state == "REVOKED", "Celery's result")


def test_a_revoke_that_comes_after_the_message_is_honoured(queued):
    """Threads and greenlets: Celery runs what it had reserved already."""
    task = app.tasks["core.late"]
    task.push_request(id=queued.id, headers={}, called_directly=False)
    task.request.headers = Header(run=queued.id, owner="o", task="t").as_headers()
    worker_state.revoked.add(queued.id)
    try:
        with pytest.raises(Exception, match="It was revoked"):
            task.before_start(queued.id, (), {})
    finally:
        task.pop_request()
    assert state_of(queued) == ("cancelled", "revoked")


def test_a_task_that_no_worker_knows_has_failed(queued):
    deliver(queued, "core.unknown")
    snapshot = until(queued.id, "failed")
    assert snapshot.reason == "unknown_task"
    assert snapshot.as_dict()["error"] == {"message": "No worker knows this task."}


def test_an_unknown_plain_task_is_nobodys_run(queued, caplog):
    app.send_task("core.unknown", task_id=queued.id)
    wait_for(lambda: "unregistered task" in caplog.text, "the message dropped")
    assert queued.snapshot.state == "queued"


# -- The store is away ------------------------------------------------------------


def test_a_burial_is_kept_until_the_store_answers(hand, settings):
    reporter = get_reporter()
    url = settings.CHANNELS_PROGRESS["REDIS_URL"]
    set_intervals(settings, REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    header = Header(run=hand.id, owner="o", task="t")
    bury(header, "failed", "worker_lost", {"message": "It died."}, CHILD)
    set_intervals(settings, REDIS_URL=url)
    wait_for(lambda: hand.snapshot.finished, "the burial")
    assert state_of(hand) == ("failed", "worker_lost")
    wait_for(lambda: not reporter.later, "nothing left")


# -- Force ------------------------------------------------------------------------


def test_threads_cannot_be_ended_by_force(play, gate):
    run = play(lambda task: gate.wait())
    gate.arrival()
    with pytest.raises(Invalid, match="pool “threads” cannot be ended by force"):
        runs.cancel(run, force=True)
    assert runs.get(run).shown == "cancelling"
    gate.open()
    until(run, "succeeded")


def test_a_worker_that_is_gone_cannot_be_forced(worker, hand):
    hand.begin(hop=2, worker="gone@nowhere|abc|1")
    with pytest.raises(Invalid, match="did not answer"):
        runs.cancel(hand.id, force=True)


@pytest.fixture
def unreachable(settings, monkeypatch):
    """Where nobody listens."""
    return f"redis://127.0.0.1:{free_port()}/0"


def test_without_the_store_nothing_is_forced(hand, settings, unreachable):
    set_intervals(settings, REDIS_URL=unreachable)
    with pytest.raises(Unavailable):
        force(hand.id)


def test_without_the_broker_nothing_is_forced(hand, monkeypatch, unreachable):
    monkeypatch.setattr(app.conf, "broker_write_url", unreachable)
    publish.connection.cache_clear()
    try:
        with pytest.raises(Unavailable):
            force(hand.id)
    finally:
        publish.connection.cache_clear()


@pytest.mark.parametrize("lost", [True, False])
def test_what_nobody_runs_is_not_forced(hand, lost):
    hand.lose() if lost else hand.end(hand.stored.lease, 1)
    assert force(hand.id) is None


def test_what_is_over_needs_no_force(hand):
    hand.end(hand.stored.lease, 1)
    assert runs.cancel(hand.id, force=True).shown == "succeeded"


@pytest.fixture
def prefork():
    """What a control command is given by a worker of pool prefork."""
    pool = TaskPool(1, app=app)
    pool.terminate_job = os.kill
    consumer = SimpleNamespace(pool=pool)
    return SimpleNamespace(consumer=consumer)


def test_the_process_that_the_lease_names_is_killed(store, receive, prefork, hand):
    with subprocess.Popen(["sleep", "60"]) as child:
        hand.begin(hop=2, worker=f"node|{MAIN}|{child.pid}")
        hand.cancel()
        request = receive(hand, pid=child.pid)
        worker_state.active_requests.add(request)
        try:
            answer = progress_force(prefork, id=hand.id, pid=child.pid)
        finally:
            worker_state.active_requests.discard(request)
        assert answer == {"ok": f"killed {child.pid}"}
        assert child.wait(10) == -9


def test_another_process_is_not_killed(receive, prefork, hand):
    request = receive(hand, pid=os.getpid())
    worker_state.active_requests.add(request)
    try:
        answer = progress_force(prefork, id=hand.id, pid=CHILD)
    finally:
        worker_state.active_requests.discard(request)
    assert answer == {"error": "gone", "pool": "prefork"}
