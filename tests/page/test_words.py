"""What the server writes into the bar: the script writes the same."""

import json
import re
from pathlib import Path

import pytest
from django.utils import translation

from channels_progress import words
from channels_progress.run import FINISHED, UNFINISHED
from tests.page.conftest import NOW, snapshot

STATIC = Path(words.__file__).parent / "static" / "channels_progress"


def envelope(*args, **kwargs):
    return snapshot(*args, **kwargs).as_dict()


def test_every_state_has_a_word():
    said = words.words()
    for state in {*FINISHED, *UNFINISHED, "lost", "cancelling"}:
        assert said[f"state.{state}"]


def test_the_script_says_nothing_that_has_no_words():
    script = "\n".join(path.read_text() for path in STATIC.glob("*.js"))
    names = set(re.findall(r'"((?:line|link|count|rate|attempt)\.[\w.-]+)"', script))
    assert names
    assert names <= set(words.words())


def test_every_reason_to_wait_has_words():
    for reason in ("retry", "poll", "redelivery", "replace"):
        assert {f"line.{reason}", f"line.{reason}.in"} <= set(words.words())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.9, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (260, "4 min 20 s"),
        (3900, "1 h 5 min"),
        (7200, "2 h"),
        (183_600, "2 d 3 h"),
    ],
)
def test_durations_have_two_units_at_most(seconds, text):
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("ms", "text"),
    [(-5, "0 s"), (640, "0.6 s"), (9990, "9.9 s"), (61_500, "1 min 1 s")],
)
def test_what_took_under_ten_seconds_has_tenths(ms, text):
    assert words.took(ms) == text


@pytest.mark.parametrize(
    ("current", "total", "text"),
    [
        (0, None, ""),
        (1, None, "1 row"),
        (1840, None, "1,840 rows"),
        (4200, 10_000, "4,200 of 10,000 rows"),
        (0.5, 1, "0.5 of 1 row"),
        (12, 10, "12, where 10 rows were expected"),
    ],
)
def test_the_count_says_what_it_counts(current, total, text):
    details = {"current": current, "total": total}
    assert words.count(envelope(details=details)) == text


def test_a_count_of_nothing_in_particular():
    details = {"current": 3, "total": 4, "unit": ""}
    assert words.count(envelope(details=details)) == "3 of 4"


def test_numbers_are_written_as_the_language_writes_them():
    with translation.override("de"):
        assert words.number(1234567) == "1.234.567"
        assert words.number(0.26) == "0,3"


def test_a_units_forms_are_those_of_0_to_20_things():
    forms = words.forms(["row"])["row"]
    assert len(forms) == 21
    assert forms[:3] == ["rows", "row", "rows"]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"state": "running"}, ""),
        ({"state": "succeeded"}, ""),
        ({"state": "queued"}, "Queued for 1 min, no worker has taken it yet."),
        ({"state": "queued", "queued": NOW - 1000}, ""),
        (
            {"state": "running", "seen": NOW - 6000},
            "The worker has been silent for 6 s.",
        ),
        (
            {"state": "running", "seen": NOW - 40_000},
            "No word from the worker for 40 s. Another may take over.",
        ),
        (
            {"state": "waiting", "reason": "retry", "due": NOW + 4200},
            "Next try in 5 s.",
        ),
        (
            {"state": "running", "changed": NOW - 11_000},
            "No change for 11 s. The worker is alive, it is just slow.",
        ),
        (
            {"state": "running", "asked": "pause"},
            "Asked to pause; it will at its next step.",
        ),
        ({"state": "waiting", "reason": "retry", "due": NOW}, "The next try is due."),
        ({"state": "waiting", "reason": "of a later version"}, ""),
        (
            {"state": "waiting", "reason": "poll", "due": NOW + 1000},
            "Another service is at work; asking it how far it is.",
        ),
        (
            {"state": "waiting", "reason": "poll", "due": NOW + 9000},
            "Another service is at work; asking it again in 10 s.",
        ),
        (
            {"state": "waiting"},
            "Its worker stopped. Another one will take it up.",
        ),
        ({"state": "paused"}, "No worker is held. It goes on from where it stopped."),
        (
            {"state": "running", "asked": "cancel"},
            "Asked to stop; it will at its next step.",
        ),
    ],
)
def test_the_line_says_why_nothing_moves(fields, text):
    assert words.line(envelope(**fields)) == text


@pytest.mark.parametrize(
    ("silence", "tone"), [(0, ""), (6000, "trouble"), (40_000, "trouble")]
)
def test_silence_is_told_as_trouble(silence, tone):
    assert words.shown(envelope(seen=NOW - silence))["tone"] == tone


def test_the_first_attempt_needs_no_number():
    assert words.attempt(envelope()) == ""
    assert words.attempt(envelope(attempt=2)) == "2 of 4"
    assert words.attempt(envelope(attempt=2, details={"attempts": None})) == "2"


def test_elapsed_counts_from_the_first_beginning():
    assert words.elapsed(envelope("queued", started=None)) == ""
    assert words.elapsed(envelope()) == "50 s"
    assert words.elapsed(envelope("failed", ended=NOW - 46_000)) == "4 s"


PACE = {"rate": 3.512, "remaining": 42.2, "unit": "row"}


@pytest.mark.parametrize(
    ("state", "fields", "rate", "remaining"),
    [
        ("running", {}, "3.51 rows per second", "40 s"),
        ("waiting", {"reason": "poll"}, "3.51 rows per second", "40 s"),
        ("waiting", {"reason": "retry"}, "", ""),
        ("running", {"changed": NOW - 11_000}, "", ""),
        ("paused", {}, "", ""),
        ("cancelled", {}, "3.51 rows per second", ""),
    ],
)
def test_the_pace_is_told_while_it_is_honest(state, fields, rate, remaining):
    shown = words.shown(envelope(state, details=PACE, **fields))
    assert (shown["rate"], shown["remaining"]) == (rate, remaining)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0.2, "1 s"), (9.4, "9 s"), (33, "35 s"), (100, "1 min 45 s")),
        *((754, "13 min"), (8000, "2 h 15 min")),
    ],
)
def test_a_time_remaining_is_as_coarse_as_it_is_long(seconds, text):
    said = envelope(details=PACE | {"remaining": seconds})
    assert words.remaining(said) == text


def test_a_failure_keeps_its_percent_and_names_its_reference():
    error = json.dumps({"message": "Broken.", "reference": "7f3a"})
    details = {"current": 61, "total": 100}
    shown = words.shown(envelope("failed", error=error, details=details))
    assert shown["value"] == 61
    assert shown["percent"] == "61%"
    assert shown["reference"] == "Reference: 7f3a"


def test_every_part_is_read_by_a_template():
    folder = Path(words.__file__).with_name("templates")
    html = "".join(path.read_text() for path in folder.rglob("*.html"))
    shown = words.shown(envelope())
    assert [part for part in shown if f"shown.{part}" not in html] == []


def test_without_a_total_there_is_no_value_until_it_has_succeeded():
    assert words.shown(envelope())["value"] is None
    assert words.shown(envelope("succeeded"))["value"] == 100
