"""`make run`, as a person at a terminal lives it."""

import contextlib
import fcntl
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import termios
import threading
import uuid
from pathlib import Path

import pytest

from tests.client import Visitor
from tests.ports import free_port
from tests.stack import ROOT, clean_environment, port_is_open, wait_for

FRESH = bool(os.environ.get("CI"))  # with an environment of its own, from the index
STOPPED = 8.0  # seconds after Ctrl-C


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of this tree as a clone has it: with nothing that git ignores."""
    directory = tmp_path_factory.mktemp("checkout") / "a site"
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, files.split("\0")):
        if (ROOT / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, directory / name)
    return directory


def take_terminal():
    """As a login does: only the controlling terminal turns Ctrl-C into a signal.

    And that a terminal was closed is heard, even where the tests run under `nohup`.
    """
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Terminal:
    """`make run` in a terminal of its own; knows every process that comes of it."""

    def __init__(self, checkout, port=None, **env):
        self.checkout = checkout
        self.mark = uuid.uuid4().hex
        self.port = port or free_port(900, 10_000)  # for all of them
        self.url = f"http://127.0.0.1:{self.port}"
        ready = {"PYTHON": sys.executable} if FRESH else {"VENV": sys.prefix}
        self.env = clean_environment() | {
            "PORT": str(self.port),
            "MARK": self.mark,
            **ready,
            **env,
        }
        self.screen, self.closed = b"", False
        self.keyboard, line = pty.openpty()
        self.make = subprocess.Popen(
            ["make", "--no-print-directory", "run"],
            cwd=checkout,
            env=self.env,
            stdin=line,
            stdout=line,
            stderr=line,
            start_new_session=True,
            preexec_fn=take_terminal,
        )
        os.close(line)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        with contextlib.suppress(OSError):  # how Linux says that nobody is left
            while not self.closed:
                if select.select([self.keyboard], [], [], 0.1)[0]:
                    self.screen += os.read(self.keyboard, 4096)

    def close(self):
        """The window is closed, the connection is gone."""
        if not self.closed:
            self.closed = True
            self.reader.join()
            os.close(self.keyboard)

    def __enter__(self):
        return self

    def __exit__(self, kind, *exc):
        if kind:
            print(self.text)
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.make.wait()
        self.close()

    @property
    def text(self):
        return self.screen.decode(errors="replace")

    def wait_ready(self, timeout=60.0 + 300.0 * FRESH):
        def shown():
            assert self.make.poll() is None, self.text
            return f"{self.url}/ " in self.text

        wait_for(shown, "the URL on the screen", timeout)

    def processes(self):
        """All processes that carry the mark, as {pid: command line}.

        Valkey writes its title over its environment; it works inside the checkout.
        """
        found = {}
        mark = f"MARK={self.mark}".encode()
        for directory in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                inside = (directory / "cwd").readlink().is_relative_to(self.checkout)
                command = (directory / "cmdline").read_bytes()
                if command and (inside or mark in (directory / "environ").read_bytes()):
                    found[int(directory.name)] = command.replace(b"\0", b" ").decode()
        return found

    def press_ctrl_c(self):
        os.write(self.keyboard, b"\x03")

    def wait_gone(self):
        wait_for(lambda: not self.processes(), "every process gone", STOPPED)
        self.make.wait()
        assert not port_is_open(self.port)


async def test_ctrl_c_leaves_nothing_and_the_next_start_knows_every_run(checkout):
    with Terminal(checkout) as terminal:
        terminal.wait_ready()
        visitor = await Visitor(terminal.url).arrive()
        async with visitor.socket() as socket:
            done = await socket.start("gen_random", {"speed": 1000})
            await socket.until_finished(done["run"])
            long = await socket.start("gen_random", {"speed": 0.5})
            await socket.until(lambda m: m.get("percent"))
        assert any("valkey-server" in c for c in terminal.processes().values())
        terminal.press_ctrl_c()
        terminal.wait_gone()

    with Terminal(checkout, terminal.port) as again:
        again.wait_ready(timeout=20)
        assert (await visitor.run(done["run"])).json()["state"] == "succeeded"
        async with visitor.socket() as socket:
            await socket.watch(long["run"])
            running = socket.runs(long["run"])[-1]
            if running["state"] != "running":
                running = await socket.until_state("running", run=long["run"])
            assert running["attempt"] == 2
        again.press_ctrl_c()
        again.wait_gone()
    await visitor.aclose()


def test_a_signal_to_every_single_process_leaves_nothing_either(checkout):
    with Terminal(checkout) as terminal:
        terminal.wait_ready()
        for pid in terminal.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
        terminal.wait_gone()


def test_a_closed_terminal_leaves_nothing(checkout):
    with Terminal(checkout) as terminal:
        terminal.wait_ready()
        os.killpg(terminal.make.pid, signal.SIGHUP)
        terminal.wait_gone()


def test_a_terminal_that_vanishes_leaves_nothing(checkout):
    """Only make is told, as over SSH, and it waits for what it has started."""
    with Terminal(checkout) as terminal:
        terminal.wait_ready()
        wait_for(lambda: " ready." in terminal.text, "the last that is said")
        terminal.close()
        terminal.wait_gone()


def test_with_redis_url_no_embedded_server_starts(checkout, valkey):
    with Terminal(checkout, REDIS_URL=valkey.url) as terminal:
        terminal.wait_ready()
        assert not any("valkey-server" in c for c in terminal.processes().values())
        terminal.press_ctrl_c()
        terminal.wait_gone()


def refused(checkout, **env):
    """The sentence with which `make run` gives up: the first line of its errors."""
    env = clean_environment() | {"VENV": sys.prefix} | env
    done = subprocess.run(
        ["make", "--no-print-directory", "run"],
        cwd=checkout,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    sentence, makes_own = done.stderr.splitlines()
    assert makes_own.startswith("make: ***")
    return sentence


@pytest.mark.parametrize(
    ("variable", "server"), [("PORT", "web"), ("VALKEY_PORT", "Valkey")]
)
def test_a_taken_port_is_one_sentence(checkout, valkey, variable, server):
    env = {"PORT": str(free_port()), variable: str(valkey.port)}
    assert refused(checkout, **env) == (
        f"Port {valkey.port} for the {server} server cannot be used (address already "
        f"in use): stop what uses it, or choose another one: "
        f"{variable}={valkey.port + 1} make run"
    )


@pytest.mark.parametrize("port", ["abc", "0", "65536"])
def test_what_is_no_port_is_one_sentence(checkout, port):
    said = f"PORT is {port!r}; a port is a number from 1 to 65535"
    assert refused(checkout, PORT=port) == said


def test_a_missing_python_is_one_sentence(checkout):
    assert refused(checkout, VENV="", PYTHON="python-of-nowhere") == (
        "Python is missing: install Python 3.11 or newer, or name it: "
        "PYTHON=/path/to/python3 make run"
    )


def test_an_old_python_is_one_sentence(checkout, tmp_path):
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\ncase "$2" in *print*) echo 3.10;; *) exit 1;; esac\n')
    old.chmod(0o755)
    assert refused(checkout, VENV="", PYTHON=str(old)) == (
        f"Python 3.11 or newer is needed, and {old} is 3.10: name another one: "
        "PYTHON=python3.12 make run"
    )


def test_no_network_is_one_sentence(checkout, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copytree(checkout / "bin", copy / "bin")
    for name in ("Makefile", "requirements.txt", "requirements-dev.txt"):
        shutil.copy(checkout / name, copy)
    nowhere = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": f"http://127.0.0.1:{free_port()}/simple",
        "PIP_FIND_LINKS": "",
        "PIP_NO_CACHE_DIR": "1",
    }
    assert refused(copy, VENV="", PYTHON=sys.executable, **nowhere) == (
        "The packages could not be fetched: the network or the package index cannot be "
        "reached. .venv.log has the details; then run make again."
    )
