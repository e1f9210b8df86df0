"""Free TCP ports of this machine, each given once."""

import os
import random
import socket

# Below those that Linux lends to clients: one of these may be taken a moment later.
# Test processes that work side by side have a share each.
SHARE = 10_000 // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
FIRST = 10_000 + SHARE * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
MARGIN = 900  # `make run` has its render service so far above its web server
choose = random.SystemRandom().choice  # tests may seed the other one
given = set()


def free_port(*apart):
    """A port on which nobody listens now, nor on those so far apart from it."""
    while True:
        port = choose(range(FIRST, FIRST + SHARE - MARGIN))
        ports = {port, *(port + distance for distance in apart)}
        if not ports & given and all(map(_is_free, ports)):
            given.update(ports)
            return port


def _is_free(port):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
