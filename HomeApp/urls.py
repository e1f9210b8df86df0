"""The pages."""

from django.urls import path

from HomeApp import views

urlpatterns = [
    path("", views.task, {"slug": "gen_random"}, name="start"),
    path("tasks/fft_random/", views.task, {"slug": "fft_random"}, name="fft_random"),
    path("tasks/import_rows/", views.task, {"slug": "import_rows"}, name="import_rows"),
    path("runs/<uuid:run>/", views.run, name="run"),
]
