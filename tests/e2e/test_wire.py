"""The wire as a stranger's client meets it: real daphne, worker and Valkey."""

import asyncio
import contextlib
import itertools
import time
import uuid

import pytest
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.uri import parse_uri

from tests.client import Visitor


def percents(envelopes):
    return [e["percent"] for e in envelopes if e["percent"] is not None]


def never_falls(numbers):
    return all(a <= b for a, b in itertools.pairwise(numbers))


def order(envelope):
    return envelope["epoch"], envelope["rev"]


# --- The one-button socket -----------------------------------------------------------


async def test_one_button_starts_shows_and_closes(visitor):
    async with visitor.socket("/ws/start/gen_random/?speed=50") as socket:
        assert await socket.until_closed() == 1000
    assert socket.seen[0]["type"] == "started"
    run = socket.seen[0]["run"]
    envelopes = socket.runs()
    assert {e["run"] for e in envelopes} == {run}
    assert len(envelopes) >= 5
    assert never_falls(percents(envelopes))
    assert socket.seen[-1]["state"] == "succeeded"
    assert socket.seen[-1]["percent"] == 100
    assert 100 not in percents([e for e in envelopes if e["state"] != "succeeded"])


async def test_who_answers_a_close_late_is_not_cut_off(visitor):
    """As on a slow line, where the end of the run would still be on its way."""
    url = parse_uri(f"{visitor.ws_url}/ws/start/gen_random/?speed=1000")
    client = ClientProtocol(url, origin=visitor.url)
    request = client.connect()
    request.headers["Cookie"] = visitor.cookie
    client.send_request(request)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.writelines(client.data_to_send())
    while client.close_rcvd is None:
        data = await reader.read(4096)
        assert data, "closed without a close frame"
        client.receive_data(data)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(), 2.5)
    assert client.close_rcvd.code == 1000
    writer.writelines(client.data_to_send())
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/ws/start/gen_random/?speed=abc", "invalid"),
        ("/ws/start/gen_random/?speed=0.4", "invalid"),
        ("/ws/start/no_such_task/", "invalid"),
    ],
)
async def test_one_button_says_what_is_wrong_and_closes_for_good(visitor, path, code):
    async with visitor.socket(path) as socket:
        assert await socket.until_closed() == 4400
    assert [m["type"] for m in socket.seen] == ["error"]
    assert socket.seen[0]["code"] == code


async def test_one_button_with_the_same_key_is_the_same_run(visitor):
    path = f"/ws/start/gen_random/?speed=200&key={uuid.uuid4().hex}"
    async with visitor.socket(path) as first, visitor.socket(path) as second:
        assert (await first.next("started"))["run"] == (await second.next("started"))[
            "run"
        ]
        assert await first.until_closed() == await second.until_closed() == 1000
    assert first.seen[-1]["state"] == second.seen[-1]["state"] == "succeeded"


# --- One socket for any number of runs -----------------------------------------------


async def test_a_run_on_the_socket_that_stays_open(visitor):
    async with visitor.socket() as socket:
        started = await socket.start("fft_random", {"n": 50_000})
        last = await socket.until_finished(started["run"])
        assert last["state"] == "succeeded"
        assert (last["percent"], last["current"], last["total"]) == (
            100,
            50_000,
            50_000,
        )
        envelopes = socket.runs(started["run"])
        assert len(envelopes) >= 5
        assert never_falls(percents(envelopes))
        assert never_falls([e["rev"] for e in envelopes])
        assert socket.seen.index(started) < socket.seen.index(envelopes[0])
        again = await socket.watch(started["run"], started["token"])
        assert order(again) == order(last)


async def test_the_same_key_twice_is_the_same_run(visitor):
    key = uuid.uuid4().hex
    async with visitor.socket() as socket:
        first = await socket.start("gen_random", {"speed": 100}, key)
        second = await socket.start("gen_random", {"speed": 100}, key)
        assert first["type"] == second["type"] == "started"
        assert first["run"] == second["run"]
        await socket.until_finished(first["run"])
        third = await socket.start("gen_random", {"speed": 100}, key)
        assert third["run"] == first["run"]
        snapshot = await socket.next("run")
        assert (snapshot["run"], snapshot["state"]) == (first["run"], "succeeded")


async def test_a_second_client_joins_in_the_middle(visitor):
    async with visitor.socket() as socket, visitor.socket() as other:
        started = await socket.start("gen_random", {"speed": 30})
        await socket.until(lambda m: (m.get("percent") or 0) >= 30)
        before = time.monotonic()
        snapshot = await other.watch(started["run"], started["token"])
        assert time.monotonic() - before < 0.5  # 0.1 s on a machine with nothing to do
        assert snapshot["type"] == "run"
        assert snapshot["percent"] >= 3
        last = await socket.until_finished(started["run"])
        assert order(await other.until_finished(started["run"])) == order(last)


async def test_a_stranger_with_a_run_id_learns_nothing(visitor, stranger):
    async with visitor.socket() as mine, stranger.socket() as theirs:
        started = await mine.start("gen_random", {"speed": 100})
        run, nowhere = started["run"], str(uuid.uuid4())
        answers = [
            await theirs.watch(run),
            await theirs.watch(nowhere),
            # The token was made for another viewer.
            await theirs.watch(run, started["token"]),
        ]
        assert {a["code"] for a in answers} == {"forbidden"}
        answers = [{k: v for k, v in a.items() if k != "ref"} for a in answers]
        assert answers[0] == answers[1] == answers[2]
        assert run not in str(answers[0])
        await theirs.send("cancel", run=run)
        assert (await theirs.next("error"))["code"] == "forbidden"
        assert (await mine.until_finished(run))["state"] == "succeeded"
    owned, missing = await stranger.run(run), await stranger.run(nowhere)
    assert owned.status_code == missing.status_code
    assert owned.content == missing.content


@pytest.mark.parametrize(
    "origin", [None, "null", "http://evil.example", "http://127.0.0.1:1"]
)
@pytest.mark.parametrize("path", ["/ws/progress/", "/ws/start/gen_random/"])
async def test_a_foreign_or_missing_origin_is_refused(visitor, path, origin):
    with pytest.raises(InvalidStatus) as refused:
        async with visitor.socket(path, origin=origin):
            pass
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("not json", "malformed"),
        ("[]", "malformed"),
        ('"start"', "malformed"),
        ("{}", "malformed"),
        ('{"action": "dance"}', "malformed"),
        ('{"action": "watch", "run": 7}', "forbidden"),
        ('{"action": "start", "task": "nothing"}', "invalid"),
        ('{"action": "start", "task": "fft_random", "params": []}', "invalid"),
    ],
)
async def test_a_wrong_frame_is_answered_and_the_socket_goes_on(visitor, frame, code):
    async with visitor.socket() as socket:
        await socket.connection.send(frame)
        error = await socket.next("error")
        assert error["code"] == code
        assert error["message"]
        started = await socket.start("gen_random", {"speed": 1000})
        assert started["type"] == "started"


@pytest.mark.parametrize("n", ["abc", 0, 10**9, None, 1.5, "", {}])
async def test_a_wrong_parameter_is_named(visitor, n):
    async with visitor.socket() as socket:
        error = await socket.start("fft_random", {"n": n})
        assert (error["type"], error["code"]) == ("error", "invalid")
        assert list(error["errors"]) == ["n"]


async def test_a_frame_of_10_mb_closes_only_its_socket(visitor):
    async with visitor.socket() as neighbour:
        started = await neighbour.start("gen_random", {"speed": 50})
        async with visitor.socket() as socket:
            await socket.connection.send("x" * 10_000_000)
            assert await socket.until_closed() in {1006, 1009, 4400}
        assert (await neighbour.until_finished(started["run"]))["state"] == "succeeded"


async def test_two_hundred_runs_at_once_each_end_for_their_viewer(stack):
    async def one(visitor):
        async with visitor.socket("/ws/start/gen_random/?speed=1000") as socket:
            assert await socket.until_closed(timeout=180) == 1000
            return socket

    visitors = [await Visitor(stack.url).arrive() for _ in range(4)]
    sockets = await asyncio.gather(*(one(v) for v in visitors * 50))
    for visitor in visitors:
        await visitor.aclose()
    assert {s.seen[-1]["state"] for s in sockets} == {"succeeded"}
    assert len({s.seen[-1]["run"] for s in sockets}) == 200
    assert all(len({m["run"] for m in s.runs()}) == 1 for s in sockets)


# --- The same over HTTP --------------------------------------------------------------


async def test_the_http_twin_tells_the_same(visitor):
    async with visitor.socket() as socket:
        started = await socket.start("gen_random", {"speed": 500})
        last = await socket.until_finished(started["run"])
    response = await visitor.run(started["run"])
    assert response.status_code == 200
    envelope = response.json()
    moving = {"now"}
    assert {k: v for k, v in envelope.items() if k not in moving} == {
        k: v for k, v in last.items() if k not in moving
    }
    assert response.headers["etag"]


async def test_an_upload_of_300_mb_is_refused_in_words(visitor, stack, tmp_path):
    table = tmp_path / "large.csv"
    with table.open("w+b") as file:
        file.truncate(300 * 2**20)
        form = {"csrfmiddlewaretoken": visitor.http.cookies["csrftoken"]}
        response = await visitor.http.post(
            "/progress/start/import_rows/",
            data=form,
            files={"file": ("large.csv", file, "text/csv")},
            headers={"Origin": visitor.url},
        )
    assert response.status_code == 400
    assert list(response.json()["errors"]) == ["file"]
    assert "300 MB" in response.json()["message"]
    # daphne would hold the body once more, Twisted twelve times.
    assert stack.web.peak_memory() < 300


async def test_health_names_each_part(visitor):
    response = await visitor.http.get("/healthz")
    assert response.status_code == 200
    assert set(response.json()) >= {"web", "store", "broker"}


async def test_pages_carry_a_strict_policy(visitor):
    response = await visitor.http.get("/")
    policy = response.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert response.headers["x-frame-options"] == "DENY"
    assert response.headers["x-content-type-options"] == "nosniff"
