"""geofix sql: one statement as the reader role, to the screen or to a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from geofix.cli.output import JsonOption, command, counted, emit, say, table

if TYPE_CHECKING:
    from geofix.database.sandbox import Answer

app = typer.Typer(no_args_is_help=True)

SCREEN_ROWS = 1_000  # a table is for reading; files take all rows


@app.command()
@command
def sql(
    statement: Annotated[str, typer.Argument(help="One statement that returns rows; - reads it from stdin.")],
    format: Annotated[
        str | None, typer.Option(help="table, csv, geojson or parquet; default: from --out, else table.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write to this file, with licences and attribution.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    json: JsonOption = False,
) -> None:
    """Ask PostgreSQL as the reader role: read-only, one statement, with a limit of time and rows.

    Tables and functions are found without their schema. Limits: GEOFIX_SQL_TIMEOUT_S, GEOFIX_SQL_MAX_ROWS.

    Example: geofix sql "SELECT country, count(*) FROM photo GROUP BY 1 ORDER BY 2 DESC"
    """
    from geofix.database.export import Format, export, write_text
    from geofix.database.sandbox import ask
    from geofix.errors import UsageError
    from geofix.settings import get_settings

    settings = get_settings()
    kind = _format(format, out)
    asked = sys.stdin.read() if statement == "-" else statement
    if not asked.strip():
        raise UsageError(
            "An empty statement returns no rows.", hint='For example geofix sql "SELECT count(*) FROM photo".'
        )
    rows = min(SCREEN_ROWS, settings.sql_max_rows) if kind == "table" and not json else None
    with ask(asked, settings, max_rows=rows) as answer:
        if out is not None:
            done = export(answer, out, cast(Format, kind), overwrite=overwrite)
            emit({**vars(done), "attribution": _records(answer)}, as_json=json, human=lambda: _written(done))
        elif json:
            emit(_document(answer), as_json=True)
        elif kind == "table":
            _draw(answer)
        else:
            write_text(answer, sys.stdout, cast(Format, kind))
            if kind == "csv":
                for item in answer.attribution:
                    say(f"contains data of {item}")
        if answer.cut:
            say(
                f"cut at {counted(answer.rows, 'row')}: there are more; "
                + (
                    "write them to a file with --out"
                    if rows is not None and rows < settings.sql_max_rows
                    else "raise GEOFIX_SQL_MAX_ROWS or ask for less"
                )
            )


def _format(given: str | None, out: Path | None) -> str:
    """The format asked for, or the one that the file's name says."""
    from geofix.database.export import FORMATS, SUFFIXES
    from geofix.errors import UsageError

    if given is not None and given not in ("table", *FORMATS):
        raise UsageError(f"Unknown format {given!r}.", hint=f"Use table, {', '.join(FORMATS)}.")
    if out is None:
        if given == "parquet":
            raise UsageError("Parquet cannot go to the screen.", hint="Give --out FILE.parquet.")
        return given or "table"
    kind = given or SUFFIXES.get(out.suffix.lower())
    if kind is None or kind == "table":
        raise UsageError(f"No format for {out}.", hint="Give --format csv, geojson or parquet.")
    return kind


def _records(answer: Answer) -> list[dict[str, Any]]:
    return [item.as_record() for item in answer.attribution]


def _document(answer: Answer) -> dict[str, Any]:
    from geofix.database.export import text_batches
    from geofix.database.values import as_json

    names = [column.name for column in answer.columns]
    rows = [
        dict(zip(names, map(as_json, row), strict=True)) for batch in text_batches(answer) for row in batch
    ]
    return {
        "columns": [{"name": column.name, "type": column.type_name} for column in answer.columns],
        "rows": rows,
        "n": answer.rows,
        "cut": answer.cut,
        "attribution": _records(answer),
    }


def _draw(answer: Answer) -> None:
    from geofix.database.export import text_batches
    from geofix.database.values import as_json

    rows = [[as_json(value) for value in row] for batch in text_batches(answer) for row in batch]
    table([column.name for column in answer.columns], rows, grouped=False)
    say(counted(answer.rows, "row"))


def _written(done: Any) -> None:
    from geofix.storage import readable_bytes

    say(f"{done.file}: {counted(done.rows, 'row')}, {readable_bytes(done.bytes)}, {done.format}")
    if done.sidecar is not None:
        say(f"{done.sidecar}: licences and attribution")
