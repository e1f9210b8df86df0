"""The Django app."""

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _


class ProgressConfig(AppConfig):
    name = "channels_progress"
    verbose_name = _("Progress")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from channels_progress import checks, claim, lifecycle  # noqa: F401

        # Every process knows which tasks may be started from outside.
        autodiscover_modules("tasks")
