"""A tiny render service, as somebody else might run it.

`python -m HomeApp.render_service` starts it; it knows nothing of Django or Celery.
PUT /jobs/<name> with {"frames", "mood"} makes a job unless it exists, GET tells how
far it is; a job's progress follows from the clock.
"""

import json
import os
import sys
import time
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

FRAMES_PER_SECOND = 20
KEPT = 1000  # jobs; the oldest is forgotten
BODY_BYTES = 10_000

# A service is not always what one hopes for.
MOODS = ("steady", "slow", "falling", "broken", "endless")


class Job:
    """Frames that are rendered as time goes by; `clock` gives seconds."""

    def __init__(self, frames, mood="steady", clock=time.monotonic):
        self.frames = frames
        self.mood = mood
        self._clock = clock
        self._start = clock()

    def done(self):
        speed = FRAMES_PER_SECOND / (10 if self.mood == "slow" else 1)
        done = int((self._clock() - self._start) * speed)
        if self.mood == "falling" and done > self.frames * 0.6:
            done -= self.frames // 3
        if self.mood == "endless":
            return min(done, self.frames - 1)
        return min(done, self.frames)

    def answer(self):
        """The HTTP status and the JSON that a caller is told."""
        done = self.done()
        if self.mood == "broken" and 0.3 < done / self.frames < 0.6:
            return 500, {"error": "Out of paint"}
        state = "done" if done == self.frames else "rendering"
        return 200, {"state": state, "done": done, "frames": self.frames}


class Handler(BaseHTTPRequestHandler):
    """The jobs over HTTP."""

    jobs = OrderedDict()

    def do_PUT(self):
        length = int(self.headers.get("Content-Length") or 0)
        try:
            wish = json.loads(self.rfile.read(min(length, BODY_BYTES)))
            frames, mood = int(wish["frames"]), str(wish.get("mood", "steady"))
            if not 1 <= frames <= 1_000_000 or mood not in MOODS:
                raise ValueError
        except (ValueError, TypeError, KeyError, AttributeError):
            return self.say(400, {"error": "Expected frames and a mood"})
        job = self.jobs.setdefault(self.path, Job(frames, mood))
        while len(self.jobs) > KEPT:
            self.jobs.popitem(last=False)
        return self.say(*job.answer())

    def do_GET(self):
        job = self.jobs.get(self.path)
        self.say(*(job.answer() if job else (404, {"error": "No such job"})))

    def say(self, status, answer):
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """A poll a second is no news."""


def url():
    """RENDER_URL, or on this machine a port of its own for each web port."""
    port = int(os.environ.get("PORT") or 8000)
    port += 900 if port < 64_000 else -900
    return os.environ.get("RENDER_URL") or f"http://127.0.0.1:{port}"


def main():
    """Serve until a signal ends the process."""
    where = urlsplit(url())
    try:
        server = ThreadingHTTPServer((where.hostname, where.port), Handler)
    except OSError as error:
        sys.exit(
            f"The render service cannot use {where.geturl()} "
            f"({error.strerror.lower()}): stop what uses it, or choose another "
            f"address: RENDER_URL=http://127.0.0.1:{where.port + 1} make run"
        )
    print(f"The render service is at {where.geturl()}", file=sys.stderr, flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


if __name__ == "__main__":
    main()
