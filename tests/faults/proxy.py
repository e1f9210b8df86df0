"""
A TCP proxy that fails on command: `cut`, `down`, `slow`, `stall`, `blackhole`, and
`restore`.

What toxiproxy calls reset_peer, down, latency, and timeout=0; in a thread of the test
itself.
"""

import contextlib
import random
import socket
import struct
import threading
import time

CHUNK = 65536  # bytes
LATE = (0.5, 1.5)  # seconds; 1 s, and half of it more or less


class Proxy:
    """Forwards `port` to `target` (a port of this machine), until it is told not to."""

    def __init__(self, target, port=0):
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        self.port = self.listener.getsockname()[1]
        self.open = threading.Event()  # data passes
        self.open.set()
        self.refusing = self.swallowing = self.late = False
        self.doomed = set()  # what a client says before its connection is cut
        self.unheard = False  # and whether the server does not hear it
        self.pairs = {}  # in their order
        self.lock = threading.Lock()
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def redis_url(self, database=0):
        """Of what is behind it, where that is Redis."""
        return f"redis://127.0.0.1:{self.port}/{database}"

    # --- Faults ---

    def cut(self):
        """Reset every connection; new ones are served."""
        with self.lock:
            pairs, self.pairs = self.pairs, {}
        for pair in pairs:
            for end in pair:
                reset(end)

    def cut_one(self):
        """Reset the oldest connection: not what was made for another that was cut, over
        which a verb is sent again, and only once."""
        with self.lock:
            pair = next(iter(self.pairs), ())
            self.pairs.pop(pair, None)
        for end in pair:
            reset(end)

    @contextlib.contextmanager
    def cutting(self):
        """Do that twenty times a second."""
        stop = threading.Event()

        def cut():
            while not stop.wait(0.05):
                self.cut_one()

        cutter = threading.Thread(target=cut)
        cutter.start()
        try:
            yield
        finally:
            stop.set()
            cutter.join()

    def cut_answers(self, *words):
        """Reset the next connection that says one of the words, once for each of them,
        after the server has done what it was told, and before anybody hears so.
        Returns the words that nobody has said yet."""
        self.doomed, self.unheard = set(words), False
        return self.doomed

    def cut_requests(self, *words):
        """The same before the server has heard it."""
        self.doomed, self.unheard = set(words), True
        return self.doomed

    def down(self):
        """Refuse new connections, and reset those that are there."""
        self.refusing = True
        self.cut()

    def slow(self):
        """Let everything pass, a second later."""
        self.late = True

    def stall(self):
        """Let nothing pass; connections stay, and what was sent arrives later."""
        self.open.clear()

    def blackhole(self):
        """Swallow what is sent, in both directions, for good."""
        self.swallowing = True

    def restore(self):
        """All is well for new connections; a blackholed one stays as it is."""
        self.refusing = self.swallowing = self.late = False
        self.doomed = set()
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
                self.pairs[pair] = None
            lost = threading.Event()  # something was swallowed: it must never go on
            cut = threading.Event()  # the next answer does not arrive
            for source, sink in (pair, pair[::-1]):
                threading.Thread(
                    target=self._pump, args=(source, sink, pair, lost, cut), daemon=True
                ).start()

    def _pump(self, source, sink, pair, lost, cut):
        asking = source is pair[0]
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                self.open.wait()
                if self.late:
                    time.sleep(random.uniform(*LATE))
                if self.swallowing:
                    lost.set()
                if asking and (said := self._doomed_in(data)):
                    self.doomed.discard(said)
                    cut.set()
                    if self.unheard:
                        reset(pair[0])
                        break
                elif cut.is_set():
                    reset(pair[0])
                    break
                if not lost.is_set():
                    sink.sendall(data)
        with self.lock:
            self.pairs.pop(pair, None)
        for end in pair:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _doomed_in(self, data):
        """A word that dooms its connection; as Redis's protocol has words."""
        said = (word for word in self.doomed if b"\r\n%b\r\n" % word.encode() in data)
        return next(said, None)


def reset(connection):
    """Close with RST, as a killed peer does."""
    with contextlib.suppress(OSError):
        connection.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
