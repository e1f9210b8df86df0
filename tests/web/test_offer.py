"""The filter that every snapshot passes on its way to a viewer."""

import pytest

from channels_progress.run import Snapshot
from channels_progress.topic import offer


def snapshot(epoch="a", rev=3, state="running", now=0, seen=0):
    return Snapshot(
        id="r",
        now=now,
        epoch=epoch,
        rev=rev,
        state=state,
        asked=None,
        attempt=1,
        reason=None,
        due=None,
        queued=0,
        started=None,
        ended=None,
        seen=seen,
        changed=0,
        error="null",
        members='"run":"r"',
    )


SEEN = snapshot()
LOST = snapshot(now=40_000)


@pytest.mark.parametrize(
    ("new", "live", "verdict"),
    [
        (snapshot(rev=4), True, True),
        (snapshot(rev=4), False, True),
        (snapshot(rev=2), True, False),
        (snapshot(rev=2), False, False),
        (snapshot(), True, False),
        (snapshot(), False, False),
        (LOST, False, True),
        (LOST, True, False),
        (snapshot(epoch="b", rev=1), True, None),
        (snapshot(epoch="b", rev=1), False, True),
    ],
)
def test_a_snapshot_is_ordered_by_epoch_and_rev(new, live, verdict):
    assert offer(SEEN, new, live=live) is verdict


def test_healing_replaces_lost_at_an_equal_pair():
    assert offer(LOST, SEEN, live=False) is True


def test_the_first_snapshot_is_the_stores():
    assert offer(None, SEEN, live=False) is True
    assert offer(None, SEEN, live=True) is None
