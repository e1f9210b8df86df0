"""Our header on a Celery message: it marks the run, and which message of it this is."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, Literal

HEADER: Final = "progress"

Kind = Literal["start", "retry", "poll", "replace", "resume"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a message of a run carries; Celery's own headers say the rest."""

    run: str
    owner: str
    task: str
    title: str = ""
    hop: int = 1
    """Which message of the run this is; every publication carries the next number."""
    kind: Kind = "start"
    queued: int = 0
    """Milliseconds since 1970, by Redis's clock."""
    mark: str = ""
    """The random word of a duplicate's copy; the script remembers the current one."""
    pausable: bool = False
    """Whether the body obeys a pause. Not that of a task which has replaced the run's:
    a resume publishes the run's own, and with what the other began nobody knows."""
    kept: bool = False
    """Whether a body before has kept a cursor."""
    language: str = ""
    """In which the body speaks: that of whoever started or resumed the run."""

    def next(self, kind: Kind, *, kept: bool = False) -> Header:
        """The header of the message that follows this one; `kept` says whether the
        body at hand has kept a cursor."""
        same = kind != "replace"
        return replace(
            self,
            hop=self.hop + 1,
            kind=kind,
            mark="",
            pausable=self.pausable and same,
            kept=(self.kept or kept) and same,
        )

    def as_headers(self) -> dict[str, dict[str, Any]]:
        return {HEADER: asdict(self)}

    @classmethod
    def of(cls, headers: Any, id: str) -> Header | None:
        """From the headers of the message `id`; None where it is no run of ours.

        Fields of a newer version are ignored.
        """
        values = headers.get(HEADER) if isinstance(headers, dict) else None
        if not isinstance(values, dict):
            return None
        known = {field.name for field in fields(cls)}
        try:
            header = cls(**{name: v for name, v in values.items() if name in known})
        except TypeError:  # not complete
            return None
        # Somebody may copy all headers onto a message of another task.
        return header if header.run == id else None
