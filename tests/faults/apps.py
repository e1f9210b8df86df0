"""The app of the fault tests; FAULTS_VERSION makes a process one of another version."""

import os

from django.apps import AppConfig

# What every version has said since the first; the rest may be missing.
OLD_HEADER = ("run", "owner", "task", "hop", "kind")
NEW = {"weather": "fine", "wind": {"knots": [1, 2]}}


class FaultsConfig(AppConfig):
    name = "tests.faults"

    def ready(self):
        match os.environ.get("FAULTS_VERSION"):
            case "newer":
                say_more()
            case "older":
                say_less()


def say_more():
    """Headers, envelopes and messages have members that nobody knows yet."""
    rewrite(lambda header: {**header, **NEW}, lambda members: {**members, **NEW})


def say_less():
    """They are without those that need not be there."""
    needed = (
        "run",
        "task",
        "title",
        "current",
        "total",
        "percent",
        "message",
        "result",
    )
    rewrite(
        lambda header: {name: header[name] for name in OLD_HEADER},
        lambda members: {name: members[name] for name in needed},
    )


def rewrite(header, members):
    import json

    from channels_progress import layer
    from channels_progress.header import HEADER, Header
    from channels_progress.run import Details

    as_headers, as_members, message = Header.as_headers, Details.members, layer.message
    Header.as_headers = lambda self: {HEADER: header(as_headers(self)[HEADER])}
    Details.members = lambda self: json.dumps(
        members(json.loads(f"{{{as_members(self)}}}"))
    )[1:-1]
    if os.environ["FAULTS_VERSION"] == "newer":
        layer.message = lambda snapshot: {**message(snapshot), **NEW}
