"""A slow reader gets the newest, costs little, and holds nobody up."""

import asyncio
import sys
import types

import pytest

from channels_progress import outbox
from channels_progress.outbox import Outbox, teach_daphne


class Reader:
    """The other end; it takes what is sent while its gate is open."""

    def __init__(self):
        self.gate = asyncio.Event()
        self.gate.set()
        self.got = []
        self.refused = ()

    async def send(self, message):
        await self.gate.wait()
        if message.get("code") in self.refused:
            raise ValueError("invalid close code")
        self.got.append(message.get("text", message.get("code")))


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
def reader():
    return Reader()


async def test_only_the_latest_envelope_of_a_run_waits(reader):
    out = Outbox(reader.send)
    reader.gate.clear()
    out.put_run("a", "a0")
    await settle()
    for n in range(1, 1000):
        out.put_run("a", f"a{n}")
        out.put_run("b", f"b{n}")
    reader.gate.set()
    await settle()
    assert reader.got == ["a0", "a999", "b999"]


async def test_other_frames_keep_their_order_and_come_first(reader):
    out = Outbox(reader.send)
    out.put_run("a", "a1")
    out.put("started")
    out.put("error")
    await settle()
    assert reader.got == ["started", "error", "a1"]


async def test_nothing_runs_while_there_is_nothing_to_send(reader):
    out = Outbox(reader.send)
    assert out._sender is None
    out.put("x")
    await settle()
    assert out._sender is None


async def test_a_beat_does_not_queue_up(reader):
    out = Outbox(reader.send)
    reader.gate.clear()
    out.put("x")
    out.beat("beat")
    reader.gate.set()
    await settle()
    out.beat("beat")
    await settle()
    assert reader.got == ["x", "beat"]


async def test_a_close_comes_after_what_waits_and_nothing_after_it(reader):
    out = Outbox(reader.send)
    out.put_run("a", "end")
    out.close(1000)
    out.close(4401)
    out.put("late")
    out.put_run("a", "late")
    assert out.closing
    await settle()
    assert reader.got == ["end", 1000]


async def test_a_code_that_the_server_refuses_becomes_one_that_comes_back(reader):
    reader.refused = (1013,)
    Outbox(reader.send).close(1013)
    await settle()
    assert reader.got == [4013]


async def test_a_close_that_is_never_taken_is_given_up(reader, monkeypatch):
    monkeypatch.setattr(outbox, "CLOSE_TIMEOUT", 0.01)
    reader.gate.clear()
    assert not await outbox.close(reader.send, 1000)
    assert reader.got == []


async def test_who_takes_no_close_is_dropped(reader, monkeypatch):
    """A flood that goes on would keep the socket's task for as long as it likes."""
    monkeypatch.setattr(outbox, "CLOSE_TIMEOUT", 0.01)
    made = []
    task = asyncio.create_task(served(made, reader))
    await settle()
    reader.gate.clear()
    made[0].close(1008)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)


async def served(out_of, reader):
    """A task that serves a socket until it is dropped."""
    out = Outbox(reader.send)
    out_of.append(out)
    await asyncio.Event().wait()


async def test_who_reads_nothing_is_dropped(reader):
    made = []
    task = asyncio.create_task(served(made, reader))
    await settle()
    reader.gate.clear()
    for n in range(300):
        made[0].put(str(n))
    await settle()
    assert task.cancelled()
    assert not made[0].open


async def test_a_send_that_takes_too_long_drops_the_socket(reader):
    made, now = [], asyncio.get_running_loop().time()
    task = asyncio.create_task(served(made, reader))
    await settle()
    made[0].expire(now + 60)
    reader.gate.clear()
    made[0].put("x")
    await settle()
    made[0].expire(now + 5)
    assert made[0].open
    made[0].expire(now + 15)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert made[0]._sender is None
    made[0].drop("again")


async def test_a_send_that_fails_drops_the_socket(reader):
    made = []
    task = asyncio.create_task(served(made, reader))
    await settle()
    reader.refused = (None,)
    made[0].put("x")
    with pytest.raises(asyncio.CancelledError):
        await task


class Protocol:
    def sendCloseFrame(self, **frame):
        self.frame = frame


def test_daphne_learns_every_code(monkeypatch):
    module = types.SimpleNamespace(WebSocketProtocol=Protocol)
    monkeypatch.setitem(sys.modules, "daphne.ws_protocol", module)
    teach_daphne()
    protocol = Protocol()
    protocol.serverClose(1013)
    assert protocol.frame == {"code": 1013, "isReply": False}
    protocol.serverClose()
    assert protocol.frame["code"] == 1000
    assert protocol.failByDrop is False
    assert protocol.closeHandshakeTimeout == 10


def test_another_server_needs_no_lesson(monkeypatch):
    monkeypatch.delitem(sys.modules, "daphne.ws_protocol", raising=False)
    teach_daphne()
