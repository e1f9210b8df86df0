"""Where an iteration goes on: what `progress.iterate` skips, and its cursor."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

Key = Callable[[Any], Any] | str | None


class Plan(NamedTuple):
    """The steps left to do, each with the cursor after it; done before; in all."""

    steps: Iterator[tuple[Any, str]]
    done: int
    size: int | None


def size(iterable: Any) -> int | None:
    """How many items there are, or None where it has no length or does not know."""
    try:
        return len(iterable)
    except (TypeError, OverflowError, NotImplementedError):
        return None


def plan(iterable: Iterable[T], key: Key, cursor: Any, loop: int = 1) -> Plan:
    """Plan to go on from `cursor`, which an earlier plan's steps gave, or None.

    `loop` is the number of this iteration in its body. Raises ValueError where the
    cursor is none of ours; a step does where its key is no JSON value.
    """
    if cursor is not None and not (isinstance(cursor, dict) and "done" in cursor):
        raise ValueError(
            f"The cursor {cursor!r} is not one of progress.iterate's. A task uses "
            "either iterate or its own checkpoints, not both."
        )
    rows: Any = iterable if hasattr(iterable, "order_by") else None
    stopped_in = cursor.get("loop", 1) if cursor else loop
    if stopped_in > loop:
        of = size(iterable) if rows is None else rows.count()
        return Plan(iter(()), of or 0, of)
    if stopped_in < loop:
        cursor = None
    if isinstance(key, str):
        if rows is not None:
            return _rows(rows, key, cursor, loop)
        key = attrgetter(key)
    return _items(iterable, key, cursor, loop)


def _items(
    iterable: Iterable[T], key: Callable[[T], Any] | None, cursor: Any, loop: int
) -> Plan:
    items, done = iter(iterable), 0
    if cursor:
        done = cursor["done"]
    if cursor and key is None:
        items = islice(items, done, None)
    elif cursor and key is not None:
        last = cursor["key"]
        # As JSON keeps it, which makes a list of a tuple.
        items = (item for item in items if json.loads(_text(key(item))) > last)
    return Plan(_steps(items, key, _text, done, loop), done, size(iterable))


def _rows(queryset: Any, name: str, cursor: Any, loop: int) -> Plan:
    """A queryset is asked only for the rows after the cursor's; those before it may
    be gone by now."""
    rows, done = queryset.order_by(name), 0
    if cursor:
        done = cursor["done"]
        rows = rows.filter(**{f"{name}__gt": cursor["key"]})
    of = done + rows.count()

    def text(value: Any) -> str:
        return json.dumps(value, default=str)  # the field understands its own text

    items = rows.iterator(chunk_size=1000)
    steps = _steps(items, lambda row: getattr(row, name), text, done, loop)
    return Plan(steps, done, of)


def _text(key: Any) -> str:
    try:
        return json.dumps(key, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"A key of progress.iterate must be a JSON value, got {key!r}: {error}"
        ) from None


def _steps(
    items: Iterable[Any],
    key: Callable[[Any], Any] | None,
    text: Callable[[Any], str],
    done: int,
    loop: int,
) -> Iterator[tuple[Any, str]]:
    which = f',"loop":{loop}' if loop > 1 else ""
    for number, item in enumerate(items, done + 1):
        kept = f',"key":{text(key(item))}' if key is not None else ""
        yield item, f'{{"done":{number}{which}{kept}}}'
