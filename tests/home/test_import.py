import io
import json
import tracemalloc
from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
from django.core.files.base import ContentFile
from django.db import OperationalError, connection

from channels_progress import Cancelled, Paused, Progress, TaskError
from channels_progress.current import enter, leave
from HomeApp import measurements, tasks, uploads
from HomeApp.models import ImportReport, Measurement, Overtaken

pytestmark = pytest.mark.django_db

START = datetime(2025, 3, 1, tzinfo=UTC)
HEADER = "when,sensor,value\n"
BAD = "yesterday,roof,1\n"


def row(number, value=1.0, sensor="roof"):
    return f"{(START + timedelta(minutes=number)).isoformat()},{sensor},{value}\n"


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(tasks, "ROWS", 3)


@pytest.fixture
def progress():
    progress = Progress()
    enter(progress)
    yield progress
    leave()


def kept(*rows):
    return uploads.keep(ContentFile((HEADER + "".join(rows)).encode()))


def import_text(*rows, run="a-run", name="test.csv"):
    """Import rows of text as one attempt of `run`."""
    file = io.BytesIO((HEADER + "".join(rows)).encode())
    return tasks.import_file(file, run, "imports/test.csv", name)


def table():
    return list(Measurement.objects.order_by("when").values_list("when", "value"))


class FailAt:
    """Lose the database at one of its statements, as a killed worker would."""

    def __init__(self, number):
        self.left = number

    def __call__(self, execute, sql, *args):
        if not sql.startswith(("SAVEPOINT", "RELEASE", "ROLLBACK", "BEGIN")):
            self.left -= 1
            if self.left == 0:
                raise OperationalError("gone")
        return execute(sql, *args)


def test_every_good_row_is_in_the_table_and_the_receipt_says_so(progress):
    receipt = import_text(row(1, 1.5), row(2, -2), BAD, row(3, 3))
    assert table() == [
        (START + timedelta(minutes=1), 1.5),
        (START + timedelta(minutes=2), -2),
        (START + timedelta(minutes=3), 3),
    ]
    assert receipt.pop("seconds") >= 0
    assert receipt == {
        "file": "test.csv",
        "rows": 4,
        "inserted": 3,
        "updated": 0,
        "bad": 1,
        "attempts": 1,
        "reasons": [
            {
                "line": 4,
                "column": "when",
                "code": "when",
                "value": "yesterday",
                "text": "“yesterday” is not a date and time such as "
                "2025-03-01 12:00:00 or 2025-03-01T12:00:00+01:00.",
            }
        ],
    }
    assert (progress.current, progress.total, progress.unit) == (4, 4, "row")
    assert progress.message == "Bad rows: 1"


def test_a_second_import_updates(progress):
    import_text(row(1, 1), row(2, 2), run="first")
    receipt = import_text(row(2, 20), row(3, 30), run="second")
    assert [value for _, value in table()] == [1, 20, 30]
    assert (receipt["inserted"], receipt["updated"]) == (1, 1)


def test_of_two_rows_for_one_moment_and_sensor_the_last_counts(progress):
    receipt = import_text(row(1, 1), row(1, 2), row(1, 3, sensor="cellar"), row(1, 4))
    assert sorted(value for _, value in table()) == [3, 4]
    assert (receipt["inserted"], receipt["updated"]) == (2, 2)


def test_the_same_moment_in_two_time_zones_is_one(progress):
    import_text("2025-03-01T12:00:00Z,roof,1\n", "2025-03-01T13:00:00+01:00,roof,2\n")
    assert [value for _, value in table()] == [2]


def test_html_in_a_cell_and_in_the_name_stays_text(progress):
    receipt = import_text(
        row(1, sensor="<b>roof</b>"), "<i>,x,1\n", name="<script>.csv"
    )
    assert Measurement.objects.get().sensor == "<b>roof</b>"
    assert receipt["file"] == "<script>.csv"
    assert receipt["reasons"][0]["value"] == "<i>"


def test_the_first_100_reasons_are_kept_and_the_result_stays_small(progress, small):
    receipt = import_text(*[f"„{'é' * 60}{i},roof,1\n" for i in range(250)])
    report = ImportReport.objects.get()
    assert receipt["bad"] == report.bad == 250
    assert [reason.line for reason in report.shown_reasons()] == list(range(2, 102))
    assert 3 <= len(receipt["reasons"]) < 100
    assert len(json.dumps(receipt)) < 4096


@pytest.mark.django_db(transaction=True)
def test_a_lost_database_at_any_statement_leaves_every_row_exactly_once(
    progress, small
):
    rows = [BAD if i % 4 == 0 else row(i, i) for i in range(11)]
    statement, interrupted = 0, True
    while interrupted:
        statement += 1
        run = f"lost-at-{statement}"
        Measurement.objects.all().delete()
        try:
            with connection.execute_wrapper(FailAt(statement)):
                receipt = import_text(*rows, run=run)
            interrupted = False
        except OperationalError:
            receipt = import_text(*rows, run=run)
        assert [value for _, value in table()] == [1, 2, 3, 5, 6, 7, 9, 10]
        counted = [receipt[key] for key in ("rows", "inserted", "updated", "bad")]
        assert counted == [11, 8, 0, 3]
        assert [reason["line"] for reason in receipt["reasons"]] == [2, 6, 10]
    assert statement > 15


def test_a_further_attempt_goes_on_behind_the_last_batch(progress, small):
    rows = [row(i, i) for i in range(10)]
    with connection.execute_wrapper(FailAt(12)), pytest.raises(OperationalError):
        import_text(*rows)
    done = ImportReport.objects.get()
    assert 3 <= done.rows < 10
    assert progress.cursor_text == f'{{"offset":{done.offset},"rows":{done.rows}}}'

    again = Progress()
    enter(again)
    receipt = import_text(*rows)
    assert again.skipped == done.rows
    assert again.current == again.total == 10
    assert (receipt["rows"], receipt["attempts"]) == (10, 2)


def stopped(stop, at):
    """A progress that a viewer stops once `at` rows are done."""

    def wake():
        progress.rest()
        if progress.current >= at:
            progress.stop(stop)

    progress = Progress(wake)
    enter(progress)
    return progress


def test_a_cancel_keeps_what_is_done(progress, small):
    stopped(Cancelled(), at=3)
    with pytest.raises(Cancelled):
        import_text(*[row(i) for i in range(10)])
    assert ImportReport.objects.get().rows == Measurement.objects.count() == 3


def test_a_pause_is_the_same_attempt(progress, small):
    rows = [row(i, i) for i in range(10)]
    stopped(Paused(), at=6)
    with pytest.raises(Paused):
        import_text(*rows)
    assert ImportReport.objects.get().rows == 6
    enter(progress)
    receipt = import_text(*rows)
    assert (receipt["rows"], receipt["attempts"]) == (10, 1)
    assert [value for _, value in table()] == list(range(10))


def test_a_resume_in_the_same_progress_does_not_count_twice(small):
    progress = Progress()
    enter(progress)
    progress.restore(3, 10, "row", "")
    rows = [row(i, i) for i in range(10)]
    file = io.BytesIO((HEADER + "".join(rows)).encode())
    report = ImportReport.begin("a-run", "imports/test.csv", "test.csv", file)
    report.take(
        next(measurements.batches(file, report.offset, report.line, 3)), seconds=1
    )
    import_text(*rows)
    assert progress.current == progress.total == 10
    leave()


def test_the_second_of_two_attempts_at_once_stops(progress):
    file = io.BytesIO((HEADER + row(1) + BAD).encode())
    first = ImportReport.begin("a-run", "imports/test.csv", "test.csv", file)
    second = ImportReport.objects.get()
    batch = next(measurements.batches(file, first.offset, first.line, 1000))
    first.take(batch, seconds=1)
    with pytest.raises(Overtaken):
        second.take(batch, seconds=1)
    report = ImportReport.objects.get()
    assert (report.rows, report.inserted, report.bad) == (2, 1, 1)
    assert len(report.reasons) == 1


def overtaken(steps):
    """A progress beside which another attempt takes the next batches, up to `steps`."""
    rows = [BAD if i % 4 == 0 else row(i, i) for i in range(11)]
    file = io.BytesIO((HEADER + "".join(rows)).encode())

    def overtake():
        progress.rest()
        report = ImportReport.objects.filter(pk="a-run", rows=3).first()
        if report is not None:
            batches = measurements.batches(file, report.offset, report.line, 3)
            for batch in islice(batches, steps):
                report.take(batch, seconds=1)
            if report.rows == report.total:
                report.finish(seconds=1)

    progress = Progress(overtake)
    enter(progress)
    return rows


@pytest.mark.parametrize("steps", [1, 2, None])
def test_a_body_that_was_overtaken_goes_on_behind_it(small, steps):
    """The other one may be told that it is superseded; this one holds the lease."""
    receipt = import_text(*overtaken(steps))
    leave()
    assert [value for _, value in table()] == [1, 2, 3, 5, 6, 7, 9, 10]
    counted = [receipt[key] for key in ("rows", "inserted", "updated", "bad")]
    assert counted == [11, 8, 0, 3]
    assert ImportReport.objects.get().ended


def test_a_message_that_comes_back_after_the_end_gets_the_same_receipt(progress):
    receipt = import_text(row(1), BAD)
    Measurement.objects.all().delete()
    assert import_text(row(1), BAD) == receipt
    assert not table()


def test_the_task_reads_the_kept_upload_and_shows_its_name(progress):
    receipt = tasks.import_rows(path=kept(row(1), row(2)), name="mine.csv")
    assert (receipt["file"], receipt["rows"]) == ("mine.csv", 2)


def test_an_upload_that_was_removed_is_a_failure_in_words(progress):
    with pytest.raises(TaskError, match=r"no longer here. Please upload it again."):
        tasks.import_rows(path="imports/gone.csv", name="gone.csv")


def test_a_path_never_leads_out_of_the_uploads(progress):
    with pytest.raises(Exception, match="outside of the base path"):
        tasks.import_rows(path="../../etc/passwd", name="x")


def test_a_large_file_takes_the_memory_of_one_batch(tmp_path):
    path = tmp_path / "large.csv"
    with path.open("w") as file:
        file.write(HEADER)
        file.writelines(row(i) for i in range(50_000))
    tracemalloc.start()
    with path.open("rb") as file:
        seen = sum(batch.count for batch in measurements.batches(file, 18, 2, 1000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seen == 50_000
    assert peak < 2_000_000
