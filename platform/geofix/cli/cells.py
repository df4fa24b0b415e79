"""geofix cells: count photos and aerial tiles per cell."""

from __future__ import annotations

from typing import Annotated

import typer

from geofix.cli.output import JsonOption, command, emit

app = typer.Typer(no_args_is_help=True)


@app.command()
@command
def refresh(
    level: Annotated[list[int] | None, typer.Option(min=0, max=24, help="S2 level; repeatable.")] = None,
    json: JsonOption = False,
) -> None:
    """Count photos and aerial tiles per cell anew, for the view `cell` and the dashboard's coverage.

    Example: geofix cells refresh --level 13 --level 15
    """
    from geofix.database.engine import connect
    from geofix.database.queries.cells import refresh_cells

    with connect() as conn:
        result = [refresh_cells(conn, item) for item in level or [13, 15, 16]]
    emit(result, as_json=json)
