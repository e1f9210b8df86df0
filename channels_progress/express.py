"""The group messages without an event loop, where the layer is Redis pub/sub.

Where the layer's server is the store's, the script that writes publishes as well, and
a message costs no round trip at all: `to_tell`. Where it is another one, `Express`
sends to it: to run a loop for one message takes twice as long as the message, and the
layer sends many one by one, each after the answer to the last. What this uses of the
layer is its own: where anything is not as it is known here, the layer is asked in the
public way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis
from channels.layers import get_channel_layer
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from channels_progress import counters
from channels_progress.conf import conf
from channels_progress.layer import SEND_TIMEOUT, group, message
from channels_progress.log import told
from channels_progress.run import Snapshot
from channels_progress.store import ERRORS

logger = logging.getLogger("channels_progress")

LAYER: Final = "channels_redis.pubsub.RedisPubSubChannelLayer"
# Of a host's options, those that mean the same to a client that blocks.
OPTIONS: Final = frozenset(
    {"db", "max_connections", "password", "socket_connect_timeout"}
    | {"socket_keepalive", "socket_timeout", "username"}
)
EMPTY: Final = b"\x80"  # a dict without a key, as the script would write it


@dataclass(frozen=True, slots=True)
class Shared:
    """A layer whose server is the store's, too, and how its groups' channels begin."""

    layer: Any
    store: str
    prefix: str


_shared: Shared | None = None


def to_tell(id: str) -> dict[str, str]:
    """What lets the script publish a change of this run; nothing where it cannot."""
    shared = _shared
    if (
        shared is None
        or shared.store != conf.REDIS_URL
        or shared.layer is not get_channel_layer(conf.CHANNEL_LAYER)
    ):
        return {}
    return {"channel": shared.prefix + group(id), "run": id}


class Express:
    """One connection, for one thread."""

    def __init__(self) -> None:
        self._layer: Any = None
        self._inner: Any = None
        self._client: Any = None

    def send(
        self, loop: asyncio.AbstractEventLoop, snapshots: Sequence[Snapshot]
    ) -> bool:
        """Send the messages of these snapshots in one round trip; what gets lost, gets
        lost. False where the layer must be asked."""
        layer = get_channel_layer(conf.CHANNEL_LAYER)
        try:
            if layer is not self._layer:
                self._client = loop.run_until_complete(self._open(layer))
                self._layer = layer
            if self._client is None:
                return False
            # For one command a pipeline takes a third longer.
            alone = len(snapshots) == 1
            way = self._client if alone else self._client.pipeline(transaction=False)
            for snapshot in snapshots:
                channel = self._inner._get_group_channel_name(group(snapshot.id))
                way.publish(channel, layer.serialize(message(snapshot)))
            if not alone:
                way.execute()
        except ERRORS as error:
            counters.bump("messages_dropped", len(snapshots))
            logger.info("%d messages were lost: %s", len(snapshots), told(error))
        return True

    async def _open(self, layer: Any) -> redis.Redis | None:
        """A client of where the layer sends to, which is told to a loop only."""
        global _shared
        kind = type(layer)
        if f"{kind.__module__}.{kind.__qualname__}" != LAYER:
            return None
        try:
            self._inner = layer._get_layer()
            prefix = self._inner._get_group_channel_name("")
            (shard,) = self._inner._shards
            options = dict(shard.host)
            address = options.pop("address")
            plain = layer.serialize({}) == EMPTY
            same = _server(address, options) == _server(conf.REDIS_URL, {})
        except Exception as error:  # another version of it, or several servers
            logger.info("Messages take the layer's own way: %s", told(error))
            return None
        if not OPTIONS.issuperset(options):
            return None
        if plain and same:
            _shared = Shared(layer, conf.REDIS_URL, prefix)
        timeouts = ("socket_timeout", "socket_connect_timeout")
        options |= dict.fromkeys(timeouts, SEND_TIMEOUT)
        # The first send after a broken connection always fails.
        retry = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
        return redis.Redis.from_url(
            address, retry=retry, single_connection_client=True, **options
        )


def _server(url: str, options: dict[str, Any]) -> dict[str, Any]:
    """A server and who asks it: a database is no border for what is published."""
    whole = parse_url(url) | options  # type: ignore[no-untyped-call]
    names = ("connection_class", "host", "path", "port", "username", "password")
    return {name: whole.get(name) for name in names}
