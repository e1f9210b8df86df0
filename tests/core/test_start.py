"""Starting a run: a row, a hash, a message; or none of them."""

import socket
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from django import forms
from django.contrib.auth.models import AnonymousUser, User
from django.db import connection, transaction
from django.utils import timezone
from kombu import Producer
from kombu.exceptions import OperationalError

from CeleryProgressbar.celery import app
from channels_progress import publish, runs, start
from channels_progress.errors import Invalid, TooMany, Unavailable
from channels_progress.models import Run
from tests.core import tasks
from tests.core.conftest import before_the_row_is_written, set_intervals, until
from tests.core.hand import Hand
from tests.ports import free_port

NOBODY_LISTENS = f"redis://127.0.0.1:{free_port()}/0"


@pytest.fixture
def broker(monkeypatch):
    """`broker(url)` is where the web publishes from now on."""

    def use(url):
        monkeypatch.setattr(app.conf, "broker_write_url", url)
        publish.connection.cache_clear()

    yield use
    monkeypatch.undo()
    publish.connection.cache_clear()


@pytest.fixture
def quiet(store, broker, valkey, transactional_db):
    """Messages go where no worker listens: another database of the same server."""
    url = valkey.url.replace("/0", "/9")
    broker(url)
    other = type(store)(url, "none")
    other.client.flushdb()

    def published():
        return other.client.llen("celery")

    yield published
    other.close()


@pytest.fixture
def store_down(settings):
    """Nobody listens where the store should be."""
    return lambda: set_intervals(settings, REDIS_URL=NOBODY_LISTENS)


@pytest.fixture(autouse=True)
def own_keys():
    """The same key is the same run, also in the next test."""
    OWN["k"] = uuid.uuid4().hex


OWN = {}


def begin(title="", owner="starter", key=None, **options):
    options["key"] = OWN.get(key)
    return runs.start(tasks.late, {"body": "?"}, owner=owner, title=title, **options)


def rows():
    return Run.objects.filter(owner="starter")


def age(run, milliseconds):
    """As if the run had last changed so long ago."""
    hand = Hand(start.get_store(), run)
    changed = int(hand.field("changed")) - milliseconds
    hand.store.client.hset(hand.key, "changed", changed)
    return hand


# -- One start --------------------------------------------------------------------


def test_a_start_makes_a_row_a_hash_and_a_message(quiet):
    started = begin("Reading")
    row = Run.objects.get(pk=started.run)
    assert (row.task, row.owner, row.title) == ("core.late", "starter", "Reading")
    assert (row.kwargs, row.state, row.ended) == ({"body": "?"}, "", None)
    assert started.snapshot.state == "queued"
    assert started.snapshot.owner == "starter"
    assert started.snapshot.as_dict()["attempts"] == 4
    assert started.new
    assert quiet() == 1


def test_a_start_is_one_structured_line_in_the_log(quiet, caplog):
    caplog.set_level("INFO", "channels_progress")
    run = begin(key="k").run
    begin(key="k")
    lines = [r.progress for r in caplog.records if hasattr(r, "progress")]
    assert [(line["run"], line["from"], line["to"]) for line in lines] == [
        (run, "", "queued")
    ]


def test_what_is_started_runs(play):
    done = threading.Event()
    until(play(lambda task: done.set()), "succeeded")
    assert done.is_set()


def test_two_starts_are_two_runs(quiet):
    assert begin().run != begin().run
    assert quiet() == 2


def test_a_long_title_is_cut(quiet):
    started = begin("x" * 1000)
    assert len(started.snapshot.as_dict()["title"]) == 200


def test_an_odd_title_is_legible(quiet):
    assert begin("a\x00\ud800").snapshot.as_dict()["title"] == "a�?"


def test_a_user_may_be_the_owner(quiet):
    user = User(pk=7)
    assert Run.objects.get(pk=begin(owner=user).run).owner == f"u:{user.pk}"


@pytest.mark.parametrize("nobody", ["", AnonymousUser(), "x" * 129])
def test_a_run_has_an_owner(quiet, nobody):
    with pytest.raises(ValueError, match="names no owner"):
        begin(owner=nobody)
    assert not rows().exists()


def test_inside_a_transaction_it_is_published_on_commit(quiet):
    with transaction.atomic():
        started = begin()
        assert started.snapshot.shown == "queued"
        assert quiet() == 0
    assert quiet() == 1
    assert runs.get(started.run).state == "queued"


def test_a_transaction_that_is_rolled_back_starts_nothing(quiet, store):
    with transaction.atomic():
        started = begin()
        transaction.set_rollback(True)
    assert quiet() == 0
    assert not rows().exists()
    assert store.read([started.run]) == {}


# -- The same key -----------------------------------------------------------------


def test_the_same_key_is_the_same_run(quiet):
    one, other = begin(key="k"), begin(key="k")
    assert one.run == other.run
    assert (one.new, other.new) == (True, False)
    assert quiet() == 1


def test_an_empty_key_is_none(quiet):
    body = {"body": "?"}
    one, other = (
        runs.start(tasks.late, body, owner="starter", key="") for _ in range(2)
    )
    assert one.run != other.run


def test_another_owners_key_is_another_run(quiet):
    assert begin(key="k").run != begin(key="k", owner="another").run


def test_a_double_click_is_one_run(quiet):
    def click(_):
        try:
            return begin(key="k").run
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(click, range(8)))) == 1
    assert rows().count() == 1


def test_a_double_click_runs_once(play):
    begun = []
    name = tasks.kwargs_of(begun.append)
    run = play(lambda task: None)  # the worker is there

    def click(_):
        try:
            return runs.start(tasks.late, name, owner="player", key=OWN["k"]).run
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        (same,) = set(pool.map(click, range(8)))
    until(same, "succeeded")
    until(run, "succeeded")
    assert len(begun) == 1


def test_what_is_queued_for_3_s_is_published_once_more_by_its_key(quiet):
    run = begin(key="k").run
    age(run, 2000)
    begin(key="k")
    assert quiet() == 1
    age(run, 3001)
    begin(key="k")
    assert quiet() == 2


def test_what_has_ended_in_an_outage_is_not_published_again(quiet):
    """Its body was mute, and the store is still to hear of its end."""
    run = begin(key="k").run
    age(run, 3001)
    end = timezone.now()
    Run.objects.filter(pk=run).update(state="failed", ended=end, document={"early": 1})
    begin(key="k")
    assert quiet() == 1


def test_what_has_begun_is_not_published_again(quiet):
    run = begin(key="k").run
    age(run, 5000).begin()
    assert begin(key="k").snapshot.state == "running"
    assert quiet() == 1


def test_a_key_finds_its_finished_run(quiet, store):
    run = begin(key="k").run
    hand = Hand(store, run)
    hand.begin()
    hand.end(hand.stored.lease, 1)
    assert begin(key="k").snapshot.state == "succeeded"
    assert quiet() == 1


def test_the_web_that_died_before_the_store_knew_is_made_up_for(quiet, store):
    run = begin(key="k").run
    Hand(store, run).lose()
    started = begin(key="k")
    assert (started.run, started.snapshot.state) == (run, "queued")
    assert quiet() == 2


def test_the_web_that_died_before_the_broker_knew_is_made_up_for(quiet, store):
    run = start.run_id("starter", OWN["k"])
    Hand(store, run).create()
    started = begin(key="k")
    assert started.snapshot.state == "queued"
    assert quiet() == 1


# -- What cannot be reached -------------------------------------------------------


def test_without_the_store_nothing_is_started(quiet, store_down):
    store_down()
    with pytest.raises(Unavailable):
        begin()
    assert not rows().exists()
    assert quiet() == 0


def test_a_store_that_dies_in_the_middle_leaves_no_row(quiet, store_down):
    def start_and_lose_the_store():
        with transaction.atomic():
            begin()
            store_down()

    with pytest.raises(Unavailable):
        start_and_lose_the_store()
    assert not rows().exists()


def test_a_store_that_cannot_be_asked_again_keeps_the_row(quiet, store, store_down):
    row = Run.objects.get(pk=begin(key="k").run)
    store_down()
    with pytest.raises(Unavailable):
        begin(key="k")
    with pytest.raises(Unavailable):
        start._launch(row)
    assert rows().exists()


def test_without_the_broker_the_run_is_withdrawn(quiet, broker, store):
    broker(NOBODY_LISTENS)
    with pytest.raises(Unavailable):
        begin(key="k")
    row = Run.objects.get(pk=start.run_id("starter", OWN["k"]))
    assert (row.state, row.document["reason"]) == ("cancelled", "withdrawn")
    assert row.ended
    assert Hand(store, row.pk).begin().code == "cancelled"


def test_what_was_withdrawn_is_started_by_its_key_as_the_next_hop(
    quiet, broker, store, valkey
):
    broker(NOBODY_LISTENS)
    with pytest.raises(Unavailable):
        begin(key="k")
    broker(valkey.url.replace("/0", "/9"))
    started = begin(key="k")
    assert started.snapshot.state == "queued"
    assert started.snapshot.reason is None
    assert quiet() == 1
    row = Run.objects.get(pk=started.run)
    assert (row.state, row.ended, row.hop) == ("", None, 2)
    assert Hand(store, row.pk).begin(hop=1).code == "old"


def test_a_cancel_between_two_tries_of_a_withdrawn_run_stays(quiet, broker, valkey):
    broker(NOBODY_LISTENS)
    with pytest.raises(Unavailable):
        begin(key="k")
    broker(valkey.url.replace("/0", "/9"))
    with before_the_row_is_written(lambda: runs.cancel(begin(key="k").run)):
        again = begin(key="k")
    assert again.snapshot.state == "cancelled"
    row = Run.objects.get(pk=again.run)
    assert (row.state, row.document["reason"]) == ("cancelled", "asked")
    assert quiet() == 1


def test_what_cannot_be_published_once_more_is_unavailable(quiet, broker):
    age(begin(key="k").run, 3001)
    broker(NOBODY_LISTENS)
    with pytest.raises(Unavailable):
        begin(key="k")


def test_what_has_begun_by_then_is_not_withdrawn(quiet, store):
    started = begin()
    row = Run.objects.get(pk=started.run)
    Hand(store, started.run).begin()
    assert not start._withdraw(store, row, 1)
    assert runs.get(started.run).state == "running"


def test_what_cannot_be_withdrawn_is_still_unavailable(quiet, store):
    row = Run.objects.get(pk=begin().run)
    assert start._withdraw(type(store)(NOBODY_LISTENS, "p"), row, 1)


def test_a_result_backend_that_is_down_holds_up_no_start(quiet, monkeypatch):
    monkeypatch.setattr("celery._state._task_join_will_block", False)  # as in the web
    monkeypatch.setattr(app.conf, "result_backend", NOBODY_LISTENS)
    monkeypatch.setattr(app, "_backend_cache", None)
    monkeypatch.setattr(app, "_local", threading.local())
    assert begin().snapshot.state == "queued"


@pytest.fixture
def cut(monkeypatch):
    """Three connections are cut; kombu says of them what it says of RabbitMQ's."""
    send, said = Producer.publish, []

    def publish_or_break(*args, **kwargs):
        if len(said) < 3:
            said.append("Server unexpectedly closed connection")
            raise OperationalError(said[-1])
        return send(*args, **kwargs)

    monkeypatch.setattr(Producer, "publish", publish_or_break)
    return said


def test_connections_that_a_restart_of_rabbitmq_has_cut_refuse_no_start(
    quiet, monkeypatch, cut
):
    monkeypatch.setattr(publish, "_is_amqp", lambda: True)
    assert begin().snapshot.state == "queued"
    assert (quiet(), len(cut)) == (1, 3)


def test_what_redis_says_at_once_is_not_asked_again(quiet, cut):
    """Its connections come back by themselves. And nobody has waited in vain, for whom
    others need not wait."""
    before = publish._failed
    with pytest.raises(Unavailable):
        begin()
    assert (quiet(), len(cut)) == (0, 1)
    assert publish._failed == before


def test_another_broker_waits_no_longer(broker):
    broker("amqp://nobody@127.0.0.1:1//")
    options = publish.connection().transport_options
    assert (options["read_timeout"], options["write_timeout"]) == (2, 2)
    assert options["confirm_publish"]


def test_nobody_waits_twice_for_a_broker_that_hangs(broker):
    """Of many who start at once, most wait for one of a few producers first."""
    row = Run(id=str(uuid.uuid4()), task=tasks.late.name, kwargs={"body": "?"})
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        broker(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        since = time.monotonic()
        with ThreadPoolExecutor(24) as pool:
            publishing = partial(publish.publish, row, hop=1, kind="start", queued=0)
            starts = [pool.submit(publishing) for _ in range(10)]
            time.sleep(publish.PUBLISH_TIMEOUT / 2)  # they are on their way
            starts += [pool.submit(publishing) for _ in range(14)]
    assert all(start.exception() for start in starts)
    assert 1 <= (time.monotonic() - since) / publish.PUBLISH_TIMEOUT < 1.4


# -- Limits -----------------------------------------------------------------------


def test_an_owner_may_start_so_many_a_minute(quiet, settings):
    set_intervals(settings, STARTS_PER_MINUTE=2)
    begin(owner="busy")
    begin(owner="busy")
    with pytest.raises(TooMany, match="in the last minute"):
        begin(owner="busy")
    assert begin(owner="calm").new


def test_all_owners_together_may_start_so_many_a_minute(quiet, settings):
    set_intervals(settings, STARTS_PER_MINUTE_ALL=0)
    with pytest.raises(TooMany):
        begin()


def test_an_owner_may_have_so_many_unfinished_runs(quiet, settings, store):
    set_intervals(settings, UNFINISHED_RUNS=1)
    run = begin().run
    with pytest.raises(TooMany, match="There are 1 unfinished runs"):
        begin()
    runs.cancel(run)
    assert begin().new


def test_a_limit_does_not_keep_a_key_from_its_run(quiet, settings):
    set_intervals(settings, UNFINISHED_RUNS=1, STARTS_PER_MINUTE=1)
    run = begin(key="k", owner="one").run
    assert begin(key="k", owner="one").run == run


def test_the_window_of_a_limit_ends(quiet, store):
    assert store.admit({"window": 1})
    assert not store.admit({"window": 1})
    key = f"{store.prefix}:starts:window"
    assert 0 < store.client.ttl(key) <= 60
    store.client.delete(key)
    assert store.admit({"window": 1})


# -- From outside -----------------------------------------------------------------


class CountForm(forms.Form):
    n = forms.IntegerField(min_value=1, max_value=100)


class WordyForm(CountForm):
    def task_kwargs(self):
        return {"body": f"n is {self.cleaned_data['n']}"}


@pytest.fixture
def count(declare, quiet):
    declare(tasks.late, WordyForm, title="Count")


def submit(params, slug="late", key=None):
    options = {"key": OWN.get(key)}
    return runs.submit(slug, params, owner="starter", **options)


def test_a_declared_task_may_be_started_from_outside(count):
    started = submit({"n": "5"})
    row = Run.objects.get(pk=started.run)
    assert (row.kwargs, row.title) == ({"body": "n is 5"}, "Count")


def test_a_form_without_task_kwargs_gives_its_data(declare, quiet):
    declare(tasks.count, CountForm)
    row = Run.objects.get(pk=submit({"n": 7}, slug="count").run)
    assert row.kwargs == {"n": 7}


def test_a_task_without_parameters_needs_no_form(declare, quiet):
    declare(tasks.count, title="Count")
    assert submit({}, slug="count").new


def test_a_task_that_is_not_declared_cannot_be_started_from_outside(count):
    with pytest.raises(Invalid, match=r"no task of this name; there are: .*late"):
        submit({}, slug="endless")


def test_a_task_that_does_not_exist_names_the_field(count):
    with pytest.raises(Invalid) as raised:
        submit({}, slug="nothing")
    assert raised.value.errors == {"task": ["Unknown task."]}


@pytest.mark.parametrize("n", ["abc", 0, 10**9, None, "", [1], {}, "\x00"])
def test_a_wrong_parameter_names_the_field(count, n):
    with pytest.raises(Invalid) as raised:
        submit({"n": n})
    assert list(raised.value.errors) == ["n"]
    assert raised.value.message.startswith("n: ")
    assert not rows().exists()


def test_a_key_finds_its_run_before_its_parameters_are_looked_at(count):
    started = submit({"n": 5}, key="k")
    assert submit({"n": "gone"}, key="k").run == started.run


def test_who_may_not_start_keeps_nothing(declare, quiet, settings, store_down):
    """`task_kwargs` may keep an upload, which nobody would ever read."""
    kept = []

    class KeepingForm(forms.Form):
        def task_kwargs(self):
            kept.append(self)
            return {}

    declare(tasks.late, KeepingForm)
    set_intervals(settings, STARTS_PER_MINUTE=0)
    with pytest.raises(TooMany):
        submit({})
    store_down()
    with pytest.raises(Unavailable):
        submit({})
    assert not kept


def test_a_declared_task_may_be_started_by_its_slug(count):
    started = runs.start("late", {"body": "?"}, owner="starter")
    assert Run.objects.get(pk=started.run).task == "core.late"


def test_an_unknown_slug_is_refused(quiet):
    with pytest.raises(Invalid, match="no declared task 'nothing'"):
        runs.start("nothing", owner="starter")
