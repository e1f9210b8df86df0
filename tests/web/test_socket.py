"""`/ws/progress/`: every action, every error, and what never closes the socket."""

import json
import uuid

import pytest
from asgiref.sync import sync_to_async
from django import forms
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.models import Session

from channels_progress import access, catalogue, consumers, runs, watch
from channels_progress.errors import FORBIDDEN
from HomeApp.tasks import gen_random
from tests.web.conftest import Hand, Tab, anonymous, owner_of, signed_in

REFUSAL = {"type": "error", "ref": "w", "code": "forbidden", "message": FORBIDDEN}


# -- Start


async def test_a_start_is_answered_before_the_first_frame_of_its_run(site):
    async with Tab(cookie=anonymous()) as tab:
        await tab.send("start", task="gen_random", params={"speed": 5}, key="k", ref=1)
        started, run = await tab.next(), await tab.next()
    assert started.keys() == {"type", "ref", "run", "token"}
    assert (started["type"], started["ref"]) == ("started", 1)
    assert (run["run"], run["state"], run["percent"]) == (
        started["run"],
        "queued",
        None,
    )


async def test_the_same_key_finds_the_same_run_and_its_snapshot(site):
    cookie = anonymous()
    async with Tab(cookie=cookie) as tab, Tab(cookie=cookie) as other:
        first, _ = await tab.start(key="k")
        again, run = await other.start(key="k")
        assert again["run"] == first["run"] == run["run"]
        again, run = await tab.start(key="k")
        assert again["run"] == first["run"] == run["run"]


async def test_a_key_belongs_to_its_owner(site):
    async with Tab(cookie=anonymous()) as tab, Tab(cookie=anonymous()) as other:
        first, _ = await tab.start(key="k")
        second, _ = await other.start(key="k")
        assert first["run"] != second["run"]


async def test_who_has_no_cookie_cannot_start(site):
    async with Tab() as tab:
        await tab.send("start", task="gen_random", ref=1)
        error = await tab.next()
        assert error["code"] == "forbidden"
        assert "cookies" in error["message"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"task": "nope"}, "task"),
        ({"task": 7}, "task"),
        ({}, "task"),
        ({"task": "gen_random", "params": {"speed": "abc"}}, "speed"),
        ({"task": "gen_random", "params": {"speed": 0}}, "speed"),
        ({"task": "gen_random", "params": {"speed": 10**400}}, "speed"),
        ({"task": "gen_random", "params": {"speed": "\x00"}}, "speed"),
        ({"task": "gen_random", "params": {"speed": "\ud800"}}, "speed"),
        ({"task": "gen_random", "params": []}, "params"),
        ({"task": "gen_random", "key": 7}, "key"),
        ({"task": "fft_random", "params": {"n": 10**9}}, "n"),
        ({"task": "import_rows"}, "file"),
    ],
)
async def test_bad_parameters_are_named(site, fields, field):
    async with Tab(cookie=anonymous()) as tab:
        await tab.send("start", ref="s", **fields)
        error = await tab.next()
        assert (error["code"], error["ref"]) == ("invalid", "s")
        assert error["errors"][field]
        assert error["message"]


class Plain(forms.Form):
    n = forms.IntegerField()


async def test_errors_speak_the_viewers_language(site, monkeypatch):
    declared = catalogue.Startable(gen_random, Plain, "", False)
    monkeypatch.setattr(catalogue, "_declared", [declared])
    async with Tab(cookie=anonymous() + "; django_language=de") as tab:
        await tab.send("start", task="gen_random")
        error = await tab.next()
        assert error["errors"] == {"n": ["Dieses Feld ist zwingend erforderlich."]}


async def test_too_many_starts_are_told(site, configure):
    configure(STARTS_PER_MINUTE=1)
    async with Tab(cookie=anonymous()) as tab:
        await tab.start()
        await tab.send("start", task="gen_random", ref=2)
        assert (await tab.until(ref=2))["code"] == "too_many"


# -- Watch


async def test_a_watch_is_answered_with_the_snapshot_again_and_again(begun):
    user = await User.objects.acreate(username="ann")
    hand = await begun(f"u:{user.pk}")
    hand.report(42)
    async with Tab(cookie=await cookie_of(user)) as tab:
        for _ in range(2):
            run = await tab.watch(hand.run)
            assert (run["state"], run["percent"]) == ("running", 42)
        assert await tab.silent()


async def cookie_of(user):
    return await sync_to_async(signed_in)(user)


async def test_messages_follow_the_snapshot(begun):
    cookie = anonymous()
    hand = await begun(owner_of(cookie))
    async with Tab(cookie=cookie) as tab, Tab(cookie=cookie) as other:
        await tab.watch(hand.run)
        await other.watch(hand.run)
        await hand.tell(hand.report(50))
        await hand.tell(hand.end())
        for one in (tab, other):
            end = await one.until(state="succeeded")
            assert (end["percent"], end["run"]) == (100, hand.run)


async def test_strangers_and_unknown_runs_get_the_same_answer(begun):
    hand = await begun("u:1")
    async with Tab(cookie=anonymous()) as tab:
        assert await tab.watch(hand.run) == REFUSAL
        assert await tab.watch(str(uuid.uuid4())) == REFUSAL
        assert await tab.watch("no id at all") == REFUSAL
        assert await tab.watch(hand.run, "x:y") == REFUSAL
        assert await tab.watch(["list"], ["list"]) == REFUSAL
        assert tab.seen == [REFUSAL] * 5
    assert watch.current().gauges()["watched"] == 0


async def test_a_token_lets_the_viewer_it_was_made_for_watch_only(begun):
    hand, cookie = await begun("u:1"), anonymous()
    token = access.token(access.Viewer((owner_of(cookie),)), hand.run)
    async with Tab(cookie=cookie) as tab, Tab(cookie=anonymous()) as other:
        assert (await tab.watch(hand.run, token))["state"] == "running"
        assert await other.watch(hand.run, token) == REFUSAL
        await tab.send("cancel", run=hand.run, token=token, ref="w")
        assert await tab.next() == REFUSAL


async def test_staff_with_the_permission_may_watch_and_cancel(begun):
    hand = await begun("a:somebody")
    staff = await User.objects.acreate(username="eve", is_staff=True)
    for codename in ("view_run", "change_run"):
        permission = await Permission.objects.aget(codename=codename)
        await staff.user_permissions.aadd(permission)
    async with Tab(cookie=await cookie_of(staff)) as tab:
        assert (await tab.watch(hand.run))["state"] == "running"
        await tab.send("cancel", run=hand.run)
        assert (await tab.next())["asked"] == "cancel"


async def test_after_unwatch_there_is_silence(begun):
    cookie = anonymous()
    hand = await begun(owner_of(cookie))
    async with Tab(cookie=cookie) as tab:
        await tab.watch(hand.run)
        await tab.send("unwatch", run=hand.run)
        await tab.send("nothing", ref="over")
        await tab.until(ref="over")
        await hand.tell(hand.report(50))
        assert await tab.silent()
        assert (await tab.watch(hand.run))["percent"] == 50


async def test_an_unwatch_overtakes_the_answer_to_its_watch(begun):
    cookie = anonymous()
    hand = await begun(owner_of(cookie))
    async with Tab(cookie=cookie) as tab:
        await tab.send("watch", run=hand.run)
        await tab.send("unwatch", run=hand.run)
        assert await tab.silent()


async def test_a_refused_second_watch_leaves_the_first(begun):
    hand, cookie = await begun("u:1"), anonymous()
    token = access.token(access.Viewer((owner_of(cookie),)), hand.run)
    async with Tab(cookie=cookie) as tab:
        await tab.watch(hand.run, token)
        assert await tab.watch(hand.run, "x:y") == REFUSAL
        await hand.tell(hand.report(50))
        assert (await tab.next())["percent"] == 50


async def test_a_socket_watches_so_many_runs(site, configure):
    configure(WATCHES=2)
    async with Tab(cookie=anonymous()) as tab:
        one, _ = await tab.start()
        await tab.start()
        await tab.send("start", task="gen_random", ref=3)
        assert (await tab.until(ref=3))["code"] == "too_many"
        await tab.send("watch", run=str(uuid.uuid4()), ref=4)
        assert (await tab.until(ref=4))["code"] == "too_many"
        assert (await tab.watch(one["run"]))["run"] == one["run"]


async def test_starts_at_once_cannot_share_a_place(site, configure):
    configure(WATCHES=2)
    async with Tab(cookie=anonymous()) as tab:
        for ref in range(4):
            await tab.send("start", task="gen_random", ref=ref)
        answers = [await tab.until(ref=ref) for ref in (2, 3)]
        assert [answer["code"] for answer in answers] == ["too_many"] * 2


async def test_an_end_gives_the_place_back(begun, configure):
    configure(WATCHES=1)
    cookie = anonymous()
    one, two = await begun(owner_of(cookie)), await begun(owner_of(cookie))
    async with Tab(cookie=cookie) as tab:
        await tab.watch(one.run)
        await one.tell(one.end())
        await tab.until(state="succeeded")
        assert (await tab.watch(two.run))["state"] == "running"
        one_again = await tab.watch(one.run)
        assert one_again["code"] == "too_many"


# -- Cancel, pause, resume


async def test_a_queued_run_is_cancelled_at_once(site):
    async with Tab(cookie=anonymous()) as tab:
        started, _ = await tab.start()
        await tab.send("cancel", run=started["run"], ref="c")
        run = await tab.until(type="run")
        assert run["state"] == "cancelled"


async def test_a_running_one_is_asked(begun):
    cookie = anonymous()
    hand = await begun(owner_of(cookie))
    async with Tab(cookie=cookie) as tab, Tab(cookie=cookie) as asker:
        await tab.watch(hand.run)
        await asker.send("cancel", run=hand.run)
        assert (await asker.next())["state"] == "cancelling"
        assert (await tab.next())["state"] == "cancelling"


async def test_only_what_checkpoints_can_be_paused(begun):
    cookie = anonymous()
    hand = await begun(owner_of(cookie))
    async with Tab(cookie=cookie) as tab:
        await tab.send("pause", run=hand.run, ref="p")
        assert (await tab.next())["code"] == "invalid"
        await tab.send("resume", run=hand.run, ref="r")
        assert (await tab.next())["state"] == "running"


async def test_a_lease_nobody_holds_cannot_be_forced(begun):
    cookie = anonymous()
    hand = await begun(owner_of(cookie))
    async with Tab(cookie=cookie) as tab:
        await tab.send("cancel", run=hand.run, force=True, ref="f")
        assert (await tab.until(ref="f"))["type"] == "error"


@pytest.mark.parametrize("action", ["cancel", "pause", "resume"])
async def test_a_stranger_cannot_ask(begun, action):
    hand = await begun("u:1")
    async with Tab(cookie=anonymous()) as tab:
        await tab.send(action, run=hand.run, ref="w")
        assert await tab.next() == REFUSAL
        await tab.send(action, run=str(uuid.uuid4()), ref="w")
        assert await tab.next() == REFUSAL


# -- Frames


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "7",
        '{"action":"nope"}',
        '{"action":[]}',
        "{}",
        '{"a":NaN}',
        "[" * 9999,
    ],
)
async def test_a_wrong_frame_is_malformed_and_the_socket_goes_on(site, text):
    async with Tab(cookie=anonymous()) as tab:
        await tab.socket.send_to(text_data=text)
        error = await tab.next()
        assert (error["type"], error["code"]) == ("error", "malformed")
        await tab.start()


async def test_a_frame_that_breaks_us_is_answered_and_logged(site, monkeypatch, caplog):
    def broken(*args, **kwargs):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(runs, "submit", broken)
    async with Tab(cookie=anonymous()) as tab:
        await tab.send("start", task="gen_random", ref=1)
        error = await tab.next()
        assert (error["code"], error["ref"]) == ("unavailable", 1)
        assert "secret" not in json.dumps(error)
        assert "ZeroDivisionError" in caplog.text
        await tab.send("unwatch", run="a")
        assert await tab.silent()


async def test_bytes_close_with_1003(site):
    async with Tab() as tab:
        await tab.socket.send_to(bytes_data=b"x")
        assert await tab.closed() == 1003


@pytest.mark.parametrize("text", ["x" * 16385, "é" * 8193])
async def test_a_frame_that_is_too_large_closes_with_1009(site, text):
    async with Tab() as tab:
        await tab.socket.send_to(text_data=text)
        await tab.send("unwatch", run="a")
        assert await tab.closed() == 1009


async def test_the_largest_frame_is_let_through(site):
    async with Tab() as tab:
        await tab.socket.send_to(text_data="é" * 8192)
        assert (await tab.next())["code"] == "malformed"


async def test_too_many_frames_are_told_then_closed(site, configure):
    configure(FRAME_BURST=5, FRAMES_PER_SECOND=0.001)
    async with Tab() as tab:
        for ref in range(10):
            await tab.send("unwatch", run="a", ref=ref)
        for _ in range(5, 10):
            assert (await tab.next())["code"] == "too_many"
        await tab.send("unwatch", run="a")
        assert await tab.closed() == 1008


# -- The socket


async def test_a_beat_comes_when_nothing_else_does(site, configure):
    configure(BEAT_INTERVAL=0.1)
    async with Tab() as tab:
        assert await tab.socket.receive_json_from() == {"type": "beat"}


async def test_who_signs_out_is_shown_out(begun, configure):
    configure(SESSION_INTERVAL=0.1)
    user = await User.objects.acreate(username="ann")
    hand = await begun(f"u:{user.pk}")
    async with Tab(cookie=await cookie_of(user)) as tab:
        assert (await tab.watch(hand.run))["state"] == "running"
        await sign_out_everybody()
        assert await tab.closed() == 4401


async def sign_out_everybody():
    await Session.objects.all().adelete()


async def test_who_may_no_longer_watch_is_told(begun, configure):
    hand, cookie = await begun("u:1"), anonymous()
    token = access.token(access.Viewer((owner_of(cookie),)), hand.run)
    configure(SESSION_INTERVAL=0.1)
    async with Tab(cookie=cookie) as tab:
        await tab.watch(hand.run, token)
        configure(SESSION_INTERVAL=0.1, TOKEN_MAX_AGE=-1)
        assert await tab.next() == REFUSAL
        await hand.tell(hand.report(50))
        assert await tab.silent()


async def test_a_foreign_page_cannot_open_it(site):
    for origin in (None, b"http://evil.example"):
        tab = Tab(origin=origin)
        opened, _ = await tab.socket.connect()
        assert not opened


async def test_another_address_is_refused(site):
    opened, _ = await Tab("/ws/nope/").socket.connect()
    assert not opened


async def test_a_socket_that_is_dropped_ends_and_leaves_nothing(begun):
    cookie = anonymous()
    hand = await begun(owner_of(cookie))
    tab = Tab(cookie=cookie)
    await tab.socket.connect()
    await tab.watch(hand.run)
    (seat,) = (s for slot in watch.current()._slots for s in slot)
    seat.outbox.drop("the test says so")
    await tab.socket.wait()
    gauges = watch.current().gauges()
    assert (gauges["open"], gauges["watched"]) == (0, 0)


async def test_a_cancelled_server_task_leaves_nothing(begun):
    cookie = anonymous()
    hand = await begun(owner_of(cookie))
    tab = Tab(cookie=cookie)
    await tab.socket.connect()
    await tab.watch(hand.run)
    tab.socket.future.cancel()
    await tab.socket.wait()
    gauges = watch.current().gauges()
    assert (gauges["open"], gauges["watched"]) == (0, 0)


async def test_no_task_is_left_working(site):
    async with Tab(cookie=anonymous()) as tab:
        await tab.start()
    assert not consumers._working


# -- `/ws/start/<task>/`


async def test_connecting_starts_and_the_end_closes(site):
    async with Tab("/ws/start/gen_random/?speed=5&key=k", anonymous()) as tab:
        started, queued = await tab.next(), await tab.next()
        assert (started["type"], queued["state"]) == ("started", "queued")
        hand = Hand(started["run"])
        await hand.tell(hand.begin())
        assert (await tab.until(state="running"))["run"] == started["run"]
        await hand.tell(hand.end())
        assert await tab.closed() == 1000
        assert tab.seen[-1]["state"] == "succeeded"


async def test_connecting_to_a_run_that_has_ended_shows_its_end(begun):
    cookie = anonymous()
    async with Tab(cookie=cookie) as tab:
        started, _ = await tab.start(key="k")
        hand = Hand(started["run"])
        hand.begin()
        hand.end()
    async with Tab("/ws/start/gen_random/?key=k", cookie) as tab:
        assert await tab.closed() == 1000
        assert [m["type"] for m in tab.seen] == ["started", "run"]
        assert tab.seen[0]["run"] == started["run"]


@pytest.mark.parametrize(
    ("path", "code", "close"),
    [
        ("gen_random/?speed=abc", "invalid", 4400),
        ("gen_random/?speed=%ff%00", "invalid", 4400),
        ("nope/", "invalid", 4400),
        ("import_rows/", "invalid", 4400),
        ("gen_random/?key=" + "k" * 201, "invalid", 4400),
        ("gen_random/?" + "&".join(f"a{n}=1" for n in range(1001)), "malformed", 4400),
    ],
)
async def test_a_start_that_fails_says_why_and_closes(site, path, code, close):
    async with Tab(f"/ws/start/{path}", anonymous()) as tab:
        assert await tab.closed() == close
        assert [m["code"] for m in tab.seen] == [code]


async def test_a_start_without_a_cookie_is_forbidden(site):
    async with Tab("/ws/start/gen_random/") as tab:
        assert await tab.closed() == 4403
        assert tab.seen[0]["code"] == "forbidden"


async def test_a_start_that_came_too_often_may_come_back(site, configure):
    configure(STARTS_PER_MINUTE=0)
    async with Tab("/ws/start/gen_random/", anonymous()) as tab:
        assert await tab.closed() == 1013
        assert tab.seen[0]["code"] == "too_many"


async def test_a_start_that_breaks_us_may_come_back(site, monkeypatch):
    monkeypatch.delattr(runs, "submit")
    async with Tab("/ws/start/gen_random/", anonymous()) as tab:
        assert await tab.closed() == 1013
        assert tab.seen[0]["code"] == "unavailable"
