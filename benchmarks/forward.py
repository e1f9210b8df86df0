"""The limit of what a web server can do here: a Redis message, forwarded to sockets.

No Django, no Channels, no rights, no state. The address names the channel.
"""

import asyncio
import os
from collections import defaultdict

import redis.asyncio

rooms = defaultdict(set)
listeners = {}


async def listen(channel, room):
    client = redis.asyncio.Redis.from_url(os.environ["REDIS_URL"], socket_timeout=None)
    async with client.pubsub() as pubsub:
        await pubsub.subscribe(channel)
        async for message in pubsub.listen():
            if message["type"] == "message":
                event = {"type": "websocket.send", "text": message["data"].decode()}
                for send in list(room):
                    await send(event)


async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})
        return
    await receive()
    await send({"type": "websocket.accept"})
    channel = scope["path"].strip("/")
    room = rooms[channel]
    if channel not in listeners:
        task = asyncio.get_running_loop().create_task(listen(channel, room))
        listeners[channel] = task
    room.add(send)
    while (await receive())["type"] != "websocket.disconnect":
        pass
    room.discard(send)
