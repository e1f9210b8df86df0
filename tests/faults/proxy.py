"""
A TCP proxy that fails on command: `cut`, `down`, `stall`, `blackhole`, and `restore`.

What toxiproxy calls reset_peer, down, and timeout=0; in a thread of the test itself.
"""

import contextlib
import socket
import struct
import threading

CHUNK = 65536  # bytes


class Proxy:
    """Forwards `port` to `target` (a port of this machine), until it is told not to."""

    def __init__(self, target, port=0):
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        self.port = self.listener.getsockname()[1]
        self.open = threading.Event()  # data passes
        self.open.set()
        self.refusing = self.swallowing = False
        self.pairs = set()
        self.lock = threading.Lock()
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    # --- Faults ---

    def cut(self):
        """Reset every connection; new ones are served."""
        with self.lock:
            pairs, self.pairs = self.pairs, set()
        for pair in pairs:
            for end in pair:
                reset(end)

    def cut_one(self):
        """Reset one connection."""
        with self.lock:
            pair = self.pairs.pop() if self.pairs else ()
        for end in pair:
            reset(end)

    def down(self):
        """Refuse new connections, and reset those that are there."""
        self.refusing = True
        self.cut()

    def stall(self):
        """Let nothing pass; connections stay, and what was sent arrives later."""
        self.open.clear()

    def blackhole(self):
        """Swallow what is sent, in both directions, for good."""
        self.swallowing = True

    def restore(self):
        """All is well for new connections; a blackholed one stays as it is."""
        self.refusing = self.swallowing = False
        self.open.set()

    def close(self):
        self.restore()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.cut()

    # --- Forwarding ---

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if self.refusing:
                reset(client)
                continue
            self.connections += 1
            try:
                server = socket.create_connection(("127.0.0.1", self.target), 5)
            except OSError:
                reset(client)
                continue
            server.settimeout(None)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = (client, server)
            with self.lock:
                self.pairs.add(pair)
            lost = threading.Event()  # something was swallowed: it must never go on
            for source, sink in (pair, pair[::-1]):
                threading.Thread(
                    target=self._pump, args=(source, sink, pair, lost), daemon=True
                ).start()

    def _pump(self, source, sink, pair, lost):
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                self.open.wait()
                if self.swallowing:
                    lost.set()
                if not lost.is_set():
                    sink.sendall(data)
        with self.lock:
            self.pairs.discard(pair)
        for end in pair:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def reset(connection):
    """Close with RST, as a killed peer does."""
    with contextlib.suppress(OSError):
        connection.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
