"""Viewers who each watch a run of their own, beside sockets that are only open."""

from benchmarks import desk
from benchmarks.stack import SERVERS, visitor

OURS, BARE = "ours", "bare consumer"
ARMS = {f"{way}, {s}": (way, s) for s in SERVERS for way in (OURS, BARE)}


class Crowd:
    """What `count` viewers open and say. The runs wait in the queue: no worker runs."""

    def __init__(self, bench, count):
        self.bench, self.count = bench, count
        # A cookie is good for every web process, since they share their secret.
        web = bench.serve(SERVERS[0])
        self.cookie = visitor(web)
        web.kill()
        owner = bench.desk(desk.owner, self.cookie)
        self.runs = bench.desk(desk.start_many, "nothing", [{}] * count, owner)

    def of(self, way, web):
        """Addresses, cookie and first frames, as `load` wants them."""
        if way == BARE:
            return [f"{web.ws_url}/ws/bare/"] * self.count, self.cookie, self.nothing
        urls = [f"{web.ws_url}/ws/progress/"] * self.count
        return urls, self.cookie, [{"action": "watch", "run": r} for r in self.runs]

    @property
    def nothing(self):
        return [None] * self.count
