"""
What a Redis broker's append-only file says of messages.

kombu takes a message from its queue with one command and notes it in `unacked` with the
next: a worker or a broker that dies in between has lost it, and nobody can know.
"""

import json


def commands(valkey):
    """What has been written, each command as its words."""
    for path in sorted((valkey.data / "appendonlydir").glob("*.incr.aof")):
        with path.open("rb") as file:
            while header := file.readline():
                if header.startswith(b"*"):
                    yield [word(file) for _ in range(int(header[1:]))]


def word(file):
    size = int(file.readline()[1:])
    return file.read(size + 2)[:size]


def was_lost(valkey, run):
    """Whether the last message of a run left its queue and never came to `unacked`."""
    last, noted = None, set()
    for name, key, *values in filter(lambda words: len(words) > 2, commands(valkey)):
        if name.upper() in (b"LPUSH", b"RPUSH") and run.encode() in values[0]:
            last = json.loads(values[0])["properties"]["delivery_tag"]
            noted.discard(last)
        elif name.upper() == b"HSET" and key == b"unacked":
            noted.add(values[0].decode())
    waits = any(run in text for text in waiting(valkey.client))
    return last is not None and last not in noted and not waits


def waiting(client):
    """The messages in all queues."""
    queues = [key for key in client.scan_iter() if client.type(key) == "list"]
    return [text for queue in queues for text in client.lrange(queue, 0, -1)]


def messages_of(client, run):
    """Those of a run, waiting or held by some worker."""
    return [t for t in (*waiting(client), *client.hvals("unacked")) if run in t]
