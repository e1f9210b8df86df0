"""What is left to say of a run that has ended."""

import pytest
from django.utils import timezone
from django.utils.translation import override

from HomeApp.models import ImportReport
from HomeApp.receipts import Receipt
from HomeApp.templatetags.charts import BINS, at, rate_plot, rates
from tests.page.conftest import NOW, snapshot
from tests.site.conftest import Hand, start

pytestmark = pytest.mark.django_db


def ended(state="succeeded", *, seconds=20, **details):
    said = {"current": 4200, "total": 4200, "unit": "transform", **details}
    times = {"started": NOW - seconds * 1000, "ended": NOW}
    return snapshot(state, details=said, **times).as_dict()


def facts(envelope):
    return dict(Receipt.of(envelope).facts)


def test_there_is_none_before_the_end():
    assert Receipt.of(snapshot("running").as_dict()) is None


def test_a_success_says_how_much_and_how_fast():
    assert facts(ended(silence=2.25)) == {
        "Done": "4,200 transforms",
        "Time": "20 s",
        "Mean rate": "210 transforms per second",
        "Attempts": "1",
        "Longest silence": "2.2 s",
    }


def test_an_early_end_says_what_was_not_reached():
    said = facts(ended("failed", current=60, total=100, unit="step"))
    assert said["Done"] == "60 steps"
    assert said["Not reached"] == "40"


@pytest.mark.parametrize(
    ("state", "reason", "said"),
    [
        ("failed", "restarts", {"Longest silence": "31 s"}),
        ("failed", "unknown_task", {}),
        ("cancelled", "asked", {}),
        ("succeeded", None, {}),
    ],
)
def test_a_worker_that_died_was_silent_until_the_end(state, reason, said):
    """Of other ends nobody knows whether the run was to wait for so long."""
    envelope = ended(state, seconds=60) | {"seen": NOW - 31_000, "reason": reason}
    found = facts(envelope)
    assert {name: found[name] for name in found if name == "Longest silence"} == said


def test_a_total_that_was_too_small_leaves_nothing_unreached():
    assert "Not reached" not in facts(ended("failed", current=100, total=80))


def test_a_slow_one_counts_by_the_minute():
    assert facts(ended(current=2, total=2))["Mean rate"] == "6 transforms per minute"


def test_numbers_are_the_languages():
    with override("de"):
        said = facts(ended(current=1234567))
    assert said["Erledigt"] == "1.234.567 Transformationen"
    assert said["Mittleres Tempo"] == "61.700 Transformationen pro Sekunde"


def test_one_that_never_began_says_so(visitor):
    run = start(visitor)
    assert visitor.post(f"/progress/runs/{run}/cancel/").status_code == 202
    html = visitor.get(f"/runs/{run}/").content.decode()
    assert "before a worker began" in html
    assert "<svg" not in html.partition('id="receipt"')[2].partition("</section>")[0]


@pytest.fixture
def report():
    return ImportReport.objects.create(
        run=ended()["run"],
        path="imports/x.csv",
        name="x.csv",
        offset=100,
        line=9,
        total=2000,
        rows=1000,
        inserted=700,
        bad=120,
        reasons=[[n, "value", "value_empty", ""] for n in range(2, 102)],
        seconds=4,
        attempts=2,
        ended=timezone.now(),
    )


def test_an_import_is_counted_by_its_report(report):
    said = facts(ended("cancelled", current=990, total=2000, unit="row"))
    assert said["Done"] == "1,000 rows"
    assert said["Inserted"] == "700"
    assert said["Updated"] == "180"
    assert said["Bad, left out"] == "120"
    assert said["Not reached"] == "1,000"
    assert said["Mean rate"] == "250 rows per second"


def test_its_reasons_are_a_table(visitor, report):
    run = start(visitor)
    ImportReport.objects.filter(pk=report.pk).update(run=run)
    Hand(run).end()
    html = visitor.get(f"/runs/{run}/").content.decode()
    assert "Bad rows: the first 100 of 120" in html
    assert html.count("<td>The value is missing.</td>") == 100


def test_a_table_of_all_reasons_does_not_call_them_the_first(visitor, report):
    run = start(visitor)
    short = {"run": run, "bad": 2, "reasons": report.reasons[:2]}
    ImportReport.objects.filter(pk=report.pk).update(**short)
    Hand(run).end()
    html = visitor.get(f"/runs/{run}/").content.decode()
    assert '<caption id="reasons">Bad rows: 2</caption>' in html


# -- The rate over time


def test_a_steady_run_has_a_steady_rate():
    assert rates([(0, 0), (1, 10), (2, 20), (3, 30)]) == [10, 10, 10]


def test_however_many_samples_there_are_the_curve_has_a_few_parts():
    assert len(rates([(n / 10, n) for n in range(49)])) == BINS


def test_all_that_was_done_is_under_the_curve():
    samples = [(0, 0), (0.3, 7), (1, 9), (5, 100), (5.1, 100), (9, 130)]
    values = rates(samples)
    assert sum(values) * 9 / len(values) == pytest.approx(130)


def test_what_falls_has_no_rate():
    assert rates([(0, 10), (1, 5), (2, 15)]) == [0, 10]


def test_what_was_done_before_the_first_sample_counts():
    plot = rate_plot({"samples": [(1, 8), (2, 16)], "unit": "", "attempt": 1})
    assert plot["lowest"] == plot["highest"] == "8 per second"


SHORT = [(0, 0), (0.02, 900), (0.03, 2000)]


@pytest.mark.parametrize("samples", [[], [(0, 0)], [(0, 0), (0, 5)], None, SHORT])
def test_too_few_samples_are_no_curve(samples):
    assert rate_plot({"samples": samples}) == {}


def test_between_two_samples_the_count_is_on_a_line():
    samples = [(1, 10), (3, 30)]
    assert [at(samples, t) for t in (0, 1, 2, 3, 4)] == [10, 10, 20, 30, 30]


def test_the_plot_says_in_words_what_it_shows(visitor):
    run = start(visitor)
    samples = [(0, 0), (1, 10), (2, 30), (3, 100)]
    Hand(run).end(samples=samples, silence=0.4)
    html = visitor.get(f"/runs/{run}/").content.decode()
    label = "Rate over time: from 10 points per second to 70 points per second"
    assert f'role="img" aria-label="{label}"' in html
    assert 'points="0.0,' in html
    assert "at most 70 points per second." in html
