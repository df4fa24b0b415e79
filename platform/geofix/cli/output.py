"""What every command shares: JSON or a table on stdout, errors on stderr, exit codes from one table."""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from geofix.cli.foreign import own_error
from geofix.errors import EXIT_INTERRUPT, GeofixError
from geofix.plain import plain

P = ParamSpec("P")
R = TypeVar("R")

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]

_UNFOLDED = 1_000_000  # columns of a table that goes to a file or a pipe: nothing there folds lines
_LONGEST_CELL = 1_000  # characters; a table is for reading, files and JSON hold all
_LONGEST_WORD = 24  # characters; a longer one may be broken
_LONGEST_VALUE = 400  # characters of one value of a single thing
_out = Console(emoji=False, highlight=False)
_err = Console(stderr=True, soft_wrap=True, emoji=False, highlight=False)


class State:
    """Options of the whole command line that `main` sets before a command runs."""

    debug = False


def emit(result: Any, *, as_json: bool, human: Callable[[], None] | None = None) -> None:
    """Print a result: one JSON document, or for people `human` (default: a table)."""
    if as_json:
        sys.stdout.write(json.dumps(plain(result), indent=2, ensure_ascii=False) + "\n")
        sys.stdout.flush()
        return
    if human is not None:
        human()
        return
    shown = plain(result)
    if isinstance(shown, dict):
        pairs(shown)
    elif isinstance(shown, list) and all(isinstance(row, dict) for row in shown):
        columns = list(dict.fromkeys(key for row in shown for key in row))
        table(columns, [[row.get(column) for column in columns] for row in shown])
    else:
        line(_cell(shown))


def pairs(shown: Mapping[str, Any]) -> None:
    """Print names and values in two columns; ids are not grouped by thousands."""
    rows = [
        (key, _cell(item, grouped=not key.endswith(("_id", "seed", "port")))) for key, item in shown.items()
    ]
    table(("", ""), [(key, _clipped(text, _LONGEST_VALUE)) for key, text in rows], header=False)


def _cell(value: Any, *, grouped: bool = True) -> str:
    if value is None or value in ({}, []):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return _number(value, grouped)
    if isinstance(value, int):
        return f"{value:,}" if grouped else str(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_nested(item, grouped)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_nested(item, grouped) for item in value)
    return str(value)


def _nested(value: Any, grouped: bool) -> str:
    text = _cell(value, grouped=grouped)
    return f"({text})" if isinstance(value, dict | list | tuple) and value else text


def _number(value: float, grouped: bool) -> str:
    """Three decimals, or three digits where that would leave nothing."""
    if value != 0 and abs(value) < 0.001:
        return f"{value:.3g}"
    text = f"{value:,.3f}" if grouped else f"{value:.3f}"
    return text.rstrip("0").rstrip(".")


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    title: str = "",
    header: bool = True,
    grouped: bool = True,
) -> None:
    """Print rows as a table, numbers to the right; in records where the terminal is too narrow for it.

    Args:
        columns: Headings.
        rows: Values, one sequence per row.
        title: Heading of the whole.
        header: Whether the headings are shown.
        grouped: Whether thousands are separated; ids are copied, and so must not be.
    """
    rows = [tuple(row) for row in rows]
    drawn = Table(
        title=title or None,
        show_header=header,
        title_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for i, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[i], int | float | None) for row in rows)
        drawn.add_column(Text(column), justify="right" if numeric else "left", overflow="fold")
    cells = [[_clipped(_cell(item, grouped=grouped)) for item in row] for row in rows]
    for row in cells:
        drawn.add_row(*map(Text, row))
    if not _out.is_terminal:
        _write_unfolded(drawn)
    elif (widths := _widths(columns, cells)) is None and header and cells:
        _write_records(columns, cells, title)
    else:
        for i, width in enumerate(widths or ()):
            drawn.columns[i].width = width
        _out.print(drawn)


def _widths(columns: Sequence[str], cells: list[list[str]]) -> list[int] | None:
    """Width of each column on this terminal, the widest folded first; None when words would be broken.

    Paths and the like may be broken: what is longer than _LONGEST_WORD.
    """
    texts = [[heading, *(row[i] for row in cells)] for i, heading in enumerate(columns)]
    widths = [
        max(1, *(len(line) for text in column for line in (text.splitlines() or [""]))) for column in texts
    ]
    words = [[len(word) for text in column for word in text.split()] for column in texts]
    least = [min(_LONGEST_WORD, max([1, *lengths])) for lengths in words]
    room = _out.width - 2 * len(columns) - 1
    if sum(least) > room:
        return None
    while sum(widths) > room:
        i = max((i for i in range(len(widths)) if widths[i] > least[i]), key=widths.__getitem__)
        widths[i] -= 1
    return widths


def _clipped(text: str, longest: int = _LONGEST_CELL) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _write_unfolded(drawn: Table) -> None:
    """To a file or a pipe: every row on one line, without spaces at its end."""
    held = io.StringIO()
    Console(file=held, width=_UNFOLDED, emoji=False, highlight=False).print(drawn)
    lines = [text.rstrip() for text in held.getvalue().splitlines()]
    sys.stdout.write("\n".join(lines).strip("\n") + "\n")


def _write_records(columns: Sequence[str], cells: list[list[str]], title: str) -> None:
    """One line per value, where a table would break every word."""
    if title:
        _out.print(Text(title, style="italic"))
    width = max(map(len, columns))
    for number, row in enumerate(cells, 1):
        _out.print(
            Text(f"- {number} " + "-" * max(0, min(40, _out.width) - len(str(number)) - 3), style="bold")
        )
        for column, value in zip(columns, row, strict=True):
            _out.print(Text(f"  {column:<{width}}  {value}"), soft_wrap=True)


def line(message: str) -> None:
    """A line of the result, on stdout."""
    sys.stdout.write(message + "\n")
    sys.stdout.flush()


def say(message: str) -> None:
    """A line for people, on stderr."""
    _err.print(escape(message))


def counted(number: int, noun: str) -> str:
    """A number and its noun, in the plural where it is due."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def fail(error: BaseException) -> int:
    """Print an error as one line of what, where and what to do next; return its exit code."""
    if State.debug:
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        _err.print("interrupted; run the same command again to continue", style="yellow")
        return EXIT_INTERRUPT
    known = error if isinstance(error, GeofixError) else own_error(error)
    if known is not None:
        _print_error(str(known))
        return known.exit_code
    _print_error(
        f"unexpected {type(error).__name__}: {error} (run again as `geofix --debug ...` for the traceback)"
    )
    return 1


def usage_error(message: str, command_path: str) -> None:
    """Print a wrong call as one line."""
    _print_error(f"{message.rstrip('.')}. See `{command_path} --help`.")


def _print_error(text: str) -> None:
    shown = " ".join(part.strip() for part in text.splitlines() if part.strip())
    _err.print(f"[bold red]error[/] {escape(shown)}")


def leave_pipe() -> None:
    """After the reader of our stdout has gone: let what is still buffered go nowhere, without a word."""
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def command(function: Callable[P, R]) -> Callable[P, R]:
    """Turn errors of a command into one line and the right exit code."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except (typer.Exit, typer.Abort):
            raise
        except BrokenPipeError:
            leave_pipe()
            raise typer.Exit(0) from None
        except (Exception, KeyboardInterrupt) as error:
            raise typer.Exit(fail(error)) from error

    return wrapped
