"""
What the fault tests work with: a `Lab` has a Valkey, workers and a desk as processes,
and remembers what a viewer of each run would have seen.
"""

import contextlib
import ctypes
import fcntl
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import ChainMap
from functools import partial
from pathlib import Path
from typing import ClassVar

from tests.client import FINISHED
from tests.faults import journal
from tests.stack import PATIENCE, ROOT, Stack, Worker, wait_for

# With FAULTS_REAL the intervals are those of the project; else they are short, and
# bounds are three times as wide, for a machine that does other things as well.
REAL = bool(os.environ.get("FAULTS_REAL"))
LOST_AFTER = 30.0 if REAL else 3.0  # seconds
BEAT = 2.0 if REAL else 0.3
VISIBILITY_TIMEOUT = 60.0 if REAL else 5.0
BUSY = 1.0 if REAL else 3.0
SHARED = "shared"

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux's renameat2


def within(seconds):
    """How long something may take here that may take `seconds` by the promise."""
    return seconds * BUSY


class Refused(Exception):
    """The desk's answer was a refusal with `code`, after `seconds`."""

    def __init__(self, reply):
        super().__init__(f"{reply['code']}: {reply['message']}")
        self.code, self.seconds = reply["code"], reply["seconds"]


class Desk:
    """A process with the app's own functions; see desk.py."""

    def __init__(self, env, log, on_envelope):
        self.env, self.log, self.on_envelope = env, log, on_envelope
        self.refs = itertools.count(1)
        self.replies, self.arrived = {}, threading.Condition()

    def start(self):
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.desk"],
                cwd=ROOT,
                env=self.env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                bufsize=1,
                start_new_session=True,
            )
        self.ready = threading.Event()
        threading.Thread(target=self._listen, args=(self.popen,), daemon=True).start()
        assert self.ready.wait(PATIENCE), self.log.read_text()[-4000:]
        return self

    def _listen(self, popen):
        for line in popen.stdout:
            message = json.loads(line)
            if "envelope" in message and "at" in message:
                self.on_envelope(message["run"], message["at"], message["envelope"])
            elif message.get("ready"):
                self.ready.set()
            else:
                with self.arrived:
                    self.replies[message["ref"]] = message
                    self.arrived.notify_all()

    def tell(self, do, **arguments):
        """Let it be done there, and do not wait."""
        ref = next(self.refs)
        line = json.dumps({"ref": ref, "do": do, **arguments}) + "\n"
        with self.arrived:
            self.popen.stdin.write(line)
            self.popen.stdin.flush()
        return ref

    def __call__(self, do, **arguments):
        """Do it there; returns the reply, or raises Refused."""
        return self.reply(self.tell(do, **arguments))

    def reply(self, ref):
        """The reply to what was told, or raises Refused."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: ref in self.replies, PATIENCE), ref
            reply = self.replies.pop(ref)
        if "code" in reply:
            raise Refused(reply)
        return reply

    def kill(self):
        self.popen.kill()
        self.popen.wait()
        self.popen.stdin.close()
        self.popen.stdout.close()


class Run:
    """One run: what viewers saw of it, and what its bodies did."""

    def __init__(self, lab, id):
        self.lab, self.id = lab, id
        self.log = []  # (when, envelope) of each change
        self.changed = threading.Condition()
        self._from = 0

    def heard(self, at, envelope):
        with self.changed:
            self.log.append((at, envelope))
            self.changed.notify_all()

    # --- What viewers saw ---

    def until(self, *states, timeout=PATIENCE, **fields):
        """The first envelope, from the last one found on, in one of the states."""
        wanted = f"{' or '.join(states) or 'anything'} {fields or ''}"

        def found():
            for i in range(self._from, len(self.log)):
                envelope = self.log[i][1]
                if (not states or envelope["state"] in states) and all(
                    envelope.get(name) == value for name, value in fields.items()
                ):
                    self._from = i
                    return True
            return False

        with self.changed:
            if not self.changed.wait_for(found, timeout):
                raise AssertionError(
                    f"{wanted}: not within {timeout:g} s; {self.story()}; "
                    f"last: {self.log[-1:]}"
                )
            return self.log[self._from][1]

    def until_stepping(self, **fields):
        """Running, and its body has taken a step that a viewer has seen."""
        self.until("running", **fields)
        with self.changed:
            assert self.changed.wait_for(
                lambda: any(e.get("current") for _, e in self.log[self._from :]),
                PATIENCE,
            ), self.story()

    def until_end(self, timeout=PATIENCE):
        return self.until("succeeded", "failed", "cancelled", timeout=timeout)

    @property
    def ended(self):
        return bool(self.log) and self.log[-1][1]["state"] in FINISHED

    def until_lost(self, measure, what, since):
        """Every viewer sees in time that nothing was heard of its worker, `since`."""
        self.until("lost")
        measure(f"{what}: lost", self.seen_at - since, within(LOST_AFTER + 4))

    def is_lost_for_who_comes_later(self):
        later = self.now()
        assert later["state"] == "lost"
        assert later["now"] - later["seen"] > LOST_AFTER * 1000
        return True

    def succeeds(self, attempt, gate="go"):
        """Once its gate is open: with this attempt, and one body at a time."""
        self.open(gate)
        assert self.until("succeeded")["attempt"] == attempt
        assert self.bodies_at_once() == 1
        return True

    @property
    def seen_at(self):
        """When the envelope that `until` found last was first seen."""
        return self.log[self._from][0]

    def story(self):
        """The states in their order, with the attempt: ["running 1", "lost 1"]."""
        steps = [f"{e['state']} {e.get('attempt', '')}".strip() for _, e in self.log]
        return [step for step, _ in itertools.groupby(steps)]

    def now(self):
        return self.lab.desk("get", run=self.id)["envelope"]

    def percents_never_fall(self):
        """Within an attempt."""
        last = {}
        for _, envelope in self.log:
            percent = envelope.get("percent")
            attempt = envelope.get("attempt")
            if percent is not None:
                assert percent >= last.get(attempt, 0), self.log
                last[attempt] = percent
        return True

    # --- What its bodies did ---

    def open(self, gate="go"):
        (self.lab.notes / f"{self.id}.{gate}").touch()

    def noted(self, what):
        path = self.lab.notes / self.id
        lines = path.read_text().splitlines() if path.exists() else []
        return [n for line in lines if (n := json.loads(line))["what"] == what]

    @property
    def begins(self):
        return self.noted("begin")

    def until_body(self, number=1, timeout=PATIENCE):
        """When the `number`-th body has begun; what it noted."""
        wait_for(lambda: len(self.begins) >= number, f"body {number}", timeout)
        return self.begins[number - 1]

    def until_body_ended(self, number=1, timeout=PATIENCE):
        body = self.until_body(number, timeout)["body"]

        def ended():
            return [n for n in self.noted("end") if n["body"] == body]

        return wait_for(ended, f"the end of body {number}", timeout)[0]

    def living(self):
        """The bodies that have not ended, and whose process has not either."""
        ended = {n["body"] for n in self.noted("end")}
        return [b for b in self.begins if b["body"] not in ended and lives(b["pid"])]

    def last_step(self, body):
        """When a body took its last step."""
        path = self.lab.notes / f"{self.id}.{body['body']}.step"
        try:
            return float(path.read_text() or body["at"])
        except FileNotFoundError:
            return body["at"]

    def bodies_at_once(self):
        """The largest number of bodies that ran at the same time."""
        ends = {n["body"]: n["at"] for n in self.noted("end")}
        moments = []
        for body in self.begins:
            moments.append((body["at"], 1))
            moments.append((ends.get(body["body"], self.last_step(body)), -1))
        return max(itertools.accumulate(d for _, d in sorted(moments)), default=0)

    # --- Who does it ---

    def field(self, name):
        """A field of the run's hash."""
        return self.lab.valkey.client.hget(f"progress:{self.id}", name)

    @property
    def pid(self):
        """The process that holds the lease."""
        return int(self.field("worker").rpartition("|")[2])

    def holder(self):
        """The name of the worker whose process that is."""
        return self.field("worker").partition("|")[0]

    def kill_child(self):
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        return time.monotonic()

    # --- What viewers ask ---

    def cancel(self, **options):
        return self.lab.desk("ask", verb="cancel", run=self.id, **options)["envelope"]

    def pause(self):
        return self.lab.desk("ask", verb="pause", run=self.id)["envelope"]

    def resume(self):
        return self.lab.desk("ask", verb="resume", run=self.id)["envelope"]

    def result(self):
        return self.lab.desk("result", run=self.id)


def lives(pid):
    """Whether that process is one, and no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def exchange(one, other):
    """Give two paths each other's name at once, so that nobody finds half of a change.

    One who opens a database whose log was moved already misses what is in the log.
    """
    names = [AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other)]
    if libc.renameat2(*names, RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), f"{one} and {other} cannot be exchanged")


@contextlib.contextmanager
def locked(index):
    """Hold every lock of SQLite's write-ahead log: nobody reads or writes through it.

    They are bytes 120 to 127 of its index (https://www.sqlite.org/walformat.html);
    without an index nobody has the database open.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(FileNotFoundError):
            file = stack.enter_context(index.open("r+b"))
            fcntl.lockf(file, fcntl.LOCK_EX, 8, 120)
        yield


class Lab(Stack):
    """
    `with Lab() as lab:` has Valkey and a desk; workers are hired as they are needed.

    An owner's runs go to the queue of that name, so that a scenario can break the only
    worker that serves it.
    """

    open: ClassVar = set()

    def __init__(
        self, *, env=None, desk_env=None, web_env=None, server=None, redis_url=None
    ):
        self.web_env = web_env or {}
        short = {
            "PROGRESS_LOST_AFTER": str(LOST_AFTER),
            "PROGRESS_HEARTBEAT_INTERVAL": str(BEAT),
            "PROGRESS_RECONCILE_INTERVAL": "0.5",
            "FAULTS_VISIBILITY_TIMEOUT": str(VISIBILITY_TIMEOUT),
        }
        super().__init__(
            server=server,
            workers=0,
            redis_url=redis_url,
            env={
                "DJANGO_SETTINGS_MODULE": "tests.faults.settings",
                "PROGRESS_STARTS_PER_MINUTE": "100000",
                "PROGRESS_STARTS_PER_MINUTE_ALL": "100000",
                "PROGRESS_UNFINISHED_RUNS": "100000",
                "CELERY_SKIP_CHECKS": "1",
                "CHANNEL_LAYER": os.environ.get("FAULTS_CHANNEL_LAYER", ""),
                **({} if REAL else short),
                **(env or {}),
            },
        )
        self.notes = self.directory / "notes"
        self.env["LAB"] = str(self.notes)
        self.runs = {}
        self.lock = threading.Lock()
        self.names = itertools.count(1)
        self.desk = Desk(
            self.env | (desk_env or {}), self.directory / "desk.log", self.heard
        )

    def __enter__(self):
        self.notes.mkdir()
        super().__enter__()
        try:
            self.desk.start()
        except BaseException:
            self.close()
            raise
        self.open.add(self)
        return self

    def __exit__(self, kind, *exc):
        try:
            if kind is None:
                self.nobody_stumbled(*self.workers)
        finally:
            self.close()

    def new_web(self):
        web = super().new_web()
        web.env = ChainMap(self.web_env, self.env)
        return web

    def nobody_stumbled(self, *workers):
        """The reporter outlives what it did not expect; here it expects everything."""
        for worker in workers:
            assert "The reporter met an error" not in worker.output, worker.output

    def close(self):
        self.open.discard(self)
        if hasattr(self.desk, "popen"):
            self.desk.kill()
        super().close()

    def heard(self, id, at, envelope):
        self.run(id).heard(at, envelope)

    def run(self, id):
        with self.lock:
            return self.runs.setdefault(id, Run(self, id))

    def start(self, task, owner=SHARED, key=None, **kwargs):
        reply = self.desk("start", task=task, kwargs=kwargs, owner=owner, key=key)
        return self.run(reply["run"])

    def hire(
        self,
        owner=SHARED,
        pool="prefork",
        concurrency=2,
        arguments=(),
        env=None,
        wait=True,
    ):
        """A worker of the owner's queue."""
        name = f"{owner}-{pool}-{next(self.names)}"
        worker = Worker(
            self.directory / f"{name}.log",
            name,
            pool,
            concurrency,
            self.env | (env or {}),
            # What workers tell each other costs the square of their number.
            ("-Q", owner, "--without-gossip", "--without-heartbeat", *arguments),
        )
        worker.hired_by = threading.get_ident()
        with self.lock:
            self.workers.append(worker)
        return worker.start(wait)

    def dismiss(self):
        """Kill the workers that were hired in this thread."""
        for worker in list(self.workers):
            if worker.hired_by == threading.get_ident():
                self.fire(worker)

    def fire(self, worker):
        worker.kill()
        self.nobody_stumbled(worker)
        self.workers.remove(worker)

    @contextlib.contextmanager
    def no_database(self):
        """Nobody can open it, and who has it open can read no more."""
        database = self.directory / "db.sqlite3"
        nothing = self.directory / "nothing"
        nothing.mkdir(exist_ok=True)
        exchange(database, nothing)
        try:
            with locked(self.directory / "db.sqlite3-shm"):
                yield
        finally:
            exchange(database, nothing)

    @contextlib.contextmanager
    def frozen_valkey(self):
        self.valkey.freeze()
        try:
            yield
        finally:
            self.valkey.thaw()

    def queued(self, owner):
        """Messages that wait in the owner's queue."""
        return self.valkey.client.llen(owner)

    def messages_of(self, run):
        return journal.messages_of(self.valkey.client, run.id)

    def counted(self, name):
        """What `progress_stats` says of a counter, as soon as that is something: a
        process tells the store every 10 s what it has counted."""
        count = partial(self.valkey.client.hget, "progress:counters", name)
        wait_for(count, f"{name} are counted")
        lines = map(str.split, self.manage("progress_stats").splitlines())
        return int(next(number for first, number, *_ in lines if first == name))

    def logs(self, lines=60):
        desk = self.directory / "desk.log"
        tail = "\n".join(desk.read_text(errors="replace").splitlines()[-lines:])
        return f"{super().logs(lines)}\n--- desk\n{tail}"

    def lines_about(self, run):
        """What the logs of everybody say of it."""
        for log in sorted(self.directory.glob("*.log")):
            for line in log.read_text(errors="replace").splitlines():
                if run.id in line:
                    yield f"{log.stem}: {line}"
