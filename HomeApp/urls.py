"""The pages."""

from django.urls import path

from HomeApp import accounts, my_runs, views

urlpatterns = [
    path("", views.task, {"slug": "gen_random"}, name="start"),
    path("tasks/<slug:slug>/", views.task, name="task"),
    path("trouble/", views.trouble, name="trouble"),
    path("runs/", my_runs.listing, name="runs"),
    path("runs/tray/", my_runs.tray, name="tray"),
    path("runs/<uuid:run>/", views.run, name="run"),
    path("runs/<uuid:run>/again/", my_runs.again, name="again"),
    path("accounts/login/", accounts.sign_in, name="login"),
    path("accounts/logout/", accounts.sign_out, name="logout"),
    path("accounts/sign-up/", accounts.sign_up, name="sign_up"),
]
