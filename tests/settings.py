"""The site's settings, for tests: a Valkey server and a database of their own."""

import atexit
import os
import shutil
import tempfile

from tests.ports import free_port

# Read by CeleryProgressbar.settings, so they are set before it is imported. The server
# is started by the fixture `valkey`; without it nothing answers at this port.
os.environ["SECRET_KEY"] = "only-for-tests"
os.environ["REDIS_URL"] = f"redis://127.0.0.1:{free_port()}/0"
os.environ["DATA_DIR"] = tempfile.mkdtemp(prefix="progress-tests-")
atexit.register(shutil.rmtree, os.environ["DATA_DIR"], ignore_errors=True)
for name in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "DATABASE_URL", "DEBUG"):
    os.environ.pop(name, None)

from CeleryProgressbar.settings import *  # noqa: E402, F403
from CeleryProgressbar.settings import DATA_DIR, DATABASES  # noqa: E402

# A file, for threads of their own do not see a database in memory.
DATABASES["default"]["TEST"] = {"NAME": DATA_DIR / "test.sqlite3"}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
