"""Channel layers that mistreat what they receive, on purpose; FAULTS_LAYER names one.

The web process has it. What workers send goes the way of the app, whatever that is.
"""

import asyncio
import logging
import os
import random

from channels_redis.core import RedisChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer

SHARE = 0.1  # of the messages, for each kind of mischief
LATE = (0.2, 1.5)  # seconds
DEEDS = ("dropped", "doubled", "late", "reordered", "passed")

logger = logging.getLogger(__name__)
chance = random.Random(int(os.environ.get("FAULTS_SEED", "1")))


class Mischief:
    """Drops, doubles, delays and reorders messages; the log has each deed."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.pumps = {}
        # The core layer's name for itself: the groups in Redis have it.
        logger.info("This is the layer %s", getattr(self, "client_prefix", "pubsub"))

    async def receive(self, channel):
        if channel not in self.pumps:
            queue = asyncio.Queue()
            pump = asyncio.ensure_future(self.pump(channel, queue))
            self.pumps[channel] = queue, pump
        queue, pump = self.pumps[channel]
        try:
            message = await queue.get()
        except asyncio.CancelledError:
            self.pumps.pop(channel, None)
            pump.cancel()
            raise
        if isinstance(message, Exception):
            self.pumps.pop(channel, None)
            raise message
        return message

    async def pump(self, channel, queue):
        held = None  # waits for its successor, to come after it
        while True:
            try:
                message = await self.honestly_receive(channel)
            except Exception as error:
                queue.put_nowait(error)
                return
            deed = self.choose(held)
            logger.info("A message was %s", deed)
            if deed == "late":
                loop = asyncio.get_running_loop()
                loop.call_later(chance.uniform(*LATE), queue.put_nowait, message)
            elif deed == "reordered":
                held = message
            elif deed != "dropped":
                copies = 2 if deed == "doubled" else 1
                for each in [*[message] * copies, *filter(None, [held])]:
                    queue.put_nowait(each)
                held = None

    def choose(self, held):
        deed = DEEDS[min(int(chance.random() / SHARE), len(DEEDS) - 1)]
        return "passed" if deed == "reordered" and held else deed


class PubSub(Mischief, RedisPubSubChannelLayer):
    async def honestly_receive(self, channel):
        return await self._get_layer().receive(channel)


class Core(Mischief, RedisChannelLayer):
    async def honestly_receive(self, channel):
        return await RedisChannelLayer.receive(self, channel)
