"""Signing up, in and out. Runs begun before come along: see channels_progress.claim."""

from django.contrib.auth import login
from django.contrib.auth.forms import UserCreationForm
from django.contrib.auth.views import LoginView, LogoutView, RedirectURLMixin
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.generic import FormView

from channels_progress import access


@method_decorator([sensitive_post_parameters(), never_cache], "dispatch")
class SignUp(RedirectURLMixin, FormView):
    """Django's own form; who has filled it in is signed in."""

    form_class = UserCreationForm
    template_name = "registration/sign_up.html"
    next_page = "runs"

    def form_valid(self, form):
        login(self.request, form.save())
        return super().form_valid(form)

    def get_context_data(self, **kwargs):
        # To hand on to the other page, and to keep with the form.
        next_page = self.get_redirect_url()
        return super().get_context_data(page="sign_up", next=next_page, **kwargs)


sign_up = access.offers_start(SignUp.as_view())
sign_in = access.offers_start(LoginView.as_view(extra_context={"page": "login"}))
sign_out = LogoutView.as_view()
