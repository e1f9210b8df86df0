"""A short form of the chaos; `make chaos` is the long one."""

import pytest

from tests.faults import chaos
from tests.faults.lab import REAL


@pytest.mark.together
def test_a_short_chaos():
    assert chaos.run(seed=7, seconds=60 if REAL else 15) == 0
