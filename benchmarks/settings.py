"""The site's settings with the tasks of the benchmarks."""

from CeleryProgressbar.settings import *  # noqa: F403
from CeleryProgressbar.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "benchmarks"]
