"""geofix db: migrate, check, back up and restore the database."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from geofix.cli.output import JsonOption, command, emit, say, table

app = typer.Typer(no_args_is_help=True)

DUMP_MAGIC = b"PGDMP"  # first bytes of pg_dump's custom format


@app.command()
@command
def migrate(
    backup_first: Annotated[
        bool, typer.Option("--backup/--no-backup", help="Dump before a change of schema.")
    ] = True,
    json: JsonOption = False,
) -> None:
    """Bring the schema to this version; a database that holds data is backed up before it changes.

    Example: geofix db migrate
    """
    from geofix.database.cluster import database_url
    from geofix.database.upkeep import migrate_safely
    from geofix.settings import get_settings

    settings = get_settings()
    stamp = datetime.now().strftime("%Y%m%dT%H%M%S")
    target = settings.home_dir / "backups" / f"before-migrate-{stamp}.dump" if backup_first else None
    emit(migrate_safely(database_url(settings, "owner"), settings, backup_to=target), as_json=json)


@app.command()
@command
def check(json: JsonOption = False) -> None:
    """Versions, revision, drift of SQL files, index health; exit code 4 when something is not in order.

    Example: geofix db check
    """
    from geofix.database.engine import connect
    from geofix.database.upkeep import check_database

    with connect(check=False) as conn:
        findings = check_database(conn)
    rows = [
        (item.name, "ok" if item.ok else "NOT OK", item.found, item.note if item.ok else item.mend)
        for item in findings
    ]
    emit(
        {"ok": all(item.ok for item in findings), "checks": findings},
        as_json=json,
        human=lambda: table(("check", "state", "found", "what to do"), rows),
    )
    if not all(item.ok for item in findings):
        raise typer.Exit(4)


@app.command()
@command
def backup(
    file: Annotated[Path, typer.Argument(help="New dump file; written with mode 0600.")],
    include_foreign: Annotated[
        bool, typer.Option("--include-foreign", help="Also dump rows on other servers.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Dump everything geofix owns, vectors included.

    Example: geofix db backup geofix.dump
    """
    from geofix.database.backup import backup as write
    from geofix.database.cluster import database_url
    from geofix.settings import get_settings

    settings = get_settings()
    size = write(database_url(settings, "owner"), file, settings, include_foreign=include_foreign)
    emit({"file": file, "bytes": size}, as_json=json)


@app.command()
@command
def restore(
    file: Annotated[Path, typer.Argument(help="Dump that `geofix db backup` wrote.")],
    memory_mb: Annotated[
        int,
        typer.Option(min=64, help="Memory that indexing a code set may use which was on several servers."),
    ] = 512,
    json: JsonOption = False,
) -> None:
    """Fill an empty database from a dump, in one transaction.

    Code sets that were distributed are then put together here; those that need more memory are named with
    the command that does it.

    Example: GEOFIX_HOME=/srv/new geofix db restore geofix.dump
    """
    from geofix.database.cluster import database_url
    from geofix.database.upkeep import restore_and_migrate
    from geofix.errors import BadInputError
    from geofix.settings import get_settings

    settings = get_settings()
    if file.is_file():
        with file.open("rb") as opened:
            if opened.read(len(DUMP_MAGIC)) != DUMP_MAGIC:
                raise BadInputError(
                    f"{file} is no dump.", hint="Give the file that `geofix db backup` wrote."
                )
    result = restore_and_migrate(
        database_url(settings, "owner"), file, settings, memory_bytes=memory_mb << 20
    )
    for item in result["left"]:
        say(f"{item['code_set']} is still in pieces: {item['why']} Next: {item['command']}")
    emit({"restored": file, **result}, as_json=json)
