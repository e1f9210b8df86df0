"""The WebSocket: one frame in, one action; what comes back waits in the outbox."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import cached_property
from typing import Any, ClassVar, Final

from channels.consumer import AsyncConsumer
from django.core.exceptions import SuspiciousOperation
from django.http import QueryDict
from django.utils import translation
from django.utils.datastructures import MultiValueDict
from django.utils.translation import gettext as _

from channels_progress import access, runs, watch, wire
from channels_progress.bucket import Bucket
from channels_progress.conf import conf
from channels_progress.errors import (
    Forbidden,
    Invalid,
    Malformed,
    ProgressError,
    TooMany,
    Unavailable,
)
from channels_progress.origin import Handshake, Receive, Scope, Send
from channels_progress.outbox import COME_BACK, Outbox, teach_daphne
from channels_progress.seat import Seat

logger = logging.getLogger("channels_progress")

Ref = str | int | None

NOT_TEXT: Final = 1003
FLOOD: Final = 1008
TOO_LARGE: Final = 1009
CLOSE_CODES: Final = {
    Malformed: 4400,
    Invalid: 4400,
    Forbidden: 4403,
    Unavailable: COME_BACK,
    TooMany: COME_BACK,
}

teach_daphne()

_working: set[asyncio.Task[None]] = set()


def work(coroutine: Coroutine[Any, Any, None]) -> None:
    """Let it run to its end, even if the socket that asked for it is gone by then."""
    task = asyncio.get_running_loop().create_task(coroutine)
    _working.add(task)
    task.add_done_callback(_working.discard)


class ProgressConsumer(AsyncConsumer):  # type: ignore[misc]  # Channels has no types
    """`/ws/progress/`: one socket for any number of runs.

    It has no channel of its own: the process hears of each run once, see `watch`.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        await receive()
        await send({"type": "websocket.accept"})
        self.outbox = Outbox(send)
        self.seat = Seat(access.viewer_of(scope), self.outbox)
        self.watch = watch.current()
        self.bucket = Bucket(asyncio.get_running_loop().time())
        self.asks: asyncio.Lock | None = None
        self.starting = 0
        self.watch.open(self.seat)
        try:
            self.opened()
            while (message := await receive())["type"] == "websocket.receive":
                if not self.outbox.closing:
                    self.frame(message.get("text"))
        except asyncio.CancelledError:
            if self.outbox.open:  # else we did it ourselves: see Outbox.drop
                raise
        finally:
            await self.watch.close(self.seat)

    @cached_property
    def language(self) -> str:
        """The viewer's, for the texts of errors."""
        return translation.get_language_from_request(Handshake(self.scope))

    def opened(self) -> None:
        """The socket is open."""

    def began(self, run: str) -> None:
        """A start succeeded; nothing of the run has been sent yet."""

    # -- Frames -------------------------------------------------------------------

    def frame(self, text: str | None) -> None:
        """One frame from the client. Never waits, so that no flood can pile up."""
        if text is None:
            self.outbox.close(NOT_TEXT)
        elif _is_longer(text, conf.FRAME_BYTES):
            self.outbox.close(TOO_LARGE)
        else:
            taken = self.bucket.take(asyncio.get_running_loop().time())
            if self.bucket.flooded:
                self.outbox.close(FLOOD)
                return
            work(self.answer(text, taken))

    async def answer(self, text: str, taken: bool) -> None:
        ref: Ref = None
        with translation.override(self.language):
            try:
                frame = wire.parse(text)
                ref = wire.ref(frame)
                if not taken:
                    raise TooMany(
                        _("Too many frames; %d a second are allowed.")
                        % conf.FRAMES_PER_SECOND
                    )
                await self.act(frame, ref)
            except ProgressError as error:
                self.seat.tell(error.payload(ref))
            except Exception:  # one broken action must not cost the other runs
                logger.exception("A frame could not be answered")
                self.seat.tell(_broken().payload(ref))

    async def act(self, frame: dict[str, Any], ref: Ref) -> None:
        name = frame.get("action")
        action = self.actions.get(name) if isinstance(name, str) else None
        if action is None:
            raise Malformed(
                _("There is no such action; there are: %s.") % ", ".join(self.actions)
            )
        await action(self, frame, ref)

    # -- Actions ------------------------------------------------------------------

    async def on_start(self, frame: dict[str, Any], ref: Ref) -> None:
        task, key = frame.get("task"), wire.key(frame.get("key"))
        if not isinstance(task, str):
            text = _("Name a task as a text.")
            raise Invalid(text, {"task": [text]})
        await self.start(task, wire.params(frame.get("params")), key, ref)

    async def start(
        self, task: str, params: MultiValueDict[str, Any], key: str | None, ref: Ref
    ) -> None:
        """Start a run and watch it: `started`, its snapshot, what is news."""
        self.require_place()
        viewer = self.seat.viewer
        self.starting += 1
        try:
            started = await self.watch.starts.in_thread(
                _submit, translation.get_language(), task, params, viewer.owner, key
            )
        finally:
            self.starting -= 1
        payload: dict[str, Any] = {"type": "started"}
        if ref is not None:
            payload["ref"] = ref
        token = access.token(viewer, started.run)
        payload |= {"run": started.run, "token": token}
        self.seat.tell(payload)
        self.began(started.run)
        # With the token, for whoever signs in elsewhere takes the run along.
        await self.watch.join(
            self.seat, started.run, token, ref, known=started.snapshot
        )

    async def on_watch(self, frame: dict[str, Any], ref: Ref) -> None:
        run = wire.run_id(frame.get("run"))
        if run not in self.seat.places:
            self.require_place()
        await self.watch.join(self.seat, run, wire.token(frame.get("token")), ref)

    def require_place(self) -> None:
        if len(self.seat.places) + self.starting >= conf.WATCHES:
            raise TooMany(
                _("A socket may watch %d runs; unwatch one first.") % conf.WATCHES
            )

    async def on_unwatch(self, frame: dict[str, Any], ref: Ref) -> None:
        self.watch.leave(self.seat, wire.run_id(frame.get("run")))

    async def on_ask(self, frame: dict[str, Any], ref: Ref) -> None:
        """Cancel, pause or resume; the answer is the run as it is then."""
        run, token = wire.run_id(frame.get("run")), wire.token(frame.get("token"))
        action = frame["action"]
        self.asks = self.asks or asyncio.Lock()
        async with self.asks:  # a pause and a resume must not overtake each other
            snapshot = await self.watch.read(run)
            await access.arequire(self.seat.viewer, snapshot, action, token)
            force = action == "cancel" and frame.get("force") is True
            options = {"force": True} if force else {}
            ask = {"cancel": runs.cancel, "pause": runs.pause, "resume": runs.resume}
            snapshot = await runs.in_thread(ask[action], run, **options)
        self.watch.show(self.seat, snapshot)

    actions: ClassVar[
        dict[str, Callable[[Any, dict[str, Any], Ref], Awaitable[None]]]
    ] = {
        "start": on_start,
        "watch": on_watch,
        "unwatch": on_unwatch,
        "cancel": on_ask,
        "pause": on_ask,
        "resume": on_ask,
    }


class StartConsumer(ProgressConsumer):
    """`/ws/start/<task>/`: connecting starts the task, and its end closes the socket.

    `?key=` and the task's parameters come in the query.
    """

    def opened(self) -> None:
        work(self.begin())

    async def begin(self) -> None:
        with translation.override(self.language):
            try:
                params = _query(self.scope)
                key = wire.key(params.pop("key", [None])[-1])
                task = self.scope["url_route"]["kwargs"]["task"]
                await self.start(task, params, key, None)
            except ProgressError as error:
                self.fail(error)
            except Exception:  # the page comes back, and may find it mended
                logger.exception("A run could not be started")
                self.fail(_broken())

    def began(self, run: str) -> None:
        if self.seat.until is None:
            self.seat.until = run

    def fail(self, error: ProgressError) -> None:
        self.seat.tell(error.payload())
        codes = [code for kind, code in CLOSE_CODES.items() if isinstance(error, kind)]
        self.outbox.close(codes[0])


def _submit(
    language: str | None,
    task: str,
    params: MultiValueDict[str, Any],
    owner: str,
    key: str | None,
) -> runs.Started:
    """In a thread, which knows nothing of the coroutine's language."""
    with translation.override(language):
        return runs.submit(task, params, owner=owner, key=key)


def _query(scope: Scope) -> MultiValueDict[str, Any]:
    try:
        query = QueryDict(scope.get("query_string", b""), mutable=True)
    except SuspiciousOperation as error:  # too many fields
        raise Malformed(str(error)) from None
    return query


def _is_longer(text: str, size: int) -> bool:
    """Whether `text` has more than `size` bytes."""
    return len(text) > size or (
        4 * len(text) > size and len(text.encode("utf-8", "replace")) > size
    )


def _broken() -> Unavailable:
    return Unavailable(_("Something went wrong here; it has been logged."))
