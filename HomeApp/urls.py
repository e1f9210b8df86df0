"""The pages."""

from django.urls import path

from HomeApp import views

urlpatterns = [
    path("", views.task, {"slug": "gen_random"}, name="start"),
    path("tasks/<slug:slug>/", views.task, name="task"),
    path("trouble/", views.trouble, name="trouble"),
    path("runs/<uuid:run>/", views.run, name="run"),
]
