"""geofix gc: remove what nothing refers to any more."""

from __future__ import annotations

from typing import Annotated

import typer

from geofix.cli.output import JsonOption, command, emit, say, table

app = typer.Typer(no_args_is_help=True)


@app.command()
@command
def gc(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would go, and change nothing.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Remove what nothing refers to any more and what is older than it is kept.

    Orphan leaves, half-built code sets, embeddings without their picture, half-written folders below
    GEOFIX_HOME, old answers, audit rows, log lines of ended jobs, dumps, checkpoints of ended trainings and
    logs. How long they are kept: GEOFIX_KEEP_QUERIES_DAYS, GEOFIX_KEEP_AUDIT_DAYS,
    GEOFIX_KEEP_JOB_LOGS_DAYS, GEOFIX_KEEP_BACKUPS, GEOFIX_KEEP_CHECKPOINTS_DAYS,
    GEOFIX_KEEP_LOGS_DAYS, GEOFIX_GC_GRACE_HOURS.

    Example: geofix gc --dry-run
    """
    from geofix.database.engine import connect
    from geofix.database.garbage import collect
    from geofix.settings import get_settings
    from geofix.storage import readable_bytes

    with connect() as conn:
        items = collect(conn, get_settings(), dry_run=dry_run)
    freed = sum(item.bytes for item in items if item.state != "kept")

    def human() -> None:
        if items:
            rows = [
                (item.kind, item.name, item.rows, readable_bytes(item.bytes), item.note or item.state)
                for item in items
            ]
            table(("kind", "name", "rows", "size", "state"), rows)
        say(f"{readable_bytes(freed)} {'can be freed' if dry_run else 'freed'}")

    emit({"dry_run": dry_run, "bytes": freed, "items": items}, as_json=json, human=human)
