"""geofix shards: other PostgreSQL servers that hold parts of code sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from geofix.cli.output import JsonOption, command, emit, table

app = typer.Typer(no_args_is_help=True)


@app.command()
@command
def add(
    name: Annotated[str, typer.Argument(help="Name of the shard: lower-case letters, digits, _.")],
    url: Annotated[str, typer.Option(help="postgresql:// URL of the login that owns the tables there.")],
    reader_url: Annotated[
        str | None, typer.Option(help="URL of the login that only reads; default: geofix_reader there.")
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(help="Passwords of both, as in libpq's passfile; default: PGPASSFILE, PGPASSWORD."),
    ] = None,
    ef_search: Annotated[
        int, typer.Option(min=10, max=1000, help="Candidates that a search keeps on this shard.")
    ] = 100,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Also one that a database added which is gone or has lost it.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Register a server after trying both logins; passwords are kept in its user mappings alone.

    The server needs pgvector, PostGIS and the roles of any geofix database, and must ask for passwords.

    Example: geofix shards add b --url postgresql://geofix_owner@db-b.example/geofix --password-file ~/.pgpass
    """
    from geofix.database.engine import connect
    from geofix.database.shards import add_shard

    with connect() as conn:
        result = add_shard(
            conn,
            name,
            url,
            reader_url=reader_url,
            password_file=password_file,
            ef_search=ef_search,
            take_over=take_over,
        )
    emit(result, as_json=json)


@app.command("list")
@command
def list_(json: JsonOption = False) -> None:
    """List shards with what they hold, without asking them.

    Example: geofix shards list
    """
    from geofix.database.engine import connect
    from geofix.database.queries.shards import listed

    with connect("reader") as conn:
        rows = listed(conn)
    shown = [
        [row["name"], row["address"], ", ".join(row["code_sets"]), row["cells"], row["bytes"]] for row in rows
    ]
    emit(
        rows,
        as_json=json,
        human=lambda: table(("shard", "address", "code sets", "cells", "bytes"), shown),
    )


@app.command()
@command
def check(
    full: Annotated[bool, typer.Option("--full", help="Compare checksums too: reads every code.")] = False,
    json: JsonOption = False,
) -> None:
    """Ask every shard whether it holds what was written; exit code 4 when one does not.

    Tables that dropped code sets left behind are removed.

    Example: geofix shards check
    """
    from geofix.database.engine import connect
    from geofix.database.queries.shards import moves_under_way
    from geofix.database.shards import check_shards

    with connect() as conn, connect("reader") as reader:
        states = check_shards(conn, reader, full=full)
        moves = moves_under_way(conn)
    good = all(state.ok for state in states)
    rows = [
        [
            state.name,
            "ok" if state.ok else "NOT OK",
            state.postgres,
            state.pgvector,
            state.latency_ms,
            state.cells,
            state.message or state.address,
        ]
        for state in states
    ]
    emit(
        {"ok": good, "shards": states, "moves_under_way": moves},
        as_json=json,
        human=lambda: table(("shard", "state", "PostgreSQL", "pgvector", "ms", "cells", ""), rows),
    )
    if not good:
        raise typer.Exit(4)


@app.command()
@command
def remove(
    name: Annotated[str, typer.Argument(help="Name of the shard.")],
    lost: Annotated[
        bool, typer.Option("--lost", help="It will not come back: also forget what was to be removed there.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Forget a shard that holds nothing any more; with --lost, name the tables that may still be there.

    Example: geofix shards remove b
    """
    from geofix.database.engine import connect
    from geofix.database.shards import remove_shard

    with connect() as conn:
        result = remove_shard(conn, name, lost=lost)
    emit(result, as_json=json)
