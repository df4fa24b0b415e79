"""Entry point: the root command and the nouns below it, loaded only when used."""

from __future__ import annotations

import importlib
import io
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from geofix import __version__
from geofix.cli.output import State, command, fail, leave_pipe, line, say, usage_error
from geofix.errors import EXIT_INTERRUPT, UsageError
from geofix.log import configure
from geofix.settings import get_settings

# Root command or noun -> (module below geofix.cli, its help). A module offers `app: typer.Typer`; a noun
# is the whole app, a root command is the command of that name in it. Loading is lazy, so help stays fast.
NOUNS = {
    "world": "The built-in mini continent.",
    "ingest": "Load photos, aerial imagery and regions.",
    "snapshot": "Freeze training sets.",
    "models": "Register and list encoders and trained localizers.",
    "embed": "Turn photos and aerial tiles into embeddings.",
    "codes": "Build, index, list and drop code sets.",
    "evaluate": "Judge localizers, ours and others'.",
    "jobs": "Submit, watch, cancel and retry queued work.",
    "db": "Migrate, check, back up and restore the database.",
    "delete": "Delete photos, data sets or queries with all that was derived from them.",
    "shards": "Other PostgreSQL servers that hold parts of code sets: add, list, check, remove.",
    "cells": "Count photos and tiles per cell.",
    "partitions": "Cut the earth into classes: build, load, list, show, export and drop.",
}
COMMANDS = {
    "up": ("services", "Start the embedded PostgreSQL and Redis."),
    "down": ("services", "Stop the embedded servers."),
    "status": ("services", "State of database, broker and workers."),
    "train": ("train", "Train encoders and prototypes from a snapshot."),
    "train-classifier": ("train_classifier", "Train a classifier of positions from a snapshot."),
    "localize": ("localize", "Find where photos were taken."),
    "sql": ("sql", "Ask SQL as the reader role."),
    "run": ("run", "Run a pipeline file from photos to answers."),
    "benchmark-localizers": ("benchmark", "Train and compare all localizers on one snapshot."),
    "demo": ("demo", "The whole way on the built-in world."),
    "worker": ("worker", "Run queued jobs."),
    "beat": ("worker", "Take back jobs of dead workers, resend lost messages."),
    "gc": ("gc", "Remove what nothing refers to any more."),
    "dashboard": ("dashboard", "Serve the dashboard."),
}


# What Typer raises for a wrong call: the base of its public BadParameter, wherever its Click lives.
UsageFault: type[Exception] = typer.BadParameter.__mro__[2]


class LazyGroup(TyperGroup):
    """Loads the module of a noun or command when it is first asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All names, commands first."""
        return [*COMMANDS, *sorted(NOUNS)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name, or None."""
        if cmd_name in NOUNS:
            module = importlib.import_module(f"geofix.cli.{cmd_name}")
            return _as_group(module.app, cmd_name, NOUNS[cmd_name])
        if cmd_name in COMMANDS:
            name, _ = COMMANDS[cmd_name]
            module = importlib.import_module(f"geofix.cli.{name}")
            return _as_group(module.app, name, "").get_command(ctx, cmd_name)
        return None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List names with their help without loading any module."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])
        with formatter.section("Nouns"):
            formatter.write_dl(sorted(NOUNS.items()))


def _as_group(made: typer.Typer, name: str, text: str) -> TyperGroup:
    # A copy: the module's own app stays as it is. The callback keeps an app of one command a group; plain
    # help reads the same on a terminal and in a pipe.
    whole = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    whole.registered_commands, whole.registered_groups = made.registered_commands, made.registered_groups
    whole.callback()(lambda: None)
    group: Any = typer.main.get_group(whole)
    group.name, group.help = name, text or group.help
    assert isinstance(group, TyperGroup)
    return group


def _say_version(asked: bool) -> None:
    if asked:
        line(__version__)
        raise typer.Exit()


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, rich_markup_mode=None, add_completion=True)


@app.callback()
@command
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug logs.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_say_version, help="Print the version and exit."),
    ] = False,
) -> None:
    """Find where a ground-level photo was taken, and ask PostgreSQL about it.

    Example: geofix demo
    """
    State.debug = debug
    _configure(debug)


def _configure(debug: bool) -> None:
    """Logs as the settings say.

    Raises:
        UsageError: A GEOFIX_* variable has a value that cannot be.
    """
    from pydantic import ValidationError

    try:
        settings = get_settings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name = "_".join(str(part) for part in first["loc"]).upper().removeprefix("GEOFIX_")
        raise UsageError(
            f"GEOFIX_{name}={first['input']!r}: {first['msg']}.", hint="Mend the variable or the file .env."
        ) from None
    configure("DEBUG" if debug else settings.log_level, json=settings.log_json)


def main() -> None:
    """Run the command line; the process ends with the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Bytes of a file's name that are no UTF-8 are written as \udcXX, which JSON reads as they were.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = app(standalone_mode=False)
    except BrokenPipeError:
        leave_pipe()
        code = 0
    except typer.Abort:
        say("stopped; nothing was changed")
        code = EXIT_INTERRUPT
    except UsageFault as error:
        code = _say_usage(error)
    except (Exception, KeyboardInterrupt) as error:
        code = fail(error)
    sys.exit(code if isinstance(code, int) else 0)


def _say_usage(error: Any) -> int:
    """A wrong call on one line; a noun without a command shows its help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        path = error.ctx.command_path if getattr(error, "ctx", None) else "geofix"
        usage_error(error.format_message(), path)
    return int(error.exit_code)
