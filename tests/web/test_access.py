"""Who may."""

from dataclasses import replace

import pytest
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.contrib.sessions.backends.db import SessionStore
from django.core import signing
from django.http import HttpResponse
from django.test import RequestFactory

from channels_progress import access
from channels_progress.access import Nobody, Viewer
from channels_progress.errors import Forbidden
from tests.web.test_offer import snapshot

ANN = Viewer(("u:1",))
BOB = Viewer(("a:bob",))


def run_of(owner):
    return replace(snapshot(), owner=owner)


def with_cookie(request):
    """The request of somebody who has been here before."""
    response = access.offers_start(lambda request: HttpResponse())(request)
    assert response.cookies["progress_viewer"].value
    return request


@pytest.fixture
def request_of_bob():
    return with_cookie(RequestFactory().get("/"))


@pytest.fixture
def user(db):
    return User.objects.create_user("ann")


@pytest.fixture
def staff(db):
    return User.objects.create_user("eve", is_staff=True)


# -- Who it is


def test_a_stranger_has_no_identity():
    viewer = access.viewer_of(RequestFactory().get("/"))
    assert viewer == Viewer()
    with pytest.raises(Nobody, match="allow its cookies"):
        _ = viewer.owner


def test_a_cookie_names_the_same_viewer_on_page_and_socket(request_of_bob):
    value = request_of_bob.COOKIES["progress_viewer"]
    raw = {"headers": [(b"cookie", f"progress_viewer={value}".encode())]}
    parsed = {"cookies": {"progress_viewer": value}}
    viewer = access.viewer_of(request_of_bob)
    assert viewer.owner.startswith("a:")
    assert access.viewer_of(raw) == access.viewer_of(parsed) == viewer
    assert access.viewer_of(viewer) is viewer


def test_a_forged_cookie_names_nobody(request_of_bob):
    request_of_bob.COOKIES["progress_viewer"] += "x"
    assert access.viewer_of(request_of_bob) == Viewer()


def test_a_user_comes_before_the_cookie(request_of_bob, user):
    request_of_bob.user = user
    viewer = access.viewer_of(request_of_bob)
    assert viewer.owner == f"u:{user.pk}"
    assert len(viewer.identities) == 2


def test_an_anonymous_user_is_no_user(request_of_bob):
    request_of_bob.user = AnonymousUser()
    assert access.viewer_of(request_of_bob).user is None


def test_owners_have_names(request_of_bob, user):
    assert access.owner("import") == "import"
    assert access.owner(user) == f"u:{user.pk}"
    assert access.owner(request_of_bob) == access.viewer_of(request_of_bob).owner
    assert access.owner({"user": user, "cookies": {}}) == f"u:{user.pk}"
    assert access.owner(BOB) == "a:bob"


@pytest.mark.parametrize("of", ["", "x" * 129, AnonymousUser(), Viewer(), {}, None])
def test_who_has_no_name_is_told_the_way_out(of):
    with pytest.raises(ValueError, match="offers_start"):
        access.owner(of)


# -- The cookie


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites():
    view = access.offers_start(lambda request: HttpResponse())
    response = view(RequestFactory().get("/", secure=True))
    cookie = response.cookies["progress_viewer"]
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"
    assert cookie["secure"]
    assert response["Cache-Control"] == "private"


def test_the_cookie_stays_as_it_is(request_of_bob):
    response = access.offers_start(lambda request: HttpResponse())(request_of_bob)
    assert not response.cookies
    assert not RequestFactory().get("/").is_secure()


async def test_an_async_view_may_offer_a_start_too():
    @access.offers_start
    async def view(request):
        return HttpResponse(access.owner(request))

    response = await view(RequestFactory().get("/"))
    assert response.content.startswith(b"a:")
    assert "progress_viewer" in response.cookies


# -- Tokens


def test_a_token_is_for_one_viewer_and_one_run():
    token = access.token(ANN, "r")
    assert access.check_token(ANN, "r", token)
    assert not access.check_token(BOB, "r", token)
    assert not access.check_token(ANN, "s", token)
    assert not access.check_token(Viewer(), "r", token)


@pytest.mark.parametrize("token", [None, "", "x", "a:b", "a:b:c", "é:x", ":"])
def test_a_made_up_token_grants_nothing(token):
    assert not access.check_token(ANN, "r", token)


def test_a_token_expires(configure):
    token = access.token(ANN, "r")
    configure(TOKEN_MAX_AGE=-1)
    assert not access.check_token(ANN, "r", token)


def test_nobody_gets_no_token():
    assert access.token(Viewer(), "r") == ""


# -- The rule


@pytest.mark.parametrize("action", ["watch", "cancel", "pause", "resume"])
def test_the_owner_may(action):
    assert access.may(ANN, run_of("u:1"), action)
    assert not access.may(BOB, run_of("u:1"), action)


def test_no_owner_matches_nobody():
    assert not access.may(Viewer(), run_of(""), "watch")
    assert not access.may(Viewer(("",)), run_of(""), "watch")


def test_a_token_lets_watch_and_no_more():
    run, token = run_of("u:1"), access.token(BOB, "r")
    assert access.may(BOB, run, "watch", token)
    assert not access.may(BOB, run, "cancel", token)


@pytest.mark.parametrize(
    ("permission", "may_watch", "may_cancel"),
    [(None, False, False), ("view_run", True, False), ("change_run", False, True)],
)
def test_staff_needs_the_permission(staff, permission, may_watch, may_cancel):
    if permission:
        staff.user_permissions.add(Permission.objects.get(codename=permission))
    viewer = Viewer(("u:99",), staff)
    assert access.may(viewer, run_of("u:1"), "watch") is may_watch
    assert access.may(viewer, run_of("u:1"), "cancel") is may_cancel


def test_the_permission_alone_is_not_enough(user):
    user.user_permissions.add(Permission.objects.get(codename="view_run"))
    assert not access.may(Viewer(("u:99",), user), run_of("u:1"), "watch")


def everybody_may_watch(viewer, snapshot, action, token):
    return action == "watch"


@pytest.mark.django_db  # whose connections a thread may still hold
async def test_a_project_has_its_own_rule(configure):
    configure(MAY="tests.web.test_access.everybody_may_watch")
    access.require(BOB, run_of("u:1"), "watch")
    with pytest.raises(Forbidden):
        access.require(ANN, run_of("u:1"), "cancel")
    await access.arequire(BOB, run_of("u:1"), "watch")
    with pytest.raises(Forbidden):
        await access.arequire(ANN, run_of("u:1"), "cancel")


async def test_coroutines_get_the_same_answer():
    await access.arequire(ANN, run_of("u:1"), "cancel")
    with pytest.raises(Forbidden):
        await access.arequire(BOB, run_of("u:1"), "watch")


# -- A second look


def session_of(user):
    session = SessionStore()
    session["_auth_user_id"] = str(user.pk)
    session["_auth_user_backend"] = "django.contrib.auth.backends.ModelBackend"
    session["_auth_user_hash"] = user.get_session_auth_hash()
    session.save()
    return Viewer((f"u:{user.pk}",), user, session.session_key)


def test_who_is_signed_in_still_is(user):
    viewer = session_of(user)
    assert access.refreshed(viewer) == viewer
    assert access.look_again(viewer, [(run_of(viewer.owner), None)]) == (viewer, [])


def test_who_signs_out_is_gone(user):
    viewer = session_of(user)
    SessionStore(viewer.session).delete()
    assert access.look_again(viewer, []) == (None, [])


def test_a_new_password_signs_out(user):
    viewer = session_of(user)
    user.set_password("new")
    user.save()
    assert access.refreshed(viewer) is None


def test_a_permission_taken_away_is_noticed(staff):
    permission = Permission.objects.get(codename="view_run")
    staff.user_permissions.add(permission)
    viewer = session_of(staff)
    assert access.look_again(viewer, [(run_of("a:bob"), None)])[1] == []
    staff.user_permissions.remove(permission)
    assert access.look_again(viewer, [(run_of("a:bob"), None)])[1] == ["r"]


def test_an_anonymous_owner_needs_no_second_look(configure):
    assert access.settled(BOB, [(run_of("a:bob"), None)])
    assert not access.settled(BOB, [(run_of("u:1"), None)])
    assert not access.settled(Viewer(("u:1",), None, "session"), [])
    assert access.refreshed(BOB) == BOB
    configure(MAY="tests.web.test_access.everybody_may_watch")
    assert not access.settled(BOB, [(run_of("a:bob"), None)])


# -- The cookie


def test_the_cookie_is_signed_for_its_purpose():
    assert access._unsigned(signing.Signer().sign("x")) == ""
