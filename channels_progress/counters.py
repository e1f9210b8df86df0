"""Counters for those who run it at night: what was refused, dropped, or failed.

Counting is memory only. A thread of the process, which exists once something was
counted, adds what is new to one Redis hash every `FLUSH_SECONDS` at most, so that
`manage.py progress_stats` can say the numbers of all processes together. A process
that is killed takes what it has counted since then with it.
"""

from __future__ import annotations

import atexit
import os
import socket
import time
from collections import Counter
from typing import Final

from channels_progress import store, threads
from channels_progress.conf import conf

FLUSH_SECONDS: Final = 10.0
STALE_SECONDS: Final = 60  # after which a process that said nothing has no sockets

# What is counted, in the order in which it is shown.
NAMES: Final = {
    "restarts": "begins of a message that came back from a worker that had died",
    "writes_refused": "words of an attempt that another one had replaced",
    "store_failures": "calls that the store did not answer",
    "messages_dropped": "group messages that could not be sent",
    "messages_missed": "group messages that did not arrive; a read made up for them",
    "sockets_dropped": "sockets given up, because nobody read what they were sent",
    "sockets": "sockets open now",
}
# Not added up over time: how many there are now, of each living process.
GAUGE: Final = "sockets"


class Counters:
    """The numbers of one process."""

    def __init__(self) -> None:
        self._counts = Counter[str]()
        self._sent = Counter[str]()
        self._lock = threads.lock()
        self._flushing = threads.lock()
        self._started = False

    def bump(self, name: str, n: int = 1) -> None:
        """Count `n` more; it never waits for the network."""
        with self._lock:
            self._counts[name] += n
            started, self._started = self._started, True
        if not started:
            threads.spawn(self._run)

    def read(self) -> dict[str, int]:
        """What this process has counted, by name."""
        with self._lock:
            return {name: self._counts[name] for name in NAMES}

    def flush(self) -> None:
        """Add what is new to the store's numbers; what it does not take waits."""
        with self._flushing:
            now = self.read()
            new = {name: n for name in NAMES if (n := now[name] - self._sent[name])}
            if not new and not now[GAUGE]:
                return
            own = store.Store(conf.REDIS_URL, conf.PREFIX)
            try:
                _write(own, now[GAUGE], new)
            except store.ERRORS:
                return
            finally:
                own.close()
            self._sent.update(new)

    def _run(self) -> None:
        while True:
            time.sleep(FLUSH_SECONDS)
            self.flush()


def _write(own: store.Store, gauge: int, new: dict[str, int]) -> None:
    key, now = own.key("counters"), int(time.time())
    process = f"{socket.gethostname()}:{os.getpid()}"
    pipe = own.client.pipeline(transaction=True)
    pipe.hsetnx(key, "since", str(now))
    for name in new.keys() - {GAUGE}:
        pipe.hincrby(key, name, new[name])
    if gauge:
        pipe.hset(f"{key}:{GAUGE}", process, f"{gauge} {now}")
    else:
        pipe.hdel(f"{key}:{GAUGE}", process)
    pipe.execute()


def read_all() -> tuple[int | None, dict[str, int]]:
    """Since when (seconds since 1970), and the numbers of all processes together.

    Raises what the store raises.
    """
    ours = store.get_store()
    key, now = ours.key("counters"), time.time()
    pipe = ours.client.pipeline(transaction=False)
    pipe.hgetall(key)
    pipe.hgetall(f"{key}:{GAUGE}")
    totals, gauges = pipe.execute()
    numbers = {name: int(totals.get(name.encode(), 0)) for name in NAMES}
    for process, entry in gauges.items():
        count, said = map(int, entry.split())
        if now - said > STALE_SECONDS:
            ours.client.hdel(f"{key}:{GAUGE}", process)
        else:
            numbers[GAUGE] += count
    since = totals.get(b"since")
    return (int(since) if since else None), numbers


_counters = Counters()


def bump(name: str, n: int = 1) -> None:
    """Count `n` more of `name`, which is one of `NAMES`."""
    _counters.bump(name, n)


def read() -> dict[str, int]:
    """What this process has counted, by name."""
    return _counters.read()


def flush() -> None:
    """Add what is new to the store's numbers now, in a process about to end."""
    _counters.flush()


def _forget() -> None:
    """A forked child begins to count anew."""
    global _counters
    _counters = Counters()


os.register_at_fork(after_in_child=_forget)
atexit.register(flush)
