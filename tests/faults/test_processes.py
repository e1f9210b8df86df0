"""Bodies that make processes of their own."""

import pytest

pytestmark = pytest.mark.together


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_body_that_forks(lab, pool):
    """Its child has no thread that speaks: it says nothing, and waits for nothing."""
    owner = f"forks-{pool}"
    lab.hire(owner, pool, concurrency=1)
    run = lab.start("forks", owner=owner)
    end = run.until_end()
    assert (end["state"], end["result"]) == ("succeeded", {"children": [0, 0, 0]})
    assert (end["current"], end["total"]) == (3, 3)
    assert lab.start("quick", owner=owner).until_end()["state"] == "succeeded"
