import uuid
from dataclasses import replace

import pytest

from channels_progress import history
from channels_progress.models import Run
from channels_progress.store import get_store
from tests.core.hand import Hand


@pytest.fixture
def configure(settings):
    """Change settings of the app."""

    def configure(**values):
        settings.CHANNELS_PROGRESS = {**settings.CHANNELS_PROGRESS, **values}

    return configure


@pytest.fixture
def store(valkey):
    """The project's store, with nothing counted. Tests share it, and never a run."""
    store = get_store()
    store.client.delete(store.key("counters"), store.key("counters:sockets"))
    return store


@pytest.fixture
def add(db):
    """Add a row to the history, and with `in_store` its run to the store."""

    def add(in_store=False, **values):
        row = Run.objects.create(
            **{"id": str(uuid.uuid4()), "owner": "u:1", "task": "HomeApp.tasks.t"}
            | values
        )
        if in_store:
            hand = Hand(get_store(), row.pk)
            hand.create()
            return row, hand
        return row

    return add


@pytest.fixture
def end():
    """End a row in the history, `at` a datetime."""

    def end(row, at, state="succeeded"):
        seen = history.snapshot(row, 0)
        ended = int(at.timestamp() * 1000)
        history.close(replace(seen, state=state, ended=ended, epoch="e1"))
        row.refresh_from_db()

    return end


@pytest.fixture
def store_down(settings):
    """Nothing answers where the store should be."""
    settings.CHANNELS_PROGRESS = {"REDIS_URL": "redis://127.0.0.1:1/0"}
