"""A worker or the broker dies where that is RabbitMQ: what was not acknowledged comes
back, and what was queued is still there."""

import shutil
import socket
import time

import pytest

from tests.faults.lab import LOST_AFTER, REAL, Lab, Refused, within
from tests.faults.proxy import Proxy
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
        self.control("close_all_connections", "the network was restarted")

    def fill(self, share=0):
        """Let it have no more memory than this share of the machine's: with none, it
        takes no messages any more."""
        self.control("set_vm_memory_high_watermark", share)

    def control(self, *command):
        node = self.env["RABBITMQ_NODENAME"]
        Process(
            self.directory / "ctl.log",
            *(f"{BINARIES}/rabbitmqctl", "-n", node, *command),
            env=self.env,
        ).start().wait()


class RabbitLab(Lab):
    """Workers reach RabbitMQ directly, and the web through a proxy."""

    def __init__(self):
        super().__init__()
        self.broker = RabbitMQ(self.directory / "rabbit")
        self.env |= {
            "CELERY_BROKER_URL": self.broker.url,
            "CELERY_RESULT_BACKEND": self.valkey.url,
        }
        self.proxy = Proxy(self.broker.port)
        through = f"amqp://guest:guest@127.0.0.1:{self.proxy.port}//"
        self.desk.env |= self.env | {"CELERY_BROKER_URL": through}

    def __enter__(self):
        self.broker.start()
        return super().__enter__()

    def close(self):
        super().close()
        self.proxy.close()
        self.broker.kill()


@pytest.fixture(scope="module")
def rabbit_lab():
    if not shutil.which("rabbitmq-server"):
        pytest.skip("RabbitMQ is missing (on Debian: apt install rabbitmq-server)")
    with RabbitLab() as lab:
        yield lab


@pytest.fixture
def lab(rabbit_lab):
    rabbit_lab.dismiss()  # who served the last test, and whose logs are told by now
    yield rabbit_lab
    rabbit_lab.proxy.restore()
    rabbit_lab.proxy.cut()


def test_a_killed_child(lab, measure):
    lab.hire("child")
    run = lab.start("gated", owner="child")
    run.until_stepping()
    killed = run.kill_child()
    run.until("running", attempt=2)
    measure("RabbitMQ, child killed: next attempt", run.seen_at - killed, within(6))
    assert run.succeeds(attempt=2)


def test_a_killed_worker(lab, measure):
    lab.hire("worker")
    lab.hire("worker")
    run = lab.start("gated", owner="worker")
    run.until_stepping()
    name = run.field("worker").partition("@")[0]
    holder = next(w for w in lab.workers if w.log.name.startswith(name))
    holder.kill()
    killed = time.monotonic()
    run.until("running", attempt=2)
    measure("RabbitMQ, worker killed: next attempt", run.seen_at - killed, within(40))
    assert run.succeeds(attempt=2)


def test_a_killed_worker_that_was_the_only_one(lab, measure):
    worker = lab.hire("only", concurrency=1)
    run = lab.start("gated", owner="only")
    run.until_stepping()
    worker.kill()
    killed = time.monotonic()
    run.until_lost(measure, "RabbitMQ, worker killed", killed)
    assert run.is_lost_for_who_comes_later()
    lab.hire("only", concurrency=1)
    run.until("running", attempt=2)
    measure(
        "RabbitMQ, only worker killed: next attempt", run.seen_at - killed, within(40)
    )
    assert run.succeeds(attempt=2)


@pytest.mark.parametrize("task", ["kills_itself", "exits"])
def test_a_body_that_takes_its_process_along_every_time(lab, task):
    lab.hire(task)
    run = lab.start(task, owner=task)
    end = run.until_end()
    assert (end["state"], end["attempt"]) == ("failed", 3)
    assert end["error"]["message"] == "Its worker stopped 3 times."
    assert len(run.begins) == 3


def parked(worker):
    """Whether it has put a duplicate aside."""
    return "another copy" in worker.output or "] ignored" in worker.output


def test_a_message_comes_back_while_its_original_runs(lab, measure):
    """RabbitMQ delivers again what a lost connection had not acknowledged."""
    worker = lab.hire("twice")
    run = lab.start("gated", owner="twice")
    run.until_stepping()
    lab.broker.drop_connections()
    wait_for(lambda: parked(worker), "the duplicate came")
    assert len(run.begins) == 1
    killed = run.kill_child()
    run.until("running", attempt=2)
    measure(
        "RabbitMQ, original killed while its duplicate is parked: next attempt",
        run.seen_at - killed,
        within(LOST_AFTER + 4),
    )
    assert run.succeeds(attempt=2)


# --- A worker is frozen ---------------------------------------------------------------


def freeze(lab, owner, measure, **options):
    """A run whose worker is frozen, and shown as lost; and when that was."""
    worker = lab.hire(owner, concurrency=1, **options)
    # Its body does not give up meanwhile.
    run = lab.start("gated", owner=owner, seconds=600.0)
    run.until_stepping()
    worker.freeze()
    frozen = time.monotonic()
    run.until_lost(measure, "RabbitMQ, worker frozen", frozen)
    return worker, run, frozen


def test_a_frozen_worker_wakes(lab, measure):
    """Before RabbitMQ has given it up: its message is still its own."""
    worker, run, _frozen = freeze(lab, "wakes", measure)
    lab.hire("wakes", concurrency=1)
    worker.thaw()
    thawed = time.monotonic()
    run.until("running", attempt=1)
    measure("RabbitMQ, worker thawed: running", run.seen_at - thawed, within(4))
    run.open()
    assert run.until("succeeded")["attempt"] == 1
    assert len(run.begins) == 1
    assert run.percents_never_fall()


def test_a_frozen_worker_is_given_up(lab, measure):
    """By RabbitMQ, which hears no heartbeat of it: it proposes one each 60 s."""
    env = None if REAL else {"CELERY_BROKER_URL": f"{lab.broker.url}?heartbeat=4"}
    worker, run, frozen = freeze(lab, "given-up", measure, env=env)
    lab.hire("given-up", concurrency=1)
    run.until("running", attempt=2, timeout=240)
    measure(
        "RabbitMQ, worker frozen: next attempt",
        run.seen_at - frozen,
        200 if REAL else within(LOST_AFTER + 12),
    )
    run.until_stepping()
    worker.thaw()
    thawed = time.monotonic()
    old = run.until_body_ended(1)
    assert old["by"] == "Superseded"
    measure(
        "RabbitMQ, frozen worker wakes: its body stops", old["at"] - thawed, within(4)
    )
    assert run.now()["state"] == "running"
    run.open()
    assert run.until("succeeded")["attempt"] == 2
    assert all(e["attempt"] == 2 for at, e in run.log if at > thawed)
    assert len(run.begins) == 2


# --- Retries --------------------------------------------------------------------------


def test_rabbitmq_takes_no_messages(lab, measure):
    """For lack of memory. Bodies go on and end, and a retry waits in its slot."""
    lab.hire("full")
    run = lab.start("gated", owner="full")
    retried = lab.start("gated_then_retries", owner="full", countdown=0)
    run.until_stepping()
    retried.until_stepping()
    lab.broker.fill()
    try:
        with pytest.raises(Refused) as refused:
            lab.start("quick", owner="full", key="full")
        assert refused.value.code == "unavailable"
        measure(
            "RabbitMQ, no memory: START is refused", refused.value.seconds, within(3)
        )
        retried.open("first")
        run.open()
        assert run.until_end()["state"] == "succeeded"
        assert retried.now()["attempt"] == len(retried.begins) == 1
    finally:
        lab.broker.fill(0.6)
    retried.open("second")
    end = retried.until_end()
    assert (end["state"], end["attempt"], len(retried.begins)) == ("succeeded", 2, 2)
    late = lab.start("quick", owner="full", key="full")
    assert late.until_end()["state"] == "succeeded"
    assert len(late.begins) == 1


def test_a_retry_whose_worker_is_killed_meanwhile(lab):
    """Another one gets its message, and keeps it until it is due."""
    worker = lab.hire("retry", concurrency=1)
    countdown = 15.0
    run = lab.start("gated_then_retries", owner="retry", countdown=countdown)
    run.until_stepping()
    run.open("first")
    waiting = run.until("waiting")
    assert waiting["reason"] == "retry"
    assert 0 < waiting["due"] - waiting["now"] <= countdown * 1000
    # The slot is free.
    assert lab.start("quick", owner="retry").until_end()["state"] == "succeeded"
    assert run.now()["state"] == "waiting"
    worker.kill()
    lab.hire("retry", concurrency=1)
    second = run.until_body(2)
    (retried,) = run.noted("retries")
    assert countdown <= second["at"] - retried["at"] <= countdown + within(4)
    assert run.succeeds(attempt=2, gate="second")


# --- RabbitMQ itself ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["down", "stall", "blackhole"])
def test_a_start_is_refused_and_the_same_key_starts_it_later(lab, measure, kind):
    lab.hire(kind, concurrency=1)
    lab.start("quick", owner=kind).until("succeeded")
    getattr(lab.proxy, kind)()
    with pytest.raises(Refused) as refused:
        lab.start("quick", owner=kind, key=kind)
    assert refused.value.code == "unavailable"
    measure(
        f"RabbitMQ, broker {kind}: START is refused", refused.value.seconds, within(3)
    )
    lab.proxy.restore()
    lab.proxy.cut()
    run = lab.start("quick", owner=kind, key=kind)
    end = run.until_end()
    assert (end["state"], end["attempt"]) == ("succeeded", 1)
    assert lab.start("quick", owner=kind, key=kind) is run
    # What arrived late is dropped before what comes after it.
    assert lab.start("quick", owner=kind).until_end()["state"] == "succeeded"
    assert len(run.begins) == 1


def test_it_is_killed_while_one_run_is_queued_and_another_runs(lab, measure):
    """Queues are durable, and messages persistent: none is lost."""
    worker = lab.hire("restart", concurrency=1)
    first = lab.start("gated", owner="restart")
    first.until_stepping()
    queued = [lab.start("gated", owner="restart") for _ in range(3)]
    lab.broker.kill()
    lab.broker.start()
    # In vain, as the only slot is its own.
    copy = f"{first.id}] received"
    wait_for(lambda: worker.output.count(copy) >= 2, "its message came again")
    assert first.now()["state"] == "running"
    assert {run.now()["state"] for run in queued} == {"queued"}
    back = time.monotonic()
    for run in (first, *queued):
        run.open()
        assert run.until_end()["state"] == "succeeded"
        assert (run.now()["attempt"], len(run.begins)) == (1, 1)
    measure("RabbitMQ killed: all have ended", time.monotonic() - back, within(10))


def test_it_is_killed_while_a_run_waits_for_its_next_try(lab):
    """It had that message on its disk before the first one could be acknowledged."""
    lab.hire("restart-retry", concurrency=1)
    countdown = 15.0
    run = lab.start("gated_then_retries", owner="restart-retry", countdown=countdown)
    run.until_stepping()
    run.open("first")
    run.until_body_ended()
    lab.broker.kill()
    lab.broker.start()
    second = run.until_body(2)
    (retried,) = run.noted("retries")
    assert second["at"] - retried["at"] >= countdown
    run.open("second")
    assert run.until("succeeded")["attempt"] == 2
    assert lab.start("quick", owner="restart-retry").until_end()["state"] == "succeeded"
    assert len(run.begins) == 2
