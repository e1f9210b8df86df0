"""What a worker owes the history: written now, or as soon as that is possible."""

import uuid

import pytest
from django.db import DataError, OperationalError

from channels_progress import lifecycle
from channels_progress import record as module
from channels_progress.record import Recorder
from channels_progress.reporter import get_reporter
from tests.stack import wait_for

pytestmark = pytest.mark.usefixtures("transactional_db")


class Database:
    """Takes what it is given, unless it is down."""

    def __init__(self, down=None):
        self.down, self.taken = down, []

    def take(self, what):
        def write():
            if self.down is not None:
                raise self.down
            self.taken.append(what)

        return write


@pytest.fixture
def recorder(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.01)
    return Recorder()


def test_what_can_be_written_is_written_at_once(recorder):
    database = Database()
    recorder.write(database.take("a"), "a")
    assert database.taken == ["a"]


def test_what_cannot_be_written_is_written_later_in_its_order(recorder):
    database = Database(down=OperationalError("down"))
    for word in "abc":
        recorder.write(database.take(word), word)
    assert database.taken == []
    database.down = None
    recorder.drain(10)
    assert database.taken == ["a", "b", "c"]


def test_the_time_for_a_dead_database_is_spent_once(recorder, caplog):
    database = Database(down=OperationalError("down"))
    for word in "abc":
        recorder.write(database.take(word), word)
    assert [r.getMessage()[:1] for r in caplog.records] == ["a"]
    database.down = None
    recorder.drain(10)


@pytest.mark.parametrize("error", [DataError("too long"), ZeroDivisionError()])
def test_what_is_never_taken_holds_nothing_up(recorder, error, caplog):
    database, odd = Database(down=OperationalError("down")), Database(down=error)
    recorder.write(database.take("a"), "a")
    recorder.write(odd.take("odd"), "odd")
    recorder.write(database.take("b"), "b")
    database.down = None
    recorder.drain(10)
    assert database.taken == ["a", "b"]
    assert "The history refuses what it is owed." in caplog.text


def test_after_an_outage_it_writes_at_once_again(recorder):
    database = Database(down=OperationalError("down"))
    recorder.write(database.take("a"), "a")
    database.down = None
    recorder.drain(10)
    wait_for(lambda: not recorder._behind, "nothing owed")
    recorder.write(database.take("b"), "b")
    assert database.taken == ["a", "b"]


def test_its_thread_outlives_what_django_says_after_a_write(recorder, monkeypatch):
    said = iter([None, RuntimeError("said after the first write")])

    def close():
        if error := next(said, None):
            raise error

    monkeypatch.setattr(module, "close_old_connections", close)
    database = Database()
    for word in "ab":
        recorder.write(database.take(word), word, wait=False)
    recorder.drain(10)
    assert database.taken == ["a", "b"]


def test_it_gives_way_while_the_store_is_told(recorder):
    """Viewers wait for the store, and nobody for the history."""
    database, reporter = Database(), get_reporter()
    reporter.catching_up = True
    try:
        recorder.write(database.take("a"), "a", wait=False)
        recorder.drain(0.2)
        assert database.taken == []
    finally:
        reporter.catching_up = False
    recorder.drain(10)
    assert database.taken == ["a"]


def test_a_process_about_to_end_does_not_wait_for_ever(recorder, caplog):
    database = Database(down=OperationalError("down"))
    recorder.write(database.take(uuid.uuid4()), "a")
    recorder.drain(0.05)
    assert "The history missed ends" in caplog.text
    database.down = None


def test_a_worker_that_stops_says_everything_first(store):
    lifecycle.on_shutdown()
    assert not get_reporter().later


def test_nothing_owed_is_nothing_to_wait_for(recorder):
    recorder.drain(0)


def test_a_fork_has_a_recorder_of_its_own(monkeypatch):
    before = module.get_recorder()
    monkeypatch.setattr(module, "_recorder", before)
    module._forget()
    assert module.get_recorder() is not before
