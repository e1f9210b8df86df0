"""The ways that a time said in a worker can take to sockets."""

import uuid

from benchmarks import desk, load
from benchmarks.stack import FORWARD, SITE, visitor


class Ours:
    label, application = "ours", SITE

    def watch(self, bench, name, web, kwargs, viewers):
        """Start what says the time, and open `viewers` sockets that hear it."""
        cookie = visitor(web)
        owner = bench.desk(desk.owner, cookie)
        run = bench.desk(desk.start, "say", kwargs, owner)
        urls = [f"{web.ws_url}/ws/progress/"] * viewers
        frames = [{"action": "watch", "run": run}] * viewers
        bench.viewers(load.open_group, name, urls, cookie, frames)


class Forward:
    application = FORWARD

    def __init__(self, label, **kwargs):
        self.label, self.kwargs = label, kwargs

    def watch(self, bench, name, web, kwargs, viewers):
        channel = uuid.uuid4().hex
        kwargs = {**kwargs, **self.kwargs, "channel": channel}
        bench.desk(desk.publish, "say_by_redis", kwargs)
        bench.viewers(load.open_group, name, [f"{web.ws_url}/{channel}"] * viewers)


class CeleryProgress:
    label, application = "celery-progress", SITE

    def watch(self, bench, name, web, kwargs, viewers):
        task = bench.desk(desk.publish, "say_by_celery_progress", kwargs)
        urls = [f"{web.ws_url}/ws/progress/{task}/"] * viewers
        bench.viewers(load.open_group, name, urls, visitor(web))


WAYS = (Ours(), Forward("bare limit"), CeleryProgress())
# What nobody can beat who keeps a message before it is sent.
STORED = Forward("stored first", stored=True)
