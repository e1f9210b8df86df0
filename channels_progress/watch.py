"""Who watches what, in one web process; and what they are sent.

A process hears of a run once and encodes it once, however many sockets watch it. The
truth is the store: whoever joins reads it, and every RECONCILE_INTERVAL all runs that
nothing was heard of are read again.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

from channels_progress import access, counters, runs
from channels_progress.conf import conf
from channels_progress.ear import Ear
from channels_progress.errors import Forbidden, ProgressError, Unavailable
from channels_progress.gate import Gate
from channels_progress.run import Snapshot
from channels_progress.seat import Place, Seat
from channels_progress.topic import Topic, live, offer, outlive, vanished

logger = logging.getLogger("channels_progress")

BEAT: Final = '{"type":"beat"}'
SIGNED_OUT: Final = 4401
REFUSED: Final = 4403
SLOTS: Final = 16  # seats take turns in as many groups, not all at the same moment
AT_ONCE: Final = 500  # runs read in one round trip
OUTAGE: Final = 2.0  # s after which viewers are told that nothing can be known
SOON: Final = 0.5  # s; a subscription may be later than it says, an outage may end
UNHEARD: Final = 500  # ms after a change when its message must have come
EXPIRE: Final = 1.0  # s between two looks for sockets that take nothing
RENEW: Final = 600.0  # s; the core layer forgets groups after a day


class Watch:
    """The watched runs of one event loop."""

    def __init__(self) -> None:
        self._topics: dict[str, Topic] = {}
        self._slots: list[set[Seat]] = [set() for _ in range(SLOTS)]
        self._seated = 0
        self._ear = Ear(self._heard, self._joined)
        self._source = runs.Reader()
        self.starts = Gate()
        self._asked: dict[str, asyncio.Future[Snapshot | ProgressError]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._clocks: list[asyncio.Task[None]] = []
        self._turn = Counter[str]()
        self._loop = asyncio.get_running_loop()
        self._taken = 0
        self._behind = 0.0
        """How far the store's clock is behind the loop's, in seconds."""
        self.reads_failed = 0

    # -- Seats --------------------------------------------------------------------

    def open(self, seat: Seat) -> None:
        """A socket has come."""
        counters.bump("sockets")
        self._seated += 1
        self._taken += 1
        seat.slot = self._taken % SLOTS
        self._slots[seat.slot].add(seat)
        if not self._clocks:
            self._clocks = [
                self._loop.create_task(clock)
                for clock in (
                    _every(lambda: conf.BEAT_INTERVAL / SLOTS, self._beat),
                    _every(lambda: conf.SESSION_INTERVAL / SLOTS, self._sessions),
                    _every(lambda: conf.RECONCILE_INTERVAL / 4, self._reconcile),
                    _every(lambda: RENEW, self._renew),
                    _every(lambda: EXPIRE, self._expire),
                )
            ]

    async def close(self, seat: Seat) -> None:
        """A socket has gone; the last one waits until all groups are left."""
        seat.outbox.shut()
        self._slots[seat.slot].discard(seat)
        self._seated -= 1
        counters.bump("sockets", -1)
        for run in list(seat.places):
            self.leave(seat, run)
        if not self._seated:
            await self._ear.settled()

    async def join(
        self,
        seat: Seat,
        run: str,
        token: str | None = None,
        ref: str | int | None = None,
        known: Snapshot | None = None,
    ) -> None:
        """Watch a run: its snapshot, then what is news. Raises Forbidden.

        While nothing can be read, the viewer is told so once and waits. `known` is
        the snapshot where it was read just now.
        """
        before = seat.places.get(run)
        place = seat.places[run] = Place(token, ref)
        topic = self._hold(run)
        try:
            if known is None:
                known = await self._answer(seat, topic, place)
            else:
                self._take(topic, known)
                self._ask(run)  # once the group is joined: nothing falls between
            if known is not None:
                await access.arequire(seat.viewer, known, "watch", token)
                if self._stands(seat, run, place):
                    self._sit(topic, seat)
        except BaseException:
            if seat.places.get(run) is place:
                if before is not None and seat in topic.seats:
                    seat.places[run] = before
                else:
                    del seat.places[run]
            raise
        finally:
            topic.held -= 1
            self._release(topic)

    def leave(self, seat: Seat, run: str) -> None:
        """Watch a run no longer."""
        seat.places.pop(run, None)
        if topic := self._topics.get(run):
            topic.seats.discard(seat)
            self._release(topic)

    def show(self, seat: Seat, snapshot: Snapshot) -> None:
        """Answer who asked for a change, whether they watch the run or not."""
        text = snapshot.envelope()
        if topic := self._topics.get(snapshot.id):
            self._take(topic, snapshot)
            text = topic.text
        seat.outbox.put_run(snapshot.id, text)

    async def read(self, run: str) -> Snapshot:
        """A run as the store has it now. Raises Forbidden or Unavailable."""
        found = await self._ask(run)
        if isinstance(found, ProgressError):
            raise _again(found)
        return found

    async def _answer(self, seat: Seat, topic: Topic, place: Place) -> Snapshot | None:
        """The snapshot, as soon as it can be read; None where nobody waits for it."""
        told = False
        while self._stands(seat, topic.id, place):
            try:
                return await self.read(topic.id)
            except Unavailable as error:
                if not told:
                    seat.tell(error.payload(place.ref) | {"run": topic.id})
                told = True
                await asyncio.sleep(SOON)
        return None

    def _stands(self, seat: Seat, run: str, place: Place) -> bool:
        """Whether this watch is still wanted: not taken back, not asked for anew."""
        return seat.places.get(run) is place and not seat.outbox.closing

    def _sit(self, topic: Topic, seat: Seat) -> None:
        topic.seats.add(seat)
        seat.outbox.put_run(topic.id, topic.text)
        self._finish(topic)

    # -- Topics -------------------------------------------------------------------

    def _hold(self, run: str) -> Topic:
        topic = self._topics.get(run)
        if topic is None:
            topic = self._topics[run] = Topic(run)
            self._ear.want(run)
        topic.held += 1
        return topic

    def _release(self, topic: Topic) -> None:
        if not topic.seats and not topic.held and topic.id in self._topics:
            del self._topics[topic.id]
            self._ear.drop(topic.id)

    def _joined(self, run: str) -> None:
        if topic := self._topics.get(run):
            topic.fresh, topic.due = True, self._loop.time() + SOON

    def _heard(self, message: dict[str, Any]) -> None:
        """A group message: a snapshot, or the news that there is news."""
        topic = self._topics.get(message["run"])
        if topic is None:
            return
        snapshot = live(topic, message)
        verdict = offer(topic.snapshot, snapshot, live=True) if snapshot else None
        if snapshot is None or verdict is None:
            self._ask(topic.id)
            return
        topic.heard = max(topic.heard, snapshot.rev)
        if verdict:
            # A message that comes late says nothing of what was lost after it.
            said = snapshot.now / 1000 + self._behind
            self._rest(topic, min(said, self._loop.time()))
            topic.show(snapshot)
            self._deliver(topic)

    def _take(self, topic: Topic, found: Snapshot) -> None:
        """What the store said: it is the truth, unless something newer was heard."""
        seen, recovered = topic.snapshot, topic.told
        topic.silent, topic.told = None, False
        if found.epoch and not found.finished:  # the history says it by another clock
            self._behind = self._loop.time() - found.now / 1000
        self._rest(topic, self._loop.time())
        if seen is not None and vanished(seen, found):
            topic.vanished = topic.vanished or self._loop.time()
            found = outlive(seen, found, self._loop.time() - topic.vanished)
        else:
            topic.vanished = None
        verdict = offer(seen, found, live=False)
        if verdict or seen is None or found.rev == seen.rev:
            topic.show(found)
        elif found.owner != seen.owner:  # claimed; messages do not say so
            topic.snapshot = replace(seen, owner=found.owner)
        if seen is None or seen.epoch != found.epoch:
            topic.heard = found.rev
        elif found.rev > topic.heard and found.now - found.changed > UNHEARD:
            topic.heard = found.rev
            counters.bump("messages_missed")
            self._ear.renew([topic.id])
        if verdict or recovered:
            self._deliver(topic)

    def _deliver(self, topic: Topic) -> None:
        for seat in topic.seats:
            seat.outbox.put_run(topic.id, topic.text)
        self._finish(topic)

    def _finish(self, topic: Topic) -> None:
        """An end is the last there is to say."""
        if topic.snapshot is None or not topic.snapshot.finished:
            return
        for seat, _ in self._dismiss(topic):
            if seat.until == topic.id:
                seat.outbox.close(1000)

    def _dismiss(self, topic: Topic) -> list[tuple[Seat, Place]]:
        """Let everybody leave; who they were."""
        seated = [(seat, seat.places.pop(topic.id)) for seat in topic.seats]
        topic.seats.clear()
        self._release(topic)
        return seated

    def _rest(self, topic: Topic, said: float) -> None:
        """Something was said at that time: the next look is due later."""
        if not topic.fresh:
            # With the reconcile's own rhythm that is one interval at most.
            topic.due = max(topic.due, said + 0.75 * conf.RECONCILE_INTERVAL)

    # -- Reading ------------------------------------------------------------------

    def _ask(self, run: str) -> asyncio.Future[Snapshot | ProgressError]:
        """A read that begins after now, shared by all who ask meanwhile."""
        future = self._asked.get(run)
        if future is None:
            future = self._asked[run] = self._loop.create_future()
            if self._reader is None:
                self._reader = self._loop.create_task(self._read_all())
        return future

    async def _read_all(self) -> None:
        try:
            while self._asked:
                await self._ear.settled()
                asked = [(run, self._asked.pop(run)) for run in list(self._asked)]
                for first in range(0, len(asked), AT_ONCE):
                    part = asked[first : first + AT_ONCE]
                    began = self._loop.time()
                    found = await self._read([run for run, _ in part])
                    for run, future in part:
                        future.set_result(self._found(run, found[run], began))
        finally:
            self._reader = None

    async def _read(self, ids: list[str]) -> dict[str, Snapshot | ProgressError]:
        try:
            return await self._source.read(ids)
        except ProgressError as error:
            return dict.fromkeys(ids, error)
        except Exception:  # nobody may be kept waiting for an answer
            logger.exception("%d runs could not be read", len(ids))
            return dict.fromkeys(ids, Unavailable("The runs could not be read."))

    def _found(
        self, run: str, found: Snapshot | ProgressError, began: float
    ) -> Snapshot | ProgressError:
        """What those who asked at `began` are answered: the newest that is known."""
        topic = self._topics.get(run)
        if isinstance(found, Unavailable):
            self.reads_failed += 1
        if topic is None:
            return found
        if isinstance(found, Snapshot):
            self._take(topic, found)
            return topic.snapshot or found
        if isinstance(found, Unavailable):
            self._unavailable(topic, found, began)
        else:
            for seat, place in self._dismiss(topic):
                _refuse(seat, run, place)
        return found

    def _unavailable(self, topic: Topic, error: ProgressError, began: float) -> None:
        now = self._loop.time()
        topic.due = now + min(SOON, conf.RECONCILE_INTERVAL)
        if topic.silent is None:
            topic.silent = began  # a store that hangs was silent all the time
        if now - topic.silent > OUTAGE and not topic.told:
            topic.told = True
            for seat in topic.seats:
                ref = seat.places[topic.id].ref
                seat.tell(error.payload(ref) | {"run": topic.id})

    # -- Clocks -------------------------------------------------------------------

    async def _reconcile(self) -> None:
        """Read what nothing was heard of for RECONCILE_INTERVAL."""
        now = self._loop.time()
        self._ear.retry()
        for topic in self._topics.values():
            if topic.due <= now and topic.seats:
                topic.fresh = False
                self._rest(topic, now)
                self._ask(topic.id)

    async def _renew(self) -> None:
        self._ear.renew()

    async def _expire(self) -> None:
        now = self._loop.time()
        for slot in self._slots:
            for seat in slot:
                seat.outbox.expire(now)

    def _slot(self, clock: str) -> list[Seat]:
        self._turn[clock] += 1
        return list(self._slots[self._turn[clock] % SLOTS])

    async def _beat(self) -> None:
        for seat in self._slot("beat"):
            seat.outbox.beat(BEAT)

    async def _sessions(self) -> None:
        """Whoever has signed out, or may watch no longer, is told so."""
        for seat in self._slot("session"):
            watched = [
                (topic.snapshot, place.token)
                for run, place in seat.places.items()
                if (topic := self._topics.get(run))
                and topic.snapshot
                and seat in topic.seats  # who waits for an answer is given one later
            ]
            if access.settled(seat.viewer, watched):
                continue
            try:
                viewer, refused = await runs.in_thread(
                    access.look_again, seat.viewer, watched
                )
            except Unavailable:
                return  # who cannot be asked about has not signed out
            if viewer is None:
                seat.outbox.close(SIGNED_OUT)
                continue
            seat.viewer = viewer
            for run in refused:
                if place := seat.places.get(run):
                    self.leave(seat, run)
                    _refuse(seat, run, place)

    def gauges(self) -> dict[str, int]:
        """How many sockets are open, and how many runs they watch."""
        return {"open": self._seated, "watched": len(self._topics)}

    def leave_groups(self) -> None:
        """At the exit of a process whose server has just stopped its loop."""
        if not self._loop.is_closed() and not self._loop.is_running():
            for clock in self._clocks:
                clock.cancel()
            self._loop.run_until_complete(self._ear.leave())


async def _every(
    seconds: Callable[[], float], act: Callable[[], Awaitable[None]]
) -> None:
    """Act again and again; a failure is logged, and never the last."""
    while True:
        await asyncio.sleep(seconds())
        try:
            await act()
        except Exception:
            logger.exception("%s failed", act)


def _refuse(seat: Seat, run: str, place: Place) -> None:
    """Tell a socket that it watches this run no longer, and end one that was for it."""
    seat.tell(Forbidden().payload(place.ref))
    if seat.until == run:
        seat.outbox.close(REFUSED)


def _again(error: ProgressError) -> ProgressError:
    """A copy: one instance must not be raised in several tasks."""
    return Forbidden() if isinstance(error, Forbidden) else type(error)(error.message)


_watches: dict[asyncio.AbstractEventLoop, Watch] = {}


def current() -> Watch:
    """The running event loop's watch."""
    loop = asyncio.get_running_loop()
    watch = _watches.get(loop)
    if watch is None:
        for old in [old for old in _watches if old.is_closed()]:
            del _watches[old]
        watch = _watches[loop] = Watch()
    return watch


@atexit.register
def _leave_groups() -> None:
    """daphne stops without a word; the core layer would keep its members for a day."""
    for watch in _watches.values():
        try:
            watch.leave_groups()
        except Exception as error:  # nobody is left to care
            logger.debug("The groups could not be left: %r", error)
