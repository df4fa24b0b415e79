"""geofix delete: photos, data sets and queries with everything derived from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geofix.cli.output import JsonOption, command, counted, emit, say, table

if TYPE_CHECKING:
    from geofix.database.engine import Connection
    from geofix.database.ownership import Removed

app = typer.Typer(no_args_is_help=True)

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would go, and change nothing.")]
FilesOption = Annotated[bool, typer.Option("--files", help="Also unlink the files, inside GEOFIX_HOME only.")]


@app.command()
@command
def photo(
    ids: Annotated[list[int], typer.Argument(metavar="ID...", help="photo_id of one photo or more.")],
    files: FilesOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Delete photos with their embeddings, predictions and places in snapshots.

    Code sets whose snapshot held them are marked stale, models that learned from them are noted, evaluations
    that asked them are measured again. The photo files stay unless --files is given.

    Example: geofix delete photo 4711
    """
    from geofix.database.ownership import delete_photos

    _delete(lambda conn: delete_photos(conn, ids), files=files, dry_run=dry_run, json=json)


@app.command()
@command
def dataset(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Data set of photos, aerial imagery or regions.")
    ],
    files: FilesOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Delete a data set with everything derived from it.

    Example: geofix delete dataset helsinki --dry-run
    """
    from geofix.database.ownership import delete_dataset

    _delete(lambda conn: delete_dataset(conn, name), files=files, dry_run=dry_run, json=json)


@app.command()
@command
def query(
    id: Annotated[int, typer.Argument(metavar="ID", help="query_id that `geofix localize --json` printed.")],
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Delete the answer to a localized photo; the audit keeps who asked, not what.

    Example: geofix delete query 12
    """
    from geofix.database.ownership import delete_query

    _delete(lambda conn: delete_query(conn, id), files=False, dry_run=dry_run, json=json)


def _delete(remove: Callable[[Connection], Removed], *, files: bool, dry_run: bool, json: bool) -> None:
    """Remove and measure again in one transaction, then the files, then say what happened."""
    from geofix.database.engine import connect
    from geofix.database.ownership import remove_files
    from geofix.settings import get_settings

    with connect() as conn:
        done = remove(conn)
        measured = _measure_again(conn, done.evaluations)
        if dry_run:
            conn.rollback()
    unlinked, left = remove_files(done.uris, get_settings()) if files and not dry_run else ([], done.uris)
    result = {
        "deleted": done.kind,
        "names": done.names,
        "dry_run": dry_run,
        "rows": done.rows,
        "stale_code_sets": done.stale_code_sets,
        "partitions": done.partitions,
        "models": done.models,
        "evaluations": measured,
        "snapshots": done.snapshots,
        "files_removed": unlinked,
        "files_left": len(left),
    }
    emit(result, as_json=json, human=lambda: _show(result))


def _measure_again(conn: Connection, names: list[str]) -> dict[str, int]:
    """Metrics of the evaluations that lost photos, from what is left; name -> photos now."""
    if not names:
        return {}
    from geofix.database.queries.evaluations import find_evaluation
    from geofix.evaluation.run import measure

    left = {name: int(find_evaluation(conn, name)["n"]) for name in names}
    return {name: int(measure(conn, name)["n"]) if n else 0 for name, n in left.items()}


def _show(result: dict[str, Any]) -> None:
    verb = "would remove" if result["dry_run"] else "removed"
    table((verb, "rows"), [(kind.replace("_", " "), n) for kind, n in result["rows"].items()])
    for key, text in (
        ("stale_code_sets", "stale code set, build it again under a new name: {}"),
        ("partitions", "partition whose counts and means are out of date, build it again: {}"),
        ("models", "model that learned from what was deleted, train it again: {}"),
        ("snapshots", "snapshot on disk that still lists what was deleted, build it again: {}"),
    ):
        for name in result[key]:
            say(text.format(name))
    for name, n in result["evaluations"].items():
        say(
            f"evaluation {name} measured again on {counted(n, 'photo')}"
            if n
            else f"evaluation {name} has no photo left"
        )
    if result["files_removed"]:
        say(f"unlinked: {counted(len(result['files_removed']), 'file')}")
    if result["files_left"]:
        say(f"left where they are: {counted(result['files_left'], 'file')}")
