from datetime import timedelta
from io import StringIO

import pytest
from django.core.files.base import ContentFile
from django.core.management import CommandError, call_command
from django.utils import timezone

from channels_progress import runs
from channels_progress.management.commands import progress_prune
from channels_progress.models import Run
from channels_progress.signals import pruned
from HomeApp import uploads
from tests.core.hand import Hand

DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def media(settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path
    return tmp_path


@pytest.fixture
def age():
    """Make a row as old as it should be."""

    def age(row, days):
        Run.objects.filter(pk=row.pk).update(created=timezone.now() - days * DAY)
        return row

    return age


@pytest.fixture
def quick(configure):
    """A worker that may be about to speak is waited for, but not for 30 s."""
    configure(LOST_AFTER=0.01)


@pytest.fixture
def receivers():
    """Connect receivers of the signal for one test."""
    connected = []

    def connect(receiver):
        pruned.connect(receiver)
        connected.append(receiver)

    yield connect
    for receiver in connected:
        pruned.disconnect(receiver)


def prune(**options):
    out = StringIO()
    call_command("progress_prune", stdout=out, **options)
    return out.getvalue()


def left():
    return set(Run.objects.values_list("title", flat=True))


def test_old_runs_go_and_young_and_open_ones_stay(store, add, end):
    now = timezone.now()
    end(add(title="old"), now - 31 * DAY)
    end(add(title="young"), now - 29 * DAY)
    add(title="open")
    said = prune()
    assert left() == {"young", "open"}
    day = (now - 30 * DAY).date()
    assert said.startswith(f"Runs removed: 1 ended before {day}")
    assert said.count("\n") == 1


def test_days_come_from_the_setting_or_the_option(store, add, end, configure):
    end(add(title="old"), timezone.now() - 3 * DAY)
    prune(days=4)
    assert left() == {"old"}
    configure(HISTORY_DAYS=2)
    prune()
    assert left() == set()


def test_many_runs_go_in_batches(store, add, end, monkeypatch):
    monkeypatch.setattr(progress_prune, "BATCH", 2)
    for _ in range(5):
        end(add(), timezone.now() - 31 * DAY)
    assert "Runs removed: 5 " in prune()
    assert not Run.objects.exists()


def test_a_dry_run_only_says_what_would_be_done(store, add, end, age, quick):
    end(add(title="old"), timezone.now() - 31 * DAY)
    age(add(title="lost"), 8)
    said = prune(dry_run=True)
    assert said.startswith("Without --dry-run: Runs removed: 1 ended before")
    assert "1 lost were ended as failed" in said
    assert left() == {"old", "lost"}
    assert not Run.objects.filter(title="lost").get().ended


@pytest.mark.parametrize("days", [-1, 40_000])
def test_impossible_days_are_refused(db, days):
    with pytest.raises(CommandError, match=f"must be from 0 to 36500, got {days}"):
        prune(days=days)


@pytest.mark.parametrize("dry_run", [True, False])
def test_an_end_that_the_history_missed_is_written(store, add, dry_run):
    row = add()
    hand = Hand(store, row.pk)
    hand.end(hand.running(), 1)
    assert "1 missed ends were written" in prune(dry_run=dry_run)
    row.refresh_from_db()
    assert bool(row.ended) is not dry_run


def test_what_nobody_has_spoken_of_for_a_week_is_ended_as_failed(
    store, add, age, quick, caplog
):
    caplog.set_level("INFO", "channels_progress.transitions")
    row = age(add(), 8)
    assert "1 lost were ended as failed" in prune()
    assert "from=lost to=failed reason=lost" in caplog.text
    row.refresh_from_db()
    assert (row.state, row.document["reason"]) == ("failed", "lost")
    assert row.ended is not None
    envelope = runs.get(row.pk).as_dict()
    assert envelope["state"] == "failed"
    assert "worker was lost" in envelope["error"]["message"]


def test_what_the_store_knows_is_paused_or_young_is_not_lost(store, add, age, quick):
    age(add(in_store=True)[0], 8)
    age(add(state="paused", document={"run": "x"}), 100)
    age(add(), 6)
    assert "0 lost were ended" in prune()
    assert not Run.objects.exclude(ended=None).exists()


def test_who_brings_its_run_back_meanwhile_is_not_lost(
    store, add, age, quick, monkeypatch
):
    row = age(add(), 8)
    monkeypatch.setattr(
        progress_prune.time, "sleep", lambda _: Hand(store, row.pk).create()
    )
    assert "0 lost were ended" in prune()
    row.refresh_from_db()
    assert row.ended is None


def test_while_the_store_is_down_old_runs_go_and_none_is_called_lost(
    store_down, add, end, age
):
    end(add(title="old"), timezone.now() - 31 * DAY)
    row = age(add(title="silent"), 8)
    with pytest.raises(CommandError, match="no lost run was ended, the store is down"):
        prune()
    assert left() == {"silent"}
    row.refresh_from_db()
    assert row.ended is None


def test_receivers_say_what_they_removed_and_may_fail(db, store, receivers):
    seen = []

    def say(sender, before, dry_run, **kwargs):
        seen.append((sender, before < timezone.now(), dry_run))
        return "2 plots removed"

    def fail(**kwargs):
        raise OSError("disk")

    receivers(say)
    assert "; 2 plots removed." in prune()
    assert seen == [(Run, True, False)]
    receivers(fail)
    with pytest.raises(CommandError, match=r"fail: OSError\('disk'\)"):
        prune()


def test_uploads_go_with_the_last_run_that_read_them(store, add, end):
    gone, kept = uploads.keep(ContentFile(b"a")), uploads.keep(ContentFile(b"b"))
    task = "HomeApp.tasks.import_rows"
    end(add(task=task, kwargs={"path": gone}), timezone.now() - DAY)
    add(task=task, kwargs={"path": kept})
    assert "uploads removed" not in prune(days=0, dry_run=True)
    assert "; 1 uploads removed." in prune(days=0)
    assert uploads.default_storage.exists(kept)
    assert not uploads.default_storage.exists(gone)
