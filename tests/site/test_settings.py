"""The site's settings, which the environment can override."""

from importlib import util

import pytest

from tests.stack import clean_environment

SITE = "CeleryProgressbar.settings"
NAMES = {
    *("DEBUG", "PORT", "ALLOWED_HOSTS", "FORCE_SCRIPT_NAME", "TIME_ZONE", "HTTPS"),
    *("STATIC_ROOT", "MEDIA_ROOT", "DATABASE_URL", "VALKEY_PORT", "REDIS_URL"),
    *("CHANNEL_REDIS_URL", "CHANNEL_LAYER", "CELERY_BROKER_URL", "LOG_LEVEL"),
    *("CELERY_RESULT_BACKEND", "WORKER_CONCURRENCY", "WORKER_SOFT_SHUTDOWN"),
}


@pytest.fixture
def read(monkeypatch, tmp_path):
    """`read(**env)`: the site's settings in an environment of these variables."""

    def read(**env):
        ours = {"DATA_DIR": str(tmp_path), "SECRET_KEY": "x"}
        clean = {n: v for n, v in clean_environment().items() if n not in NAMES}
        monkeypatch.setattr("os.environ", clean | ours | env)
        spec = util.find_spec(SITE)
        module = util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return {name: vars(module)[name] for name in dir(module) if name.isupper()}

    return read


def test_an_empty_variable_is_as_good_as_none(read):
    assert read(**dict.fromkeys(NAMES, "")) == read()


def test_a_database_that_hangs_is_one_that_is_down(read):
    url = "postgres://u:p@db.example/app"
    options = read(DATABASE_URL=url)["DATABASES"]["default"]["OPTIONS"]
    assert options == {
        "connect_timeout": 2,
        "tcp_user_timeout": 2000,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
    }
    other = read(DATABASE_URL=f"{url}?connect_timeout=9")["DATABASES"]["default"]
    assert other["OPTIONS"] == options | {"connect_timeout": 9}


def test_a_port_moves_its_store_along(read):
    assert read(PORT="8123")["REDIS_URL"] == "redis://127.0.0.1:18123/0"
    assert read(PORT="60000")["REDIS_URL"] == "redis://127.0.0.1:50000/0"
