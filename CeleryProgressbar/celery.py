"""The Celery application; `celery -A CeleryProgressbar worker` finds it here."""

import os

from celery import Celery

from . import broker

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "CeleryProgressbar.settings")

broker.install()
app = Celery("CeleryProgressbar", task_cls="channels_progress.task:ProgressTask")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
