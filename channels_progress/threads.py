"""OS threads, under gevent too, where `threading` makes greenlets."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


def green() -> bool:
    """Whether this process runs its tasks in greenlets."""
    try:
        from gevent import monkey
    except ImportError:
        return False
    return bool(monkey.is_module_patched("threading"))


def spawn(target: Callable[[], None]) -> None:
    """Run `target` in an OS thread, under gevent too: an event loop in a greenlet
    would be seen by every other greenlet of its thread."""
    if green():
        from gevent import get_hub

        get_hub().threadpool.spawn(target)
    else:
        threading.Thread(target=target, name="channels-progress", daemon=True).start()


def lock() -> Any:
    """A lock of OS threads: one of greenlets must not be shared with such a thread."""
    try:
        from gevent.monkey import get_original
    except ImportError:
        return threading.Lock()
    return get_original("_thread", "allocate_lock")()
