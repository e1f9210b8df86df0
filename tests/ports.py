"""Free TCP ports of this machine."""

import random
import socket

# Below those that Linux lends to clients: one of these may be taken a moment later.
PORTS = range(10_000, 20_000)
choose = random.SystemRandom().choice  # tests may seed the other one


def free_port(*apart):
    """A port on which nobody listens now, nor on those so far apart from it."""
    while True:
        port = choose(PORTS)
        if all(_is_free(port + distance) for distance in (0, *apart)):
            return port


def _is_free(port):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
