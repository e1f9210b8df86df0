"""The site as viewers reach it, its channel layer behind a proxy; and those that many
scenarios use, one after another."""

import contextlib
from pathlib import Path

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
        self.env["CHANNEL_REDIS_URL"] = f"redis://127.0.0.1:{self.proxy.port}/1"
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

    def memory(self):
        """Resident bytes of the web process."""
        pages = Path(f"/proc/{self.web.pid}/statm").read_text().split()[1]
        return int(pages) * 4096


class Sites:
    """`with sites(server, layer) as site:` is one that is whole, and is left so; one
    in which a scenario failed is not used again."""

    def __init__(self):
        self.open = {}

    @contextlib.contextmanager
    def __call__(self, *which):
        if which not in self.open:
            self.open[which] = Site(*which).__enter__()
        site = self.open[which]
        try:
            yield site
            site.nobody_stumbled(*site.workers)
            site.mend()
        except BaseException:
            print(site.logs(20))
            self.open.pop(which).close()
            raise

    def close(self):
        for site in self.open.values():
            site.close()
