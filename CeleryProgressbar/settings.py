"""
Settings, each of which the environment can override.

DATA_DIR holds what belongs to this machine and to nobody else: the SQLite database,
uploads, the embedded Valkey's data and the secret key of a development site.
"""

import json
import os
import sys
from pathlib import Path

import dj_database_url
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext_lazy as _

from .secret import kept_secret

BASE_DIR = Path(__file__).resolve().parent.parent


def env(name, default=None):
    """The variable `name`; an empty one is as good as none."""
    return os.environ.get(name) or default


def env_list(name, default=""):
    """The comma-separated values of the variable `name`."""
    return [value.strip() for value in env(name, default).split(",") if value.strip()]


def env_flag(name):
    """Whether the variable `name` says yes."""
    return env(name, "").lower() in {"1", "true", "yes", "on"}


def secret_key():
    """SECRET_KEY, or on a developer's machine one that is made once and kept."""
    if key := env("SECRET_KEY"):
        return key
    if DEBUG:
        return kept_secret(DATA_DIR / "secret_key")
    raise ImproperlyConfigured(
        "SECRET_KEY is not set. Set it to a long random text, the same for every "
        "process of the site; or set DEBUG=1 on your own machine."
    )


# --- This site -----------------------------------------------------------------------

DATA_DIR = Path(env("DATA_DIR", BASE_DIR / "var"))

DEBUG = env_flag("DEBUG")
SECRET_KEY = secret_key()
PORT = int(env("PORT", "8000"))
ALLOWED_HOSTS = env_list("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = env_list("CSRF_TRUSTED_ORIGINS")
# The path below which the site lives; Django wants it as "/path".
below = env("FORCE_SCRIPT_NAME", "").strip("/")
FORCE_SCRIPT_NAME = f"/{below}" if below else None

INSTALLED_APPS = [
    # Serves sockets in `runserver`; elsewhere it would only bring Twisted along.
    *(["daphne"] if "runserver" in sys.argv else []),
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "HomeApp",  # before the app, to have its pages in its own frame
    "channels_progress",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "CeleryProgressbar.middleware.ContentSecurityPolicyMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "CeleryProgressbar.urls"
ASGI_APPLICATION = "CeleryProgressbar.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_REDIRECT_URL = "runs"
LOGOUT_REDIRECT_URL = "start"

LANGUAGE_CODE = "en"
LANGUAGES = [("en", _("English")), ("de", _("German"))]
LOCALE_PATHS = [BASE_DIR / "locale"]
TIME_ZONE = env("TIME_ZONE", "UTC")
USE_TZ = True

# --- Security ------------------------------------------------------------------------

X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_SAMESITE = "Lax"

# Behind a proxy that ends TLS, and sets or removes X-Forwarded-Proto itself.
if env_flag("HTTPS"):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_SSL_REDIRECT = True
    SECURE_REDIRECT_EXEMPT = ["^healthz$"]  # asked from behind the proxy
    SECURE_HSTS_SECONDS = 31_536_000  # a year
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True

# --- Files ---------------------------------------------------------------------------

# Whole: a relative one would be fixed before ASGI knows the path of a request.
STATIC_URL = f"{FORCE_SCRIPT_NAME or ''}/static/"
# Serves straight from the apps, so that nobody needs to run `collectstatic`; it goes to
# STATIC_ROOT, for a proxy that is to serve them instead.
WHITENOISE_USE_FINDERS = True
STATIC_ROOT = env("STATIC_ROOT")
WHITENOISE_ALLOW_ALL_ORIGINS = False

MEDIA_ROOT = Path(env("MEDIA_ROOT", DATA_DIR / "uploads"))
# A larger upload goes to the disk while it arrives; how large one may be at all is the
# form's to say, in words.
FILE_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024  # bytes
# Every other field of a form together.
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024  # bytes

# --- Database ------------------------------------------------------------------------

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": dj_database_url.parse(
        env("DATABASE_URL", f"sqlite:///{DATA_DIR / 'db.sqlite3'}")
    )
}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    Path(DATABASES["default"]["NAME"]).parent.mkdir(parents=True, exist_ok=True)
    DATABASES["default"]["OPTIONS"] = {
        # Web and workers write at once: WAL lets readers go on beside a writer, and a
        # transaction that takes its lock at its begin waits for it, instead of failing
        # at its first write.
        "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL",
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,  # seconds
    }
    # Tasks that share a worker's connection: to open a file anew costs as much as to
    # write a run's end. (A connection to a server may break between two tasks.)
    CELERY_DB_REUSE_MAX = 100
elif DATABASES["default"]["ENGINE"] == "django.db.backends.postgresql":
    # A server that hangs counts as one that is down: pages then get the rest.
    DATABASES["default"]["OPTIONS"] = {
        "connect_timeout": 2,  # seconds
        "tcp_user_timeout": 2000,  # milliseconds
        # One that has frozen with the question would be waited for for two hours.
        "keepalives_idle": 5,  # seconds
        "keepalives_interval": 2,
        **DATABASES["default"].get("OPTIONS", {}),
    }

# --- Redis ---------------------------------------------------------------------------

# Where `manage.py valkey` listens: a port of its own for each web port, so that two
# checkouts never share a server by accident.
VALKEY_PORT = int(env("VALKEY_PORT", PORT + 10_000 if PORT < 50_000 else PORT - 10_000))
REDIS_URL = env("REDIS_URL", f"redis://127.0.0.1:{VALKEY_PORT}/0")

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {
            "hosts": [
                {
                    "address": env("CHANNEL_REDIS_URL", REDIS_URL),
                    # Over the 5 s for which the core layer blocks, under for ever.
                    "socket_timeout": 15,  # seconds
                    "socket_keepalive": True,
                    # redis-py's 100 are too few for a burst of connecting sockets.
                    "max_connections": 10_000,
                }
            ],
        },
    },
}
if env("CHANNEL_LAYER") == "core":
    CHANNEL_LAYERS["default"]["BACKEND"] = "channels_redis.core.RedisChannelLayer"
    # Messages of all sockets of a web process together; a full queue drops the newest.
    CHANNEL_LAYERS["default"]["CONFIG"]["capacity"] = 2_000


def progress_overrides():
    """The variables PROGRESS_<NAME>, JSON where they are that, as `<NAME>: value`."""
    for name, text in os.environ.items():
        if name.startswith("PROGRESS_") and text:
            try:
                value = json.loads(text)
            except ValueError:
                value = text
            yield name.removeprefix("PROGRESS_"), value


CHANNELS_PROGRESS = {"REDIS_URL": REDIS_URL, **dict(progress_overrides())}

# --- Celery, for long tasks ----------------------------------------------------------

CELERY_BROKER_URL = env("CELERY_BROKER_URL", REDIS_URL)
CELERY_RESULT_BACKEND = env("CELERY_RESULT_BACKEND", REDIS_URL)
CELERY_RESULT_EXPIRES = 24 * 60 * 60  # seconds; as long as a finished run's hash
CELERY_TIMEZONE = TIME_ZONE
# Most tasks here wait more than they compute, so there are more children than cores.
CELERY_WORKER_CONCURRENCY = int(env("WORKER_CONCURRENCY", "8"))

# A message is acknowledged when its task has ended, so a worker that dies, or is
# stopped, does not take the run with it.
CELERY_TASK_ACKS_LATE = True
# The same for a pool child that dies (killed, out of memory). A task that kills its
# process every time does not come back for ever: a run begins 3 times without progress.
CELERY_TASK_REJECT_ON_WORKER_LOST = True
# A child holds one long task; what waits behind it must stay free for other workers.
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
# The state of a run is told by channels_progress; STARTED would be one more write.
CELERY_TASK_TRACK_STARTED = False
# A connection that breaks comes back; cancelling hours of work for that would be worse
# than the duplicate that Redis may deliver, which a run refuses by itself.
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = (
    None  # a worker outlives any outage of its broker
)
# On a cold shutdown short tasks may still end; long ones go back to the broker.
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = float(env("WORKER_SOFT_SHUTDOWN", "2"))  # s
# Let LOGGING below decide, as it does in the web process.
CELERY_WORKER_HIJACK_ROOT_LOGGER = False

if CELERY_BROKER_URL.startswith(("redis:", "rediss:", "valkey:")):
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        # A dead worker's messages come back after this long. It may be shorter than a
        # task: what comes back while its run is alive is recognised and parked.
        "visibility_timeout": 60,  # seconds
        # Look for such messages every second; by default it is every 100 s.
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        # Only one worker looks at a time; one that dies or freezes while it does would
        # keep all others from it, by default for 5 minutes.
        "unacked_mutex_expire": 10,  # seconds
        # By default ten: of a hundred greenlets that end at once, ninety could not
        # acknowledge their messages, which would come back.
        "max_connections": 1_000,
        "socket_connect_timeout": 2,  # seconds; a START must not wait for an answer
        "socket_keepalive": True,
    }
elif CELERY_BROKER_URL.startswith(("amqp:", "amqps:", "pyamqp:")):
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        # A retry's message is on RabbitMQ's disk before the one that it follows is
        # acknowledged; a RabbitMQ that is killed in between would lose the run.
        "confirm_publish": True,
    }
CELERY_REDIS_SOCKET_TIMEOUT = 5.0  # seconds, of the result backend
CELERY_REDIS_SOCKET_CONNECT_TIMEOUT = 2.0
CELERY_REDIS_SOCKET_KEEPALIVE = True
CELERY_REDIS_RETRY_ON_TIMEOUT = True

# --- Logging -------------------------------------------------------------------------

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "plain": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["console"], "level": env("LOG_LEVEL", "INFO")},
    "loggers": {
        "daphne": {"level": "WARNING"},
        # Django's own handlers would say everything a second time.
        "django": {"handlers": [], "level": "INFO"},
    },
}
