"""Reading a run: the store, else the history, else nobody knows."""

import contextlib
import uuid
from dataclasses import replace
from datetime import timedelta

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from channels_progress import history, read, runs
from channels_progress.errors import FORBIDDEN, Forbidden, Unavailable
from channels_progress.models import Run
from tests.core.conftest import set_intervals
from tests.core.hand import Hand
from tests.ports import free_port

pytestmark = pytest.mark.django_db


@pytest.fixture
def store_down(settings):
    """Nobody listens where the store should be."""
    url = f"redis://127.0.0.1:{free_port()}/0"
    return lambda: set_intervals(settings, REDIS_URL=url)


@contextlib.contextmanager
def history_down():
    """The database answers nothing."""

    def refuse(*args):
        raise OperationalError("the database is down")

    with connection.execute_wrapper(refuse):
        yield


def row(id=None, **values):
    values = {"owner": "o", "task": "core.count", "title": "Count", **values}
    return Run.objects.create(id=id or str(uuid.uuid4()), **values)


def ended(run, state="succeeded"):
    """The run has ended, and the history knows; its last snapshot."""
    number = run.running()
    run.end(number, 1, state, doc=run.doc(current=9, result='{"n":9}'))
    row(run.id)
    history.close(run.snapshot, hop=1)
    return run.snapshot


# -- The store --------------------------------------------------------------------


def test_a_run_is_read_from_the_store(run, django_assert_num_queries):
    run.running()
    with django_assert_num_queries(0):
        assert runs.get(run.id).state == "running"


def test_a_finished_run_is_read_from_the_store(run, django_assert_num_queries):
    ended(run)
    with django_assert_num_queries(0):
        assert runs.get(run.id).state == "succeeded"


def test_many_runs_are_one_question(store, django_assert_num_queries):
    hands = [Hand(store) for _ in range(5)]
    for hand in hands:
        hand.running()
    with django_assert_num_queries(0):
        found = runs.read([hand.id for hand in hands])
    assert [s.state for s in found.values()] == ["running"] * 5


def test_no_run_is_no_question(store_down):
    store_down()
    assert runs.read([]) == {}


def test_a_silent_run_reads_as_lost(run, settings):
    run.running()
    row(run.id)
    run.silence(20_000)
    assert runs.get(run.id).shown == "running"
    set_intervals(settings, LOST_AFTER=10)
    assert runs.get(run.id).shown == "lost"


# -- The history ------------------------------------------------------------------


def test_what_the_store_has_forgotten_is_in_the_history(run):
    last = ended(run)
    run.lose()
    found = runs.get(run.id)
    assert (found.state, found.rev, found.epoch) == ("succeeded", last.rev, last.epoch)
    assert found.as_dict() == last.as_dict() | {"now": found.now}


def test_so_is_the_wish_that_ended_it(run):
    number = run.running()
    run.cancel()
    run.end(number, 1, "cancelled")
    row(run.id)
    history.close(last := run.snapshot, hop=1)
    run.lose()
    assert runs.get(run.id).as_dict() | {"now": last.now} == last.as_dict()


def test_a_finished_row_beats_an_unfinished_hash(run):
    ended(run)
    run.lose()
    run.running()
    run.silence()
    assert runs.get(run.id).state == "succeeded"


def test_an_unfinished_row_does_not_beat_the_hash(run):
    row(run.id)
    run.running()
    run.silence(10_000)
    assert runs.get(run.id).state == "running"


def test_an_unfinished_row_without_a_hash_reads_as_lost():
    found = runs.get(row().id)
    assert found.shown == "lost"
    envelope = found.as_dict()
    assert (envelope["task"], envelope["title"]) == ("count", "Count")


def test_a_paused_row_without_a_hash_reads_as_paused(run):
    number = run.running()
    run.end(number, 1, "paused", doc=run.doc(current=4, total=10))
    row(run.id)
    history.close(run.snapshot, hop=1, cursor="[4]")
    run.lose()
    found = runs.get(run.id)
    assert (found.shown, found.as_dict()["percent"]) == ("paused", 40)


def test_a_success_keeps_its_row(run):
    ended(run)
    other = Hand(run.store, run.id)
    other.lose()
    other.end(other.running(), 1, "failed")
    history.close(other.snapshot, hop=1)
    assert Run.objects.get(pk=run.id).state == "succeeded"


def test_a_pause_that_comes_late_does_not_follow_an_end(run):
    number = run.running()
    run.end(number, 1, "paused")
    paused = run.snapshot
    run.cancel()
    row(run.id)
    history.close(run.snapshot)
    history.close(paused)
    assert Run.objects.get(pk=run.id).state == "cancelled"


def test_a_run_without_a_row_gets_one_at_its_end(run):
    run.create(owner="ann")
    run.cancel()
    history.close(run.snapshot)
    found = Run.objects.get(pk=run.id)
    assert (found.owner, found.task, found.state) == ("ann", "count", "cancelled")


def test_an_envelope_of_another_version_is_understood():
    document = {"state": "failed", "new": [1], "current": 3, "rev": 5}
    found = runs.get(row(state="failed", document=document, ended=timezone.now()).id)
    assert (found.rev, found.attempt, found.asked) == (5, 1, None)
    assert found.as_dict()["new"] == [1]


def test_a_row_says_what_it_is():
    assert str(row("r1")) == "Count (r1)"
    assert str(row("r2", title="")) == "core.count (r2)"


# -- Nobody knows -----------------------------------------------------------------


def test_an_unknown_run_is_forbidden(store):
    with pytest.raises(Forbidden) as raised:
        runs.get(str(uuid.uuid4()))
    assert str(raised.value) == FORBIDDEN


def test_without_the_store_the_history_knows_what_has_ended(run, store_down):
    ended(run)
    store_down()
    assert runs.get(run.id).state == "succeeded"


def test_without_the_store_what_has_not_ended_is_unavailable(store_down):
    id = row().id
    store_down()
    with pytest.raises(Unavailable):
        runs.get(id)


def test_without_the_store_an_unknown_run_is_still_forbidden(store_down):
    store_down()
    with pytest.raises(Forbidden):
        runs.get(str(uuid.uuid4()))


def test_without_both_nobody_is_told_forbidden(run, store_down):
    ended(run)
    store_down()
    with history_down():
        found = runs.read([run.id, "unknown"])
    assert all(isinstance(error, Unavailable) for error in found.values())


def test_without_the_history_the_store_knows(run):
    run.running()
    run.silence()
    with history_down():
        assert runs.get(run.id).shown == "lost"


def test_without_the_history_what_the_store_has_not_is_unavailable(store):
    with history_down(), pytest.raises(Unavailable):
        runs.get("unknown")


# -- Listings ---------------------------------------------------------------------


def test_a_listing_has_the_active_runs_first(store):
    now = timezone.now()
    for n, minutes in enumerate([None, 5, 1, None]):
        end = minutes and now - timedelta(minutes=minutes)
        row(f"r{n}", ended=end, state="failed" if end else "", document={})
    assert [s.id for s in runs.listing(["o"])] == ["r3", "r0", "r2", "r1"]


def test_a_listing_is_ones_own(store):
    row("mine")
    row("yours", owner="you")
    row("nobodys", owner="")
    assert [s.id for s in runs.listing(["o", ""])] == ["mine"]


def test_a_listing_ends_somewhere(store):
    for n in range(3):
        row(f"r{n}")
    assert len(runs.listing(["o"], limit=2)) == 2


def test_a_listing_without_the_history_is_unavailable(store):
    with history_down(), pytest.raises(Unavailable):
        runs.listing(["o"])


def test_a_listing_writes_an_end_that_the_history_missed(run):
    row(run.id)
    run.end(run.running(), 1, "failed", doc=run.doc(current=9))
    assert [s.state for s in runs.listing(["o"])] == ["failed"]
    assert Run.objects.get(pk=run.id).state == "failed"
    assert Run.objects.get(pk=run.id).ended


# -- An end that its worker wrote before the store had heard it ---------------------


def early(run):
    """The run is running in the store, and its end is in the history."""
    run.running()
    row(run.id)
    now = run.snapshot
    end = replace(now, state="succeeded", ended=now.now, epoch="", rev=0)
    history.close(end, early=True)


def test_of_an_early_end_the_store_is_about_to_hear(run, settings):
    set_intervals(settings, LOST_AFTER=0.001)
    early(run)
    run.silence(5_000)
    assert runs.get(run.id).shown == "lost"


def test_an_early_end_that_the_store_never_heard_is_one(run, settings):
    set_intervals(settings, LOST_AFTER=0.001)
    early(run)
    run.silence(20_000)
    ended = timezone.now() - timedelta(seconds=20)
    Run.objects.filter(pk=run.id).update(ended=ended)
    assert runs.get(run.id).shown == "succeeded"
    assert "early" not in runs.get(run.id).as_dict()


def test_without_the_store_an_early_end_is_unavailable(run, store_down):
    early(run)
    store_down()
    with pytest.raises(Unavailable):
        runs.get(run.id)


def test_an_early_end_whose_store_was_emptied_is_one(run):
    early(run)
    run.lose()
    assert runs.get(run.id).shown == "succeeded"


# -- From a coroutine -------------------------------------------------------------


async def test_a_coroutine_asks_in_a_thread():
    assert await runs.in_thread(lambda a, b: a + b, 1, b=2) == 3


async def test_a_coroutine_does_not_wait_for_ever(monkeypatch):
    import threading

    released = threading.Event()
    monkeypatch.setattr(runs, "THREAD_TIMEOUT", 0.05)
    try:
        with pytest.raises(Unavailable):
            await runs.in_thread(released.wait, 30)
    finally:
        released.set()


async def test_a_coroutine_is_told_that_the_database_is_down():
    def ask():
        raise OperationalError("down")

    with pytest.raises(Unavailable):
        await runs.in_thread(ask)


def test_why_nothing_can_be_read_is_logged_once_and_not_each_time(
    store_down, caplog, monkeypatch
):
    monkeypatch.setattr(read, "_told", {})
    run = row().pk
    store_down()
    for _ in range(3):
        with pytest.raises(Unavailable), history_down():
            runs.get(run)
    assert caplog.text.count("Connection refused") == 1
    assert caplog.text.count("the database is down") == 1
    monkeypatch.setattr(read, "QUIET", 0)
    with pytest.raises(Unavailable):
        runs.get(run)
    assert caplog.text.count("Connection refused") == 2
