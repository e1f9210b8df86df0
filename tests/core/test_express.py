"""The short ways of a group message: from the store's script, and without a loop."""

import asyncio
import contextlib
import threading
from functools import partial

import msgpack
import pytest
import redis
from channels_redis.pubsub import RedisPubSubLoopLayer
from django.conf import settings
from redis.client import Pipeline

from channels_progress import counters, express, layer
from channels_progress.express import Express, to_tell
from channels_progress.topic import Topic, live
from tests.core.conftest import set_intervals
from tests.core.hand import Hand, lease
from tests.ports import free_port


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def send(loop):
    """`send(snapshots)`: whether they were sent by the short way."""
    return partial(Express().send, loop)


@pytest.fixture
def hand(store):
    hand = Hand(store)
    hand.create()
    return hand


@contextlib.contextmanager
def published(hands):
    """What arrives in the groups of these runs."""
    with redis.Redis.from_url(settings.REDIS_URL) as client, client.pubsub() as inbox:
        groups = [f"asgi__group__{layer.group(hand.id)}" for hand in hands]
        inbox.subscribe(*groups)
        for _ in groups:
            inbox.get_message(timeout=10)
        yield inbox


def received(inbox, count):
    """The next messages."""
    found = [inbox.get_message(timeout=10)["data"] for _ in range(count)]
    return [msgpack.unpackb(data) for data in found]


def runs_of(inbox, count):
    return {message["run"] for message in received(inbox, count)}


def use_layer(settings, host, backend=express.LAYER, **config):
    config |= {"hosts": [host]} if host else {}
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend, "CONFIG": config}}


# -- By the script ------------------------------------------------------------------


def report_of_one_to_be_cancelled(hand, tell):
    number = hand.running()
    hand.cancel()
    return hand.report(number, 1, doc=hand.doc(current=7), **tell)


def failure(hand, tell):
    number, error = hand.running(), '{"message":"Bäd – luck"}'
    values = {"state": "failed", "reason": "error", "error": error}
    return hand.end(number, 1, doc=hand.doc(), **values, **tell)


def retry(hand, tell):
    number = hand.running()
    values = {"state": "waiting", "reason": "retry", "delay": 60_000, "next": 2}
    return hand.end(number, 1, doc=hand.doc(), **values, **tell)


def begin(hand, tell):
    hand.create()
    return hand.begin(**tell)


@pytest.mark.parametrize("lead", [begin, report_of_one_to_be_cancelled, failure, retry])
def test_the_script_says_what_the_layer_would_have_sent(acquainted, store, loop, lead):
    hand = Hand(store)
    with published([hand]) as inbox:
        answer = lead(hand, to_tell(hand.id))
        assert answer.told
        loop.run_until_complete(layer.send([answer.snapshot(hand.field("doc"))]))
        messages = received(inbox, 2)
    topic = Topic(hand.id)
    topic.show(hand.snapshot)
    script, layers = (live(topic, message) for message in messages)
    assert script == layers
    assert script.rev == hand.rev


def test_what_changes_nothing_is_not_told(acquainted, hand):
    tell, number = to_tell(hand.id), lease(hand.begin())
    assert not hand.report(number, 1, **tell).told  # a beat
    assert hand.report(number, 2, doc=hand.doc(), **tell).told
    assert not hand.report(number, 2, doc=hand.doc(), **tell).told  # sent twice
    hand.end(number, 3)
    assert not hand.report(number, 4, doc=hand.doc(), **tell).told  # refused


def test_what_the_server_forbids_is_written_all_the_same(acquainted, hand):
    """The rights to a channel are not those to a key."""
    client = hand.store.client
    client.acl_setuser(
        "mute", enabled=True, nopass=True, keys=["*"], commands=["+@all"], channels=[]
    )
    number = lease(hand.begin())
    try:
        client.execute_command("AUTH", "mute", "any")
        answer = hand.report(number, 1, doc=hand.doc(current=7), **to_tell(hand.id))
    finally:
        client.close()
        client.acl_deluser("mute")
    assert (answer.code, answer.told) == ("ok", False)
    assert hand.snapshot.as_dict()["current"] == 7


def test_a_process_learns_of_it_with_its_first_message(hand, send, monkeypatch):
    monkeypatch.setattr(express, "_shared", None)
    assert to_tell(hand.id) == {}
    assert send([hand.snapshot])
    channel = f"asgi__group__{layer.group(hand.id)}"
    assert to_tell(hand.id) == {"channel": channel, "run": hand.id}


def test_a_database_of_the_same_server_is_no_other_server(hand, send, settings):
    use_layer(settings, f"{settings.REDIS_URL.rpartition('/')[0]}/5")
    assert send([hand.snapshot])
    assert to_tell(hand.id)


@pytest.mark.parametrize(
    ("host", "config"),
    [
        ("redis://127.0.0.1:1", {}),
        ("redis://another@127.0.0.1:{port}", {}),
        ("rediss://127.0.0.1:{port}", {}),
        ({"address": "redis://127.0.0.1:{port}", "password": "a"}, {}),
        ("redis://127.0.0.1:{port}", {"symmetric_encryption_keys": ["a secret"]}),
        ("redis://127.0.0.1:{port}", {"serializer_format": "json"}),
    ],
    ids=["server", "user", "tls", "password", "encrypted", "json"],
)
def test_another_server_or_way_of_saying_is_not_told_by_the_script(
    hand, send, settings, valkey, host, config
):
    own = {"address": host} if isinstance(host, str) else host
    host = {name: v.replace("{port}", str(valkey.port)) for name, v in own.items()}
    use_layer(settings, host, **config)
    assert send([hand.snapshot])
    assert to_tell(hand.id) == {}


def test_a_store_elsewhere_is_not_asked_to_publish(acquainted, hand, settings):
    assert to_tell(hand.id)
    set_intervals(settings, REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    assert to_tell(hand.id) == {}


# -- Without a loop -----------------------------------------------------------------


def test_the_messages_of_many_runs_are_one_round_trip(store, send, monkeypatch):
    trips, execute, here = [], Pipeline.execute, threading.get_ident()

    def noted(self):
        if threading.get_ident() == here:  # other threads write of other things
            trips.append(len(self))
        return execute(self)

    monkeypatch.setattr(Pipeline, "execute", noted)
    crowd = [Hand(store) for _ in range(20)]
    for hand in crowd:
        hand.create()
    snapshots = [hand.snapshot for hand in crowd]
    trips.clear()
    with published(crowd) as inbox:
        assert send(snapshots)
        assert runs_of(inbox, 20) == {hand.id for hand in crowd}
    assert trips == [20]


def test_a_message_is_what_the_layer_would_have_sent(hand, send, loop):
    with published([hand]) as inbox:
        snapshot = hand.snapshot
        assert send([snapshot])
        loop.run_until_complete(layer.send([snapshot]))
        ours, layers = received(inbox, 2)
    assert ours == layers


@pytest.mark.parametrize("part", [{"_get_group_channel_name": None}, {"_shards": ()}])
def test_a_layer_of_another_build_is_asked(hand, send, monkeypatch, part):
    init = RedisPubSubLoopLayer.__init__

    def other(self, *args, **kwargs):
        init(self, *args, **kwargs)
        vars(self).update(part)

    monkeypatch.setattr(RedisPubSubLoopLayer, "__init__", other)
    assert not send([hand.snapshot])


@pytest.mark.parametrize(
    ("backend", "hosts"),
    [
        ("channels_redis.core.RedisChannelLayer", ["redis://127.0.0.1:1"]),
        ("channels.layers.InMemoryChannelLayer", None),
        ("channels_redis.pubsub.RedisPubSubChannelLayer", ["redis://a", "redis://b"]),
        ("channels_redis.pubsub.RedisPubSubChannelLayer", [("127.0.0.1", 1)]),
        (
            "channels_redis.pubsub.RedisPubSubChannelLayer",
            [{"address": "redis://127.0.0.1:1", "retry": "an object of asyncio's"}],
        ),
    ],
)
def test_another_layer_is_asked(hand, send, settings, backend, hosts):
    config = {"hosts": hosts} if hosts else {}
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend, "CONFIG": config}}
    assert not send([hand.snapshot])


def test_a_message_that_is_lost_is_counted(hand, send, settings, monkeypatch):
    lost = []
    monkeypatch.setattr(counters, "bump", lambda *args: lost.append(args))
    use_layer(settings, {"address": f"redis://127.0.0.1:{free_port()}"})
    assert send([hand.snapshot] * 2)
    assert lost == [("messages_dropped", 2)]


def test_a_cut_connection_costs_no_message(hand, send, valkey):
    with published([hand]) as inbox:
        assert send([hand.snapshot])
        # No other one: a worker of this process is not what is tested.
        own = send.func.__self__._client.client_id()
        assert valkey.client.client_kill_filter(_id=own) == 1
        assert send([hand.snapshot])
        assert runs_of(inbox, 2) == {hand.id}
