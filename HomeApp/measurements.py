"""A CSV file of measurements, read as a stream: rows, and reasons against them."""

import csv
import math
from codecs import BOM_UTF8
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import BinaryIO, NamedTuple

from django.utils.translation import gettext_lazy as _

HEADER = ["when", "sensor", "value"]
SENSOR_LENGTH = 100  # characters

# A longer row is bad, so that a file without line ends does not fill the memory, and a
# quote that is never closed spoils its own line only.
ROW_BYTES = 16 * 1024

# What a reason shows of a cell, in characters.
SHOWN = 40

REASONS = {
    "columns": _("Columns: %(value)s instead of 3 (when, sensor, value)."),
    "long": _("The row is longer than 16 KiB: %(value)s"),
    "quotes": _("A quote is not closed, or text follows it: %(value)s"),
    "encoding": _("The row is not UTF-8 text: %(value)s"),
    "nul": _("The row has a NUL byte: %(value)s"),
    "when_empty": _("The time is missing."),
    "when": _(
        "“%(value)s” is not a date and time such as 2025-03-01 12:00:00 "
        "or 2025-03-01T12:00:00+01:00."
    ),
    "sensor_empty": _("The sensor's name is missing."),
    "sensor_long": _("“%(value)s” is longer than 100 characters."),
    "sensor": _("“%(value)s” has a control character."),
    "value_empty": _("The value is missing."),
    "value": _("“%(value)s” is not a number such as -12.5."),
    "value_large": _("“%(value)s” is not a finite number."),
}


class Reason(NamedTuple):
    """Why a row is bad: its line, the column or "", a key of REASONS, and the cell."""

    line: int
    column: str
    code: str
    value: str

    def __str__(self):
        return str(REASONS[self.code]) % {"value": self.value}


class Bad(ValueError):
    """A row cannot be taken: `column`, `code`, `value` as in a Reason."""


class Row(NamedTuple):
    """One measurement; `when` is in UTC."""

    when: datetime
    sensor: str
    value: float


class Records:
    """The records of a binary file from `offset`, where `line` (from 1) begins.

    A record is a line, or several where a quoted cell goes on; empty lines are passed
    over. While one is looked at, `start` is its line, and `offset` and `line` are those
    behind it. Memory is bounded by ROW_BYTES.
    """

    def __init__(self, file: BinaryIO, offset: int = 0, line: int = 1):
        file.seek(offset)
        if offset == 0 and file.read(len(BOM_UTF8)) == BOM_UTF8:
            offset = len(BOM_UTF8)
        file.seek(offset)
        self._file = file
        self.offset = offset
        self.line = self.start = line

    def __iter__(self) -> Iterator[bytes | list[str] | Bad]:
        """Yield a plain record's bytes, a quoted one's cells, or what ails it.

        `cells()` makes one of the three.
        """
        readline = self._file.readline
        while raw := readline(ROW_BYTES):
            self.start = self.line
            self.offset += len(raw)
            self.line += 1
            if len(raw) == ROW_BYTES and not raw.endswith(b"\n"):
                yield self._long(raw)
            elif b'"' in raw:
                yield self._quoted(raw)
            elif not raw.isspace():
                yield raw

    def _long(self, raw: bytes) -> Bad:
        shown = _shown(raw)
        while raw and not raw.endswith(b"\n"):
            raw = self._file.readline(ROW_BYTES)
            self.offset += len(raw)
        return Bad("", "long", shown)

    def _quoted(self, first: bytes) -> list[str] | Bad:
        taken: list[bytes] = []

        def lines() -> Iterator[str]:
            raw, size = first, 0
            while raw and (size := size + len(raw)) <= ROW_BYTES:
                taken.append(raw)
                yield _text(raw)
                raw = self._file.readline(ROW_BYTES)

        try:
            cells = next(csv.reader(lines(), strict=True))
        except (csv.Error, Bad) as error:
            # Only the first line is lost: what follows may be rows.
            self._file.seek(self.offset)
            if isinstance(error, Bad) and len(taken) == 1:
                return error
            return Bad("", "quotes", _shown(first))
        self.offset += sum(map(len, taken[1:]))
        self.line += len(taken) - 1
        return cells


def _text(raw: bytes) -> str:
    if b"\0" in raw:
        raise Bad("", "nul", _shown(raw))
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Bad("", "encoding", _shown(raw)) from None


def _shown(raw: bytes) -> str:
    return shorten(raw.decode(errors="backslashreplace").strip())


def shorten(text: str) -> str:
    """Return at most SHOWN characters of `text`, on one line, visibly cut."""
    text = " ".join(text.replace("\0", "\\x00").split())
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def cells(record: bytes | list[str] | Bad) -> list[str]:
    """Return the cells of what Records yields; raise Bad."""
    if isinstance(record, bytes):
        return _text(record).rstrip("\r\n").split(",")
    if isinstance(record, Bad):
        raise record
    return record


def measurement(cells: list[str]) -> Row:
    """Return the row that the cells say; raise Bad for the first cell that is wrong."""
    try:
        when, sensor, value = cells
    except ValueError:
        raise Bad("", "columns", str(len(cells))) from None
    return Row(_when(when.strip()), _sensor(sensor.strip()), _value(value.strip()))


def _when(text: str) -> datetime:
    if not text:
        raise Bad("when", "when_empty", "")
    try:
        when = datetime.fromisoformat(text)
        # A time without an offset is UTC. The calendar's outermost years are refused:
        # in another time zone they are outside of it.
        if 1 < when.year < 9999:
            return when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
    except ValueError:
        pass
    raise Bad("when", "when", shorten(text))


def _sensor(text: str) -> str:
    if not text:
        raise Bad("sensor", "sensor_empty", "")
    if len(text) > SENSOR_LENGTH:
        raise Bad("sensor", "sensor_long", shorten(text))
    if not text.isprintable() and any(c < " " and c not in "\t\r\n" for c in text):
        raise Bad("sensor", "sensor", shorten(text))
    return text


def _value(text: str) -> float:
    if not text:
        raise Bad("value", "value_empty", "")
    try:
        if "_" in text:  # Python's own way to write 1_000
            raise ValueError
        value = float(text)
    except ValueError:
        raise Bad("value", "value", shorten(text)) from None
    if not math.isfinite(value):
        raise Bad("value", "value_large", shorten(text))
    return value


@dataclass
class Batch:
    """Consecutive rows of a file, from the offset `start` to `end`, before `line`."""

    start: int
    end: int = 0
    line: int = 0
    count: int = 0
    good: list[Row] = field(default_factory=list)
    bad: list[Reason] = field(default_factory=list)


def batches(file: BinaryIO, offset: int, line: int, size: int) -> Iterator[Batch]:
    """Yield the rows from `offset` on, at most `size` at a time, validated."""
    records = Records(file, offset, line)
    batch = Batch(offset)
    for record in records:
        batch.count += 1
        try:
            batch.good.append(measurement(cells(record)))
        except Bad as bad:
            batch.bad.append(Reason(records.start, *bad.args))
        if batch.count == size:
            batch.end, batch.line = records.offset, records.line
            yield batch
            batch = Batch(records.offset)
    if batch.count:
        batch.end, batch.line = records.offset, records.line
        yield batch


def after_header(file: BinaryIO) -> tuple[int, int]:
    """Return the offset and the line of the first record behind the header."""
    records = Records(file)
    for _header in records:
        break
    return records.offset, records.line


def count(file: BinaryIO) -> int:
    """Return how many rows there are behind the header, good and bad."""
    return sum(1 for _ in Records(file, *after_header(file)))
