"""The modules without a page's help: each a short fact, asserted where it runs."""

import pytest
import pytest_asyncio

NOW = 1_763_700_000_000  # ms


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def call(browser, shared_stack):
    """`await call(module, function, *values)`: the function gets the module first."""
    page = await browser.new_page(base_url=shared_stack.url)
    await page.goto("/")

    async def run(module, function, *values):
        return await page.evaluate(
            f"async ([url, ...values]) => ({function})(await import(url), ...values)",
            [f"/static/channels_progress/{module}.js", *values],
        )

    return run


SNAPSHOT = """({Snapshot}, mine, theirs) => new Snapshot({now: 5, ...mine}).supersedes(
  theirs && new Snapshot({now: 5, ...theirs}))"""


@pytest.mark.parametrize(
    ("mine", "theirs", "news"),
    [
        ({"epoch": "a", "rev": 1}, None, True),
        ({"epoch": "a", "rev": 2}, {"epoch": "a", "rev": 1}, True),
        ({"epoch": "a", "rev": 1}, {"epoch": "a", "rev": 2}, False),
        ({"epoch": "b", "rev": 1}, {"epoch": "a", "rev": 9}, True),
        ({"epoch": "a", "rev": 1, "state": "lost"}, {"epoch": "a", "rev": 1}, True),
        ({"epoch": "a", "rev": 1, "now": 4}, {"epoch": "a", "rev": 1}, False),
    ],
)
async def test_nothing_older_replaces_what_is_shown(call, mine, theirs, news):
    assert await call("snapshot", SNAPSHOT, mine, theirs) is news


async def test_ages_do_not_depend_on_the_pages_clock(call):
    age = await call(
        "snapshot",
        "({Snapshot}, e) => new Snapshot(e, performance.now() - 2000).age('seen')",
        {"now": NOW, "seen": NOW - 3000},
    )
    assert age == pytest.approx(5, abs=0.2)


async def test_delays_grow_to_4_s_in_the_first_minute_and_to_30_s_later(call):
    caps = await call(
        "backoff",
        """({Backoff}) => {
          const random = Math.random;
          Math.random = () => 1;
          const backoff = new Backoff();
          const delays = [0, 1, 2, 3, 59000, 61000, 62000, 63000].map(
            (t) => backoff.next(t));
          backoff.reset();
          delays.push(backoff.next(64000));
          Math.random = () => 0.25;
          delays.push(backoff.next(64001));
          Math.random = random;
          return delays;
        }""",
    )
    assert caps == [500, 1000, 2000, 4000, 4000, 8000, 16000, 30000, 500, 250]


# A Connection, in a page of which only the sockets and the clock are not real: how long
# it waits before each of so many times that it comes back, and how often it knocks.
BREAK = """async ({Connection}, { frame, times, hidden = false, waited = false }) => {
  const { stayAwake } = await import("/static/channels_progress/hidden.js");
  const { WebSocket, setTimeout } = window;
  const { random } = Math;
  const sockets = [];
  const delays = [];
  let again;
  window.WebSocket = class { constructor() { sockets.push(this); } close() {} };
  window.setTimeout = (what, ms) => { again = what; delays.push(ms); };
  Math.random = () => 1;
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  stayAwake(() => waited);
  const nothing = () => {};
  const on = { open: nothing, frame: nothing, down: nothing, ask: nothing };
  const connection = new Connection("/", on);
  connection.start();
  for (let i = 0; i < times; i++) {
    const socket = sockets.at(-1);
    socket.onopen();
    socket.onmessage({ data: JSON.stringify(frame) });
    socket.onclose({ code: 1013 });
    again();
  }
  connection.stop();
  stayAwake(() => false);
  delete document.hidden;
  Math.random = random;
  Object.assign(window, { WebSocket, setTimeout });
  return [delays, sockets.length];
}"""


@pytest.mark.parametrize(
    ("kind", "delays"), [("beat", [500, 500, 500]), ("error", [500, 1000, 2000])]
)
async def test_who_is_refused_again_and_again_comes_back_less_often(call, kind, delays):
    options = {"frame": {"type": kind}, "times": 3}
    assert await call("connection", BREAK, options) == [delays, 4]


@pytest.mark.parametrize(("waited", "knocks"), [(False, 1), (True, 2)])
async def test_a_hidden_page_comes_back_only_if_somebody_waits_for_its_word(
    call, waited, knocks
):
    options = {"frame": {"type": "beat"}, "times": 1, "hidden": True, "waited": waited}
    assert await call("connection", BREAK, options) == [[500], knocks]


PAINTED = """({Hub}) => {
  const hub = new Hub("/ws/progress/");
  const painted = [];
  const stops = ["a", "b"].map((run) => hub.watch(run, { src: "/" }, {
    snapshot: () => painted.push(`${run}: snapshot`),
    paint: () => painted.push(`${run}: paint`),
  }));
  painted.length = 0;
  hub.receive({ type: "run", run: "a", state: "running" });
  hub.receive({ type: "error", code: "unavailable", run: "b" });
  for (const stop of stops) stop();
  return [...painted];
}"""


async def test_news_of_one_run_paint_no_other(call):
    assert await call("hub", PAINTED) == ["a: snapshot", "b: paint"]


CARRIED = """({Hub}) => {
  const hub = new Hub("/ws/progress/");
  const sent = [];
  hub.carry("a", { open: true, send: ({ action, run }) => sent.push([action, run]) });
  const nothing = () => {};
  const stop = hub.watch("a", { src: "/" }, { snapshot: nothing, paint: nothing });
  const before = [...sent];
  const links = [hub.link("a")];
  hub.receive({ type: "error", code: "unavailable", run: "a" });
  links.push(hub.link("a"));
  const asked = ["a", "b"].map((run) => hub.ask(run));
  stop();
  hub.carry("a", null);
  return { before, links, asked, sent };
}"""


async def test_a_run_is_asked_for_on_the_socket_that_brings_it(call):
    assert await call("hub", CARRIED) == {
        "before": [],  # it comes by itself
        "links": ["live", "unavailable"],
        "asked": [True, False],
        "sent": [["watch", "a"]],
    }


COUNTDOWN = """({Countdown}, estimates) => {
  const countdown = new Countdown();
  return estimates.map(([at, seconds]) => {
    if (seconds !== "") countdown.estimate(seconds, at * 1000);
    return countdown.read(at * 1000);
  });
}"""


async def test_time_remaining_counts_down_between_estimates(call):
    shown = await call("countdown", COUNTDOWN, [[0, 8], [1, ""], [2, ""], [7.9, ""]])
    assert shown == [8, 7, 6, 1]


async def test_time_remaining_does_not_jump_with_each_estimate(call):
    estimates = [[0, 40], [1, 42], [2, 37], [3, 41], [4, 36], [5, 38]]
    shown = await call("countdown", COUNTDOWN, estimates)
    assert shown == sorted(shown, reverse=True)


async def test_a_very_different_estimate_is_believed_at_once(call):
    assert await call("countdown", COUNTDOWN, [[0, 40], [1, 400]]) == [40, 405]


async def test_no_estimate_no_time_remaining(call):
    assert await call("countdown", COUNTDOWN, [[0, None], [1, 9], [2, None]]) == [
        None,
        9,
        None,
    ]


LINE = """async ({line}, envelope, link, asked, held = 0) => {
  const { Snapshot } = await import("/static/channels_progress/snapshot.js");
  const snapshot = envelope && new Snapshot(envelope, performance.now() - held * 1000);
  return line(snapshot, link, asked)?.[0] ?? null;
}"""
FRESH = {"now": NOW, "seen": NOW, "changed": NOW, "queued": NOW - 60_000}


@pytest.mark.parametrize(
    ("name", "link", "fields"),
    [
        (None, "live", {"state": "running"}),
        (None, "polling", {"state": "running"}),
        (None, "offline", {"state": "succeeded"}),
        ("line.offline", "offline", {"state": "running"}),
        ("line.unreachable", "unreachable", {"state": "running"}),
        ("line.unavailable", "unavailable", {"state": "running"}),
        ("line.signed-out", "signed-out", {"state": "running"}),
        ("line.refused", "refused", {"state": "running"}),
        ("line.queued", "live", {"state": "queued"}),
        (None, "live", {"state": "queued", "queued": NOW - 1000}),
        ("line.silent", "live", {"state": "running", "seen": NOW - 6000}),
        ("line.slow", "live", {"state": "running", "changed": NOW - 11_000}),
        ("line.lost", "live", {"state": "lost", "seen": NOW - 31_000}),
        ("line.retry.in", "live", {"reason": "retry", "due": NOW + 5000}),
        ("line.retry", "live", {"reason": "retry", "due": NOW - 5000}),
        ("line.poll", "live", {"reason": "poll", "due": None}),
        ("line.poll", "live", {"reason": "poll", "due": NOW + 1000}),
        ("line.poll.in", "live", {"reason": "poll", "due": NOW + 9000}),
        ("line.redelivery", "live", {"reason": None, "due": None}),
        (None, "live", {"reason": "of a later version"}),
        ("line.paused", "live", {"state": "paused"}),
        ("line.pausing", "live", {"state": "running", "asked": "pause"}),
        ("line.cancelling", "live", {"state": "cancelling"}),
    ],
)
async def test_silence_has_a_reason(call, name, link, fields):
    envelope = {**FRESH, "state": "waiting", **fields}
    assert await call("line", LINE, envelope, link, 0) == name


async def test_a_worker_is_not_called_silent_because_the_server_was_not_asked(call):
    envelope = {**FRESH, "state": "running", "seen": NOW - 2000}
    assert await call("line", LINE, envelope, "live", 0, 6) is None


async def test_a_cancel_without_an_answer_says_so(call):
    envelope = {**FRESH, "state": "cancelling"}
    assert await call("line", LINE, envelope, "live", 11) == "line.unanswered"


STEADY = """async ({Steady}, moments) => {
  const { Snapshot } = await import("/static/channels_progress/snapshot.js");
  const clock = performance.now;
  const steady = new Steady();
  const shown = moments.map(([ms, envelope]) => {
    performance.now = () => ms;
    return steady.of(new Snapshot(envelope)).envelope.state;
  });
  performance.now = clock;
  return shown;
}"""
RUNNING = {"state": "running"}
POLL = {"state": "waiting", "reason": "poll"}


@pytest.mark.parametrize(
    ("moments", "shown"),
    [
        ([[0, POLL], [500, RUNNING], [1500, POLL], [3000, RUNNING]], ["waiting"] * 4),
        ([[0, POLL], [500, RUNNING], [2500, RUNNING]], ["waiting"] * 2 + ["running"]),
        ([[0, POLL], [500, {**RUNNING, "asked": "pause"}]], ["waiting", "running"]),
        ([[0, {**POLL, "reason": "retry"}], [500, RUNNING]], ["waiting", "running"]),
    ],
)
async def test_a_question_to_another_service_is_no_change(call, moments, shown):
    assert await call("steady", STEADY, moments) == shown


WORDING = """({Wording}, method, ...values) => new Wording()[method](...values)"""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.9, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (260, "4 min 20 s"),
        (3900, "1 h 5 min"),
        (7200, "2 h"),
        (183_600, "2 d 3 h"),
    ],
)
async def test_durations_have_two_units_at_most(call, seconds, text):
    assert await call("wording", WORDING, "duration", seconds) == text


@pytest.mark.parametrize(
    ("current", "total", "text"),
    [
        (0, None, ""),
        (1, None, "1 row"),
        (1840, None, "1,840 rows"),
        (4200, 10_000, "4,200 of 10,000 rows"),
        (0, 1, "0 of 1 row"),
        (12, 10, "12, where 10 rows were expected"),
    ],
)
async def test_the_count_says_what_it_counts(call, current, total, text):
    envelope = {"current": current, "total": total, "unit": "row"}
    assert await call("wording", WORDING, "count", envelope) == text


async def test_a_unit_that_the_page_does_not_know_is_shown_all_the_same(call):
    assert await call("wording", WORDING, "unit", "parsec", 3) == "parsecs"


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (None, ""),
        (812.34, "812 rows per second"),
        (0.25, "15 rows per minute"),
    ],
)
async def test_a_rate_has_three_digits(call, rate, text):
    assert await call("wording", WORDING, "rate", {"rate": rate, "unit": "row"}) == text


MILESTONE = "({milestone}, before, after) => milestone(before, after)"


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        (None, {"state": "running", "percent": 50}, None),
        ({"state": "queued"}, {"state": "running"}, "state"),
        (
            {"state": "running", "percent": 10},
            {"state": "running", "percent": 24},
            None,
        ),
        (
            {"state": "running", "percent": 24},
            {"state": "running", "percent": 25},
            "percent",
        ),
        (
            {"state": "waiting", "percent": 24},
            {"state": "waiting", "percent": 25},
            "percent",
        ),
        ({"state": "running"}, {"state": "lost"}, "state"),
        ({"state": "lost"}, {"state": "running"}, "state"),
        ({"state": "waiting", "attempt": 1}, {"state": "running", "attempt": 1}, None),
        ({"state": "running"}, {"state": "succeeded", "percent": 100}, "state"),
    ],
)
async def test_only_milestones_are_announced(call, before, after, what):
    assert await call("announcer", MILESTONE, before, after) == what
