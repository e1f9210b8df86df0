"""The place on the channel layer, where the layer fails."""

import pytest
from channels.layers import InMemoryChannelLayer

from channels_progress import ear, runs
from channels_progress.ear import Ear


class Layer(InMemoryChannelLayer):
    """Does as it is told, and where `deaf`, nobody hears so."""

    deaf = False

    async def group_add(self, group, channel):
        await super().group_add(group, channel)
        self.answer()

    async def group_discard(self, group, channel):
        self.answer()
        await super().group_discard(group, channel)

    def answer(self):
        if self.deaf:
            raise ConnectionError("nobody hears it")


@pytest.fixture
async def heard(monkeypatch):
    layer, joined = Layer(), []
    monkeypatch.setattr(ear, "get_channel_layer", lambda alias: layer)
    one = Ear(lambda message: None, joined.append)
    yield one, layer, joined
    layer.deaf = False
    await one.leave()


def groups(layer):
    return {group for group, members in layer.groups.items() if members}


async def test_a_group_that_could_not_be_left_is_left_later(heard):
    one, layer, joined = heard
    one.want("a")
    await one.settled()
    assert (groups(layer), joined) == ({runs.group("a")}, ["a"])
    layer.deaf = True
    one.drop("a")
    await one.settled()
    assert groups(layer)
    layer.deaf = False
    one.retry()
    await one.settled()
    assert not groups(layer)


async def test_a_group_that_was_joined_and_nobody_heard_so(heard):
    """It is joined once more while it is wanted, and else left."""
    one, layer, joined = heard
    layer.deaf = True
    for run in ("a", "b"):
        one.want(run)
    await one.settled()
    assert joined == []
    one.drop("b")
    await one.settled()
    layer.deaf = False
    one.retry()
    await one.settled()
    assert joined == ["a"]
    assert groups(layer) == {runs.group("a")}
