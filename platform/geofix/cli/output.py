"""What every command shares: JSON or a table on stdout, errors on stderr, exit codes from one table."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from geofix.errors import EXIT_INTERRUPT, GeofixError
from geofix.plain import plain

P = ParamSpec("P")
R = TypeVar("R")

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]

_WIDE = 160  # columns when stdout is a file or a pipe: nothing there folds lines
_out = Console() if sys.stdout.isatty() else Console(width=_WIDE)
_err = Console(stderr=True, soft_wrap=True)


class State:
    """Options of the whole command line that `main` sets before a command runs."""

    debug = False


def emit(result: Any, *, as_json: bool, human: Callable[[], None] | None = None) -> None:
    """Print a result: one JSON document, or for people `human` (default: a two-column table)."""
    if as_json:
        sys.stdout.write(json.dumps(plain(result), indent=2, ensure_ascii=False) + "\n")
        sys.stdout.flush()
        return
    if human is not None:
        human()
        return
    shown = plain(result)
    if isinstance(shown, dict):
        table(("", ""), [(key, _cell(item)) for key, item in shown.items()], header=False)
    else:
        _out.print(shown)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str = "", header: bool = True
) -> None:
    """Print rows as a table; numbers to the right."""
    rows = [tuple(row) for row in rows]
    drawn = Table(
        title=title or None,
        show_header=header,
        title_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
    )
    for i, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[i], int | float | None) for row in rows)
        drawn.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(escape(_cell(item)) for item in row))
    _out.print(drawn)


def say(message: str) -> None:
    """A line for people, on stderr."""
    _err.print(escape(message))


def fail(error: BaseException) -> int:
    """Print an error as one line of what, where and what to do next; return its exit code."""
    if State.debug:
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        _err.print("interrupted; run the same command again to continue", style="yellow")
        return EXIT_INTERRUPT
    if isinstance(error, GeofixError):
        _err.print(f"[bold red]error[/] {escape(str(error))}")
        return error.exit_code
    _err.print(
        f"[bold red]error[/] unexpected {type(error).__name__}: {escape(str(error))} "
        "(run again as `geofix --debug ...` for the traceback)"
    )
    return 1


def command(function: Callable[P, R]) -> Callable[P, R]:
    """Turn errors of a command into one line and the right exit code."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except (typer.Exit, typer.Abort):
            raise
        except BrokenPipeError:
            raise typer.Exit(0) from None
        except (Exception, KeyboardInterrupt) as error:
            raise typer.Exit(fail(error)) from error

    return wrapped
