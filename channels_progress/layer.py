"""The group messages: a copy of what the store holds, carried by the channel layer.

The layer is fast and forgetful, and never the truth.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, Final

from asgiref.sync import async_to_sync
from channels.layers import channel_layers, get_channel_layer

from channels_progress import counters
from channels_progress.conf import conf
from channels_progress.log import told
from channels_progress.run import HEAD, Snapshot

logger = logging.getLogger("channels_progress")

SEND_TIMEOUT: Final = 1.0  # s; meanwhile a worker tells the store nothing else
HEAD_FIELDS: Final = (*HEAD, "now")


def preload() -> None:
    """Import the layer before a worker forks: a child that is forked while another
    thread imports it has half a module, and reaches nobody for the rest of its life."""
    backend = channel_layers.configs.get(conf.CHANNEL_LAYER, {}).get("BACKEND", "")
    with suppress(ImportError, ValueError):  # whoever sends is told so
        import_module(backend.rpartition(".")[0])


def group(id: str) -> str:
    """The channel-layer group of a run: never the user's own characters."""
    digest = hashlib.blake2b(id.encode("utf-8", "replace"), digest_size=16).hexdigest()
    return f"{conf.PREFIX}.{digest}"


def message(snapshot: Snapshot) -> dict[str, Any]:
    """The group message that carries a snapshot; `topic.live` reads it."""
    head = {name: getattr(snapshot, name) for name in HEAD_FIELDS}
    return {
        "type": "progress.run",
        "run": snapshot.id,
        "head": head,
        "text": snapshot.members,
    }


async def send(snapshots: Sequence[Snapshot]) -> None:
    """Send the messages of these snapshots at once; what gets lost, gets lost."""
    if len(snapshots) == 1:  # which is most often so, and a task less
        await _send(snapshots[0].id, message(snapshots[0]))
    else:
        await asyncio.gather(*(_send(s.id, message(s)) for s in snapshots))


def tell(id: str) -> None:
    """Tell the watchers that the store has news of a run; losing it costs 2 s."""
    news = {"type": "progress.run", "run": id, "head": None, "text": None}
    async_to_sync(_send)(id, news)


async def _send(id: str, message: dict[str, Any]) -> None:
    layer = get_channel_layer(conf.CHANNEL_LAYER)
    for last in (False, True):
        if layer is None:
            return
        try:
            async with asyncio.timeout(SEND_TIMEOUT):
                await layer.group_send(group(id), message)
            return
        except Exception as error:  # a layer raises what it likes; reconcile covers it
            # The first send after a cut connection always fails.
            if last or isinstance(error, TimeoutError):
                counters.bump("messages_dropped")
                logger.info("A message of run %s was lost: %s", id, told(error))
                return
