"""The fixtures of the rooms whose costs are counted here."""

from tests.web.conftest import begun, configure, site  # noqa: F401
