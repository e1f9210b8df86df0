"""The site."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class HomeConfig(AppConfig):
    name = "HomeApp"
    verbose_name = _("Site")

    def ready(self):
        from HomeApp import retention  # noqa: F401
