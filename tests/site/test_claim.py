"""A run begun anonymously stays with the person who then signs in."""

import pytest
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import User
from django.test import Client

from CeleryProgressbar.asgi import application
from channels_progress import access, runs
from channels_progress.claim import claim
from channels_progress.models import Run
from channels_progress.store import get_store
from tests.site.conftest import Hand, start

PASSWORD = "a long enough sentence"


@pytest.fixture
def ann(site):
    return User.objects.create_user("ann", password=PASSWORD)


@pytest.fixture
def bob(site):
    return User.objects.create_user("bob", password=PASSWORD)


def sign_in(client, user):
    answer = client.post(
        "/accounts/login/", {"username": user.username, "password": PASSWORD}
    )
    assert answer.status_code == 302


def sees(client, run):
    return client.get(f"/progress/runs/{run}/").status_code == 200


def listed(client):
    return {each["run"] for each in client.get("/progress/runs/").json()["runs"]}


def test_signing_in_takes_the_runs_along(visitor, ann):
    live, done = start(visitor), start(visitor)
    Hand(done).end()
    sign_in(visitor, ann)
    assert set(Run.objects.values_list("owner", flat=True)) == {f"u:{ann.pk}"}
    assert runs.get(live).owner == runs.get(done).owner == f"u:{ann.pk}"
    assert listed(visitor) == {live, done}


def test_signing_up_takes_the_runs_along(visitor):
    run = start(visitor)
    answer = visitor.post(
        "/accounts/sign-up/",
        {"username": "eve", "password1": PASSWORD, "password2": PASSWORD},
    )
    assert answer.status_code == 302
    assert runs.get(run).owner == f"u:{User.objects.get(username='eve').pk}"


def test_they_are_there_on_every_device_of_the_user(visitor, ann):
    run = start(visitor)
    sign_in(visitor, ann)
    other = Client()
    sign_in(other, ann)
    assert sees(other, run)
    assert listed(other) == {run}


def test_the_next_one_in_this_browser_does_not_inherit(visitor, ann, bob):
    run = start(visitor)
    sign_in(visitor, ann)
    visitor.post("/accounts/logout/")
    assert not sees(visitor, run)
    sign_in(visitor, bob)
    assert not sees(visitor, run)
    assert listed(visitor) == set()


def test_the_anonymous_name_changes_with_the_sign_in(visitor, ann):
    before = visitor.cookies["progress_viewer"].value
    sign_in(visitor, ann)
    assert visitor.cookies["progress_viewer"].value != before


def test_a_page_that_only_offers_starts_changes_it_too(visitor, ann):
    before = visitor.cookies["progress_viewer"].value
    visitor.force_login(ann)  # by a view that is not ours, which knows no cookie
    visitor.cookies["progress_viewer"] = before
    session = visitor.session
    session[access.CLAIMED] = [access.anonymous_name({"progress_viewer": before})]
    session.save()
    visitor.get("/")
    assert visitor.cookies["progress_viewer"].value != before


def test_a_token_from_before_holds_while_signed_in(visitor, ann, bob):
    run = start(visitor)
    Run.objects.filter(pk=run).update(owner="a:else")
    get_store().client.hset(get_store().key(run), "owner", "a:else")
    cookies = {name: each.value for name, each in visitor.cookies.items()}
    token = access.token({"cookies": cookies}, run)
    sign_in(visitor, ann)
    asked = f"/progress/runs/{run}/?token={token}"
    assert visitor.get(asked).status_code == 200
    visitor.post("/accounts/logout/")
    sign_in(visitor, bob)
    assert visitor.get(asked).status_code == 403


def test_what_an_open_page_starts_meanwhile_is_seen_and_claimed_at_the_end(
    visitor, ann
):
    name = access.anonymous_name(
        {"progress_viewer": visitor.cookies["progress_viewer"].value}
    )
    sign_in(visitor, ann)
    late = runs.start("gen_random", {"speed": 1}, owner=name).run
    assert listed(visitor) == {late}
    visitor.post("/accounts/logout/")
    assert runs.get(late).owner == f"u:{ann.pk}"


def test_nobody_elses_runs_are_claimed(visitor, stranger, ann):
    theirs = start(stranger)
    sign_in(visitor, ann)
    assert not sees(visitor, theirs)
    assert sees(stranger, theirs)
    store = get_store()
    answer = store.call("claim", theirs, **{"from": "a:other", "owner": "u:1"})
    assert answer.code == "other"


def test_a_claim_sent_twice_is_done_twice_and_makes_nothing(visitor, ann):
    run = start(visitor)
    values = {"from": runs.get(run).owner, "owner": f"u:{ann.pk}"}
    codes = [get_store().call("claim", run, **values).code for _ in range(2)]
    assert codes == ["done", "done"]
    assert get_store().call("claim", "unknown", **values).code == "missing"
    assert not get_store().read(["unknown"])


def test_a_store_that_is_down_keeps_nobody_out(visitor, ann, settings):
    run = start(visitor)
    name = runs.get(run).owner
    settings.CHANNELS_PROGRESS = {"REDIS_URL": "redis://127.0.0.1:1/0"}
    assert claim([name], ann) == 1
    assert Run.objects.get(pk=run).owner == f"u:{ann.pk}"
    sign_in(visitor, ann)


@pytest.mark.asyncio
async def test_an_open_socket_goes_on_and_the_user_joins_it(visitor, ann):
    from asgiref.sync import sync_to_async

    run = await sync_to_async(start)(visitor)
    hand = await sync_to_async(Hand)(run)
    before = WebsocketCommunicator(application, "/ws/progress/", headers(visitor))
    assert (await before.connect())[0]
    await before.send_json_to({"action": "watch", "run": run})
    assert (await before.receive_json_from())["state"] == "running"
    await sync_to_async(sign_in)(visitor, ann)
    await sync_to_async(hand.report)(7)
    after = WebsocketCommunicator(application, "/ws/progress/", headers(visitor))
    assert (await after.connect())[0]
    await after.send_json_to({"action": "watch", "run": run})
    assert (await after.receive_json_from())["current"] == 7
    for socket in (before, after):
        await socket.disconnect()


def headers(client):
    cookie = "; ".join(f"{name}={each.value}" for name, each in client.cookies.items())
    return [
        (b"host", b"testserver"),
        (b"origin", b"http://testserver"),
        (b"cookie", cookie.encode()),
    ]
