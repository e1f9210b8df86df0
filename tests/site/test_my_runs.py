"""A viewer's runs: the page, the tray, and who sees nothing there."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from channels_progress import access, runs
from channels_progress.models import Run
from tests.site.conftest import Hand, start


def shown(client, path="/runs/"):
    """The ids of the runs that a page lists, in its order."""
    html = client.get(path).content.decode()
    main = html.partition("<main")[2].partition("</main>")[0] or html
    return [piece.partition('"')[0] for piece in main.split(' run="')[1:]]


@pytest.fixture
def many(visitor):
    """45 finished runs of the visitor, the newest first."""
    owner = runs.get(start(visitor)).owner
    Run.objects.all().delete()
    now = timezone.now()
    rows = [
        Run(
            id=f"r{n:02}",
            owner=owner,
            task="HomeApp.tasks.gen_random",
            state="succeeded",
            document={"run": f"r{n:02}", "task": "gen_random", "title": "Old"},
            ended=now - timedelta(minutes=n),
        )
        for n in range(45)
    ]
    for row in rows:
        row.document |= {"percent": 100, "current": 1, "total": 1, "unit": ""}
        row.document |= {"message": "", "attempts": 1, "result": None}
    Run.objects.bulk_create(rows)
    return [row.pk for row in rows]


def test_an_empty_list_says_what_to_do_first(visitor):
    answer = visitor.get("/runs/")
    assert b"Nothing here yet" in answer.content
    assert b"Start a run" in answer.content
    assert shown(visitor) == []


def test_the_active_ones_come_first(visitor):
    done, live, newer = (start(visitor) for _ in range(3))
    Hand(done).end()
    assert shown(visitor) == [newer, live, done]


def test_a_row_leads_to_the_runs_own_page(visitor):
    run = start(visitor)
    assert f'href="/runs/{run}/"' in visitor.get("/runs/").content.decode()
    assert visitor.get(f"/runs/{run}/").status_code == 200


def test_a_row_holds_no_result_and_no_samples(visitor):
    run = start(visitor)
    Hand(run).end(result='{"secret": 1}', samples=[(0, 0), (1, 1)])
    html = visitor.get("/runs/").content.decode()
    assert "secret" not in html
    assert "&quot;samples&quot;: null" in html


def test_a_stranger_sees_nothing(visitor, stranger):
    run = start(visitor)
    for path in ("/runs/", "/runs/tray/", "/"):
        assert run not in stranger.get(path).content.decode()
    assert stranger.get(f"/runs/{run}/").status_code == 403
    assert run not in Client().get("/runs/").content.decode()


def test_a_user_sees_the_same_on_every_device(visit):
    ann = User.objects.create_user("ann")
    first, second = visit(), visit()
    for client in (first, second):
        client.force_login(ann)
    run = start(first)
    assert shown(second) == [run]


def test_there_are_pages(visitor, many):
    assert shown(visitor) == many[:20]
    assert shown(visitor, "/runs/?page=2") == many[20:40]
    assert shown(visitor, "/runs/?page=3") == many[40:]
    first, last = (visitor.get(f"/runs/?page={n}").content for n in (1, 3))
    assert b'rel="next"' in first
    assert b'rel="prev"' not in first
    assert b'rel="next"' not in last
    assert b'rel="prev"' in last


@pytest.mark.parametrize(
    "number",
    ["0", "-1", "x", "99999999999999999999", pytest.param("9" * 5000, id="huge"), "²"],
)
def test_a_page_that_cannot_be_is_the_first(visitor, many, number):
    assert shown(visitor, f"/runs/?page={number}") == many[:20]


def test_only_the_first_page_grows(visitor, many):
    assert b'data-runs="/runs/"' in visitor.get("/runs/").content
    assert b'data-runs="/runs/"' not in visitor.get("/runs/?page=2").content


def test_the_tray_has_what_is_under_way(visitor):
    done, live = start(visitor), start(visitor)
    Hand(done).end()
    assert shown(visitor, "/runs/tray/") == [live]
    html = visitor.get("/trouble/").content.decode()
    tray = html.partition('id="tray"')[2]
    assert live in tray
    assert done not in html
    assert "data-count>1<" in html


def test_the_tray_costs_one_query(visitor, django_assert_num_queries):
    run = start(visitor)
    Hand(run).report(3)
    with django_assert_num_queries(1):
        visitor.get("/trouble/")


def test_without_a_store_the_pages_come_and_the_list_says_so(visitor, settings):
    start(visitor)
    settings.CHANNELS_PROGRESS = {"REDIS_URL": "redis://127.0.0.1:1/0"}
    assert visitor.get("/trouble/").status_code == 200
    answer = visitor.get("/runs/")
    assert answer.status_code == 503
    assert b'http-equiv="refresh"' in answer.content
    assert visitor.get("/progress/runs/").status_code == 503


def test_the_list_offers_a_start_so_it_names_its_viewer(site):
    answer = Client().get("/runs/")
    assert answer.cookies["progress_viewer"]["httponly"]
    assert "no-store" in answer["Cache-Control"]


def test_nobody_has_no_runs(site):
    assert runs.listing(access.Viewer().identities) == []
    assert runs.active(access.Viewer().identities) == []
