"""The lab of the chaos: everything that can be away is behind a proxy of its own, and
what the site still holds can be counted."""

import os

import redis

from tests.faults import journal
from tests.faults.lab import Lab
from tests.faults.proxy import Proxy
from tests.stack import Valkey

# Bounds; 123, 90 and 73 were seen.
MEMORY = 200  # MB
DESCRIPTORS = 200
CONNECTIONS = 150  # of all processes to one server
# Keys that are as many after a year.
LASTING = "progress:counters", "_kombu."


class ChaosLab(Lab):
    """
    The site on a mischievous channel layer; store and layer on one server, the broker
    on another. The desk reaches the store directly: it sees the truth all the time.
    """

    def __init__(self, seed, server, layer):
        super().__init__(
            server=server,
            env={"CHANNEL_LAYER": layer},
            web_env={"FAULTS_LAYER": "1", "FAULTS_SEED": str(seed)},
        )
        self.broker = Valkey(self.directory / "broker")
        self.layer = redis.Redis(port=self.valkey.port, db=1)
        self.store_proxy = Proxy(self.valkey.port)
        self.layer_proxy = Proxy(self.valkey.port)
        self.broker_proxy = Proxy(self.broker.port)
        self.proxies = self.store_proxy, self.layer_proxy, self.broker_proxy
        through = {
            "CELERY_BROKER_URL": self.broker_proxy.redis_url(),
            "CELERY_RESULT_BACKEND": self.broker_proxy.redis_url(),
            "CHANNEL_REDIS_URL": self.layer_proxy.redis_url(1),
        }
        self.desk.env |= through
        self.env |= through
        self.env["REDIS_URL"] = self.store_proxy.redis_url()

    def __enter__(self):
        self.broker.start()
        return super().__enter__()

    def close(self):
        super().close()
        self.broker.close()
        self.layer.close()
        for proxy in self.proxies:
            proxy.close()

    def mend(self):
        for proxy in self.proxies:
            proxy.restore()

    def messages_left(self, run):
        """Its messages in the broker."""
        return journal.messages_of(self.broker.client, run.id)

    def refused(self):
        """How many messages had no body: it ran already, or its run was over."""
        logs = self.directory.glob("*.log")
        return sum(log.read_text(errors="replace").count("] ignored") for log in logs)

    # --- What is left once every run has ended and no page is open ---

    def sizes(self):
        """What may not grow, each with its bound."""
        for process in (self.web, *self.workers):
            name = process.log.stem
            yield f"MB of {name}", process.memory(), MEMORY
            descriptors = len(os.listdir(f"/proc/{process.pid}/fd"))
            yield f"descriptors of {name}", descriptors, DESCRIPTORS
        for server in (self.valkey, self.broker):
            connections = len(server.client.client_list())
            yield f"connections to {server.data.parent.name}", connections, CONNECTIONS
        yield "groups of the web", len(self.groups()), 0
        yield "keys for ever", len(self.keys_for_ever()), 0

    def growth(self):
        return [size for size in self.sizes() if size[1] > size[2]]

    def groups(self):
        """Those that the web process is in; a killed one stays in its own for a day."""
        _, found, web = self.web.output.rpartition("This is the layer ")
        assert found, self.web.output
        web = web.split(maxsplit=1)[0]
        members = [
            member
            for group in self.layer.scan_iter("asgi:group:*")
            for member in self.layer.zrange(group, 0, -1)
        ]
        return [
            *(member for member in members if web.encode() in member),
            *self.layer.pubsub_channels("*__group__*"),
        ]

    def keys_for_ever(self):
        """Those of runs that never expire: there would be more of them every day."""
        clients = self.valkey.client, self.broker.client
        return [
            key
            for client in clients
            for key in client.scan_iter()
            if client.ttl(key) == -1 and not key.startswith(LASTING)
        ]
