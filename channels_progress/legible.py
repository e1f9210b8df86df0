"""Whatever a task hands in, made legible: numbers, texts, JSON. It never raises.

Pure: no Django, no Celery, no Redis, no Channels.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

MESSAGE_CHARACTERS: Final = 500
TITLE_CHARACTERS: Final = 200
RESULT_BYTES: Final = 4096
CURSOR_BYTES: Final = 4096


def number(value: object) -> float | int | None:
    """A finite number of at most 15 digits that JSON and every browser can hold,
    else None."""
    if isinstance(value, bool) or value is None:
        return None
    if not isinstance(value, int | float):
        try:
            value = float(value)  # type: ignore[arg-type]  # Decimal, numpy, str
        except Exception:  # whatever a task hands in, it is no reason to fail
            return None
    if isinstance(value, int):
        return value if abs(value) < 10**15 else None
    if not math.isfinite(value) or abs(value) >= 1e15:
        return None
    return int(value) if value.is_integer() else round(value, 6)


def text(value: object, limit: int) -> str:
    """`value` as legible text of at most `limit` characters, safe to encode and to
    keep in any database; None is no text."""
    try:
        string = "" if value is None else str(value)
    except Exception:  # a lazy string or a model's __str__ may raise anything
        string = f"<{type(value).__name__}>"
    if len(string) > limit:
        string = string[: limit - 1] + "…"
    return string.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _legible(value: Any) -> Any:
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    for name in ("isoformat", "tolist"):  # dates and times, NumPy's numbers and arrays
        if callable(convert := getattr(value, name, None)):
            return convert()
    return text(value, MESSAGE_CHARACTERS)


# A NUL as JSON has it, after an even number of backslashes.
NUL: Final = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def encode(value: object) -> str:
    """Compact JSON of anything: what JSON does not know becomes its text."""
    try:
        string = json.dumps(
            value,
            ensure_ascii=False,
            separators=(",", ":"),
            allow_nan=False,
            default=_legible,
        )
    except Exception:  # nan, odd keys, cycles, and what its own methods raise
        string = json.dumps(text(value, MESSAGE_CHARACTERS), ensure_ascii=False)
    # PostgreSQL keeps no NUL, and UTF-8 no half of a surrogate pair.
    string = NUL.sub(r"\1\\ufffd", string)
    return string.encode("utf-8", "replace").decode()


def encode_result(value: object) -> str:
    """A task's result as JSON of at most `RESULT_BYTES`; a larger one says so."""
    string = encode(value)
    size = len(string.encode())
    if size > RESULT_BYTES:
        return encode({"truncated": True, "bytes": size})
    return string
