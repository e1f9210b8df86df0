"""The parameters of each task: what is allowed, and what is assumed."""

from typing import Any

from django import forms
from django.core.validators import EMPTY_VALUES
from django.utils.translation import gettext_lazy as _

from HomeApp import uploads

# What is shown of an upload's own name, in characters.
NAME_LENGTH = 100


class DefaultsForm(forms.Form):
    """Whose fields take their initial value where none was given."""

    def clean(self) -> None:
        for name, value in self.cleaned_data.items():
            if value in EMPTY_VALUES:
                self.cleaned_data[name] = self.fields[name].initial


class GenRandomForm(DefaultsForm):
    """How fast gen_random goes."""

    speed = forms.FloatField(
        label=_("Speed"),
        help_text=_("Points per second, from 0.5 to 1,000."),
        required=False,
        initial=2,
        min_value=0.5,
        max_value=1000,
        error_messages=dict.fromkeys(
            ["invalid", "min_value", "max_value"],
            _("Enter a number from 0.5 to 1,000."),
        ),
    )


class FftRandomForm(forms.Form):
    """How many transforms fft_random makes."""

    n = forms.IntegerField(
        label=_("Transforms"),
        help_text=_("How many, from 1 to 1,000,000."),
        initial=10_000,
        min_value=1,
        max_value=1_000_000,
        error_messages=dict.fromkeys(
            ["required", "invalid", "min_value", "max_value"],
            _("Enter a whole number from 1 to 1,000,000."),
        ),
    )


class ImportRowsForm(forms.Form):
    """A CSV file of measurements."""

    file = forms.FileField(
        label=_("CSV file"),
        help_text=_(
            "UTF-8, at most 200 MB, with the columns when,sensor,value; "
            "a time without an offset is UTC."
        ),
        widget=forms.FileInput(
            attrs={
                "accept": ".csv,text/csv",
                "data-most": uploads.MAX_BYTES,  # for upload.js
                "data-large": uploads.ERRORS["large"],
            }
        ),
        error_messages={
            "required": uploads.ERRORS["required"],
            "missing": uploads.ERRORS["required"],
            "invalid": uploads.ERRORS["invalid"],
            "empty": uploads.ERRORS["empty"],
        },
    )

    def clean_file(self):
        file = self.cleaned_data["file"]
        uploads.check(file)
        return file

    def task_kwargs(self) -> dict[str, Any]:
        """Keep the upload; the task gets its path, and its own name to show."""
        file = self.cleaned_data["file"]
        return {"path": uploads.keep(file), "name": file.name[:NAME_LENGTH]}


class RenderForm(DefaultsForm):
    """What the service elsewhere is to render, and how well it behaves."""

    frames = forms.IntegerField(
        label=_("Frames"),
        help_text=_("How many, from 1 to 10,000; it makes 20 a second."),
        required=False,
        initial=200,
        min_value=1,
        max_value=10_000,
        error_messages=dict.fromkeys(
            ["invalid", "min_value", "max_value"],
            _("Enter a whole number from 1 to 10,000."),
        ),
    )
    mood = forms.ChoiceField(
        label=_("The service"),
        required=False,
        initial="steady",
        choices={
            "steady": _("works as it should"),
            "slow": _("is slow"),
            "falling": _("takes back what it said"),
            "broken": _("has errors for a while"),
            "endless": _("never ends"),
        },
        error_messages={
            "invalid_choice": _("Choose steady, slow, falling, broken or endless.")
        },
    )


class TroubleForm(DefaultsForm):
    """How long a task of the trouble page takes."""

    seconds = forms.FloatField(
        label=_("Seconds"),
        help_text=_("For 100 steps, from 0.5 to 20."),
        required=False,
        initial=10,
        min_value=0.5,
        max_value=20,
        error_messages=dict.fromkeys(
            ["invalid", "min_value", "max_value"],
            _("Enter a number from 0.5 to 20."),
        ),
    )
