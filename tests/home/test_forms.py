import json

import pytest
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile

from HomeApp import uploads
from HomeApp.forms import FftRandomForm, GenRandomForm, ImportRowsForm

ALLOWED = (
    "Allowed is a CSV file in UTF-8, at most 200 MB, whose first line is "
    "“when,sensor,value”."
)
HEADER = b"when,sensor,value\n"
ROW = b"2025-03-01T12:00:00Z,roof,12.5\n"


def errors(form):
    return {name: list(texts) for name, texts in form.errors.items()}


def upload(content, name="measurements.csv"):
    return ImportRowsForm({}, {"file": SimpleUploadedFile(name, content)})


@pytest.mark.parametrize("params", [{}, {"speed": ""}, {"speed": None}])
def test_speed_is_2_unless_given(params):
    form = GenRandomForm(params)
    assert form.is_valid()
    assert form.cleaned_data == {"speed": 2}


@pytest.mark.parametrize("speed", ["0.5", 0.5, "1000", 50, "1e2"])
def test_speed_is_a_number_within_its_bounds(speed):
    form = GenRandomForm({"speed": speed})
    assert form.is_valid()
    assert form.cleaned_data == {"speed": float(speed)}


@pytest.mark.parametrize(
    "speed",
    ["abc", "0.49", 0, -1, "1001", "nan", "inf", "-inf", float("nan"), [2]],
)
def test_any_other_speed_is_refused_by_name_and_with_what_is_allowed(speed):
    assert errors(GenRandomForm({"speed": speed})) == {
        "speed": ["Enter a number from 0.5 to 1,000."]
    }


@pytest.mark.parametrize("n", [1, "1", 200_000, "1000000"])
def test_n_is_a_whole_number_within_its_bounds(n):
    form = FftRandomForm({"n": n})
    assert form.is_valid()
    assert form.cleaned_data == {"n": int(n)}


@pytest.mark.parametrize(
    "n",
    ["abc", 0, -1, 10**9, 1_000_001, 1.5, "", None, "nan", "9" * 5000, True, [1], {}],
)
def test_any_other_n_is_refused_by_name_and_with_what_is_allowed(n):
    assert errors(FftRandomForm({"n": n})) == {
        "n": ["Enter a whole number from 1 to 1,000,000."]
    }


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"", "The file is empty."),
        (b"\n \r\n", "The file is empty."),
        (b"\xef\xbb\xbf", "The file is empty."),
        (HEADER, "The file has a header and no rows."),
        (HEADER + b"\n\n", "The file has a header and no rows."),
        (ROW, "The first line is “2025-03-01T12:00:00Z,roof,12.5”."),
        (b"time,sensor,value\n" + ROW, "The first line is “time,sensor,value”."),
        (b"when,sensor\n" + ROW, "The first line is “when,sensor”."),
        (
            b"when,sensor,value,unit\n" + ROW,
            "The first line is “when,sensor,value,unit”.",
        ),
        (
            b"<!doctype html><title>" + b"x" * 100,
            "The first line is “<!doctype html><title>xxxxxxxxxxxxxxxxx…”.",
        ),
        (b'"when\n' + ROW, 'The first line is “"when”.'),
        (b"x" * 100_000, f"The first line is “{'x' * 39}…”."),
        (
            b"when;sensor;value\n2025-03-01;roof;1\n",
            "The columns are separated by “;”, not by commas.",
        ),
        (
            b"when\tsensor\tvalue\n",
            "The columns are separated by “Tab”, not by commas.",
        ),
        (
            b"PK\x03\x04\x14\x00",
            "This is an Excel workbook or ZIP archive; save it as CSV.",
        ),
        (
            "when,sensor,value\n".encode("utf-16"),
            "The file is in UTF-16; save it as “CSV UTF-8”.",
        ),
        (
            b"\x89PNG\r\n\x1a\n\x00\x00",
            "Line 3 has a NUL byte, so this is not a text file.",
        ),
        (
            HEADER + ROW + b"2025-03-01,ro\0of,1\n",
            "Line 3 has a NUL byte, so this is not a text file.",
        ),
        (
            HEADER + ROW + "2025-03-01,Küche,1\n".encode("latin-1"),
            "Line 3 is not UTF-8: it has the byte 0xFC.",
        ),
        (
            HEADER + ROW * 10_000 + b"2025-03-01,\xff,1\n" + ROW * 10_000,
            "Line 10002 is not UTF-8: it has the byte 0xFF.",
        ),
        (
            HEADER + ROW + b"2025-03-01,\xc3",
            "Line 3 is not UTF-8: it has the byte 0xC3.",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_what_is_wrong_and_allowed(content, wrong, media):
    form = upload(content)
    assert errors(form) == {"file": [f"{wrong} {ALLOWED}"]}
    assert not media.exists()


def test_a_missing_file_is_named():
    assert errors(ImportRowsForm({}, {})) == {
        "file": [f"No file was chosen. {ALLOWED}"]
    }
    assert errors(ImportRowsForm({"file": "measurements.csv"})) == {
        "file": [f"No file was chosen. {ALLOWED}"]
    }


def test_a_file_that_is_too_large_is_refused_unread():
    file = SimpleUploadedFile("large.csv", b"")
    file.size = 300 * 1024 * 1024
    assert errors(ImportRowsForm({}, {"file": file})) == {
        "file": [f"The file has 300 MB. {ALLOWED}"]
    }


def test_the_bound_of_the_size_is_the_one_that_is_told():
    assert uploads.MAX_BYTES == 200 * 1024 * 1024


@pytest.mark.parametrize(
    "content",
    [
        HEADER + ROW,
        HEADER + ROW.rstrip(),
        b"\xef\xbb\xbf" + HEADER + ROW,
        b'\xef\xbb\xbf"When","Sensor "," Value"\r\n' + ROW,
        b"\n" + HEADER + b"\n" + ROW,
        HEADER + b"not,a,row\n",
        HEADER + "2025-03-01,Küche €,1\n".encode() * 10_000,
    ],
)
def test_a_csv_file_with_the_header_is_taken(content):
    assert errors(upload(content)) == {}


def test_a_file_is_kept_whole_under_a_name_that_is_not_the_users():
    form = upload(HEADER + ROW, name="../../<b>my secret</b>.exe")
    assert form.is_valid()
    kwargs = json.loads(json.dumps(form.task_kwargs()))
    assert kwargs["name"] == "b>.exe"
    assert kwargs["path"].startswith("imports/")
    assert "secret" not in kwargs["path"]
    with default_storage.open(kwargs["path"]) as file:
        assert file.read() == HEADER + ROW


def test_a_long_name_is_cut_where_it_is_shown():
    form = upload(HEADER + ROW, name="x" * 200 + ".csv")
    assert form.is_valid()
    assert len(form.task_kwargs()["name"]) == 100
