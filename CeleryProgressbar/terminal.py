"""Many processes in one terminal: they start in order, and none stays behind."""

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request

from honcho.manager import Manager
from honcho.printer import Printer

STORE = "store"  # the process that all others use
GRACE = 4.5  # seconds from Ctrl-C until a process that still runs is killed
STORE_GRACE = 6.3  # seconds the same for the store, which stops last
START = 30.0  # seconds that the store may take to read its data


class TerminalPrinter(Printer):
    """Honcho's printer; a terminal that has gone away ends the site."""

    def write(self, message):
        try:
            super().write(message)
        except OSError:
            self.output = open(os.devnull, "w")  # noqa: SIM115 (as long as we live)
            os.kill(os.getpid(), signal.SIGTERM)


def hung_up():
    """
    Whether nobody can read what we print.

    Of a closed terminal the kernel tells only the leader of its session. Where that is
    make, as in `ssh -t host make run`, it waits for us and says nothing.
    """
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return bool(poll.poll(0))


class Terminal(Manager):
    """
    Honcho's manager, which starts the store before its users and stops it after them.

    Each process is the leader of a session of its own, so Ctrl-C reaches none of them
    directly; only the leader is asked to stop, for Celery's pool children must not be.
    """

    def __init__(self, url, store_port):
        super().__init__(TerminalPrinter(sys.stdout))
        self.url = url
        self.store_port = store_port
        self.told = set()  # (name, signal) of those already sent
        self.deadlines = (0.0, 0.0)  # for the users of the store, and for itself

    def run(self):
        """Returns the exit status: 0 after Ctrl-C, else of what stopped by itself."""
        try:
            self.loop()
        finally:
            for process in self._processes.values():
                self.signal_group(process, signal.SIGKILL)
        return 0 if self.returncode in (130, 143) else self.returncode

    # --- Starting ---

    def _start(self):
        # Honcho's helper processes share our group and must outlive a hangup, to pass
        # on what their process says at its end.
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        processes = self._processes
        if store := processes.get(STORE):
            self._processes = {STORE: store}
            super()._start()
            self.wait_for_store(store)
        if not self._terminating:
            self._processes = {n: p for n, p in processes.items() if n != STORE}
            super()._start()
            self._processes = processes
        if before is not signal.SIG_IGN:  # as `nohup make run` wants it
            stop = signal.getsignal(signal.SIGTERM)
            signal.signal(signal.SIGHUP, lambda _, frame: stop(signal.SIGTERM, frame))
        threading.Thread(target=self.announce, daemon=True).start()

    def wait_for_store(self, store):
        deadline = time.monotonic() + START
        while store["process"].is_alive() and time.monotonic() < deadline:
            if self._terminating:
                return
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.store_port), 1) as probe,
            ):
                probe.sendall(b"PING\r\n")
                if probe.recv(16).startswith(b"+PONG"):
                    return
            time.sleep(0.02)
        self._system_print("the store did not start: see valkey.log beside its data\n")
        self.terminate()

    def announce(self):
        """Print where the site is, as soon as it answers."""
        while not self._terminating:
            try:
                urllib.request.urlopen(self.url, timeout=5).close()
            except urllib.error.HTTPError:
                break  # an error page is an answer
            except OSError:
                time.sleep(0.1)
            else:
                break
        if not self._terminating:
            self._system_print(f"\n  {self.url}   (Ctrl-C stops everything)\n\n")

    # --- Stopping ---

    def terminate(self):
        if not self._terminating:
            self._terminating = True
            now = time.monotonic()
            self.deadlines = now + GRACE, now + STORE_GRACE

    def kill(self):
        """Honcho's own deadline does not know the order; see `_all_stopped`."""

    def _all_stopped(self):
        # Honcho asks this after each event, and at least every 0.1 s.
        if self._terminating:
            self.stop_the_rest()
        elif hung_up():
            os.kill(os.getpid(), signal.SIGTERM)
        return super()._all_stopped()

    def stop_the_rest(self):
        left = {n: p for n, p in self._processes.items() if "returncode" not in p}
        users = {n: p for n, p in left.items() if n != STORE}
        late = time.monotonic() > self.deadlines[0 if users else 1]
        for name, process in (users or left).items():
            number = signal.SIGKILL if late else signal.SIGTERM
            if (name, number) not in self.told:
                self.told.add((name, number))
                if late:
                    self._system_print(f"{name} does not stop, killing it\n")
                    self.signal_group(process, number)
                else:
                    self.signal_leader(process, number)

    @staticmethod
    def signal_leader(process, number):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process["pid"], number)

    @staticmethod
    def signal_group(process, number):
        if "pid" in process:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process["pid"], number)
