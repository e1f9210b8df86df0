import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from channels_progress.models import Run
from channels_progress.store import Store

LIST = reverse("admin:channels_progress_run_changelist")


def staff(*permissions):
    user = User.objects.create_user("ada", is_staff=True)
    codes = [f"{name}_run" for name in permissions]
    user.user_permissions.set(Permission.objects.filter(codename__in=codes))
    return user


@pytest.fixture
def viewer(client, db):
    client.force_login(staff("view"))
    return client


@pytest.fixture
def canceller(client, db):
    client.force_login(staff("view", "change"))
    return client


@pytest.fixture
def reads(monkeypatch):
    """How many runs each round trip to the store has read."""
    read, sizes = Store.read, []

    def counted(self, ids):
        ids = list(ids)
        sizes.append(len(ids))
        return read(self, ids)

    monkeypatch.setattr(Store, "read", counted)
    return sizes


def detail(row):
    return reverse("admin:channels_progress_run_change", args=[row.pk])


def cancel(client, *rows):
    data = {"action": "cancel", "_selected_action": [row.pk for row in rows]}
    response = client.post(LIST, data, follow=True)
    return [str(message) for message in response.context["messages"]]


def cells(response, column):
    return [
        cell.split(">")[1].split("<")[0]
        for cell in response.content.decode().split(f'"field-{column}"')[1:]
    ]


def test_the_list_shows_live_states_in_one_round_trip(viewer, store, add, reads):
    (_, running), _queued = add(in_store=True), add(in_store=True)
    lease = running.begin().extra[0].decode()
    running.report(lease, 1, doc=running.doc(current=42, total=100))
    page = viewer.get(LIST)
    assert cells(page, "state_now") == ["Queued", "Running"]
    assert cells(page, "percent_now") == ["-", "42%"]
    assert reads == [2]


def test_the_list_asks_the_history_no_more_for_more_rows(viewer, store, add):
    counts = []
    for _ in range(2):
        for _ in range(3):
            add()
        with CaptureQueriesContext(
            connection,
        ) as queries:
            viewer.get(LIST)
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_a_run_without_a_title_is_called_by_its_task(viewer, store, add):
    add(title="Import of May")
    add(task="pages.tasks.copy_rows")
    page = viewer.get(LIST).content.decode()
    assert ">Import of May</a>" in page
    assert ">copy_rows</a>" in page


def test_an_ended_run_is_not_read_from_the_store(viewer, store, add, end, reads):
    end(add(), timezone.now())
    assert cells(viewer.get(LIST), "state_now") == ["Succeeded"]
    assert reads in ([], [0])


def test_the_list_works_while_the_store_is_down(viewer, store_down, add, end):
    end(add(), timezone.now(), "failed")
    add()
    assert cells(viewer.get(LIST), "state_now") == ["unavailable", "Failed"]


def test_the_detail_works_while_the_store_is_down(viewer, store_down, add):
    page = viewer.get(detail(add())).content.decode()
    assert "The service cannot be reached at the moment." in page


def test_a_run_that_nobody_knows_reads_as_lost(viewer, store, add):
    add()
    assert cells(viewer.get(LIST), "state_now") == ["Lost"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("state__exact=", {"open"}),
        ("state__exact=failed", {"failed"}),
        ("task=a.b", {"failed"}),
        ("q=abc", {"open"}),
        ("q=u:7", {"failed"}),
        ("q=Nightly", {"open"}),
    ],
)
def test_runs_are_filtered_and_searched(viewer, store, add, end, query, found):
    add(id="abcdef", title="Nightly import", kwargs={"is": "open"})
    row = add(id="zzz", owner="u:7", task="a.b", kwargs={"is": "failed"})
    end(row, timezone.now(), "failed")
    page = viewer.get(f"{LIST}?{query}")
    assert {row.kwargs["is"] for row in page.context["cl"].result_list} == found


def test_the_detail_shows_the_envelope_as_text(viewer, store, add):
    row, hand = add(in_store=True)
    lease = hand.begin().extra[0].decode()
    hand.report(lease, 1, doc=hand.doc(message="<b>"))
    page = viewer.get(detail(row)).content.decode()
    assert "&quot;message&quot;: &quot;&lt;b&gt;&quot;" in page
    assert "<b>" not in page


def test_nothing_can_be_added_or_changed(canceller, store, add):
    row = add()
    assert canceller.get(reverse("admin:channels_progress_run_add")).status_code == 403
    assert canceller.post(detail(row), {"title": "x"}).status_code == 403
    assert Run.objects.get().title == ""


def test_an_unknown_run_is_nowhere(viewer, store):
    unknown = reverse("admin:channels_progress_run_change", args=["nope"])
    assert viewer.get(unknown).status_code == 302


def test_cancel_says_what_became_of_each(canceller, store, add, end):
    (queued, _), (running, hand), over = add(in_store=True), add(in_store=True), add()
    hand.begin()
    end(over, timezone.now())
    assert cancel(canceller, queued, running, over) == [
        "1 run was cancelled.",
        "1 run was asked to stop; it will at its next step.",
        "1 run had ended.",
    ]
    assert hand.say("report", lease=1, seq=1).asked == "cancel"
    assert cells(canceller.get(LIST), "state_now")[1:] == ["Cancelling", "Cancelled"]


@pytest.mark.parametrize(
    ("language", "text"), [("en", "Cancel asked"), ("de", "Abbruch verlangt")]
)
def test_a_cancel_is_in_the_log_in_words(canceller, store, add, language, text):
    row, _ = add(in_store=True)
    canceller.cookies["django_language"] = language
    cancel(canceller, row)
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.get_change_message()) == (row.pk, text)


def test_cancel_knows_an_end_that_the_history_does_not_know_yet(canceller, store, add):
    row, hand = add(in_store=True)
    hand.end(hand.begin().extra[0].decode(), 1)
    assert cancel(canceller, row) == ["1 run had ended."]


def test_cancel_gives_up_at_once_while_the_store_is_down(
    canceller, store_down, add, reads
):
    texts = cancel(canceller, add(), add())
    assert texts == ["The service cannot be reached at the moment."]


def test_who_may_only_view_is_not_offered_to_cancel(viewer, store, add):
    row, _ = add(in_store=True)
    assert "Cancel the selected" not in viewer.get(LIST).content.decode()
    cancel(viewer, row)
    assert store.read([row.pk])[row.pk].snapshot.asked is None


def test_staff_without_the_permission_see_nothing(client, store, add):
    client.force_login(staff())
    assert client.get(LIST).status_code == 403
    assert client.get(detail(add())).status_code == 403
