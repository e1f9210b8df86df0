"""A short form of the chaos; `make chaos` is the long one."""

import os

import pytest

from tests.faults import chaos
from tests.faults.lab import REAL


@pytest.mark.together
def test_a_short_chaos():
    layer = os.environ.get("FAULTS_CHANNEL_LAYER")
    assert chaos.run(seed=632, seconds=60 if REAL else 15, layer=layer)
