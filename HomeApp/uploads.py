"""Uploaded CSV files: checked, kept under random names, removed when they are old."""

import codecs
from collections.abc import Collection, Iterable
from datetime import datetime
from itertools import chain
from uuid import uuid4

from django.core.exceptions import ValidationError
from django.core.files import File
from django.core.files.storage import default_storage
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

from HomeApp.measurements import HEADER, Bad, Records, cells, shorten

FOLDER = "imports"
MAX_BYTES = 200 * 1024 * 1024

_ALLOWED = _(
    "Allowed is a CSV file in UTF-8, at most 200 MB, whose first line is "
    "“when,sensor,value”."
)

# What is wrong with a file, and what is allowed.
ERRORS = {
    code: format_lazy("{} {}", text, _ALLOWED)
    for code, text in {
        "required": _("No file was chosen."),
        "invalid": _("No file arrived; a form sends it as multipart/form-data."),
        "empty": _("The file is empty."),
        "large": _("The file has %(size)s MB."),
        "workbook": _("This is an Excel workbook or ZIP archive; save it as CSV."),
        "utf16": _("The file is in UTF-16; save it as “CSV UTF-8”."),
        "nul": _("Line %(line)s has a NUL byte, so this is not a text file."),
        "encoding": _("Line %(line)s is not UTF-8: it has the byte 0x%(byte)s."),
        "separator": _("The columns are separated by “%(separator)s”, not by commas."),
        "header": _("The first line is “%(line)s”."),
        "no_rows": _("The file has a header and no rows."),
    }.items()
}


def check(file: File) -> None:
    """Raise ValidationError unless `file` is a CSV file of measurements.

    Reads it in chunks, in whole: somebody with the wrong encoding wants one answer, not
    a hundred bad rows. What the rows say is for the import to judge.
    """
    if file.size > MAX_BYTES:
        raise _error("large", size=-(-file.size // 1024**2))
    file.seek(0)
    head = file.read(4)
    if head == b"PK\x03\x04":
        raise _error("workbook")
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise _error("utf16")
    _check_text(file.chunks())
    records = iter(Records(file))
    _check_header(next(records, None))
    if next(records, None) is None:
        raise _error("no_rows")


def _check_text(chunks: Iterable[bytes]) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1
    for chunk in chain(chunks, [b""]):
        if (nul := chunk.find(b"\0")) >= 0:
            raise _error("nul", line=line + chunk.count(b"\n", 0, nul))
        try:
            decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise _error(
                "encoding",
                line=line + error.object.count(b"\n", 0, error.start),
                byte=f"{error.object[error.start]:02X}",
            ) from None
        line += chunk.count(b"\n")


def _check_header(record: bytes | list[str] | Bad | None) -> None:
    if record is None:
        raise _error("empty")
    try:
        header = cells(record)
    except Bad as bad:
        raise _error("header", line=bad.args[2]) from None
    if _names(header) == HEADER:
        return
    for separator, name in {";": ";", "\t": "Tab", "|": "|"}.items():
        if len(header) == 1 and _names(header[0].split(separator)) == HEADER:
            raise _error("separator", separator=name)
    raise _error("header", line=shorten(",".join(header)))


def _names(header: list[str]) -> list[str]:
    return [name.strip(' "').lower() for name in header]


def _error(code: str, **params: object) -> ValidationError:
    return ValidationError(ERRORS[code], code, params)


def keep(file: File) -> str:
    """Store `file` under a random name, never the user's, and return its path."""
    return default_storage.save(f"{FOLDER}/{uuid4().hex}.csv", file)


def kept(path: str) -> bool:
    """Whether the upload is still there."""
    return default_storage.exists(path)


def prune(before: datetime, needed: Collection[str] = ()) -> int:
    """Remove the uploads from before a time, except `needed` paths; how many."""
    try:
        _folders, names = default_storage.listdir(FOLDER)
    except FileNotFoundError:
        return 0
    old = [
        path
        for path in (f"{FOLDER}/{name}" for name in names)
        if path not in needed and default_storage.get_modified_time(path) < before
    ]
    for path in old:
        default_storage.delete(path)
    return len(old)
