"""A short form of the chaos; `make chaos` is the long one."""

import pytest

from tests.faults import chaos

pytestmark = pytest.mark.nightly


def test_a_short_chaos(capsys):
    with capsys.disabled():
        assert chaos.run(seed=7, seconds=20) == 0
