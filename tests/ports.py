"""Free TCP ports of this machine, each given once."""

import os
import random
import socket

# Below those that Linux lends to clients: one of these may be taken a moment later.
# Test processes that work side by side have a share each.
SHARE = 10_000 // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
FIRST = 10_000 + SHARE * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
choose = random.SystemRandom().choice  # tests may seed the other one
given = set()


def free_port(*apart):
    """A port on which nobody listens now, nor on those so far apart from it."""
    reach = max((distance for distance in apart if distance < SHARE), default=0)
    choices = range(FIRST, FIRST + SHARE - reach)
    for _ in range(10_000):
        port = choose(choices)
        ports = {port, *(port + distance for distance in apart)}
        if not ports & given and all(map(_is_free, ports)):
            given.update(ports)
            return port
    raise RuntimeError(f"No port is free among {choices}: run fewer test processes.")


def _is_free(port):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
