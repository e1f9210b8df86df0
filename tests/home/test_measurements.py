import csv
import io
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from HomeApp.measurements import (
    ROW_BYTES,
    Bad,
    Reason,
    Records,
    Row,
    after_header,
    batches,
    cells,
    count,
    measurement,
)

HEADER = b"when,sensor,value\n"


def read(content, size=1000):
    """All good rows and all reasons of a file, and the batches' sizes."""
    file = io.BytesIO(content)
    good, bad, sizes = [], [], []
    for batch in batches(file, *after_header(file), size):
        good += batch.good
        bad += batch.bad
        sizes.append(batch.count)
    assert sum(sizes) == count(file) == len(good) + len(bad)
    return good, bad, sizes


def reasons(*rows):
    return [str(reason) for reason in read(HEADER + b"\n".join(rows))[1]]


def test_a_row_is_a_moment_in_utc_a_sensor_and_a_number():
    good, bad, _ = read(HEADER + b"2025-03-01T12:00:00+01:00, roof ,-1.5e1\n")
    assert good == [Row(datetime(2025, 3, 1, 11, tzinfo=UTC), "roof", -15.0)]
    assert good[0].when.utcoffset().total_seconds() == 0
    assert not bad


@pytest.mark.parametrize(
    "when", ["2025-03-01 00:00:00", "2025-03-01T00:00Z", "2025-03-01", "20250301"]
)
def test_a_moment_without_an_offset_is_utc(when):
    assert measurement([when, "roof", "1"]).when == datetime(2025, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("row", "column", "reason"),
    [
        (b"", "", None),
        (b",roof,1", "when", "The time is missing."),
        (
            b"yesterday,roof,1",
            "when",
            (
                "“yesterday” is not a date and time such as 2025-03-01 12:00:00 "
                "or 2025-03-01T12:00:00+01:00."
            ),
        ),
        (b"2025-03-01, ,1", "sensor", "The sensor's name is missing."),
        (
            b"2025-03-01," + b"x" * 101 + b",1",
            "sensor",
            "“" + "x" * 39 + "…” is longer than 100 characters.",
        ),
        (b"2025-03-01,a\x07b,1", "sensor", "“a\x07b” has a control character."),
        (b"2025-03-01,roof,", "value", "The value is missing."),
        (b"2025-03-01,roof,warm", "value", "“warm” is not a number such as -12.5."),
        (b"2025-03-01,roof,1_000", "value", "“1_000” is not a number such as -12.5."),
        (b"2025-03-01,roof,nan", "value", "“nan” is not a finite number."),
        (b"2025-03-01,roof,1e999", "value", "“1e999” is not a finite number."),
        (b"2025-03-01,roof", "", "Columns: 2 instead of 3 (when, sensor, value)."),
        (b"2025-03-01,roof,1,5", "", "Columns: 4 instead of 3 (when, sensor, value)."),
        (
            b"2025-03-01;roof;1",
            "",
            "Columns: 1 instead of 3 (when, sensor, value).",
        ),
        (b"2025-03-01,\xff,1", "", "The row is not UTF-8 text: 2025-03-01,\\xff,1"),
        (b"2025-03-01,\0,1", "", "The row has a NUL byte: 2025-03-01,\\x00,1"),
        (b'2025-03-01,"\0",1', "", 'The row has a NUL byte: 2025-03-01,"\\x00",1'),
        (b'2025-03-01,"\xff",1', "", 'The row is not UTF-8 text: 2025-03-01,"\\xff",1'),
        (
            b'2025-03-01,"roof,1',
            "",
            'A quote is not closed, or text follows it: 2025-03-01,"roof,1',
        ),
        (
            b'2025-03-01,"roof"x,1',
            "",
            'A quote is not closed, or text follows it: 2025-03-01,"roof"x,1',
        ),
        (
            b"2025-03-01," + b"x" * ROW_BYTES * 3 + b",1",
            "",
            "The row is longer than 16 KiB: 2025-03-01,xxxxxxxxxxxxxxxxxxxxxxxxxxxx…",
        ),
    ],
)
def test_a_bad_row_has_its_line_its_column_and_a_reason(row, column, reason):
    before, after = b"2025-03-01,before,1\n", b"\n2025-03-01,after,2"
    good, bad, _ = read(HEADER + before + row + after)
    assert [(r.line, r.column, str(r)) for r in bad] == (
        [(3, column, reason)] if reason else []
    )
    assert [row.sensor for row in good] == ["before", "after"]


@pytest.mark.parametrize("when", ["0001-01-01", "9999-12-31", "0001-01-01T00+14:00"])
def test_the_ends_of_the_calendar_are_refused(when):
    with pytest.raises(Bad, match="when"):
        measurement([when, "roof", "1"])


def test_html_and_formulas_are_text_like_any_other():
    cell = '<script>alert(1)</script>=cmd|"'
    text = io.StringIO()
    csv.writer(text).writerow(["2025-03-01", cell, "1"])
    good, _, _ = read(HEADER + text.getvalue().encode())
    assert good[0].sensor == cell


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("last", [True, False])
def test_line_ends_and_byte_order_marks_make_no_difference(end, bom, last):
    lines = [HEADER.strip(), b"2025-03-01,a,1", b"", b'2025-03-01,"b",2']
    good, bad, _ = read(bom + end.join(lines) + end * last)
    assert [(row.sensor, row.value) for row in good] == [("a", 1), ("b", 2)]
    assert not bad


def test_a_quoted_cell_may_go_on_over_lines():
    good, bad, _ = read(
        HEADER + b'2025-03-01,"a\nb\r\n, ""c""",1\n2025-03-01,d,x\n2025-03-01,"e",1'
    )
    assert [row.sensor for row in good] == ['a\nb\r\n, "c"', "e"]
    assert [reason.line for reason in bad] == [5]


def test_an_open_quote_spoils_its_own_line_only():
    rows = b"".join(b"2025-03-01,s%d,1\n" % i for i in range(5000))
    good, bad, _ = read(HEADER + b'2025-03-01,"open,1\n' + rows)
    assert len(good) == 5000
    assert [reason.line for reason in bad] == [2]


def test_batches_end_at_their_size_and_know_where():
    file = io.BytesIO(HEADER + b"2025-03-01,roof,1\nbad\n" * 5)
    found = list(batches(file, *after_header(file), 4))
    assert [batch.count for batch in found] == [4, 4, 2]
    assert [batch.start for batch in found[1:]] == [batch.end for batch in found[:2]]
    assert found[-1].end == len(file.getvalue())
    assert [batch.line for batch in found] == [6, 10, 12]
    assert [reason.line for batch in found for reason in batch.bad] == [3, 5, 7, 9, 11]


def test_a_reason_survives_json():
    reason = Reason(7, "value", "value", "warm")
    assert Reason(*list(reason)) == reason


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(
    rows=st.lists(st.lists(text.map(lambda t: t[:50]), min_size=2, max_size=4)),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_what_a_csv_writer_writes_is_read_back(rows, end):
    file = io.StringIO(newline="")
    csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator=end).writerows(rows)
    records = Records(io.BytesIO(file.getvalue().encode()))
    assert [cells(record) for record in records] == rows


@given(st.binary(max_size=300), st.integers(1, 5))
def test_any_bytes_are_rows_or_reasons_and_each_batch_can_be_gone_on_from(noise, size):
    content = HEADER + noise.replace(b"x", b'\n2025-03-01,"a\n",1\n')
    _good, _bad, sizes = read(content, size)
    assert all(count <= size for count in sizes)
    file = io.BytesIO(content)
    whole = list(batches(file, *after_header(file), size))
    for batch in whole[:-1]:
        again = list(batches(file, batch.end, batch.line, size))
        assert again == whole[whole.index(batch) + 1 :]
