"""The ways through `n` items, as people write them."""

import io
import re

from celery import current_task

from channels_progress import progress


def ways():
    """Each way by its name, as an iterable of `range(n)`."""
    from celery_progress.websockets.backend import WebSocketProgressRecorder
    from rich.console import Console
    from rich.progress import track
    from tqdm import tqdm

    nowhere = open("/dev/null", "w")  # noqa: SIM115
    console = Console(file=nowhere, force_terminal=True)
    recorder = WebSocketProgressRecorder(current_task)

    def advance(n):
        for _ in range(n):
            progress.advance()
        return ()

    def update_state(n):
        for number in range(n):
            yield number
            current_task.update_state(state="PROGRESS", meta={"current": number})

    def celery_progress(n):
        for number in range(n):
            yield number
            recorder.set_progress(number, n)

    return {
        "bare loop": range,
        "track": lambda n: progress.track(range(n)),
        "advance()": advance,
        "tqdm": lambda n: tqdm(range(n), file=nowhere),
        "rich": lambda n: track(range(n), console=console),
        "update_state": update_state,
        "celery-progress": celery_progress,
    }


def shows():
    """Ways that show something, each with what a viewer sees of it."""
    from tqdm import tqdm

    from channels_progress import runs

    terminal = io.StringIO()

    def ours():
        return runs.get(current_task.request.id).as_dict()["current"]

    def shown_by_tqdm():
        return int(re.findall(r"\| *(\d+)/", terminal.getvalue())[-1])

    yield "track", lambda n: progress.track(range(n)), ours
    yield "tqdm", lambda n: tqdm(range(n), file=terminal), shown_by_tqdm
