"""What strangers send, made safe: JSON, ids, keys, and parameters as of a form."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from django.utils.datastructures import MultiValueDict
from django.utils.translation import gettext as _

from channels_progress.errors import Forbidden, Invalid, Malformed

RUN: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
KEY_CHARACTERS: Final = 200
REF_CHARACTERS: Final = 128


def parse(text: str | bytes) -> dict[str, Any]:
    """A JSON object, or Malformed: also for NaN, a name twice, and endless nesting."""
    try:
        value = json.loads(text, parse_constant=_constant, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise Malformed(_("This is not a JSON object: %s.") % _why(error)) from None
    if not isinstance(value, dict):
        raise Malformed(_("This is JSON, but not an object."))
    return value


def _constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name appears twice in one object")
    return members


def _why(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error).partition(";")[0]  # of huge numbers, Python adds advice to us


def ref(frame: dict[str, Any]) -> str | int | None:
    """The asker's own word for a frame, to be echoed."""
    match frame.get("ref"):
        case str() as word if len(word) <= REF_CHARACTERS:
            return word
        case int() as number if abs(number) < 2**53:
            return number
    return None


def run_id(value: object) -> str:
    """A run's id, or Forbidden: what cannot be one does not exist."""
    if not isinstance(value, str) or not RUN.fullmatch(value):
        raise Forbidden()
    return value


def token(value: object) -> str | None:
    return value if isinstance(value, str) else None


def key(value: object) -> str | None:
    """The random word that makes a start idempotent, or None; else Invalid."""
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > KEY_CHARACTERS or not _whole(value):
        text = _("A key is a text of at most %d characters.") % KEY_CHARACTERS
        raise Invalid(text, {"key": [text]})
    return value


def params(value: object) -> MultiValueDict[str, Any]:
    """Parameters given as JSON in the shape of a submitted form; else Invalid.

    Every number becomes its text, a list several values, an object its JSON.
    """
    if value is None:
        value = {}
    if not isinstance(value, dict):
        text = _("The parameters must be a JSON object.")
        raise Invalid(text, {"params": [text]})
    return MultiValueDict(
        {
            name: [_field(name, item) for item in given]
            for name, item in value.items()
            if (given := item if isinstance(item, list) else [item]) != [None]
        }
    )


def _field(name: str, value: object) -> str | bool:
    if isinstance(value, bool):
        return value
    string = value if isinstance(value, str) else json.dumps(value)
    if not _whole(name + string):
        text = _("This text holds half a character (a lone surrogate).")
        name = name.encode("utf-8", "replace").decode()
        raise Invalid(f"{name}: {text}", {name: [text]})
    return string


def _whole(text: str) -> bool:
    """Whether it can be encoded: JSON lets a lone surrogate through."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
