"""What this site's tasks count, for the translators.

A task names its unit in the singular; the page says it in its own language.
"""

from django.utils.translation import ngettext_lazy

UNITS = {
    "point": ngettext_lazy("point", "points"),
    "transform": ngettext_lazy("transform", "transforms"),
    "row": ngettext_lazy("row", "rows"),
    "frame": ngettext_lazy("frame", "frames"),
    "step": ngettext_lazy("step", "steps"),
}
