"""The value object: states, percent, weird values, and its form on the wire."""

import json
import math
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np
import pytest
from django.utils.translation import gettext_lazy

from channels_progress import legible
from channels_progress.legible import encode, encode_result, number, text
from channels_progress.run import (
    FINISHED,
    TRANSITIONS,
    UNFINISHED,
    Details,
    Snapshot,
    percent,
)

UUID = "0b6d8f7e-6a53-4e5c-9a0f-3d1d2f4c5b6a"
NOW = 1_763_700_000_123


def snapshot(details=None, **values):
    """A running snapshot whose worker has just spoken."""
    usual = {
        "id": UUID,
        "now": NOW,
        "epoch": "9f0a1b2c",
        "rev": 17,
        "state": "running",
        "asked": None,
        "attempt": 1,
        "reason": None,
        "due": None,
        "queued": NOW - 6000,
        "started": NOW - 5000,
        "ended": None,
        "seen": NOW - 20,
        "changed": NOW - 30,
        "error": "null",
        "members": (details or Details(run=UUID, task="count")).members(),
    }
    return Snapshot(**usual | values)


class Sour:
    """Its text cannot be told, and nothing else of it either."""

    def __str__(self):
        raise RuntimeError("no text")

    __float__ = __repr__ = __str__

    @property
    def isoformat(self):
        raise RuntimeError("no date")


# -- States -----------------------------------------------------------------------


def test_every_state_is_finished_or_not():
    assert not FINISHED & UNFINISHED
    assert {s for _, s in TRANSITIONS if s} <= FINISHED | UNFINISHED


def test_the_table_leads_out_of_no_finished_state_but_a_withdrawn_start():
    assert [key for key in TRANSITIONS if key[1] in FINISHED] == [
        ("create", "cancelled")
    ]


def test_running_and_silent_reads_as_lost():
    assert snapshot(seen=NOW - 30_001).shown == "lost"
    assert snapshot(seen=NOW - 30_000).shown == "running"
    assert snapshot(seen=NOW - 5000, lost_after=4000).shown == "lost"


@pytest.mark.parametrize("state", sorted({*FINISHED, *UNFINISHED} - {"running"}))
def test_only_a_running_run_is_lost(state):
    assert snapshot(state=state, seen=0).shown == state


def test_an_unfinished_run_that_shall_end_reads_as_cancelling():
    assert snapshot(asked="cancel").shown == "cancelling"
    assert snapshot(asked="cancel", state="waiting").shown == "cancelling"
    assert snapshot(asked="cancel", state="cancelled").shown == "cancelled"
    assert snapshot(asked="pause").shown == "running"


def test_lost_is_shown_before_cancelling():
    assert snapshot(asked="cancel", seen=0).shown == "lost"


def test_a_finished_run_knows_it():
    assert snapshot(state="failed").finished
    assert not snapshot(state="paused").finished


# -- Percent ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("current", "total", "succeeded", "expected"),
    [
        (0, 10, False, 0),
        (4.2, 10, False, 42),
        (10, 10, False, 99),
        (11, 10, False, 99),
        (10, 10, True, 100),
        (3, 10, True, 100),
        (5, None, False, None),
        (5, None, True, None),
        (5, 0, False, 0),
        (0, 0, True, 100),
        (-5, 10, False, 0),
        (5, -10, False, 0),
        (1e300, 1e-300, False, 99),
    ],
)
def test_percent(current, total, succeeded, expected):
    assert percent(current, total, succeeded) == expected


def test_every_hundredth_is_one_percent():
    assert [percent(n, 100, False) for n in range(100)] == list(range(100))
    assert [percent(n / 10, 10, False) for n in range(100)] == list(range(100))


# -- Numbers ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3),
        (3.0, 3),
        (2.123456789, 2.123457),
        (-4, -4),
        (Decimal("2.5"), 2.5),
        (np.int64(7), 7),
        (np.float32(0.5), 0.5),
        ("12", 12),
        (None, None),
        (True, None),
        (math.nan, None),
        (math.inf, None),
        (10**15, None),
        (-(10**400), None),
        (1e15, None),
        (Decimal("nan"), None),
        (Decimal("1e400"), None),
        ("many", None),
        (date(2025, 1, 2), None),
        (np.zeros(3), None),
        (Sour(), None),
    ],
)
def test_number(value, expected):
    assert number(value) == expected


# -- Text -------------------------------------------------------------------------


def test_text_is_cut_with_an_ellipsis():
    assert text("x" * 6, 5) == "xxxx…"
    assert text("x" * 5, 5) == "xxxxx"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (gettext_lazy("Rows"), "Rows"),
        (date(2025, 1, 2), "2025-01-02"),
        (Decimal("2.50"), "2.50"),
        ("\ud800!", "?!"),
        ("a\x00b", "a�b"),
        (None, ""),
        (Sour(), "<Sour>"),
    ],
)
def test_text_is_legible(value, expected):
    assert text(value, 500) == expected


# -- JSON -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": 1}, {"a": 1}),
        (date(2025, 1, 2), "2025-01-02"),
        (datetime(2025, 1, 2, tzinfo=UTC), "2025-01-02T00:00:00+00:00"),
        (Decimal("2.50"), "2.50"),
        ({1, 2}, [1, 2]),
        (np.arange(3), [0, 1, 2]),
        (np.float64(0.5), 0.5),
        (gettext_lazy("Rows"), "Rows"),
        ("\ud800", "?"),
        ({"a": "x\x00y"}, {"a": "x�y"}),
        ("\\u0000", "\\u0000"),
        (b"raw", "b'raw'"),
        ({"nan": math.nan}, "{'nan': nan}"),
        ({(1, 2): 3}, "{(1, 2): 3}"),
        pytest.param(10**5000, "<int>", id="huge"),
        (Sour(), "<Sour>"),
        (date, "<class 'datetime.date'>"),
    ],
)
def test_anything_becomes_json(value, expected):
    assert json.loads(encode(value)) == expected


def test_a_cycle_becomes_json():
    cycle = []
    cycle.append(cycle)
    assert json.loads(encode(cycle)) == "[[...]]"


def test_json_can_be_sent():
    assert encode("\ud800 ä").encode() == '"? ä"'.encode()


def test_a_result_may_have_4_kib():
    fits = "x" * (legible.RESULT_BYTES - 2)
    assert json.loads(encode_result(fits)) == fits


def test_a_larger_result_says_so():
    assert json.loads(encode_result("ä" * 3000)) == {"truncated": True, "bytes": 6002}


# -- The envelope -----------------------------------------------------------------


def test_the_envelope_has_every_field_of_the_wire():
    details = Details(
        run=UUID,
        task="fft_random",
        title="Spectra",
        attempts=4,
        current=4200,
        total=10000,
        unit="transform",
        message="…",
        rate=812.3,
        remaining=7.1,
    )
    envelope = snapshot(details).as_dict()
    assert envelope == {
        "type": "run",
        "v": 1,
        "now": NOW,
        "epoch": "9f0a1b2c",
        "rev": 17,
        "state": "running",
        "asked": None,
        "attempt": 1,
        "reason": None,
        "due": None,
        "queued": NOW - 6000,
        "started": NOW - 5000,
        "ended": None,
        "seen": NOW - 20,
        "changed": NOW - 30,
        "error": None,
        "run": UUID,
        "task": "fft_random",
        "title": "Spectra",
        "attempts": 4,
        "current": 4200,
        "total": 10000,
        "unit": "transform",
        "message": "…",
        "rate": 812.3,
        "remaining": 7.1,
        "percent": 42,
        "result": None,
    }


def test_the_envelope_says_the_derived_state():
    assert snapshot(seen=0).as_dict()["state"] == "lost"


def test_words_and_times_are_told_where_there_are_any():
    envelope = snapshot(
        state="waiting", reason="retry", due=NOW + 5000, asked="cancel", ended=NOW
    ).as_dict()
    assert (envelope["reason"], envelope["due"]) == ("retry", NOW + 5000)
    assert (envelope["asked"], envelope["ended"]) == ("cancel", NOW)


def test_the_result_and_the_error_are_json():
    details = Details(run=UUID, task="count", result='{"rows":3}', succeeded=True)
    envelope = snapshot(details, error='{"message":"no"}').as_dict()
    assert (envelope["result"], envelope["error"]) == ({"rows": 3}, {"message": "no"})


def test_what_only_some_tasks_have_is_left_out_elsewhere():
    few = snapshot(Details(run=UUID, task="count")).as_dict()
    details = Details(run=UUID, task="count", pausable=True, silence=1.5)
    more = snapshot(details).as_dict()
    assert more.keys() - few.keys() == {"pausable", "silence"}


def test_a_live_message_has_at_most_500_bytes():
    details = Details(
        run=UUID,
        task="recalculate_prices",
        attempts=4,
        current=123456.789012,
        total=999999999,
        unit="measurement",
        rate=12345.6,
        remaining=123456.7,
        pausable=True,
    )
    message = snapshot(
        details, rev=123456, asked="cancel", reason="redelivery", due=NOW
    ).as_dict()
    for free in ("title", "message", "result", "error"):
        del message[free]
    assert len(encode(message).encode()) <= 500


def test_title_message_and_unit_cannot_break_the_envelope():
    evil = '"},\\ </script>\u2028'
    details = Details(run=UUID, task="t", title=evil, unit=evil, message=evil)
    assert snapshot(details).as_dict()["message"] == evil


def test_a_snapshot_knows_its_task():
    assert snapshot().task == "count"


def test_a_snapshot_does_not_change():
    one = snapshot()
    assert replace(one, rev=18).rev == 18
    assert one.rev == 17
    with pytest.raises(AttributeError):
        one.rev = 18
