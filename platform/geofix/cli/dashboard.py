"""geofix dashboard: serve the dashboard with Streamlit."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from geofix.cli.output import command, say
from geofix.errors import ServiceError

app = typer.Typer(rich_markup_mode=None)


@app.command()
@command
def dashboard(
    port: Annotated[
        int,
        typer.Option(min=1, max=65535, envvar="STREAMLIT_SERVER_PORT", help="TCP port."),
    ] = 8501,
    address: Annotated[
        str,
        typer.Option(
            envvar="STREAMLIT_SERVER_ADDRESS",
            help="Address to listen on. On localhost everyone may operate, elsewhere only look, unless "
            "GEOFIX_DASHBOARD_ACCESS says otherwise.",
        ),
    ] = "localhost",
) -> None:
    """Serve the dashboard until it is interrupted. It reads the database as the reader role.

    Who may submit jobs and drop things: GEOFIX_DASHBOARD_ACCESS, which can also let people sign in.

    Example: geofix dashboard --port 8501
    """
    serve(port=port, address=address)


def serve(port: int = 8501, address: str = "localhost") -> NoReturn:
    """Say the dashboard's address and become its server: this process is replaced, so signals reach it.

    Raises:
        ServiceError: Streamlit is not installed.
    """
    line = command_line(port, address)
    shown = "localhost" if address in ("0.0.0.0", "::", "") else address  # noqa: S104 only compared
    say(f"The dashboard is at http://{f'[{shown}]' if ':' in shown else shown}:{port} (Ctrl-C ends it)")
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(line[0], line)


def command_line(port: int, address: str) -> list[str]:
    """How Streamlit is called: this Python, the dashboard's entry, its settings as flags.

    A setting whose STREAMLIT_* variable is set is left to it.

    Raises:
        ServiceError: Streamlit is not installed.
    """
    package = find_spec("geofix_dashboard")
    if find_spec("streamlit") is None or package is None or package.origin is None:
        raise ServiceError(
            "The dashboard needs Streamlit, which is not installed.",
            hint="Install it with `pip install 'geofix[dashboard]'`.",
        )
    folder = Path(package.origin).parent
    settings = tomllib.loads((folder / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    flags = [f"--{name}={value}" for name, value in _flat(settings) if _variable(name) not in os.environ]
    own = [f"--server.port={port}", f"--server.address={address}"]
    return [sys.executable, "-m", "geofix_dashboard", "run", str(folder / "app.py"), *own, *flags]


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names and values as Streamlit's command line takes them; lists are left to the file itself."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            yield prefix + key, str(value).lower() if isinstance(value, bool) else str(value)


def _variable(name: str) -> str:
    """Streamlit's environment variable of a setting: theme.primaryColor is STREAMLIT_THEME_PRIMARY_COLOR."""
    words = "".join(f"_{sign}" if sign.isupper() else sign for sign in name.replace(".", "_"))
    return f"STREAMLIT_{words.upper()}"
