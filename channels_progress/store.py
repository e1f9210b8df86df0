"""Redis: the latest snapshot of each run, changed by one script, `store.lua`.

Every verb may be sent twice, so one retry after a cut connection is always safe.
Blocking, with bounded time; safe to share between threads.
"""

from __future__ import annotations

import hashlib
import operator
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.retry import Retry

from channels_progress import counters
from channels_progress.conf import conf
from channels_progress.run import HEAD, Snapshot

SCRIPT: Final = Path(__file__).with_name("store.lua").read_text()
SHA: Final = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
FIELDS: Final = (*HEAD, "doc", "owner", "hop", "lease", "worker", "cursor", "silence")

StoreError = RedisError | OSError
ERRORS: Final = (RedisError, OSError)


def nonce() -> str:
    """A random word: a verb that carries it may be sent twice, and counts once."""
    return secrets.token_hex(8)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the script said: a code, the run's head, and what the verb adds."""

    id: str
    code: str
    now: int
    was: str
    """The state before, or nothing."""
    told: bool
    """Whether the watchers were told in the same step."""
    head: Sequence[bytes]
    extra: Sequence[Any]

    @property
    def state(self) -> str:
        return self.head[2].decode()

    @property
    def asked(self) -> str | None:
        return self.head[3].decode() or None

    def snapshot(self, members: bytes | str = "", **rest: Any) -> Snapshot:
        return Snapshot.of(self.id, self.now, self.head, members, **rest)

    @classmethod
    def of(cls, id: str, reply: Sequence[Any]) -> Answer:
        """From the script's reply: code, now, state before, told, head, extra."""
        code, now, was, told, values, *extra = reply
        head = values.split(b"\0")
        return cls(id, code.decode(), int(now), was.decode(), bool(told), head, extra)


@dataclass(frozen=True, slots=True)
class Stored:
    """A run as the store holds it: its snapshot, and what no viewer is shown."""

    snapshot: Snapshot
    hop: int
    lease: int
    worker: str
    cursor: str
    silence: int
    """The longest silence of its workers so far, in milliseconds."""


@dataclass(frozen=True, slots=True)
class Call:
    """One verb on one run, ready to be sent."""

    verb: str
    id: str
    values: Mapping[str, object]

    def arguments(self) -> list[str | bytes]:
        arguments: list[str | bytes] = [self.verb]
        for name, value in self.values.items():
            if value is None or value is False:
                continue
            arguments.append(name)
            if isinstance(value, str | bytes):
                arguments.append(value)
            else:
                arguments.append("1" if value is True else str(value))
        return arguments


class Store:
    """A client of the store. Methods raise what is in `ERRORS` when it is down."""

    def __init__(
        self, url: str, prefix: str, timeout: float = 1.0, *, single: bool = False
    ) -> None:
        self.url, self.prefix, self.timeout = url, prefix, timeout
        # One connection, for one thread: a pool looks at it before each command.
        self.single = single

    @cached_property
    def client(self) -> redis.Redis:
        return redis.Redis.from_url(
            self.url,
            socket_timeout=self.timeout,
            socket_connect_timeout=self.timeout,
            socket_keepalive=True,
            # The first command after a cut connection always fails.
            retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
            single_connection_client=self.single,
        )

    def key(self, id: str) -> str:
        return f"{self.prefix}:{id}"

    def close(self) -> None:
        self.client.close()

    def call(self, verb: str, id: str, **values: object) -> Answer:
        """Run one verb of the script. None and False values are left out."""
        return self.call_one(Call(verb, id, values))

    def call_one(self, call: Call) -> Answer:
        """Run one verb that is ready to be sent."""
        (answer,) = self.pipeline([call])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def pipeline(self, calls: Sequence[Call]) -> list[Answer | Exception]:
        """Run many verbs in one round trip; a verb that failed yields its error."""
        replies = self._evalsha(calls)
        missing = [i for i, reply in enumerate(replies) if _no_script(reply)]
        if missing:
            self.client.script_load(SCRIPT)
            again = self._evalsha([calls[i] for i in missing])
            for i, reply in zip(missing, again, strict=True):
                replies[i] = reply
        return [
            reply if isinstance(reply, Exception) else Answer.of(call.id, reply)
            for call, reply in zip(calls, replies, strict=True)
        ]

    def _evalsha(self, calls: Sequence[Call]) -> list[Any]:
        commands = [
            ("EVALSHA", SHA, 1, self.key(call.id), *call.arguments()) for call in calls
        ]
        if len(commands) == 1:
            return [self._single(commands[0])]
        pipe = self.client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)  # type: ignore[no-untyped-call]
        return _execute(pipe, raise_on_error=False)

    def _single(self, command: tuple[Any, ...]) -> Any:
        """The same of one command, for which a pipeline takes a third longer."""
        try:
            return self.client.execute_command(*command)  # type: ignore[no-untyped-call]
        except ResponseError as error:
            return error
        except ERRORS:
            counters.bump("store_failures")
            raise

    def read(self, ids: Iterable[str]) -> dict[str, Stored]:
        """The runs that the store knows, in one round trip."""
        wanted = list(dict.fromkeys(ids))
        if not wanted:
            return {}
        pipe = self.client.pipeline(transaction=False)
        pipe.time()
        for id in wanted:
            pipe.hmget(self.key(id), FIELDS)
        (seconds, micros), *rows = _execute(pipe)
        now = seconds * 1000 + micros // 1000
        lost_after = int(conf.LOST_AFTER * 1000)
        return {
            id: _stored(id, now, row, lost_after)
            for id, row in zip(wanted, rows, strict=True)
            if row[2] is not None
        }

    def admit(self, limits: Mapping[str, int], seconds: int = 60) -> bool:
        """Count one start under each name; False where a window has had its limit."""
        pipe = self.client.pipeline(transaction=True)
        for name in limits:
            key = f"{self.prefix}:starts:{name}"
            pipe.set(key, 0, ex=seconds, nx=True)
            pipe.incr(key)
        counts = _execute(pipe)[1::2]
        return all(map(operator.le, counts, limits.values()))

    def ping(self) -> None:
        self.client.ping()


def _execute(pipe: Any, **options: Any) -> list[Any]:
    try:
        replies: list[Any] = pipe.execute(**options)
    except ERRORS:
        counters.bump("store_failures")
        raise
    return replies


def _no_script(reply: object) -> bool:
    return isinstance(reply, NoScriptError)


def _stored(id: str, now: int, row: Sequence[Any], lost_after: int) -> Stored:
    head, (doc, owner, hop, lease, worker, cursor, silence) = row[:13], row[13:]
    snapshot = Snapshot.of(
        id, now, head, doc or b"", owner=(owner or b"").decode(), lost_after=lost_after
    )
    return Stored(
        snapshot,
        hop=int(hop or 1),
        lease=int(lease or 0),
        worker=(worker or b"").decode(),
        cursor=(cursor or b"").decode(),
        silence=int(silence or 0),
    )


@cache
def _store(url: str, prefix: str) -> Store:
    return Store(url, prefix)


def get_store() -> Store:
    """The project's store."""
    return _store(conf.REDIS_URL, conf.PREFIX)
