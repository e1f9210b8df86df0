"""
Redis as the broker, for workers that outlive its restart.

After a lost connection kombu 5.7 still works on the old channel: it puts back what was
not acknowledged, and late acknowledgements arrive there. Such a channel has no server
any more, which raises AttributeError, and that ends the worker. A connection error is
what Celery expects: it is logged, and the message comes back after the visibility
timeout.
"""

import redis.exceptions
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as transport


class Channel(transport.Channel):
    def _connparams(self, asynchronous=False):
        if self.connection is None or self.connection.client is None:
            raise redis.exceptions.ConnectionError("Its connection was lost.")
        return super()._connparams(asynchronous)


class Transport(transport.Transport):
    Channel = Channel


def install():
    """Let redis:// and rediss:// mean this transport, in this process."""
    name = f"{__name__}:{Transport.__qualname__}"
    TRANSPORT_ALIASES.update(redis=name, rediss=name)
