"""Who may: owners, anonymous viewers, tokens.

Deny by default: a run without an owner matches nobody, and so does a viewer without
an identity.
"""

from __future__ import annotations

import functools
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, Final, TypeAlias, TypeVar, cast

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.conf import settings
from django.contrib import auth
from django.core import signing
from django.http import HttpRequest, HttpResponseBase
from django.utils.cache import patch_cache_control
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _

from channels_progress import runs
from channels_progress.conf import conf
from channels_progress.errors import Forbidden
from channels_progress.origin import cookies_of
from channels_progress.run import Snapshot

View = TypeVar("View", bound=Callable[..., Any])

COOKIE_AGE: Final = 365 * 86400  # seconds
TOKEN: Final = re.compile(r"[\w-]+:[\w-]+", re.ASCII)  # a time stamp and a signature
OWNER_CHARACTERS: Final = 128
CLAIMED: Final = "channels_progress.claimed"  # of a session


class Nobody(Forbidden):
    """A start by somebody who could not be told from anybody else."""

    def __init__(self) -> None:
        super().__init__()
        self.message = _(
            "Open a page of this site first and allow its cookies: without one "
            "nobody could find this run again."
        )
        self.args = (self.message,)


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks at a run."""

    identities: tuple[str, ...] = ()
    """Their names as an owner, the best one first: `u:<pk>`, `a:<random>`."""
    user: Any = None
    """The signed-in user, or None."""
    session: str | None = None
    """The key of the session that signed the user in."""

    @property
    def owner(self) -> str:
        """The name under which they start a run. Raises Nobody."""
        if not self.identities:
            raise Nobody()
        return self.identities[0]


# -- Who it is --------------------------------------------------------------------


def viewer_of(of: Viewer | HttpRequest | Mapping[str, Any]) -> Viewer:
    """The viewer behind a request or an ASGI scope."""
    if isinstance(of, Viewer):
        return of
    if isinstance(of, HttpRequest):
        cookies: Mapping[str, str] = of.COOKIES
        user, session = getattr(of, "user", None), getattr(of, "session", None)
    else:
        cookies = cookies_of(of)
        user, session = of.get("user"), of.get("session")
    names = []
    if user is not None and user.is_authenticated:
        names.append(f"u:{user.pk}")
    else:
        user = session = None
    if anonymous := anonymous_name(cookies):
        names.append(anonymous)
    names += [name for name in claimed(session) if name not in names]
    return Viewer(tuple(names), user, getattr(session, "session_key", None))


def anonymous_name(cookies: Mapping[str, str]) -> str:
    """The owner's name that these cookies carry, or nothing."""
    value = _unsigned(cookies.get(conf.COOKIE))
    return f"a:{value}" if value else ""


def claimed(session: Any) -> list[str]:
    """Whom a signed-in user was before they signed in: see `claim`."""
    return list(session.get(CLAIMED, ())) if session is not None else []


def _signer() -> signing.Signer:
    return signing.Signer(salt="channels_progress.viewer")


def _unsigned(cookie: str | None) -> str:
    try:
        return _signer().unsign(cookie) if cookie else ""
    except signing.BadSignature:
        return ""


def owner(of: Any) -> str:
    """The owner's name of a request, a scope, a user, or such a name itself.

    A signed-in user comes before the cookie of an anonymous viewer.
    """
    if isinstance(of, str):
        name = of
    elif isinstance(of, Viewer | HttpRequest | Mapping):
        name = next(iter(viewer_of(of).identities), "")
    else:
        name = f"u:{of.pk}" if getattr(of, "is_authenticated", False) else ""
    if not name or len(name) > OWNER_CHARACTERS:
        raise ValueError(
            f"{of!r} names no owner: nobody is signed in, and the viewer's cookie "
            f"{conf.COOKIE!r} is missing. Decorate the view of the page that offers "
            "the start with channels_progress.access.offers_start, or give `owner` a "
            f"user or a name of 1 to {OWNER_CHARACTERS} characters."
        )
    return name


def offers_start(view: View) -> View:
    """Decorate a view, sync or async, whose page offers a start, or signs in.

    An anonymous viewer gets the cookie that names the owner of what they start; who
    has signed in gets a new one, so that nobody after them has theirs.
    """
    if iscoroutinefunction(view):

        async def aview(request: HttpRequest, /, *args: Any, **kwargs: Any) -> Any:
            sent = await sync_to_async(_greet)(request)
            return _remember(request, await view(request, *args, **kwargs), sent)

        return cast(View, functools.wraps(view)(aview))

    def sview(request: HttpRequest, /, *args: Any, **kwargs: Any) -> Any:
        sent = _greet(request)
        return _remember(request, view(request, *args, **kwargs), sent)

    return cast(View, functools.wraps(view)(sview))


def renew(request: HttpRequest) -> None:
    """Make the viewer of this request a new anonymous one, besides who they are."""
    request.COOKIES[conf.COOKIE] = _signer().sign(secrets.token_urlsafe(16))


def _greet(request: HttpRequest) -> str | None:
    """The cookie that was sent; without a good one, a new one is in its place."""
    sent = request.COOKIES.get(conf.COOKIE)
    name = anonymous_name(request.COOKIES)
    if not name or (
        settings.SESSION_COOKIE_NAME in request.COOKIES
        and name in claimed(getattr(request, "session", None))
    ):
        renew(request)
    return sent


def _remember(
    request: HttpRequest, response: HttpResponseBase, sent: str | None
) -> HttpResponseBase:
    cookie = request.COOKIES[conf.COOKIE]
    if cookie != sent:
        response.set_cookie(
            conf.COOKIE,
            cookie,
            max_age=COOKIE_AGE,
            path=settings.SESSION_COOKIE_PATH,
            domain=settings.SESSION_COOKIE_DOMAIN,
            secure=request.is_secure(),
            httponly=True,
            samesite="Lax",
        )
        # A shared cache would make all its visitors one viewer.
        patch_cache_control(response, private=True)
    return response


def refreshed(viewer: Viewer) -> Viewer | None:
    """The viewer as of now, or None once signed out. Reads session and user."""
    if viewer.session is None:
        return viewer
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(
        viewer.session
    )
    user = auth.get_user(request)
    if f"u:{user.pk}" not in viewer.identities:
        return None
    return replace(viewer, user=user)


# -- Tokens -----------------------------------------------------------------------


def token(of: Viewer | HttpRequest | Mapping[str, Any], run: str) -> str:
    """What lets this viewer, and nobody else, watch a run for TOKEN_MAX_AGE seconds.

    Empty for a viewer without an identity: there is nobody to bind it to.
    """
    names = viewer_of(of).identities
    if not names:
        return ""
    value = f"{run}|{names[0]}"
    return _token_signer().sign(value)[len(value) + 1 :]


def check_token(viewer: Viewer, run: str, token: str | None) -> bool:
    """Whether this viewer was given this token for this run, and lately."""
    if not token or not TOKEN.fullmatch(token):
        return False
    for name in viewer.identities:
        try:
            _token_signer().unsign(f"{run}|{name}:{token}", max_age=conf.TOKEN_MAX_AGE)
        except signing.BadSignature:
            continue
        return True
    return False


def _token_signer() -> signing.TimestampSigner:
    return signing.TimestampSigner(salt="channels_progress.token")


# -- The rule ---------------------------------------------------------------------


def may(
    viewer: Viewer, snapshot: Snapshot, action: str, token: str | None = None
) -> bool:
    """Whether `viewer` may `action` (watch, cancel, pause, resume) this run.

    The setting MAY names a function to be asked instead of this one.
    """
    if snapshot.owner and snapshot.owner in viewer.identities:
        return True
    if action == "watch" and check_token(viewer, snapshot.id, token):
        return True
    if not _is_staff(viewer):
        return False
    permission = "view_run" if action == "watch" else "change_run"
    return bool(viewer.user.has_perm(f"channels_progress.{permission}"))


def _is_staff(viewer: Viewer) -> bool:
    return bool(viewer.user is not None and viewer.user.is_staff)


def _rule() -> Callable[[Viewer, Snapshot, str, str | None], bool]:
    return cast(
        Callable[[Viewer, Snapshot, str, str | None], bool], import_string(conf.MAY)
    )


def require(
    of: Viewer | HttpRequest | Mapping[str, Any],
    snapshot: Snapshot,
    action: str,
    token: str | None = None,
) -> None:
    """Raise Forbidden unless the rule says yes."""
    if not _rule()(viewer_of(of), snapshot, action, token):
        raise Forbidden()


async def arequire(
    viewer: Viewer, snapshot: Snapshot, action: str, token: str | None = None
) -> None:
    """The same from a coroutine; only where the database is asked, in a thread."""
    if _rule() is may and not _is_staff(viewer):
        require(viewer, snapshot, action, token)
    else:
        await runs.in_thread(require, viewer, snapshot, action, token)


Watched: TypeAlias = Sequence[tuple[Snapshot, str | None]]


def settled(viewer: Viewer, watched: Watched) -> bool:
    """Whether a second look at an open socket cannot change anything: nobody signed
    in, and by the default rule an owner stays one."""
    return (
        viewer.session is None
        and _rule() is may
        and all(snapshot.owner in viewer.identities for snapshot, _ in watched)
    )


def look_again(viewer: Viewer, watched: Watched) -> tuple[Viewer | None, list[str]]:
    """The viewer as of now, None once signed out; and the runs they may no longer
    watch, of snapshots with the tokens that were shown for them."""
    now, rule = refreshed(viewer), _rule()
    if now is None:
        return None, []
    return now, [s.id for s, token in watched if not rule(now, s, "watch", token)]
