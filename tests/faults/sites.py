"""The site as viewers reach it, its channel layer behind a proxy; and those that many
scenarios use, one after another."""

import contextlib

import redis

from tests.faults.lab import Lab
from tests.faults.proxy import Proxy


class Site(Lab):
    """
    A lab with a web server and a worker, which does the runs of all visitors.

    The layer has a database of its own in the lab's Valkey, as `layer` finds it.
    """

    def __init__(self, server="daphne", layer="", *, concurrency=8, web_env=None):
        env = {"CHANNEL_LAYER": layer} if layer else {}
        super().__init__(server=server, env=env, web_env=web_env)
        self.concurrency = concurrency
        self.proxy = Proxy(self.valkey.port)
        self.env["CHANNEL_REDIS_URL"] = self.proxy.redis_url(1)
        self.layer = redis.Redis(port=self.valkey.port, db=1)

    def __enter__(self):
        super().__enter__()
        try:
            self.hire(concurrency=self.concurrency).hired_by = None
        except BaseException:
            self.close()
            raise
        return self

    def close(self):
        super().close()
        self.layer.close()
        self.proxy.close()

    def mend(self):
        """The layer can be reached again, and the shared worker is there."""
        self.proxy.restore()
        self.proxy.cut()


class FaultySite(Site):
    """
    Its web and its worker have the store behind a proxy of its own, and the web the
    broker.

    The layer is "with the store", as the settings have it by default, or "apart".
    """

    def __init__(
        self,
        server="daphne",
        layer="with the store",
        *,
        visibility_timeout=60,
        **kwargs,
    ):
        super().__init__(server, **kwargs)
        self.store, self.broker = Proxy(self.valkey.port), Proxy(self.valkey.port)
        self.env |= {
            "REDIS_URL": self.store.redis_url(),
            "CELERY_BROKER_URL": self.valkey.url,
            "CELERY_RESULT_BACKEND": self.valkey.url,
            "PROGRESS_SESSION_INTERVAL": "1",
            "FAULTS_VISIBILITY_TIMEOUT": str(visibility_timeout),
        }
        if layer == "with the store":
            del self.env["CHANNEL_REDIS_URL"]
        self.web_env["CELERY_BROKER_URL"] = self.broker.redis_url()

    def close(self):
        super().close()
        self.store.close()
        self.broker.close()

    def mend(self):
        super().mend()
        for proxy in (self.store, self.broker):
            proxy.restore()
            proxy.cut()


class Sites:
    """`with sites(server, layer) as site:` is one that is whole, and is left so; one
    in which a scenario failed is not used again. `kind` is what it is built as."""

    def __init__(self):
        self.open = {}

    @contextlib.contextmanager
    def __call__(self, *which, kind=Site):
        named = (kind, *which)
        if named not in self.open:
            self.open[named] = kind(*which).__enter__()
        site = self.open[named]
        try:
            yield site
            site.nobody_stumbled(*site.workers)
            site.mend()
        except BaseException:
            print(site.logs(20))
            self.open.pop(named).close()
            raise

    def close(self):
        for site in self.open.values():
            site.close()
