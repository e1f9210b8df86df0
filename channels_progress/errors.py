"""What a viewer may be told when something cannot be done, by the wire's codes."""

from __future__ import annotations

from typing import Any, ClassVar

from django.utils.translation import gettext, gettext_noop

FORBIDDEN = gettext_noop("This run does not exist, or you may not see it.")


class ProgressError(Exception):
    """A refusal with a `code` of the wire and a text that a viewer may read.

    `errors` maps a field's name to its texts, or is None.
    """

    code: ClassVar[str]
    status: ClassVar[int]

    def __init__(
        self, message: str, errors: dict[str, list[str]] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.errors = errors

    def payload(self, ref: object = None) -> dict[str, Any]:
        """The `error` message of the wire; `ref` is the asker's own word, echoed."""
        payload: dict[str, Any] = {"type": "error"}
        if ref is not None:
            payload["ref"] = ref
        payload |= {"code": self.code, "message": self.message}
        if self.errors is not None:
            payload["errors"] = self.errors
        return payload


class Malformed(ProgressError):
    """Not a JSON object, or an action that does not exist."""

    code, status = "malformed", 400


class Invalid(ProgressError):
    """A task or parameters that cannot be; `errors` names the fields."""

    code, status = "invalid", 400


class Forbidden(ProgressError):
    """Not this viewer's run, or no such run: word for word the same answer."""

    code, status = "forbidden", 403

    def __init__(self) -> None:
        super().__init__(gettext(FORBIDDEN))


class Unavailable(ProgressError):
    """Store, history or broker cannot be reached; nothing has been decided."""

    code, status = "unavailable", 503


class TooMany(ProgressError):
    """A limit was reached; the text names it."""

    code, status = "too_many", 429
