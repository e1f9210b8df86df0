"""A run once more, with the same parameters."""

import re
from io import BytesIO

import pytest
from django.contrib.auth.models import Permission, User
from django.core.files.storage import default_storage
from django.test import Client

from channels_progress import runs
from channels_progress.models import Run
from tests.site.conftest import Hand, age, start

ROWS = b"when,sensor,value\n2025-03-01T12:00:00Z,attic,1\n"


def again(client, run, **fields):
    return client.post(f"/runs/{run}/again/", fields)


def offered(client, run):
    """Whether the run's page shows the button."""
    html = client.get(f"/runs/{run}/").content.decode()
    return "hidden" not in html.partition('data-verb="again"')[2].partition(">")[0]


@pytest.fixture
def imported(visitor):
    file = BytesIO(ROWS)
    file.name = "mine.csv"
    run = start(visitor, "import_rows", file=file)
    Hand(run).end()
    return run


def test_it_has_the_same_parameters_and_the_same_owner(visitor, done):
    answer = again(visitor, done)
    other = answer["Location"].split("/")[-2]
    assert answer.status_code == 302
    assert other != done
    before, after = Run.objects.get(pk=done), Run.objects.get(pk=other)
    assert after.kwargs == before.kwargs == {"speed": 7.0}
    assert after.owner == before.owner
    assert runs.get(other).state == "queued"


def test_a_form_that_is_sent_twice_starts_one(visitor, done):
    first, second = (again(visitor, done, key="once") for _ in range(2))
    assert first["Location"] == second["Location"]
    assert Run.objects.count() == 2


def test_an_import_reads_the_kept_upload(visitor, imported):
    answer = again(visitor, imported)
    other = answer["Location"].split("/")[-2]
    assert Run.objects.get(pk=other).kwargs == Run.objects.get(pk=imported).kwargs


def test_an_upload_that_is_gone_is_said(visitor, imported):
    default_storage.delete(Run.objects.get(pk=imported).kwargs["path"])
    answer = again(visitor, imported)
    assert answer.status_code == 400
    assert b"Please upload it again." in answer.content
    assert b'href="/tasks/import_rows/"' in answer.content
    assert Run.objects.count() == 1


def test_a_stranger_may_not(stranger, done):
    assert again(stranger, done).status_code == 403
    assert Run.objects.count() == 1


def test_a_run_that_does_not_exist_gets_the_strangers_answer(stranger, done):
    unknown = "00000000-0000-0000-0000-000000000001"
    answers = [again(stranger, run).content.decode() for run in (done, unknown)]
    mains = [html.partition("<main")[2].partition("</main>")[0] for html in answers]
    assert "does not exist, or you may not see it" in mains[0]
    assert mains[0] == mains[1]


def test_a_foreign_page_cannot(visitor, done):
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = visitor.cookies
    assert again(strict, done).status_code == 403
    assert Run.objects.count() == 1


@pytest.mark.parametrize(("permission", "status"), [("view", 403), ("change", 302)])
def test_staff_who_may_only_watch_may_not(visitor, done, permission, status):
    ada = User.objects.create_user("ada", is_staff=True)
    names = {"view_run", f"{permission}_run"}
    ada.user_permissions.set(Permission.objects.filter(codename__in=names))
    staff = Client()
    staff.force_login(ada)
    assert staff.get(f"/runs/{done}/").status_code == 200
    assert again(staff, done).status_code == status
    assert Run.objects.count() == (2 if status == 302 else 1)


@pytest.mark.parametrize("look", ["get", "head"])
def test_looking_starts_nothing_and_leads_to_the_run(visitor, done, look):
    answer = getattr(visitor, look)(f"/runs/{done}/again/")
    assert (answer.status_code, answer["Location"]) == (302, f"/runs/{done}/")
    assert Run.objects.count() == 1


def test_the_language_of_a_refusal_can_be_changed(visitor, imported):
    default_storage.delete(Run.objects.get(pk=imported).kwargs["path"])
    html = again(visitor, imported).content.decode()
    (page,) = set(re.findall('name="next" value="([^"]*)"', html))
    switch = {"language": "de", "next": page}
    answer = visitor.post("/i18n/setlang/", switch, follow=True)
    assert answer.status_code == 200
    assert '<html lang="de"' in answer.content.decode()


def test_it_is_offered_once_the_run_has_ended_or_is_lost(visitor, done):
    live = start(visitor)
    assert offered(visitor, done)
    assert not offered(visitor, live)
    Hand(live)
    assert not offered(visitor, live)
    age(live, 60)
    assert offered(visitor, live)


def test_too_many_is_said(visitor, done, settings):
    limit = {**settings.CHANNELS_PROGRESS, "UNFINISHED_RUNS": 0}
    settings.CHANNELS_PROGRESS = limit
    answer = again(visitor, done)
    assert answer.status_code == 429
    assert b"unfinished runs already" in answer.content
