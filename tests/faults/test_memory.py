"""The kernel kills a process for the memory of its control group, as in a container."""

import contextlib
from pathlib import Path

import pytest

from tests.faults.lab import within

# Where a group is made, its limit, and whether that may be set.
VERSIONS = [
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
    ("/sys/fs/cgroup", "memory.max"),
]


@contextlib.contextmanager
def limited(pids, megabytes):
    """These processes, and those they make, may have so much together."""
    here = [v for v in VERSIONS if (Path(v[0]) / "cgroup.procs").exists()]
    assert here, "There are no control groups here."
    root, limit = here[0]
    group = Path(root) / "progress-faults"
    try:
        group.mkdir(exist_ok=True)
    except PermissionError:
        pytest.fail(f"Only root may make {group}: run this test as root.")
    try:
        (group / limit).write_text(str(megabytes * 1_000_000))
        for pid in pids:
            (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                (Path(root) / "cgroup.procs").write_text(pid)
        group.rmdir()


@pytest.mark.nightly
@pytest.mark.together
def test_a_child_that_takes_too_much_memory_is_a_dead_one(lab, measure):
    worker = lab.hire("devours", concurrency=1)
    with limited([worker.pid, *worker.children()], megabytes=400):
        run = lab.start("devours", owner="devours")
        began = run.until_body()["at"]
        run.until("running", attempt=2)
        measure("out of memory: next attempt runs", run.seen_at - began, within(10))
        run.open()
        assert run.until_end()["state"] == "succeeded"
        assert len(run.begins) == 2
