"""The background thread, one a process, that carries progress out.

First the store, then the group message. A tick is one pipeline of reports for all
runs of the process, and one round trip of messages for those that were accepted and
whose watchers the store's script could not tell.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
import time
from _queue import Empty, SimpleQueue  # gevent replaces `queue`'s with greenlets'
from collections.abc import Callable, Sequence
from typing import Any, Final

from channels_progress import counters, layer
from channels_progress.conf import conf
from channels_progress.express import Express
from channels_progress.lease import Lease
from channels_progress.log import told, transition
from channels_progress.run import Snapshot
from channels_progress.store import ERRORS, Answer, Call, Store
from channels_progress.threads import spawn

logger = logging.getLogger("channels_progress")

BACKOFF: Final = (0.1, 2.0)  # s, first and longest pause of a store that is down
HUSH: Final = 2.0  # s without messages, where the layer hangs: the store comes first


class Reporter:
    """The thread and what it carries. Calls from tasks never wait for it."""

    def __init__(self) -> None:
        # Its own: under gevent a native thread and greenlets must not share locks.
        self.store = Store(conf.REDIS_URL, conf.PREFIX, single=True)
        self.leases: dict[str, Lease] = {}
        self.busy: set[Lease] = set()
        """Leases that are asked for, or whose end is not written yet."""
        self.later: list[Callable[[], None]] = []
        """What could not be written before: each raises as long as it cannot."""
        self.catching_up = False
        """Whether these are being written just now."""
        self._express = Express()
        self._wake: SimpleQueue[Any] = SimpleQueue()
        self._started = False
        self._thread = 0
        self._lock = threading.Lock()
        self._pause = 0.0
        self._resting = self._hushed = 0.0

    # -- Called by tasks ----------------------------------------------------------

    def wake(self, lease: Lease | None = None) -> None:
        """Let the thread look now: at this lease, or at all."""
        self._wake.put(lease)

    def add(self, lease: Lease) -> None:
        """Carry this lease's progress from now on."""
        before = self.leases.get(lease.id)
        if before is not None and before is not lease:
            before.supersede()  # it is no longer carried, and would never hear of it
        self.leases[lease.id] = lease
        self._ensure()
        self.wake(lease)

    def remove(self, lease: Lease) -> None:
        """Its body is over."""
        if self.leases.get(lease.id) is lease:
            del self.leases[lease.id]

    def holds(self, id: str, number: int, besides: Lease) -> bool:
        """Whether this process speaks for the run under this very lease, or may in a
        moment: another message of the run is just asking for its own."""
        return any(
            lease.id == id and lease.number in (0, number) and lease is not besides
            for lease in [*self.leases.values(), *self.busy]
        )

    def send(self, snapshot: Snapshot) -> None:
        """Send a group message soon."""
        self._ensure()
        self._wake.put(snapshot)

    def keep(self, write: Callable[[], None]) -> None:
        """Try `write` again until it no longer raises."""
        self.later.append(write)
        self._ensure()
        self.wake()

    def watch_the_store(self) -> None:
        """Close the breaker once the store answers, though nothing is to be said."""
        self._ensure()
        self.wake()

    def drain(self, seconds: float) -> None:
        """Wait until everything said so far is out, for a process about to end."""
        if not self._started:
            return
        done = threading.Event()
        self._wake.put(done)
        if not done.wait(seconds):
            logger.warning("Progress was still under way when the process ended.")

    def is_this_thread(self) -> bool:
        """Whether this is the thread that must go on speaking for all runs."""
        return self._thread == threading.get_native_id()

    # -- The thread ---------------------------------------------------------------

    def _ensure(self) -> None:
        with self._lock:
            if self._started:
                return
            self._started = True
            spawn(self._run)

    def _run(self) -> None:
        self._thread = threading.get_native_id()
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        waiting: list[threading.Event] = []
        while True:
            messages, asked = self._listen()
            waiting += asked
            try:
                messages += self._tick()
                if messages:
                    self._send(loop, messages)
            except Exception:  # the thread must outlive whatever it meets
                logger.exception("The reporter met an error and goes on.")
                self._resting = time.monotonic() + 1
            if not self.later:
                for done in waiting:
                    done.set()
                waiting.clear()

    def _send(
        self, loop: asyncio.AbstractEventLoop, messages: Sequence[Snapshot]
    ) -> None:
        """Send group messages, but for a while after some that were not taken."""
        began = time.monotonic()
        if began < self._hushed:
            counters.bump("messages_dropped", len(messages))
            return
        if not self._express.send(loop, messages):
            loop.run_until_complete(layer.send(messages))
        now = time.monotonic()
        if now - began >= layer.SEND_TIMEOUT:
            self._hushed = now + HUSH

    def _listen(self) -> tuple[list[Snapshot], list[threading.Event]]:
        """Wait for a wake-up or the next due time; then everything that waits."""
        messages: list[Snapshot] = []
        waiting: list[threading.Event] = []
        item: Any = None
        try:
            item = self._wake.get(timeout=self._patience())
            while True:
                if isinstance(item, Lease):
                    item.due = 0.0
                elif isinstance(item, Snapshot):
                    messages.append(item)
                else:
                    for lease in list(self.leases.values()):
                        lease.due = 0.0
                    if item is not None:
                        waiting.append(item)
                item = self._wake.get_nowait()
        except Empty:
            pass
        return messages, waiting

    def _patience(self) -> float:
        now = time.monotonic()
        due = [lease.due for lease in list(self.leases.values())]
        if self.later or breaker.open:
            due.append(now)
        wait = min(due, default=now + 3600) - now
        return max(0.0, wait, self._resting - now)

    def _tick(self) -> list[Snapshot]:
        """Report what is due; the snapshots that the watchers should get."""
        if time.monotonic() < self._resting:
            return []
        try:
            caught_up = self._catch_up()
            messages = self._report()
            if caught_up:  # and what was due as well
                breaker.reset()
        except ERRORS as error:
            first, longest = BACKOFF
            self._pause = min(longest, self._pause * 2 or first)
            self._resting = time.monotonic() + random.uniform(0.5, 1) * self._pause
            breaker.trip(error)
            return []
        self._pause = 0.0
        return messages

    def _catch_up(self) -> bool:
        """Say what could not be said before; whether there was anything."""
        caught_up = breaker.open
        if caught_up:
            self.store.ping()
        for lease in list(self.leases.values()):
            if (begin := lease.begin) is not None:
                begin(self.store)
                lease.due = 0.0
                caught_up = True
        self.catching_up = bool(self.later)
        try:
            while self.later:
                try:
                    self.later[0]()
                except ERRORS:
                    raise
                except Exception:  # the next ones are to be said all the same
                    logger.exception("What was to be said later cannot be said.")
                del self.later[0]
                caught_up = True
        finally:
            self.catching_up = False
        return caught_up

    def _report(self) -> list[Snapshot]:
        now = time.monotonic()
        spoken: list[tuple[Lease, Call]] = []
        for lease in list(self.leases.values()):
            if lease.due > now:  # one of many in this process has something to say
                continue
            if lease.number == 0:
                lease.due = now + conf.HEARTBEAT_INTERVAL
                continue
            call = self._say(lease, now)
            if call is not None:
                spoken.append((lease, call))
        if not spoken:
            return []
        try:
            answers = self.store.pipeline([call for _, call in spoken])
        except ERRORS:
            for lease, _ in spoken:
                lease.again()
            raise
        messages = self._heed(spoken, answers)
        breaker.reset()
        return messages

    def _say(self, lease: Lease, now: float) -> Call | None:
        """The report that this lease is due, if any."""
        if lease.numbers() == lease.sent:
            lease.progress.rest()
            # Something may have changed between the look and the rest.
            if lease.numbers() == lease.sent:
                lease.due = lease.spoke + conf.HEARTBEAT_INTERVAL
                if now < lease.due:
                    return None
                lease.spoke, lease.due = now, now + conf.HEARTBEAT_INTERVAL
                return lease.call("report", None)
        lease.due = lease.told + conf.REPORT_INTERVAL
        if now < lease.due:
            return None
        lease.sent = lease.numbers()
        lease.spoke = lease.told = now
        lease.due = now + conf.REPORT_INTERVAL
        return lease.call("report", lease.members())

    def _heed(
        self,
        spoken: Sequence[tuple[Lease, Call]],
        answers: Sequence[Answer | Exception],
    ) -> list[Snapshot]:
        messages: list[Snapshot] = []
        failure: Exception | None = None
        for (lease, call), first in zip(spoken, answers, strict=True):
            answer: Answer | Exception | None = first
            if isinstance(answer, Answer) and answer.code == "vanished":
                answer = self._bring_back(lease, call)
            if answer is None:
                continue
            if isinstance(answer, Exception):
                lease.again()
                failure = answer
                continue
            if answer.code == "superseded":
                counters.bump("writes_refused")
                lease.supersede()
                self.remove(lease)
                continue
            lease.hear()
            if call.values.get("cursor") is not None:
                lease.cursor = str(call.values["cursor"])
            lease.obey(answer.asked)
            if call.values.get("doc") is not None and not answer.told:
                messages.append(answer.snapshot(str(call.values["doc"])))
        if failure is not None:
            raise failure
        return messages

    def _bring_back(self, lease: Lease, call: Call) -> Answer | Exception | None:
        """Make a vanished run again, unless it is over or another may hold it."""
        now = time.monotonic()
        if lease.missed is None:
            lease.missed = now
        silence = lease.missed - lease.heard
        if (
            silence > conf.LOST_AFTER
            and now < lease.missed + 2 * conf.HEARTBEAT_INTERVAL
        ):
            # One that was silent for so long lets a living lease speak first.
            lease.sent = None
            return None
        whole = lease.whole(call)
        if whole is None:
            lease.supersede()
            self.remove(lease)
            return None
        try:
            answer = self.store.call_one(whole)
        except ERRORS as error:
            return error
        if answer.code == "ok":
            transition(lease.header.task, answer, lease.worker)
        return answer


class Breaker:
    """Spends the time for a dead store once per outage, not once per task."""

    def __init__(self) -> None:
        self.open = False

    def trip(self, error: Exception) -> None:
        if not self.open:
            logger.warning("The progress store cannot be reached: %s", told(error))
        self.open = True

    def reset(self) -> None:
        if self.open:
            logger.warning("The progress store answers again.")
        self.open = False


breaker: Final = Breaker()
_reporter: Reporter | None = None
_reporter_lock = threading.Lock()


def get_reporter() -> Reporter:
    """This process's reporter; a fork makes its own."""
    global _reporter
    with _reporter_lock:
        if _reporter is None:
            _reporter = Reporter()
        return _reporter


def _forget() -> None:
    global _reporter, _reporter_lock
    _reporter, _reporter_lock = None, threading.Lock()
    breaker.open = False  # a child has nobody yet who would close it


os.register_at_fork(after_in_child=_forget)
