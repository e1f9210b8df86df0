"""
`make run`: the whole site in one terminal, by `python -m CeleryProgressbar.dev`.

Runs the processes of `Procfile.dev` under honcho; without REDIS_URL the store as well.
"""

import os
import re
import socket
import sys
from pathlib import Path

from .secret import kept_secret

ROOT = Path(__file__).resolve().parent.parent


def main():
    try:
        sys.exit(run())
    except KeyboardInterrupt:
        sys.exit(130)


def run():
    """Start everything, wait until it has stopped; returns the exit status."""
    embedded = not os.environ.get("REDIS_URL")
    prepare_environment()
    require_port("PORT")
    require_port("VALKEY_PORT")
    import django
    from django.conf import settings
    from django.core.management import call_command

    django.setup()
    require_free(settings.PORT, "PORT", "web")
    if embedded:
        require_free(settings.VALKEY_PORT, "VALKEY_PORT", "Valkey")
    call_command("migrate", verbosity=0, interactive=False)
    return serve(settings, embedded)


def prepare_environment():
    """What `make run` sets where the person has not."""
    os.chdir(ROOT)
    env = os.environ
    env.setdefault("DJANGO_SETTINGS_MODULE", "CeleryProgressbar.settings")
    if not env.get("SECRET_KEY"):
        data = Path(env.get("DATA_DIR") or ROOT / "var")
        env["SECRET_KEY"] = kept_secret(data / "secret_key")
    # Procfile.dev means the commands of this very virtual environment.
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', '')}"
    env["PYTHONUNBUFFERED"] = "1"


def require_port(variable):
    """Exit with a sentence if the variable is set, and to no port."""
    value = os.environ.get(variable)
    if value and not (re.fullmatch("[0-9]{1,5}", value) and 0 < int(value) < 65_536):
        sys.exit(f"{variable} is {value!r}; a port is a number from 1 to 65535")


def require_free(port, variable, what):
    """Exit with a sentence if `port` of this machine is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            sys.exit(
                f"Port {port} for the {what} server cannot be used "
                f"({error.strerror.lower()}): stop what uses it, or choose another "
                f"one: {variable}={port + 1} make run"
            )


def serve(settings, embedded):
    """Run the lines of Procfile.dev until Ctrl-C, or until one of them stops."""
    from honcho.environ import parse_procfile

    from .terminal import STORE, Terminal

    terminal = Terminal(site_url(settings), settings.VALKEY_PORT)
    lines = parse_procfile((ROOT / "Procfile.dev").read_text()).processes
    for name, command in lines.items():
        if embedded or name != STORE:
            env = os.environ | {"PORT": str(settings.PORT)}
            terminal.add_process(name, command, env=env)
    return terminal.run()


def site_url(settings):
    return f"http://127.0.0.1:{settings.PORT}{settings.FORCE_SCRIPT_NAME or ''}/"


if __name__ == "__main__":
    main()
