"""The filter that every snapshot passes on its way to a viewer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


@settings(derandomize=True, database=None, deadline=None)
@given(st.data())
def test_whatever_becomes_of_messages_nothing_goes_back_and_a_read_is_the_truth(data):
    """A run is told in epochs, its store emptied between them; each revision is
    published. Messages are lost, doubled and come in any order; what is read is the
    truth at that moment."""
    seen, told, shown = None, [], []
    for epoch in "abc"[: data.draw(st.integers(1, 3))]:
        for rev in range(1, data.draw(st.integers(2, 6))):
            truth = snapshot(epoch=epoch, rev=rev, now=len(told))
            told.append(truth)
            for new in data.draw(st.lists(st.sampled_from(told), max_size=4)):
                verdict = offer(seen, new, live=True)
                if verdict is None:  # as Watch does: only the store can tell
                    new, verdict = truth, offer(seen, truth, live=False)
                if verdict:
                    seen = new
                    shown.append(told.index(new))
    if offer(seen, truth, live=False):
        seen = truth
        shown.append(told.index(truth))
    assert seen == truth
    assert shown == sorted(shown)
