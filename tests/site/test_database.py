"""The site while its database is down: what the store knows is shown, what needs the
history is refused in words."""

from contextlib import contextmanager

import pytest
from django.contrib.auth.models import User
from django.db import (
    DataError,
    InternalError,
    OperationalError,
    ProgrammingError,
    connection,
    transaction,
)

from channels_progress import history, runs
from channels_progress.errors import Unavailable
from channels_progress.models import Run
from channels_progress.store import get_store
from HomeApp.forms import GenRandomForm

SAID = b"The service cannot be reached at the moment."


@contextmanager
def no_database():
    """Nobody finds the database."""
    known = connection.settings_dict
    connection.close()
    connection.settings_dict = {**known, "NAME": "/nowhere/db.sqlite3"}
    try:
        yield
    finally:
        connection.settings_dict = known


@contextmanager
def failing(statement, error=OperationalError):
    """What begins so fails; the transaction around it is then as good as PostgreSQL's,
    which hears nothing more before a rollback."""
    broken = []

    def execute(run, sql, *args):
        if broken and sql.startswith("ROLLBACK TO"):
            broken.clear()
        if broken and connection.in_atomic_block:
            raise InternalError("current transaction is aborted")
        if sql.lstrip().startswith(statement):
            broken.append(sql)
            raise error("refused")
        return run(sql, *args)

    with connection.execute_wrapper(execute):
        yield


def begin(key=None):
    return runs.start("gen_random", {"speed": 1}, owner="u:1", key=key)


def submit(key=None):
    return runs.submit("gen_random", {}, owner="u:1", key=key)


# -- The pages --------------------------------------------------------------------


def test_a_finished_run_has_its_receipt(visitor, done):
    with no_database():
        answer = visitor.get(f"/runs/{done}/")
    assert answer.status_code == 200
    assert b'id="receipt"' in answer.content
    assert b"100 points" in answer.content


def test_a_start_is_refused_beside_its_button(visitor):
    with no_database():
        answer = visitor.post("/", {"speed": "7"})
    assert answer.status_code == 503
    assert SAID in answer.content
    assert b'value="7"' in answer.content


def test_a_run_is_not_started_once_more(visitor, done):
    with no_database():
        answer = visitor.post(f"/runs/{done}/again/")
    assert answer.status_code == 503
    assert SAID in answer.content
    assert Run.objects.count() == 1


# -- Starting ---------------------------------------------------------------------


@pytest.mark.parametrize("ask", [begin, submit])
def test_without_a_history_nothing_is_started(site, ask):
    with no_database(), pytest.raises(Unavailable):
        ask()
    assert not Run.objects.exists()
    assert list(get_store().client.scan_iter(get_store().key("*-*"))) == []


@pytest.mark.parametrize("ask", [begin, submit])
def test_a_row_that_cannot_be_written_starts_nothing(site, ask):
    with failing("INSERT"), pytest.raises(Unavailable):
        ask()
    assert not Run.objects.exists()
    assert list(get_store().client.scan_iter(get_store().key("*-*"))) == []


@pytest.mark.parametrize("ask", [begin, submit])
def test_a_key_cannot_be_looked_up(site, ask):
    ask("k")
    with failing('SELECT "channels_progress_run"'), pytest.raises(Unavailable):
        ask("k")


def test_what_was_withdrawn_cannot_be_opened_again(site):
    run = begin("k").run
    get_store().call("withdraw", run, hop=1)
    history.close(runs.get(run))
    with failing("UPDATE"), pytest.raises(Unavailable):
        begin("k")
    assert begin("k").snapshot.state == "queued"


@pytest.mark.parametrize(
    "statement", ["SELECT COUNT", 'SELECT "channels_progress_run"', "INSERT"]
)
def test_a_transaction_around_it_goes_on(site, statement):
    begin("k")
    with failing(statement), transaction.atomic():
        with pytest.raises(Unavailable):
            begin(None if statement == "INSERT" else "k")
        User.objects.filter(username="ann").exists()  # it is heard
    assert Run.objects.count() == 1


def test_the_forms_own_errors_are_no_outage(site, monkeypatch):
    def clean(form):
        raise ProgrammingError("no such column")

    monkeypatch.setattr(GenRandomForm, "clean", clean)
    with pytest.raises(ProgrammingError):
        submit()


def test_a_row_that_cannot_be_is_no_outage(site):
    with failing("INSERT", DataError), pytest.raises(DataError):
        begin()


def test_neither_is_a_transaction_that_is_broken_already(site):
    with transaction.atomic():
        transaction.set_rollback(True)
        with pytest.raises(transaction.TransactionManagementError):
            begin()
