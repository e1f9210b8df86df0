"""`manage.py check`: misconfiguration is found before a user finds it.

Settings are read when the checks run, and nothing here touches the network.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib import metadata
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from celery import current_app
from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, register
from django.core.checks import Warning as Caution
from django.template import engines
from django.template.backends.django import DjangoTemplates
from django.urls import NoReverseMatch, reverse
from django.utils.module_loading import import_string
from packaging.version import Version
from redis.connection import parse_url

from channels_progress import catalogue
from channels_progress.conf import DEFAULTS, conf
from channels_progress.task import ProgressTask

TASK_CLS: Final = "channels_progress.task:ProgressTask"
REQUEST: Final = "django.template.context_processors.request"
OPTIONS: Final = ("socket_timeout", "max_connections")
LAYER_BLOCKS: Final = 5  # s for which the core layer's one read waits in Redis
PREFIX: Final = re.compile(r"[a-zA-Z0-9._-]{1,60}")  # a group's name has 99 characters
COOKIE: Final = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
AMQP: Final = ("amqp:", "amqps:", "pyamqp:")
SWEEP: Final = 300  # s until a dead worker's message comes back, that a page may wait
# Older ones have known holes in what a stranger's bytes can do.
SAFE: Final = {
    "daphne": ("4.2.2", "no limit to a message's size, and smuggled headers"),
    "autobahn": ("26.7.1", "the size limit does not hold for compressed messages"),
}


@register("channels_progress")
def check(**_: Any) -> list[CheckMessage]:
    """Every problem, each with a hint that says what to do."""
    found = [*_names()]
    wrong = [*_values()] if not found or found[0].id != _id("E001") else []
    if not found and not wrong:
        found += [*_times(), *_store(), *_rule(), *_layer()]
    found += [*wrong, *(_tasks() if _fits() else _no_tasks()), *_celery()]
    return [*found, *_versions(), *_site()]


def _id(number: str) -> str:
    return f"channels_progress.{number}"


# -- The settings -----------------------------------------------------------------


def _given() -> Any:
    return getattr(settings, "CHANNELS_PROGRESS", {})


def _names() -> Iterator[CheckMessage]:
    if not isinstance(given := _given(), dict):
        yield Error(
            f"CHANNELS_PROGRESS must be a dict, got {given!r}.",
            hint='For example: CHANNELS_PROGRESS = {"LOST_AFTER": 60}.',
            id=_id("E001"),
        )
        return
    for name in given.keys() - DEFAULTS.keys():
        near = get_close_matches(str(name).upper(), DEFAULTS, 1)
        yield Error(
            f"CHANNELS_PROGRESS has no setting {name!r}.",
            hint=f"Did you mean {near[0]!r}?"
            if near
            else f"It knows {', '.join(DEFAULTS)}.",
            id=_id("E002"),
        )


def _values() -> Iterator[CheckMessage]:
    for name, default in DEFAULTS.items():
        value = getattr(conf, name)
        if wanted := _wanted(name, default, value):
            # An address may hold a password.
            got = "" if name == "REDIS_URL" else f", got {value!r}"
            yield Error(
                f"CHANNELS_PROGRESS[{name!r}] must be {wanted}{got}.",
                hint=f"Its default is {default!r}.",
                id=_id("E003"),
            )


def _wanted(name: str, default: object, value: object) -> str:
    """What a setting must be; empty if it is."""
    if isinstance(default, str):
        if not isinstance(value, str) or not value:
            return "a text"
        if name == "PREFIX" and not PREFIX.fullmatch(value):
            return "1 to 60 of the characters a-z A-Z 0-9 . _ -"
        if name == "COOKIE" and not COOKIE.fullmatch(value):
            return "the name of a cookie"
        return ""
    kinds = int if isinstance(default, int) else (int, float)
    if (
        isinstance(value, bool)
        or not isinstance(value, kinds)
        or not math.isfinite(value)
        or value <= 0
    ):
        what = "whole number" if kinds is int else "number of seconds"
        return f"a {what} above 0"
    return ""


def _times() -> Iterator[CheckMessage]:
    if conf.LOST_AFTER <= 2 * conf.HEARTBEAT_INTERVAL:
        yield Error(
            f"LOST_AFTER ({conf.LOST_AFTER} s) is not over twice HEARTBEAT_INTERVAL "
            f"({conf.HEARTBEAT_INTERVAL} s): a living worker would read as lost.",
            hint="Raise LOST_AFTER; below 20 s, a C call that holds the GIL reads as "
            "a lost worker as well.",
            id=_id("E004"),
        )
    if conf.REPORT_INTERVAL > conf.HEARTBEAT_INTERVAL:
        yield Error(
            f"REPORT_INTERVAL ({conf.REPORT_INTERVAL} s) is over HEARTBEAT_INTERVAL "
            f"({conf.HEARTBEAT_INTERVAL} s): who works would speak less often than "
            "who waits.",
            hint="Lower REPORT_INTERVAL, or raise HEARTBEAT_INTERVAL.",
            id=_id("E005"),
        )


def _store() -> Iterator[CheckMessage]:
    try:
        parse_url(conf.REDIS_URL)  # type: ignore[no-untyped-call]
    except ValueError:
        yield Error(
            "CHANNELS_PROGRESS['REDIS_URL'] is not the address of a Redis server.",
            hint="It looks like redis://:password@host:6379/0, rediss://... or "
            "unix://...; in a password, special characters are percent-encoded.",
            id=_id("E006"),
        )


def _rule() -> Iterator[CheckMessage]:
    try:
        problem = "" if callable(import_string(conf.MAY)) else "it is not a function"
    except ImportError as error:
        problem = str(error)
    if problem:
        yield Error(
            f"CHANNELS_PROGRESS['MAY'] = {conf.MAY!r} cannot be asked: {problem}.",
            hint="Name a function with the parameters of channels_progress.access.may "
            "by its dotted path. Until then nobody may do anything.",
            id=_id("E007"),
        )


# -- The channel layer ------------------------------------------------------------


def _layer() -> Iterator[CheckMessage]:
    name, layers = conf.CHANNEL_LAYER, getattr(settings, "CHANNEL_LAYERS", {})
    try:
        backend = import_string(layers[name]["BACKEND"])
    except (KeyError, ImportError) as error:
        yield Error(
            f"The channel layer {name!r} does not exist: {error!r}.",
            hint="Add it to CHANNEL_LAYERS, with the BACKEND "
            "'channels_redis.pubsub.RedisPubSubChannelLayer', or name another one in "
            "CHANNELS_PROGRESS['CHANNEL_LAYER'].",
            id=_id("E008"),
        )
        return
    names = {f"{base.__module__}.{base.__qualname__}" for base in backend.__mro__}
    if "channels.layers.InMemoryChannelLayer" in names:
        yield Caution(
            f"The channel layer {name!r} is in memory: no message of a worker reaches "
            "a web process.",
            hint="Use channels_redis. Until then a page learns what is news only "
            f"every {conf.RECONCILE_INTERVAL:g} s, when the store is read.",
            id=_id("W009"),
        )
    if "channels_redis.core.RedisChannelLayer" in names and _new_redis():
        for host in layers[name].get("CONFIG", {}).get("hosts") or [{}]:
            yield from _host(name, _options(host))


def _new_redis() -> bool:
    return Version(metadata.version("redis")) >= Version("8")


def _options(host: object) -> Mapping[str, Any]:
    """The options of a connection, from an entry of `hosts` and its address."""
    options = dict(host) if isinstance(host, Mapping) else {}
    address = options.get("address", host)
    if isinstance(address, str):
        query = parse_qs(urlsplit(address).query)
        given = {name: query[name][0] for name in OPTIONS if name in query}
        options = {name: float(value) for name, value in given.items()} | options
    return options


def _host(layer: str, options: Mapping[str, Any]) -> Iterator[CheckMessage]:
    timeout = options.get("socket_timeout", LAYER_BLOCKS)
    if timeout is not None and timeout <= LAYER_BLOCKS:
        yield Error(
            f"The connections of the channel layer {layer!r} time out after "
            f"{timeout:g} s, and its reads wait for {LAYER_BLOCKS} s: idle sockets "
            "would break.",
            hint="Give each host of CHANNEL_LAYERS a 'socket_timeout' of 15; from "
            "version 8 on, redis-py's default is 5 s.",
            id=_id("E010"),
        )
    if "max_connections" not in options:
        yield Caution(
            f"The channel layer {layer!r} has redis-py's limit of 100 connections: "
            "more sockets than that cannot come at once.",
            hint="Give each host of CHANNEL_LAYERS a 'max_connections' of 10000.",
            id=_id("W011"),
        )


# -- Celery -----------------------------------------------------------------------


def _fits() -> bool:
    try:
        return issubclass(current_app.Task, ProgressTask)
    except (ImportError, AttributeError):  # of a task_cls that does not exist
        return False


def _no_tasks() -> Iterator[CheckMessage]:
    yield Error(
        f"The Celery application {current_app.main!r} makes tasks that report no "
        f"progress: its task_cls is {current_app.task_cls!r}.",
        hint=f'Write Celery("...", task_cls="{TASK_CLS}"), and import that '
        "application in your project's __init__.py, so that Django uses it.",
        id=_id("E012"),
    )


def _celery() -> Iterator[CheckMessage]:
    if current_app.conf.task_always_eager:
        yield Caution(
            "With task_always_eager no task is a run: what is started stays queued.",
            hint="Start a worker instead; in tests, use channels_progress.testing.",
            id=_id("W015"),
        )
    yield from _broker()


def _broker() -> Iterator[CheckMessage]:
    broker = str(current_app.conf.broker_write_url or current_app.conf.broker_url or "")
    options = current_app.conf.broker_transport_options or {}
    if broker.startswith(AMQP) and not options.get("confirm_publish"):
        yield Info(
            "A RabbitMQ that is killed may lose a run that has just asked for a retry.",
            hint="Set 'confirm_publish' to True in broker_transport_options: the next "
            "message is then kept before the last one is acknowledged. Start workers "
            "--without-gossip --without-heartbeat: else events are confirmed, too.",
            id=_id("I022"),
        )
    if not broker.startswith(("redis:", "rediss:", "valkey:", "sentinel:")):
        return
    seconds = options.get("visibility_timeout", 3600)
    if seconds > SWEEP:
        yield Info(
            f"A dead worker's runs come back {seconds:g} s after they were taken.",
            hint="Set 'visibility_timeout' to 60 in broker_transport_options, and "
            "'unacked_restore_interval' and 'unacked_restore_throttle' to 1. It may "
            "be shorter than your tasks: what comes back too early waits.",
            id=_id("I016"),
        )


def _tasks() -> Iterator[CheckMessage]:
    seen: dict[str, str] = {}
    for one in catalogue._declared:
        if not isinstance(one.task, ProgressTask):
            yield Error(
                f"The startable task {one.task.name!r} reports no progress: its class "
                f"is {one.task.__class__.__mro__[1].__qualname__}.",
                hint="Let the class in its `base` inherit from "
                "channels_progress.task.ProgressTask.",
                id=_id("E013"),
            )
        elif "before_start" not in one.task.before_start.__code__.co_names:
            yield Error(
                f"The startable task {one.task.name!r} has a before_start of its own, "
                "which keeps the run from beginning.",
                hint="Let it call super().before_start(task_id, args, kwargs) first.",
                id=_id("E021"),
            )
        if (other := seen.setdefault(one.slug, one.task.name)) != one.task.name:
            yield Error(
                f"Two startable tasks are called {one.slug!r}: {other} and "
                f"{one.task.name}.",
                hint="Rename one: the last part of its name is its address.",
                id=_id("E014"),
            )


# -- The site ---------------------------------------------------------------------


def _versions() -> Iterator[CheckMessage]:
    for package, (safe, hole) in SAFE.items():
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
        if Version(version) < Version(safe):
            yield Error(
                f"{package} {version} has a known hole: {hole}.",
                hint=f'Install "{package}>={safe}".',
                id=_id("E017"),
            )


def _site() -> Iterator[CheckMessage]:
    if not getattr(settings, "ASGI_APPLICATION", None):
        yield Caution(
            "ASGI_APPLICATION is not set: `runserver` would serve no WebSockets.",
            hint="Set it to the dotted path of the ProtocolTypeRouter in your asgi.py.",
            id=_id("W018"),
        )
    try:
        reverse("channels_progress:runs")
    except NoReverseMatch:
        yield Caution(
            "The URLs of channels_progress are not included: its pages' elements have "
            "no address to fall back to.",
            hint='Add path("progress/", include("channels_progress.urls")).',
            id=_id("W019"),
        )
    except Exception:  # a URLconf that cannot be imported: Django's own check says so
        return
    for engine in engines.all():
        if isinstance(engine, DjangoTemplates) and (
            REQUEST not in engine.engine.context_processors
        ):
            yield Caution(
                "A template engine does not know the request, which "
                "{% task_progress %} asks who is looking.",
                hint=f"Add {REQUEST!r} to its context_processors.",
                id=_id("W020"),
            )
