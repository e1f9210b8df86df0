"""A channel layer that fails on purpose; FAULTS_LAYER names it."""

import asyncio
import os
import random

from channels_redis.pubsub import RedisPubSubChannelLayer

SHARE = 0.1  # of the messages, for each kind of mischief
LATE = (0.2, 1.5)  # seconds

chance = random.Random(int(os.environ.get("FAULTS_SEED", "1")) + os.getpid())


class Mischievous(RedisPubSubChannelLayer):
    """Drops, doubles, delays and reorders messages."""

    held = None  # a message that waits for its successor, to come after it
    late = frozenset()

    async def group_send(self, group, message):
        lot = chance.random()
        if lot < SHARE:
            return
        if lot < 2 * SHARE:
            await super().group_send(group, message)
        elif lot < 3 * SHARE:
            task = asyncio.ensure_future(self.later(group, message))
            self.late = {*self.late, task}
            return
        elif lot < 4 * SHARE and self.held is None:
            self.held = group, message
            return
        await super().group_send(group, message)
        held, self.held = self.held, None
        if held:
            await super().group_send(*held)

    async def later(self, group, message):
        await asyncio.sleep(chance.uniform(*LATE))
        await super().group_send(group, message)
