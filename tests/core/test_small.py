"""The small rooms: settings, headers, errors, the catalogue, the store's client."""

import pytest
from django import forms
from redis.exceptions import RedisError, ResponseError

from channels_progress import catalogue
from channels_progress.conf import DEFAULTS, conf
from channels_progress.errors import (
    FORBIDDEN,
    Forbidden,
    Invalid,
    Malformed,
    ProgressError,
    TooMany,
    Unavailable,
)
from channels_progress.header import Header
from channels_progress.reporter import Reporter
from channels_progress.store import Call, Store, get_store, nonce
from tests.core import tasks
from tests.core.conftest import set_intervals
from tests.core.hand import Hand

# -- Settings ---------------------------------------------------------------------


def test_a_setting_has_a_default(settings):
    settings.CHANNELS_PROGRESS = {}
    assert conf.LOST_AFTER == DEFAULTS["LOST_AFTER"] == 30


def test_a_project_without_settings_has_the_defaults(settings):
    del settings.CHANNELS_PROGRESS
    assert conf.MAX_RESTARTS == 3


def test_a_setting_is_read_when_it_is_used(settings):
    set_intervals(settings, LOST_AFTER=5)
    assert conf.LOST_AFTER == 5


def test_an_unknown_setting_names_those_there_are():
    with pytest.raises(AttributeError, match=r"no setting 'LOST'.* LOST_AFTER,"):
        _ = conf.LOST


# -- Headers ----------------------------------------------------------------------


def header(**values):
    return Header(**{"run": "r1", "owner": "o", "task": "t"} | values)


def test_a_header_travels():
    one = header(title="Rows", hop=3, kind="poll", queued=7, mark="m", pausable=True)
    assert Header.of(one.as_headers(), "r1") == one


def test_every_publication_has_the_next_hop_and_its_kind():
    following = header(hop=3, mark="m").next("retry")
    assert (following.hop, following.kind, following.mark) == (4, "retry", "")


@pytest.mark.parametrize(
    ("kind", "same"), [("retry", True), ("poll", True), ("replace", False)]
)
def test_what_replaces_a_task_cannot_be_paused_and_has_no_cursor(kind, same):
    following = header(pausable=True).next(kind, kept=True)
    assert (following.pausable, following.kept) == (same, same)
    assert following.next(kind).kept is same


def test_fields_of_a_newer_version_are_ignored():
    headers = header().as_headers()
    headers["progress"]["new"] = 1
    assert Header.of(headers, "r1") == header()


@pytest.mark.parametrize(
    "headers",
    [None, {}, [], {"progress": None}, {"progress": {"run": "r1"}}, {"progress": "x"}],
)
def test_what_is_no_header_is_no_run(headers):
    assert Header.of(headers, "r1") is None


def test_another_messages_header_is_no_run():
    assert Header.of(header().as_headers(), "r2") is None


# -- Errors -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (Malformed("no"), "malformed", 400),
        (Invalid("no"), "invalid", 400),
        (Forbidden(), "forbidden", 403),
        (Unavailable("no"), "unavailable", 503),
        (TooMany("no"), "too_many", 429),
    ],
)
def test_an_error_has_its_code_of_the_wire(error, code, status):
    assert isinstance(error, ProgressError)
    assert (error.payload()["code"], error.status) == (code, status)


def test_an_errors_payload():
    assert Invalid("n: no", {"n": ["no"]}).payload("a1") == {
        "type": "error",
        "ref": "a1",
        "code": "invalid",
        "message": "n: no",
        "errors": {"n": ["no"]},
    }


def test_an_error_without_a_ref_or_fields_has_none():
    assert Forbidden().payload() == {
        "type": "error",
        "code": "forbidden",
        "message": FORBIDDEN,
    }


# -- The catalogue ----------------------------------------------------------------


def test_a_declared_task_is_found_by_the_last_part_of_its_name(declare):
    assert declare(tasks.count, forms.Form, title="Count") is tasks.count
    declared = catalogue.get("count")
    assert (declared.task, declared.title) == (tasks.count, "Count")
    assert not declared.pausable
    assert catalogue.all()["count"] is declared


def test_what_is_not_declared_is_not_found():
    assert catalogue.get("count") is None


# -- The store's client -----------------------------------------------------------


def test_the_projects_store_is_one(valkey):
    assert get_store() is get_store()
    assert get_store() is not Reporter().store


def test_a_word_counts_once():
    assert nonce() != nonce()


def test_what_is_none_or_false_is_left_out():
    call = Call("x", "r", {"a": None, "b": False, "c": True, "d": 0, "e": b"", "f": ""})
    assert call.arguments() == ["x", "c", "1", "d", "0", "e", b"", "f", ""]


def test_a_verb_that_fails_fails_alone(store):
    good, bad = Hand(store), Hand(store)
    good.create()
    first, second = store.pipeline(
        [Call("nonsense", bad.id, {}), Call("cancel", good.id, {"lost": 1})]
    )
    assert isinstance(first, ResponseError)
    assert second.code == "done"


def test_nothing_is_read_of_nothing(store):
    assert store.read([]) == {}


def test_the_same_run_is_read_once(store, run):
    run.create()
    assert list(store.read([run.id, run.id, "unknown"])) == [run.id]


def test_a_store_answers_or_raises(store, other_url):
    store.ping()
    gone = Store(other_url, "p", timeout=0.2)
    with pytest.raises(RedisError):
        gone.ping()
    gone.close()


@pytest.fixture
def other_url():
    from tests.ports import free_port

    return f"redis://127.0.0.1:{free_port()}/0"
