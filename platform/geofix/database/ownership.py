"""Remove a photo, a data set or a query with everything derived from it, in one transaction, with an audit row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from geofix.database.engine import Connection
from geofix.database.queries import localizations
from geofix.database.queries import ownership as queries
from geofix.errors import NotFoundError, TransientError
from geofix.settings import Settings

# Folders of the embedded servers below GEOFIX_HOME: no file in them is ever removed here.
SERVER_FOLDERS = ("postgres", "redis", "run", "log")


@dataclass(frozen=True)
class Removed:
    """What a deletion did.

    Attributes:
        kind: photo, dataset or query.
        names: Ids or names that were given.
        rows: Rows removed, by kind; kinds without any are left out.
        stale_code_sets: Code sets whose codes were made from what is gone; they still answer, marked stale.
        models: Models that learned from what is gone; `metrics.deleted_photos` says from how many photos.
        snapshots: Directories on disk that still list what is gone.
        partitions: Partitions that were made from what is gone; marked stale.
        evaluations: Evaluations that lost photos; their metrics are marked stale until measured again.
        uris: Files of the removed photos and rasters that no other row refers to.
    """

    kind: str
    names: list[str]
    rows: dict[str, int]
    stale_code_sets: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    snapshots: list[str] = field(default_factory=list)
    evaluations: list[str] = field(default_factory=list)
    partitions: list[str] = field(default_factory=list)
    uris: list[str] = field(default_factory=list)


def delete_photos(conn: Connection, photo_ids: Sequence[int]) -> Removed:
    """Remove photos with their embeddings, predictions and places in snapshots; the caller commits.

    Raises:
        NotFoundError: An id is unknown; nothing is removed.
    """
    ids = sorted(set(photo_ids))
    datasets = queries.datasets_of(conn, ids)
    if queries.stage(conn, photo_ids=ids) != len(ids):
        lost = [str(item) for item in queries.unknown_photos(conn, ids)]
        raise NotFoundError(
            f"No photo has the id {', '.join(lost[:5])}.",
            hint='Ask `geofix sql "SELECT photo_id, source_key FROM photo"`.',
        )
    names = [str(item) for item in ids]
    return _remove(conn, "photo", names, None, {"datasets": datasets})


def delete_dataset(conn: Connection, name: str) -> Removed:
    """Remove a data set of photos, aerial imagery or regions; the caller commits.

    Raises:
        NotFoundError: There is no such data set; the message lists those there are.
        TransientError: It is being loaded.
    """
    found = queries.find_dataset(conn, name)
    if found is None:
        names = [item.dataset for item in queries.licences(conn)]
        raise NotFoundError(
            f"No data set is named {name!r}.",
            hint=f"There are: {', '.join(names)}." if names else "There are none.",
        )
    dataset_id, kind = found
    if not queries.lock_dataset(conn, dataset_id):
        raise TransientError(
            f"Data set {name} is being loaded.", hint="Wait until `geofix ingest` has ended, or stop it."
        )
    queries.stage(conn, dataset_id=dataset_id)
    return _remove(conn, "dataset", [name], dataset_id, {"kind": kind})


def delete_query(conn: Connection, query_id: int) -> Removed:
    """Remove the answer to a localized photo; the audit keeps who asked, not what. The caller commits.

    Raises:
        NotFoundError: There is no such query.
    """
    rows = queries.delete_query(conn, query_id)
    if not rows["queries"]:
        raise NotFoundError(
            f"No query has the id {query_id}.", hint="`geofix localize --json` prints it as query_id."
        )
    localizations.audit(conn, "delete", "query", str(query_id), {"rows": rows})
    return Removed("query", [str(query_id)], {key: n for key, n in rows.items() if n})


def _remove(
    conn: Connection, kind: str, names: list[str], dataset_id: int | None, detail: dict[str, object]
) -> Removed:
    """Mark what stays, delete what goes, write the audit row."""
    uris = queries.staged_uris(conn, dataset_id)
    marked = queries.mark_derived(conn)
    rows = queries.delete_staged(conn)
    if dataset_id is not None:
        for key, n in queries.count_of_dataset(conn, dataset_id).items():
            rows[key] = rows.get(key, 0) + n
        rows["stages_forgotten"] = queries.delete_dataset_row(conn, dataset_id, names[0])
    rows = {key: n for key, n in rows.items() if n}
    used = queries.still_used(conn, uris)
    for name in names:
        localizations.audit(
            conn, "delete", kind, name, {**detail, "rows": rows, "deleted_together": len(names), **marked}
        )
    return Removed(kind, names, rows, uris=[item for item in uris if item not in used], **marked)


def remove_files(uris: Iterable[str], settings: Settings) -> tuple[list[str], list[str]]:
    """Unlink files inside GEOFIX_HOME; (removed, left where they are).

    Links are followed first: a file whose real place is elsewhere, below the servers' folders, or on another
    machine stays.
    """
    home = settings.home_dir
    removed, left = [], []
    for uri in uris:
        path = _local(uri)
        real = None if path is None else path.resolve()
        inside = real is not None and real.is_relative_to(home) and real.is_file()
        if real is not None and inside and real.relative_to(home).parts[0] not in SERVER_FOLDERS:
            real.unlink()
            removed.append(uri)
        else:
            left.append(uri)
    return removed, left


def _local(uri: str) -> Path | None:
    """The path of a `file://` URI or of an absolute path; None for anything else."""
    if uri.startswith("file://"):
        return Path(uri.removeprefix("file://"))
    return Path(uri) if uri.startswith("/") else None
