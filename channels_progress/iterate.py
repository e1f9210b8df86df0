"""Where an iteration goes on: what `progress.iterate` skips, and its cursor."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import islice
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

Key = Callable[[Any], Any] | str | None


class Plan(NamedTuple):
    """The steps left to do, each with the cursor after it; done before; in all."""

    steps: Iterator[tuple[Any, str]]
    done: int
    size: int | None


def plan(iterable: Iterable[T], key: Key, cursor: Any) -> Plan:
    """Plan to go on from `cursor`, which an earlier plan's steps gave, or None."""
    if cursor is not None and not (isinstance(cursor, dict) and "done" in cursor):
        raise ValueError(
            f"The cursor {cursor!r} is not one of progress.iterate's. A task uses "
            "either iterate or its own checkpoints, not both."
        )
    done = cursor["done"] if cursor else 0
    if isinstance(key, str):
        if hasattr(iterable, "order_by"):
            return _rows(iterable, key, done, cursor)
        name = key
        return plan(iterable, lambda item: getattr(item, name), cursor)
    size = len(iterable) if isinstance(iterable, Sized) else None
    if key is None:
        return Plan(_steps(islice(iterable, done, None), None, done), done, size)
    items = iter(iterable)
    if cursor:
        last = cursor["key"]
        items = (item for item in items if key(item) > last)
    return Plan(_steps(items, key, done), done, size)


def _rows(queryset: Any, key: str, done: int, cursor: Any) -> Plan:
    """A queryset is asked only for the rows after the cursor's."""
    rows, size = queryset.order_by(key), queryset.count()
    if cursor:
        rows = rows.filter(**{f"{key}__gt": cursor["key"]})
    steps = _steps(rows.iterator(chunk_size=1000), lambda row: getattr(row, key), done)
    return Plan(steps, done, size)


def _steps(
    items: Iterable[Any], key: Callable[[Any], Any] | None, done: int
) -> Iterator[tuple[Any, str]]:
    for number, item in enumerate(items, done + 1):
        cursor: dict[str, Any] = {"done": number}
        if key is not None:
            cursor["key"] = key(item)
        yield item, json.dumps(cursor, default=str, separators=(",", ":"))
