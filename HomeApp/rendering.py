"""Following the render service: what it says, and what to make of it."""

from dataclasses import asdict, dataclass, replace
from functools import cache

import httpx
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from HomeApp.render_service import url

TIMEOUT = 2.0  # seconds for one answer
STANDSTILL = 10.0  # seconds without a new frame, after which a viewer is told
PATIENCE = 60.0  # seconds without a new frame, after which it is given up


class GivenUp(Exception):
    """The job will not come to an end; the text is for a viewer."""


@dataclass(frozen=True)
class Course:
    """A job as it was last heard of; JSON can hold it as a dict."""

    since: float
    """When it last moved, in seconds since 1970."""
    done: int = 0
    total: int | None = None
    finished: bool = False
    misses: int = 0
    """How often in a row there was no proper answer."""
    message: str = ""
    peak: int = 0
    """The most frames of which it has ever spoken, before this time."""

    as_dict = asdict

    def heard(self, answer: dict, now: float) -> "Course":
        """Go on with an answer; raise GivenUp if nothing has moved for too long."""
        done, total = max(0, int(answer["done"])), int(answer["frames"])
        if answer["state"] == "done":
            return Course(now, done, total, finished=True)
        if done == self.done:
            return self._still(now, done, total)
        peak, message = max(self.peak, self.done), ""
        if done < peak:
            message = _("The service was at %s frames before, and went back.") % peak
        return Course(now, done, total, peak=peak, message=message)

    def _still(self, now: float, done: int, total: int) -> "Course":
        waited = now - self.since
        said = {"done": done, "total": total, "seconds": round(waited)}
        if waited > PATIENCE:
            raise GivenUp(
                _("The service stopped at %(done)s of %(total)s frames.") % said
            )
        message = "" if self.misses else self.message
        if waited > STANDSTILL:
            message = _("No new frame for %(seconds)s s.") % said
        return replace(self, total=total, misses=0, message=message)

    def missed(self, problem: str, now: float) -> "Course":
        """Go on without an answer; raise GivenUp after too long."""
        misses = self.misses + 1
        if now - self.since > PATIENCE:
            raise GivenUp(_("The render service is of no help: %s") % problem)
        message = ngettext(
            "%(problem)s Asked %(count)s time.",
            "%(problem)s Asked %(count)s times.",
            misses,
        ) % {"problem": problem, "count": misses}
        return replace(self, misses=misses, message=message)


@cache
def client() -> httpx.Client:
    """One client a process keeps its connection open."""
    return httpx.Client(base_url=url(), timeout=TIMEOUT)


def ask(job: str, frames: int, mood: str, past: Course, now: float) -> Course:
    """Make the job unless there is one, and ask how far it is.

    Raises GivenUp if the service refuses, or has not moved for too long.
    """
    try:
        response = client().put(f"/jobs/{job}", json={"frames": frames, "mood": mood})
        if response.is_client_error:
            raise GivenUp(_("The render service refused: %s") % response.status_code)
        response.raise_for_status()
        return past.heard(response.json(), now)
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        return past.missed(_("The render service has an error (%s).") % status, now)
    except httpx.TimeoutException:
        return past.missed(_("The render service is slow to answer."), now)
    except httpx.HTTPError:
        return past.missed(_("The render service does not answer."), now)
    except (ValueError, TypeError, KeyError, AttributeError):
        return past.missed(_("The render service talks nonsense."), now)
