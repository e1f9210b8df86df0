"""A run begun anonymously stays with the person who then signs in, in that browser."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final

from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.db.models import Q
from django.dispatch import receiver
from django.http import HttpRequest
from django.utils import timezone

from channels_progress import access, history
from channels_progress.log import told
from channels_progress.models import Run
from channels_progress.store import ERRORS, Call, get_store

logger = logging.getLogger("channels_progress")

KEPT: Final = timedelta(days=1)  # as long as the store keeps a finished run
AT_ONCE: Final = 500  # runs in one round trip
REMEMBERED: Final = 5  # names of one session


def claim(names: Iterable[str], user: Any) -> int:
    """Make all runs of these anonymous owners the user's; how many there were."""
    owner = access.owner(user)
    taken = 0
    for name in names:
        rows = Run.objects.filter(owner=name)
        alive = Q(ended=None) | Q(ended__gt=timezone.now() - KEPT)
        ids = list(rows.filter(alive).values_list("pk", flat=True))
        taken += rows.update(owner=owner)
        _claim_stored(ids, name, owner)
    return taken


def _claim_stored(ids: list[str], name: str, owner: str) -> None:
    """The same in the store; while it is down, the session knows who they were."""
    values = {"from": name, "owner": owner}
    try:
        for first in range(0, len(ids), AT_ONCE):
            part = ids[first : first + AT_ONCE]
            get_store().pipeline([Call("claim", id, values) for id in part])
    except ERRORS as error:
        logger.warning(
            "%d runs of %s keep their owner: %s", len(ids), name, told(error)
        )


@receiver(user_logged_in, dispatch_uid="channels_progress")
def signed_in(request: HttpRequest | None, user: Any, **_: Any) -> None:
    """Their own runs follow them; the next one in this browser gets another name."""
    name = access.anonymous_name(getattr(request, "COOKIES", {}))
    session = getattr(request, "session", None)
    if request is None or not name or session is None:
        return
    try:
        claim([name], user)
    except history.ERRORS as error:  # nobody is kept out for that
        logger.warning("The runs of %s were not claimed: %s", name, told(error))
    names = [each for each in access.claimed(session) if each != name]
    session[access.CLAIMED] = [*names[1 - REMEMBERED :], name]
    access.renew(request)


@receiver(user_logged_out, dispatch_uid="channels_progress")
def signed_out(request: HttpRequest | None, user: Any, **_: Any) -> None:
    """What an open page has started meanwhile, under the name from before."""
    names = access.claimed(getattr(request, "session", None))
    if user is not None and names:
        try:
            claim(names, user)
        except history.ERRORS as error:
            logger.warning("Late runs were not claimed: %s", told(error))
