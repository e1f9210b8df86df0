"""The secret key of a site that runs on one machine: made once, and kept."""

import contextlib
import os
import secrets
import tempfile
from pathlib import Path


def kept_secret(path: Path) -> str:
    """The text of `path`, which is made at random, for this user only, if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with tempfile.NamedTemporaryFile("w", dir=path.parent) as file:
            file.write(secrets.token_urlsafe(50))
            file.flush()
            # A link appears whole or not at all, whoever else starts right now.
            with contextlib.suppress(FileExistsError):
                os.link(file.name, path)
    return path.read_text()
