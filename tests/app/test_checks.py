import re
from importlib import metadata
from pathlib import Path

import pytest
from celery import Celery, Task
from django.core.checks import run_checks

from CeleryProgressbar.celery import app as site
from channels_progress import catalogue, checks, counters
from channels_progress.conf import DEFAULTS
from channels_progress.task import ProgressTask

CORE = "channels_redis.core.RedisChannelLayer"
IN_MEMORY = "channels.layers.InMemoryChannelLayer"
TASK_CLS = "channels_progress.task:ProgressTask"


def found():
    """The ids of the problems, without the app's name, and their messages."""
    problems = run_checks(tags=["channels_progress"])
    assert all(problem.hint for problem in problems)
    return {problem.id.rpartition(".")[2]: problem for problem in problems}


@pytest.fixture(autouse=True)
def nothing_is_sent():
    """The counters' thread, where another test began one, never sees bad settings."""
    with counters._counters._flushing:
        yield


@pytest.fixture
def layer(settings):
    """Use a channel layer with these hosts."""

    def layer(backend=CORE, **config):
        settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend, "CONFIG": config}}

    return layer


@pytest.fixture
def celery():
    """Make a Celery application the current one."""

    def celery(**options):
        app = Celery("other", set_as_current=False, **options)
        app.set_current()
        return app

    yield celery
    site.set_current()


def test_the_site_has_no_problem():
    assert found() == {}


# -- The settings -----------------------------------------------------------------


def test_settings_that_are_no_dict_are_one_problem(settings):
    settings.CHANNELS_PROGRESS = ["LOST_AFTER"]
    assert list(found()) == ["E001"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("LOST_AFTR", "Did you mean 'LOST_AFTER'?"),
        ("lost_after", "Did you mean 'LOST_AFTER'?"),
        ("XYZ", "It knows REDIS_URL, PREFIX,"),
    ],
)
def test_an_unknown_setting_is_named_with_what_was_meant(configure, name, hint):
    configure(**{name: 1})
    problem = found()["E002"]
    assert problem.msg == f"CHANNELS_PROGRESS has no setting {name!r}."
    assert problem.hint.startswith(hint)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("LOST_AFTER", "30", "a number of seconds above 0, got '30'"),
        ("LOST_AFTER", 0, "a number of seconds above 0, got 0"),
        ("LOST_AFTER", float("nan"), "a number of seconds above 0, got nan"),
        ("LOST_AFTER", float("inf"), "a number of seconds above 0, got inf"),
        ("MAX_RESTARTS", 1.5, "a whole number above 0, got 1.5"),
        ("MAX_RESTARTS", True, "a whole number above 0, got True"),
        ("MAX_RESTARTS", -1, "a whole number above 0, got -1"),
        ("COOKIE", None, "a text, got None"),
        ("COOKIE", "a b", "the name of a cookie, got 'a b'"),
        ("PREFIX", "", "a text, got ''"),
        ("PREFIX", "a:b", "1 to 60 of the characters a-z A-Z 0-9 . _ -, got 'a:b'"),
        ("PREFIX", "x" * 61, "1 to 60 of the characters a-z A-Z 0-9 . _ -, got 'x"),
        ("REDIS_URL", 6379, "a text."),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(configure, name, value, wanted):
    configure(**{name: value})
    problem = found()["E003"]
    assert problem.msg.startswith(f"CHANNELS_PROGRESS[{name!r}] must be {wanted}")
    assert problem.hint == f"Its default is {DEFAULTS[name]!r}."


def test_whole_numbers_do_as_seconds(configure):
    configure(LOST_AFTER=60, HEARTBEAT_INTERVAL=5)
    assert found() == {}


def test_a_living_worker_must_not_read_as_lost(configure):
    configure(LOST_AFTER=4, HEARTBEAT_INTERVAL=2)
    assert "LOST_AFTER (4 s) is not over twice HEARTBEAT_INTERVAL (2 s)" in (
        found()["E004"].msg
    )


def test_reports_must_not_be_rarer_than_beats(configure):
    configure(REPORT_INTERVAL=3)
    assert list(found()) == ["E005"]


@pytest.mark.parametrize("url", ["localhost:6379", "http://h/0", "redis://h:x/0"])
def test_a_malformed_address_is_not_shown_for_its_password(configure, url):
    configure(REDIS_URL=url)
    problem = found()["E006"]
    assert url not in problem.msg + problem.hint


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("site.rules.may", "No module named"),
        ("channels_progress.access.nope", "nope"),
        ("channels_progress.access.TOKEN", "it is not a function"),
    ],
)
def test_a_rule_that_cannot_be_asked_is_named(configure, path, why):
    configure(MAY=path)
    problem = found()["E007"]
    assert repr(path) in problem.msg
    assert why in problem.msg


# -- The channel layer ------------------------------------------------------------


def test_a_layer_that_does_not_exist_is_named(configure, layer):
    configure(CHANNEL_LAYER="other")
    assert "The channel layer 'other' does not exist" in found()["E008"].msg
    configure(CHANNEL_LAYER="default")
    layer("channels_redis.nope.Layer")
    assert "channels_redis.nope" in found()["E008"].msg


def test_a_layer_in_memory_carries_nothing_between_processes(layer):
    layer(IN_MEMORY)
    assert list(found()) == ["W009"]


@pytest.mark.parametrize(
    "hosts",
    [
        [("localhost", 6379)],
        ["redis://localhost"],
        [{"address": "redis://localhost"}],
        [{"host": "localhost"}],
        [],
        None,
    ],
)
def test_the_core_layer_needs_longer_timeouts_and_more_connections(layer, hosts):
    layer(hosts=hosts)
    assert set(found()) == {"E010", "W011"}


@pytest.mark.parametrize(
    "host",
    [
        "redis://localhost?socket_timeout=15&max_connections=500&db=1",
        {"address": "redis://localhost", "socket_timeout": 15, "max_connections": 9},
        {"address": "redis://h", "socket_timeout": None, "max_connections": 9},
    ],
)
def test_a_core_layer_that_is_set_up_has_no_problem(layer, host):
    layer(hosts=[host])
    assert found() == {}


def test_a_timeout_of_5_s_is_too_short(layer):
    layer(hosts=[{"host": "h", "socket_timeout": 5.0, "max_connections": 9}])
    assert "time out after 5 s" in found()["E010"].msg


def test_an_older_redis_py_has_no_such_defaults(layer, monkeypatch):
    layer(hosts=["redis://localhost"])
    monkeypatch.setattr(
        metadata, "version", lambda name: {"redis": "7.4"}.get(name, "99")
    )
    assert found() == {}


# -- Celery -----------------------------------------------------------------------


def test_an_application_with_other_tasks_is_named(celery):
    celery()
    problem = found()["E012"]
    assert "'other' makes tasks that report no progress" in problem.msg
    assert f'task_cls="{TASK_CLS}"' in problem.hint


def test_a_task_class_that_does_not_exist_is_a_problem(celery):
    celery(task_cls="channels_progress.task:Nope")
    assert "channels_progress.task:Nope" in found()["E012"].msg


def test_tasks_that_run_at_once_are_no_runs(celery):
    celery(task_cls=TASK_CLS).conf.task_always_eager = True
    assert "W015" in found()


@pytest.mark.parametrize(
    ("broker", "options", "ids"),
    [
        ("redis://h", {}, {"I016"}),
        ("rediss://h", {"visibility_timeout": 301}, {"I016"}),
        ("redis://h", {"visibility_timeout": 60}, set()),
        ("amqp://h", {}, {"I022"}),
        ("amqps://h", {"confirm_publish": True}, set()),
        (None, {}, set()),
    ],
)
def test_what_the_dead_have_taken_along_should_come_back(celery, broker, options, ids):
    app = celery(task_cls=TASK_CLS)
    app.conf.update(broker_url=broker, broker_transport_options=options)
    assert set(found()) == ids


def nothing():
    """A task's body."""


def test_a_startable_task_of_another_class_is_named(celery, monkeypatch):
    app = celery(task_cls=TASK_CLS)
    app.conf.broker_url = "memory://"
    one = app.task(nothing, name="a.one", base=Task)
    declared = [catalogue.Startable(one, None, "", False)]
    monkeypatch.setattr(catalogue, "_declared", declared)
    problem = found()["E013"]
    assert problem.msg == (
        "The startable task 'a.one' reports no progress: its class is Task."
    )


@pytest.mark.parametrize(("calls_ours", "ids"), [(False, {"E021"}), (True, set())])
def test_a_before_start_of_ones_own_calls_ours(celery, monkeypatch, calls_ours, ids):
    class Ours(ProgressTask):
        def before_start(self, task_id, args, kwargs):
            super().before_start(task_id, args, kwargs)

    class Own(ProgressTask):
        def before_start(self, task_id, args, kwargs):
            pass

    app = celery(task_cls=TASK_CLS)
    app.conf.broker_url = "memory://"
    one = app.task(nothing, name="a.one", base=Ours if calls_ours else Own)
    declared = [catalogue.Startable(one, None, "", False)]
    monkeypatch.setattr(catalogue, "_declared", declared)
    assert set(found()) == ids


def test_two_startable_tasks_of_one_name_are_named(celery, monkeypatch):
    app = celery(task_cls=TASK_CLS)
    app.conf.broker_url = "memory://"
    tasks = [app.task(nothing, name=name) for name in ("a.one", "b.one")]
    declared = [catalogue.Startable(task, None, "", False) for task in tasks]
    monkeypatch.setattr(catalogue, "_declared", [*declared, declared[0]])
    assert found()["E014"].msg.endswith("called 'one': a.one and b.one.")


# -- The site ---------------------------------------------------------------------


def test_servers_with_known_holes_are_refused(monkeypatch):
    old = {"daphne": "4.2.1", "autobahn": "26.7.0", "redis": "8.1.0"}
    monkeypatch.setattr(metadata, "version", old.__getitem__)
    problems = run_checks(tags=["channels_progress"])
    assert [problem.hint for problem in problems if problem.id.endswith("E017")] == [
        'Install "daphne>=4.2.2".',
        'Install "autobahn>=26.7.1".',
    ]


def test_servers_that_are_not_installed_are_no_problem(monkeypatch):
    def version(name):
        if name == "redis":
            return "8.1.0"
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    assert found() == {}


def test_without_an_application_there_are_no_sockets(settings):
    settings.ASGI_APPLICATION = None
    assert list(found()) == ["W018"]


def test_urls_that_are_not_included_are_missed(settings):
    settings.ROOT_URLCONF = "HomeApp.urls"
    assert list(found()) == ["W019"]


def test_urls_that_cannot_be_imported_are_for_django_to_say(settings):
    settings.ROOT_URLCONF = "nowhere.urls"
    assert list(found()) == []


def test_a_template_engine_must_know_the_request(settings):
    settings.TEMPLATES = [
        {"BACKEND": "django.template.backends.django.DjangoTemplates"}
    ]
    assert list(found()) == ["W020"]


def test_every_problem_has_its_own_number():
    ids = re.findall(r'_id\("[EWI](\d+)"\)', Path(checks.__file__).read_text())
    numbers = sorted({int(id) for id in ids})
    assert numbers == list(range(1, len(numbers) + 1))
