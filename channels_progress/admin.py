"""The history for staff: every run with its live state, and a way to cancel it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from channels_progress import history, runs
from channels_progress.errors import ProgressError
from channels_progress.models import Run
from channels_progress.run import CANCELLED, FINISHED, Snapshot
from channels_progress.words import words

if TYPE_CHECKING:
    Base = admin.ModelAdmin[Run]
else:
    Base = admin.ModelAdmin

Live = Snapshot | ProgressError


def live(rows: Iterable[Run]) -> dict[str, Live]:
    """The rows' runs as they are now, in one round trip; an ended row knows itself."""
    rows = list(rows)
    found = runs.read(row.pk for row in rows if row.ended is None)
    ended = (row for row in rows if row.ended is not None)
    return {**found, **{row.pk: history.snapshot(row, 0) for row in ended}}


class RunChangeList(ChangeList):
    """Reads the page's runs together, once the page is known."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        rows: list[Any] = list(self.result_list)
        found = live(rows)
        for row in rows:
            row.live = found[row.pk]
        self.result_list = rows


@admin.register(Run)
class RunAdmin(Base):
    """Runs are looked at and cancelled here; only workers and viewers change them."""

    list_display = ("name", "state_now", "percent_now", "owner", "created", "ended")
    list_filter = ("state", "task", "created")
    search_fields = ("id__startswith", "=owner", "title")
    search_help_text = _("The run's id, its owner's name (u:1), or words of its title.")
    # Counting a large table for each page takes longer than the page.
    show_full_result_count = False
    list_per_page = 50
    actions = ("cancel",)
    fields = (
        *("id", "task", "title", "owner", "state_now", "percent_now"),
        *("created", "ended", "kwargs", "cursor", "envelope"),
    )
    readonly_fields = ("state_now", "percent_now", "envelope")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return RunChangeList

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Run | None:
        row = super().get_object(request, object_id, from_field)
        if row is not None:
            cast(Any, row).live = live([row])[row.pk]
        return row

    # -- Who may ------------------------------------------------------------------

    def has_add_permission(self, request: HttpRequest) -> bool:
        """A run is started by `runs.start`, never by its row."""
        return False

    def has_change_permission(
        self, request: HttpRequest, obj: Run | None = None
    ) -> bool:
        """Its row is not for hands; the permission lets one cancel, see below."""
        return False

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("channels_progress.change_run")

    # -- What is shown ------------------------------------------------------------

    @admin.display(description=_("run"), ordering="title")
    def name(self, row: Run) -> str:
        return row.title or row.slug

    @admin.display(description=_("state"), ordering="state")
    def state_now(self, row: Any) -> str:
        if isinstance(row.live, Snapshot):
            return words()[f"state.{row.live.shown}"]
        return gettext("unavailable")

    @admin.display(description=_("percent"))
    def percent_now(self, row: Any) -> str:
        if not isinstance(row.live, Snapshot):
            return "-"
        value = row.live.as_dict().get("percent")
        return "-" if value is None else words()["percent"].format(n=value)

    @admin.display(description=_("envelope"))
    def envelope(self, row: Any) -> str:
        if not isinstance(row.live, Snapshot):
            return str(row.live.message)
        text = json.dumps(row.live.as_dict(), indent=2, ensure_ascii=False)
        return format_html("<pre>{}</pre>", text)

    # -- What can be done ---------------------------------------------------------

    @admin.action(description=_("Cancel the selected runs"), permissions=["cancel"])
    def cancel(self, request: HttpRequest, rows: QuerySet[Run]) -> None:
        cancelled = asked = over = 0
        for row in rows:
            if row.ended is not None:
                over += 1
                continue
            try:
                snapshot = runs.cancel(row.pk)
            except ProgressError as error:  # the next one would wait as long
                self.message_user(request, error.message, messages.ERROR)
                break
            self.log_change(request, row, gettext("Cancel asked"))
            over += snapshot.state in FINISHED and snapshot.state != CANCELLED
            cancelled += snapshot.state == CANCELLED
            asked += snapshot.state not in FINISHED
        for level, count, text in (
            (
                messages.SUCCESS,
                cancelled,
                ngettext("%d run was cancelled.", "%d runs were cancelled.", cancelled),
            ),
            (
                messages.SUCCESS,
                asked,
                ngettext(
                    "%d run was asked to stop; it will at its next step.",
                    "%d runs were asked to stop; they will at their next step.",
                    asked,
                ),
            ),
            (
                messages.WARNING,
                over,
                ngettext("%d run had ended.", "%d runs had ended.", over),
            ),
        ):
            if count:
                self.message_user(request, text % count, level)
