"""Fixtures for the core: a store, a run moved by hand."""

import pytest

from channels_progress.store import get_store
from tests.core.hand import Hand


@pytest.fixture
def store(valkey):
    """The project's store. Tests share it, and never a run."""
    return get_store()


@pytest.fixture
def run(store):
    """A run that nobody has created yet."""
    return Hand(store)
