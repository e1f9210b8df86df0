"""The tasks that may be started from outside, each declared with a form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from celery import Task
from django import forms
from django.utils.functional import Promise

T = TypeVar("T")


@dataclass(frozen=True)
class Startable:
    """A task that a viewer may start; `form` validates its parameters."""

    task: Task[Any, Any]
    form: type[forms.Form]
    title: str | Promise
    pausable: bool

    @cached_property
    def slug(self) -> str:
        """The last part of the task's name."""
        return str(self.task.name).rpartition(".")[2]


_declared: list[Startable] = []


def startable(
    form: type[forms.Form] = forms.Form,
    *,
    title: str | Promise = "",
    pausable: bool = False,
) -> Callable[[T], T]:
    """Declare the task below as one that a viewer may start.

    The form may have `task_kwargs()`, which gives the task's arguments as JSON can
    hold them; without it they are `cleaned_data`. `pausable` says that the task
    checkpoints, so that a pause can be resumed.
    """

    def declare(task: T) -> T:
        _declared.append(Startable(task, form, title, pausable))
        return task

    return declare


def all() -> dict[str, Startable]:
    """Every declared task by its slug."""
    return {declared.slug: declared for declared in _declared}


def get(slug: str) -> Startable | None:
    return all().get(slug)
