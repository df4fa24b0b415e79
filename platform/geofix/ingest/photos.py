"""Photos from a folder, a metadata file or both into the database, whole or not at all."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from geofix.database.engine import Connection
from geofix.database.queries import photos as queries
from geofix.database.queries.photo_stage import seen_keys
from geofix.errors import NotFoundError, ServiceError, UsageError
from geofix.ingest.checks import Limits, Refusal
from geofix.ingest.files import FileFinder, Found, name_problem, walk
from geofix.ingest.formats import PhotoRow, read_rows
from geofix.ingest.formats.base import printable
from geofix.ingest.loader import IngestResult, Loader, batches
from geofix.ingest.pool import FileChecker
from geofix.ingest.rows import Candidate
from geofix.log import get_logger, progress
from geofix.settings import get_settings

BATCH_PHOTOS = 2_000
BATCH_POSITIONS = 20_000
LOCK_WAIT_S = 20.0

_log = get_logger(__name__)


def ingest_photos(
    conn: Connection,
    path: Path,
    *,
    dataset: str,
    metadata: Path | None = None,
    metadata_format: str | None = None,
    licence: str | None = None,
    attribution: str | None = None,
    columns: Mapping[str, str] | None = None,
    positions_only: bool = False,
    any_extension: bool = False,
    workers: int = 0,
    region_levels: Sequence[str] | None = None,
) -> IngestResult:
    """Load photos; bad ones go to the table `reject` with their reason, the rest is loaded.

    Work is committed in batches, each with its rejects, so that a run killed at any moment leaves whole
    photos only and the next run continues: a file of known size and modification time is not opened
    again. A second run over unchanged input changes nothing.

    With `metadata`, its rows decide and the file's EXIF fills what they leave open; files that no row names
    are taken by their EXIF alone.

    Args:
        conn: Commits happen inside; nothing uncommitted may be pending.
        path: Folder of photos or one photo; with `positions_only` and no `metadata`, the metadata file.
        dataset: Name of the data set, made when new.
        metadata: File with one row per photo, see `geofix.ingest.formats`.
        metadata_format: Its format; None: by content.
        licence: Of the data set; None keeps what is stored.
        attribution: Whom to credit; None keeps what is stored.
        columns: Field -> column of the metadata file, or a template such as ``{id}.jpg``.
        positions_only: Rows are photos without files.
        any_extension: Take images whose name claims another image format.
        workers: Processes for decoding; 0: as in the settings.
        region_levels: Levels at which photos get a region; None: all that are loaded.

    Raises:
        UsageError: Contradictory arguments.
        NotFoundError: No such path.
        BadInputError: The metadata file as a whole cannot be used.
        ServiceError: Another process is loading this data set.
    """
    if positions_only and metadata is None:
        metadata = path
    if not path.exists():
        raise NotFoundError(f"{path} does not exist.", hint="Give a folder of photos or a metadata file.")
    if positions_only and metadata is not None and metadata.is_dir():
        raise UsageError(f"{metadata} is a folder.", hint="With positions only, give the metadata file.")
    settings = get_settings()
    limits = Limits(settings.max_photo_pixels, settings.max_photo_bytes, any_extension)
    conn.commit()
    dataset_id, kind = queries.ensure_dataset(
        conn, dataset, licence=licence, attribution=attribution, source_uri=printable(os.path.realpath(path))
    )
    if kind != "photos":
        conn.rollback()
        raise UsageError(f"Data set {dataset!r} holds {kind}, not photos.", hint="Choose another name.")
    conn.commit()
    _lock(conn, dataset_id, dataset)
    try:
        with FileChecker(limits, workers) as checker, progress("ingest photos", None, "photos") as advance:
            loader = Loader(conn, dataset_id, checker, advance)
            for source in _sources(conn, path, metadata, metadata_format, columns, positions_only):
                loader.run(source, BATCH_POSITIONS if positions_only else BATCH_PHOTOS)
        result = loader.result
        result.regions = queries.assign_regions(conn, dataset_id=dataset_id, levels=region_levels)
        conn.commit()
    finally:
        if not conn.closed:
            conn.rollback()
            queries.unlock_dataset(conn, dataset_id)
            conn.commit()
    _log.info("photos ingested", dataset=dataset, loaded=result.loaded, rejected=result.rejected)
    return result


def _lock(conn: Connection, dataset_id: int, dataset: str) -> None:
    """Take the data set, waiting a little: the server may not have noticed yet that a killed run is gone."""
    deadline = time.monotonic() + LOCK_WAIT_S
    while not queries.lock_dataset(conn, dataset_id):
        conn.commit()
        if time.monotonic() > deadline:
            raise ServiceError(
                f"Another process is loading photos into data set {dataset!r}.",
                hint="Wait for it, or stop it.",
            )
        time.sleep(0.2)
    conn.commit()


def _sources(
    conn: Connection,
    path: Path,
    metadata: Path | None,
    metadata_format: str | None,
    columns: Mapping[str, str] | None,
    positions_only: bool,
) -> Iterator[Iterable[Candidate]]:
    """What to load, in this order; each is taken up only after the one before is stored."""
    if metadata is not None:
        need = ("lat", "lon") if positions_only else ("image_path",)
        rows = read_rows(metadata, name=metadata_format, columns=columns, need=need)
        if positions_only:
            yield (_position(row, metadata) for row in rows)
            return
        root = path if path.is_dir() else path.parent
        finder = FileFinder(root, metadata.parent)
        wanted = None if path.is_dir() else os.path.realpath(path)
        listed = (_listed(row, metadata, finder) for row in rows)
        yield (c for c in listed if wanted is None or (c.path and os.path.realpath(c.path) == wanted))
    if path.is_dir():
        files: Iterable[Found] = walk(path)
    else:
        files = [Found(printable(path.name), os.path.realpath(path), name_problem(path.name))]
    if metadata is None:
        yield (Candidate(found.key, found.path, refusal=found.refusal) for found in files)
    else:
        yield _unlisted(conn, files)


def _position(row: PhotoRow, metadata: Path) -> Candidate:
    label = f"{printable(metadata.name)}#{row.line}"
    key = printable(row.image_path or row.external_id or label)
    return Candidate(key, row=row, refusal=Refusal(*row.problem) if row.problem else None, label=label)


def _listed(row: PhotoRow, metadata: Path, finder: FileFinder) -> Candidate:
    label = f"{printable(metadata.name)}#{row.line}"
    if row.image_path is None:
        refusal = Refusal(*row.problem) if row.problem else Refusal("bad_row", "the row names no photo")
        return Candidate(label, row=row, refusal=refusal, label=label)
    found = finder.find(row.image_path)
    refusal_or_none = found.refusal or (Refusal(*row.problem) if row.problem else None)
    return Candidate(found.key, found.path or None, row, refusal_or_none, label)


def _unlisted(conn: Connection, files: Iterable[Found]) -> Iterator[Candidate]:
    """Files that no metadata row has named; those handled in this run are known to the session."""
    for batch in batches(files, BATCH_PHOTOS):
        seen = seen_keys(conn, [found.key for found in batch])
        for found in batch:
            if found.key not in seen:
                yield Candidate(found.key, found.path, refusal=found.refusal, unlisted=True)
