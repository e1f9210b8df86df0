"""The HTTP twin: 202 and poll."""

import json
import uuid
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

import channels_progress
from channels_progress import access, history, runs
from channels_progress.errors import FORBIDDEN
from channels_progress.models import Run
from tests.web.conftest import anonymous

REFUSAL = {"type": "error", "code": "forbidden", "message": FORBIDDEN}
PERSON = {"accept": "text/html,*/*"}  # whose browser runs no script


@pytest.fixture
def page(site):
    """A viewer's browser."""
    client = Client()
    client.cookies["progress_viewer"] = anonymous().partition("=")[2]
    return client


@pytest.fixture
def stranger(site):
    client = Client()
    client.cookies["progress_viewer"] = anonymous().partition("=")[2]
    return client


def address(name, *args):
    return reverse(f"channels_progress:{name}", args=args)


def start(client, **fields):
    return client.post(address("start", "gen_random"), fields)


def start_json(client, body, task="gen_random"):
    text = body if isinstance(body, str) else json.dumps(body)
    return client.post(address("start", task), text, "application/json")


def as_owner(client, of):
    client.cookies["progress_viewer"] = of.cookies["progress_viewer"].value
    return client


# -- Start


def test_a_start_is_accepted_with_envelope_token_and_address(page):
    response = start(page, speed="5", key="k")
    run = response.json()
    assert response.status_code == 202
    assert (run["type"], run["state"], run["task"]) == ("run", "queued", "gen_random")
    assert response["Location"] == address("run", run["run"])
    assert page.get(response["Location"]).json()["run"] == run["run"]
    assert run["token"]


def test_the_same_key_finds_the_same_run(page, stranger):
    first = start(page, key="k").json()["run"]
    assert start_json(page, {"params": {"speed": 5}, "key": "k"}).json()["run"] == first
    assert start(stranger, key="k").json()["run"] != first


@pytest.mark.parametrize("body", [{"speed": 7}, {"params": {"speed": 7}}, {}])
def test_json_is_as_good_as_a_form(page, body):
    assert start_json(page, body).status_code == 202
    assert Run.objects.get().kwargs == {"speed": (body and 7) or 2}


def test_a_file_comes_by_multipart(page, settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path
    content = b"when,sensor,value\n2026-01-01T00:00:00Z,a,1.5\n"
    file = SimpleUploadedFile("rows.csv", content, "text/csv")
    response = page.post(address("start", "import_rows"), {"file": file, "key": "k"})
    assert response.status_code == 202, response.content


def test_who_comes_for_the_first_time_gets_the_cookie(site):
    client = Client()
    run = start(client).json()["run"]
    assert client.cookies["progress_viewer"]["httponly"]
    assert client.get(address("run", run)).status_code == 200


@pytest.mark.parametrize(
    ("body", "code", "status"),
    [
        ("{", "malformed", 400),
        ("[]", "malformed", 400),
        ('{"a": NaN}', "malformed", 400),
        ({"speed": "abc"}, "invalid", 400),
        ({"params": []}, "invalid", 400),
        ({"key": 7}, "invalid", 400),
    ],
)
def test_bad_json_is_told(page, body, code, status):
    response = start_json(page, body)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert not Run.objects.exists()


def test_an_unknown_task_is_invalid(page):
    response = page.post(address("start", "nope"))
    assert (response.status_code, response.json()["code"]) == (400, "invalid")


@pytest.mark.parametrize("trusted", [True, False])
def test_a_form_that_cannot_be_read_is_malformed(site, trusted):
    page = Client(enforce_csrf_checks=not trusted)
    page.get("/")
    broken = page.post(
        address("start", "gen_random"), b"x", "multipart/form-data; boundary=é"
    )
    many = page.post(address("start", "gen_random"), {f"a{n}": 1 for n in range(1001)})
    assert broken.json()["code"] == many.json()["code"] == "malformed"


def test_too_many_starts_are_429(page, configure):
    configure(STARTS_PER_MINUTE=0)
    assert start(page).status_code == 429


def test_neither_form_nor_json_is_malformed(page):
    response = page.post(address("start", "gen_random"), '{"speed": 7}', "text/plain")
    assert response.json()["code"] == "malformed"
    assert "application/json" in response.json()["message"]
    assert not Run.objects.exists()


# -- Forged requests


@pytest.fixture
def checked(site):
    """A browser whose requests are not taken on trust."""
    return Client(enforce_csrf_checks=True)


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume"])
def test_a_foreign_form_is_refused(checked, verb):
    assert checked.post(address(verb, "a")).status_code == 403
    assert start(checked).status_code == 403
    assert start_json(checked, {}).status_code == 403
    assert not Run.objects.exists()


def test_a_script_is_told_in_json_that_it_cannot_be_trusted(checked):
    response = start(checked)
    assert (response.status_code, response.json()["code"]) == (403, "forbidden")
    assert response.json()["message"] == (
        "The CSRF check failed. Reload this page and try again."
    )
    assert response["Cache-Control"] == "private, no-store"


def test_a_page_without_scripts_gets_the_refusal_as_a_page(checked):
    response = checked.post(address("cancel", "a"), headers={"accept": "text/html"})
    assert response.status_code == 403
    assert response["Content-Type"].startswith("text/html")


def test_a_forged_request_does_not_make_its_viewer_somebody_else(checked):
    """A browser sends no Lax cookie along with it, and takes one from the answer."""
    assert "progress_viewer" not in start(checked).cookies


def test_who_has_the_secret_of_a_page_is_let_in(checked):
    checked.get("/")
    secret = checked.cookies["csrftoken"].value
    assert start(checked, csrfmiddlewaretoken=secret).status_code == 202
    headers = {"x-csrftoken": secret}
    by_header = checked.post(address("start", "gen_random"), headers=headers)
    assert by_header.status_code == 202


# -- Read


def test_a_run_is_read_once_and_then_only_when_it_changes(page):
    url = start(page).headers["Location"]
    response = page.get(url)
    assert response["Cache-Control"] == "private, no-store"
    again = page.get(url, headers={"If-None-Match": response["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    page.post(f"{url}cancel/")
    changed = page.get(url, headers={"If-None-Match": response["ETag"]})
    assert changed.json()["state"] == "cancelled"


def test_strangers_and_unknown_runs_get_the_same_answer(page, stranger):
    run = start(page).json()["run"]
    for id in (run, str(uuid.uuid4()), "no id"):
        response = stranger.get(address("run", id))
        assert (response.status_code, response.json()) == (403, REFUSAL)
        for verb in ("cancel", "pause", "resume"):
            response = stranger.post(address(verb, id))
            assert (response.status_code, response.json()) == (403, REFUSAL)


def test_nothing_in_an_answer_tells_a_stranger_that_a_run_exists(page, stranger):
    run = start(page).json()["run"]
    for verb in ("run", "cancel", "pause", "resume"):
        ask = stranger.get if verb == "run" else stranger.post
        known, unknown = (ask(address(verb, id)) for id in (run, str(uuid.uuid4())))
        assert (known.headers, known.content) == (unknown.headers, unknown.content)


def test_a_token_lets_its_viewer_read(page, stranger):
    run = start(page).json()["run"]
    cookies = {
        "cookies": {"progress_viewer": stranger.cookies["progress_viewer"].value}
    }
    token = access.token(access.viewer_of(cookies), run)
    assert stranger.get(address("run", run), {"token": token}).status_code == 200
    assert Client().get(address("run", run), {"token": token}).status_code == 403
    assert stranger.post(address("cancel", run), {"token": token}).status_code == 403


def test_a_viewer_sees_all_their_runs_and_no_others(page, stranger):
    user = User.objects.create_user("ann")
    mine = start(page).json()["run"]
    start(stranger)
    page.force_login(user)
    signed_in = start(page).json()["run"]
    found = [run["run"] for run in page.get(address("runs")).json()["runs"]]
    assert sorted(found) == sorted([mine, signed_in])
    assert Client().get(address("runs")).json() == {"runs": []}


# -- Change


def test_a_cancel_is_accepted_with_the_envelope(page):
    run = start(page).json()["run"]
    response = page.post(address("cancel", run))
    assert (response.status_code, response.json()["state"]) == (202, "cancelled")
    assert page.post(address("cancel", run), {"force": "true"}).status_code == 202


def test_what_does_not_checkpoint_cannot_be_paused(page):
    run = start(page).json()["run"]
    assert page.post(address("pause", run)).json()["code"] == "invalid"
    assert page.post(address("resume", run)).json()["state"] == "queued"


@pytest.mark.parametrize(
    ("target", "accept", "status"),
    [
        ("/runs/", "text/html,*/*", 303),
        ("/runs/", "application/json", 202),
        ("https://evil.example/", "text/html", 202),
        ("//evil.example/", "text/html", 202),
        ("", "text/html", 202),
    ],
)
def test_a_page_without_scripts_goes_on_to_its_own_site(page, target, accept, status):
    run = start(page).json()["run"]
    response = page.post(
        address("cancel", run), {"next": target}, headers={"accept": accept}
    )
    assert response.status_code == status
    assert response.get("Location") == (target if status == 303 else None)


@pytest.fixture(params=["the site's", "the app's"])
def refused(request, settings, page):
    """`refused(verb, run, ...)`: a person's click, and on whose page it is refused."""
    if request.param == "the app's":
        own = Path(channels_progress.__file__).with_name("templates")
        settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [own]}]

    def refused(verb, run, *sent):
        response = page.post(address(verb, run), *sent, headers=PERSON)
        html = response.content.decode()
        assert response["Content-Type"].startswith("text/html")
        assert response["Cache-Control"] == "private, no-store"
        assert ("site.css" in html) == (request.param == "the site's")
        return response.status_code, html

    return refused


def test_a_person_without_scripts_reads_why_not_and_can_go_back(page, refused):
    run = start(page).json()["run"]
    status, html = refused("pause", run, {"next": "/runs/?page=2"})
    assert status == 400
    assert 'role="alert">This task cannot be paused: it keeps no checkpoints.<' in html
    assert 'href="/runs/?page=2">Back<' in html
    assert html.count("<h1") == 1
    assert '<html lang="en" dir="ltr">' in html
    assert "<style" not in html
    assert " style=" not in html


def test_a_person_is_led_back_to_nobody_elses_site(page, refused):
    run = start(page).json()["run"]
    for target in ("https://evil.example/", "javascript:alert(1)", ""):
        _, html = refused("pause", run, {"next": target})
        assert "Back" not in html
        assert "evil" not in html
        assert "alert(1)" not in html


def test_a_person_may_not_cancel_what_is_not_theirs(page, stranger, refused):
    run = start(stranger).json()["run"]
    assert refused("cancel", run) == refused("cancel", str(uuid.uuid4()))
    status, html = refused("cancel", run)
    assert status == 403
    assert FORBIDDEN in html


def test_a_person_is_told_that_the_store_is_down(page, refused, configure):
    run = start(page).json()["run"]
    configure(REDIS_URL="redis://127.0.0.1:1/0")
    for verb in ("cancel", "pause", "resume"):
        status, html = refused(verb, run, {"next": "/runs/"})
        assert status == 503
        assert "The service cannot be reached at the moment." in html


def test_a_person_is_told_that_a_form_cannot_be_read(refused):
    many = "&".join(f"a{n}=1" for n in range(1001))
    status, html = refused("cancel", "a", many, "application/x-www-form-urlencoded")
    assert status == 400
    assert "The request cannot be read" in html


def test_a_script_reads_a_refusal_in_json(page):
    run = start(page).json()["run"]
    for accept in ("application/json", "*/*"):
        response = page.post(address("pause", run), headers={"accept": accept})
        assert (response.status_code, response.json()["code"]) == (400, "invalid")


def test_only_posts_change_anything(page):
    run = start(page).json()["run"]
    assert page.get(address("cancel", run)).status_code == 405
    assert page.get(address("start", "gen_random")).status_code == 405
    assert page.post(address("run", run)).status_code == 405


# -- When parts are down


def test_nobody_is_forbidden_what_cannot_be_decided(page, settings, monkeypatch):
    run = start(page).json()["run"]
    settings.CHANNELS_PROGRESS = {"REDIS_URL": "redis://127.0.0.1:1/0"}
    response = page.get(address("run", run))
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")


def test_a_database_that_fails_is_unavailable(page, monkeypatch):
    def broken(*args, **kwargs):
        raise history.ERRORS[0]("gone")

    monkeypatch.setattr(runs, "submit", broken)
    response = start(page)
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
