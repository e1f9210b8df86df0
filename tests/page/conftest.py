"""Runs and requests for the tests of what the server writes into a page."""

import pytest
from django.template import Context, Template
from django.test import RequestFactory

from channels_progress import access
from channels_progress.run import Details, Snapshot

NOW = 1_763_700_000_000  # ms
RUN = "6c923248-ff32-5e00-a7cc-020d29813e81"


def snapshot(state="running", *, details=None, **fields):
    """A run at `NOW`, seen and changed just now."""
    said = {"run": RUN, "task": "copy", "title": "A copy", "unit": "row"}
    said |= {"attempts": 4, "succeeded": state == "succeeded", **(details or {})}
    known = {
        "id": RUN,
        "now": NOW,
        "epoch": "e",
        "rev": 7,
        "state": state,
        "asked": None,
        "attempt": 1,
        "reason": None,
        "due": None,
        "queued": NOW - 60_000,
        "started": NOW - 50_000,
        "ended": None,
        "seen": NOW,
        "changed": NOW,
        "error": "null",
        "members": Details(**said).members(),
        "owner": "a:me",
    }
    return Snapshot(**(known | fields))


@pytest.fixture
def request_of():
    """`request_of("a:me")`: a request of that viewer, who may be nobody."""

    def make(owner="a:me"):
        request = RequestFactory().get("/runs/?page=2")
        if owner:
            cookie = access._signer().sign(owner.removeprefix("a:"))
            request.COOKIES["progress_viewer"] = cookie
        return request

    return make


def render(text, **context):
    return Template("{% load channels_progress %}" + text).render(Context(context))
