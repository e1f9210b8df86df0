"""What strangers send, and how much of it."""

import pytest

from channels_progress import wire
from channels_progress.bucket import Bucket
from channels_progress.errors import Forbidden, Invalid, Malformed


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Expecting value"),
        ("[]", "not an object"),
        ("1", "not an object"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ('{"a": 1, "a": 2}', "twice"),
        ('{"a": [{"b": 1, "b": 2}]}', "twice"),
        ('{"a": ' + "9" * 5000 + "}", "4300 digits"),
        (b"\xff", "utf-8"),
    ],
)
def test_what_is_no_json_object_is_malformed(text, why):
    with pytest.raises(Malformed, match=why):
        wire.parse(text)


def test_endless_nesting_is_malformed():
    with pytest.raises(Malformed):
        wire.parse('{"a":' + "[" * 200_000)


@pytest.mark.parametrize("ref", ["a1", 7, 0, "", "x" * 128])
def test_a_ref_is_echoed(ref):
    assert wire.ref({"ref": ref}) == ref


@pytest.mark.parametrize("ref", [None, "x" * 129, 2**53, 1.5, [], {}])
def test_a_strange_ref_is_not(ref):
    assert wire.ref({"ref": ref}) is None


@pytest.mark.parametrize(
    "run", [None, 7, "", "a" * 65, "a b", "a\n", "../a", "é", ["a"]]
)
def test_what_cannot_be_an_id_is_forbidden(run):
    with pytest.raises(Forbidden):
        wire.run_id(run)


@pytest.mark.parametrize("key", [7, "x" * 201, "\ud800", ["a"]])
def test_a_key_is_a_short_text(key):
    with pytest.raises(Invalid) as caught:
        wire.key(key)
    assert list(caught.value.errors) == ["key"]


def test_no_key_is_no_key():
    assert wire.key(None) is None
    assert wire.key("") is None
    assert wire.key("k") == "k"


def test_parameters_become_a_submitted_form():
    params = wire.params(
        {"n": 5, "x": 1.5, "on": True, "many": ["a", 2], "deep": {"a": [1]}, "no": None}
    )
    assert dict(params.lists()) == {
        "n": ["5"],
        "x": ["1.5"],
        "on": [True],
        "many": ["a", "2"],
        "deep": ['{"a": [1]}'],
    }
    assert wire.params(None) == {}


@pytest.mark.parametrize(
    ("params", "field"),
    [([], "params"), ("x", "params"), ({"n": "\ud800"}, "n"), ({"\ud800": 1}, "?")],
)
def test_bad_parameters_are_named(params, field):
    with pytest.raises(Invalid) as caught:
        wire.params(params)
    assert list(caught.value.errors) == [field]


def test_a_token_is_a_text():
    assert wire.token("t") == "t"
    assert wire.token(["t"]) is None


def test_a_burst_is_let_through_and_flows_back():
    bucket = Bucket(0.0)
    assert all(bucket.take(0.0) for _ in range(128))
    assert not bucket.take(0.0)
    assert bucket.take(0.11)
    assert not bucket.flooded


def test_going_on_and_on_is_a_flood():
    bucket = Bucket(0.0)
    taken = [bucket.take(0.0) for _ in range(256)]
    assert taken.count(True) == 128
    assert not bucket.flooded
    bucket.take(0.0)
    assert bucket.flooded
