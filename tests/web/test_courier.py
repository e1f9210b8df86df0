"""One task carries for all, and whoever lets it wait holds up nobody else."""

import asyncio

import pytest

from channels_progress import courier
from channels_progress.courier import Couriers, couriers


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


def errand(done, name, gate=None):
    async def go():
        if gate is not None:
            await gate.wait()
        done.append((name, asyncio.current_task()))

    return go


def names(done):
    return [name for name, _ in done]


async def test_a_thousand_errands_take_one_task(monkeypatch):
    monkeypatch.setattr(courier, "TURN", 60)
    several, done = Couriers(), []
    for name in range(1000):
        several.send(errand(done, name))
    await settle()
    assert names(done) == list(range(1000))
    assert len({task for _, task in done}) == 1


async def test_others_on_the_loop_have_their_turns_between(monkeypatch):
    monkeypatch.setattr(courier, "TURN", -1)
    several, done = Couriers(), []
    for name in range(3):
        several.send(errand(done, name))
    before = []
    while len(done) < 3:
        before.append(len(done))
        await asyncio.sleep(0)
    assert set(before) == {0, 1, 2}


async def test_who_waits_holds_up_nobody_else():
    several, done, gate = Couriers(), [], asyncio.Event()
    several.send(errand(done, "slow", gate))
    several.send(errand(done, "slow too", gate))
    several.send(errand(done, "a"))
    await settle()
    several.send(errand(done, "b"))
    await settle()
    assert names(done) == ["a", "b"]
    gate.set()
    await settle()
    assert sorted(names(done)) == ["a", "b", "slow", "slow too"]


async def test_a_courier_that_is_cancelled_leaves_the_rest_to_the_next():
    several, done, gate = Couriers(), [], asyncio.Event()
    several.send(errand(done, "slow", gate))
    carrying = several._active
    await asyncio.sleep(0)
    several.send(errand(done, "a"))
    carrying.cancel()
    await settle()
    assert names(done) == ["a"]


async def test_an_errand_that_fails_costs_no_other(caplog):
    async def fail():
        raise RuntimeError("on purpose")

    several, done = Couriers(), []
    several.send(fail)
    several.send(errand(done, "a"))
    carrying = several._active
    await settle()
    assert names(done) == ["a"]
    with pytest.raises(RuntimeError, match="on purpose"):
        carrying.result()


async def test_each_loop_has_its_own():
    assert couriers() is couriers()
    assert await asyncio.to_thread(asyncio.run, _theirs()) is not couriers()


async def _theirs():
    return couriers()
