"""A worker dies where RabbitMQ is the broker: what was not acknowledged comes back."""

import shutil
import socket
import time

import pytest

from tests.faults.lab import LOST_AFTER, Lab, within
from tests.ports import free_port
from tests.stack import ENVIRONMENT, Process, wait_for

pytestmark = pytest.mark.nightly
BINARIES = "/usr/lib/rabbitmq/bin"  # where Debian's package has them


class RabbitMQ(Process):
    """A node of its own, which leaves nothing behind."""

    def __init__(self, directory):
        self.port = free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}//"
        self.directory = directory
        directory.mkdir()
        plugins = directory / "enabled_plugins"
        plugins.write_text("[].")
        env = ENVIRONMENT | {
            "HOME": str(directory),
            "RABBITMQ_NODENAME": f"faults{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(directory),
            "RABBITMQ_LOG_BASE": str(directory),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        }
        super().__init__(directory / "out.log", f"{BINARIES}/rabbitmq-server", env=env)

    def start(self):
        super().start()
        self.wait_ready(self.answers, "RabbitMQ", 120)
        return self

    def answers(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as probe:
                probe.sendall(b"AMQP\x00\x00\x09\x01")
                return probe.recv(1)
        except OSError:
            return False

    def drop_connections(self):
        """As a restart of the network between it and everybody else does."""
        command = ["close_all_connections", "the network was restarted"]
        node = self.env["RABBITMQ_NODENAME"]
        Process(
            self.directory / "ctl.log",
            *(f"{BINARIES}/rabbitmqctl", "-n", node, *command),
            env=self.env,
        ).start().wait()


class RabbitLab(Lab):
    def __init__(self):
        super().__init__()
        self.broker = RabbitMQ(self.directory / "rabbit")
        self.env |= {
            "CELERY_BROKER_URL": self.broker.url,
            "CELERY_RESULT_BACKEND": self.valkey.url,
        }
        self.desk.env |= self.env

    def __enter__(self):
        self.broker.start()
        return super().__enter__()

    def close(self):
        super().close()
        self.broker.kill()


@pytest.fixture(scope="module")
def lab():
    if not shutil.which("rabbitmq-server"):
        pytest.skip("RabbitMQ is missing (on Debian: apt install rabbitmq-server)")
    with RabbitLab() as lab:
        yield lab


def test_a_killed_child(lab, measure):
    lab.hire("child")
    run = lab.start("gated", owner="child")
    run.until_stepping()
    killed = run.kill_child()
    run.until("running", attempt=2)
    measure("RabbitMQ, child killed: next attempt", run.seen_at - killed, within(6))
    run.open()
    assert run.until("succeeded")["attempt"] == 2
    assert run.bodies_at_once() == 1


def test_a_killed_worker(lab, measure):
    worker = lab.hire("worker")
    lab.hire("worker")
    run = lab.start("gated", owner="worker")
    run.until_stepping()
    name = run.field("worker").partition("@")[0]
    holder = next(w for w in lab.workers if w.log.name.startswith(name))
    assert worker in lab.workers
    holder.kill()
    killed = time.monotonic()
    run.until("running", attempt=2)
    measure("RabbitMQ, worker killed: next attempt", run.seen_at - killed, within(40))
    run.open()
    assert run.until("succeeded")["attempt"] == 2
    assert run.bodies_at_once() == 1


@pytest.mark.parametrize("task", ["kills_itself", "exits"])
def test_a_body_that_takes_its_process_along_every_time(lab, task):
    lab.hire(task)
    run = lab.start(task, owner=task)
    end = run.until_end()
    assert (end["state"], end["attempt"]) == ("failed", 3)
    assert end["error"]["message"] == "Its worker stopped 3 times."
    assert len(run.begins) == 3


def test_a_message_comes_back_while_its_original_runs(lab, measure):
    """RabbitMQ delivers again what a lost connection had not acknowledged."""
    worker = lab.hire("twice")
    run = lab.start("gated", owner="twice")
    run.until_stepping()
    lab.broker.drop_connections()
    wait_for(
        lambda: "another copy" in worker.output or "] ignored" in worker.output,
        "the duplicate came",
    )
    assert len(run.begins) == 1
    killed = run.kill_child()
    run.until("running", attempt=2)
    measure(
        "RabbitMQ, original killed while its duplicate is parked: next attempt",
        run.seen_at - killed,
        within(LOST_AFTER + 4),
    )
    run.open()
    assert run.until("succeeded")["attempt"] == 2
    assert run.bodies_at_once() == 1
