"""Loading aerial imagery: rows for rasters and pyramids; pixels stay where they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from geofix.database.engine import Connection
from geofix.database.queries import aerial as queries
from geofix.database.queries.aerial import Reject
from geofix.errors import NotFoundError, UsageError
from geofix.imagery.extents import Extent, read_extents
from geofix.imagery.handles import close_all
from geofix.imagery.sources import RasterError, RasterSource
from geofix.imagery.xyz import load_tile
from geofix.ingest.aerial_files import Item, Options, Stamp, describe_item, find_items, stamp_of
from geofix.ingest.aerial_tiles import MissingTiles, missing_tiles, register_tiles
from geofix.log import get_logger, progress

__all__ = [
    "AerialResult",
    "MissingTiles",
    "ingest_aerial",
    "missing_tiles",
    "raster_sources",
    "register_tiles",
]

BATCH = 64
_log = get_logger(__name__)


@dataclass(slots=True)
class AerialResult:
    """What an ingest did.

    Args:
        rasters: Rasters and pyramids loaded or replaced.
        unchanged: Those that were loaded before, with the same bytes and options.
        rejected: Files, and tiles of pyramids, in the rejects table.
        reasons: Reason -> how many.
    """

    rasters: int = 0
    unchanged: int = 0
    rejected: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


def ingest_aerial(
    conn: Connection,
    paths: Sequence[str | Path],
    *,
    source: str,
    captured_at: date | None = None,
    licence: str | None = None,
    attribution: str | None = None,
    extents: Path | None = None,
    crs: str | None = None,
    bands: tuple[int, ...] | None = None,
    tms: bool = False,
    fallback_zooms: int = 0,
    blank_rgb: tuple[int, int, int] | None = None,
) -> AerialResult:
    """Register rasters and XYZ pyramids as one source of aerial imagery.

    A raster is identified by source and URI. It is left alone when its bytes and the options are those of the
    last time: bytes are compared by sha256 up to 256 MiB, beyond that (and for pyramids over all their tiles)
    by size and time of change. A raster whose pixels changed loses its tiles, and gets new ones from
    `register_tiles`. Rows are committed in batches of `BATCH`: a killed run is finished by running it again.

    Args:
        conn: An open connection; it is committed.
        paths: Rasters, folders of rasters, z/x/y folders, or URIs GDAL can read.
        source: Name of the data set.
        captured_at: Day of capture; None: from tags, then from a date in the name of the file or its folder.
        licence: Licence of the imagery; kept when None.
        attribution: Whom to credit; kept when None.
        extents: CSV that says where plain pictures lie; see `geofix.imagery.extents`.
        crs: CRS of rasters that name none.
        bands: The one or three bands to show as RGB, from 1.
        tms: Rows of pyramids are counted from the south.
        fallback_zooms: How many zooms finer or coarser may fill in for a pyramid's missing tiles.
        blank_rgb: Colour of areas without imagery inside a pyramid's tiles.

    Raises:
        NotFoundError: a path, or the table of extents, does not exist.
        RasterError: the table of extents cannot be read.
        UsageError: `source` names a data set of another kind.
    """
    listed, rejects = _listed(extents)
    options = Options(captured_at, crs, bands, tms, fallback_zooms, blank_rgb)
    items = list(find_items(paths, listed))
    dataset_id = queries.ensure_source(
        conn,
        source,
        "aerial",
        licence=licence or _common(extent.licence for extent in listed.values()),
        attribution=attribution or _common(extent.attribution for extent in listed.values()),
        source_uri=", ".join(str(path) for path in paths)[:1000],
    )
    found = {Path(item.uri).resolve() for item in items}
    rejects += [
        Reject(path.name, "unreadable", f"{path} is in {extents} but does not exist.")
        for path in listed
        if path not in found and not path.exists()
    ]
    result = AerialResult()
    _note(conn, dataset_id, rejects, result)
    known = queries.known_rasters(conn, dataset_id)
    with progress("aerial imagery", len(items), "rasters") as advance:
        for start in range(0, len(items), BATCH):
            batch = items[start : start + BATCH]
            _load(conn, dataset_id, batch, known, options, result)
            conn.commit()
            advance(len(batch))
    if not items:
        raise NotFoundError(
            f"No raster and no z/x/y folder in {', '.join(str(path) for path in paths)}.",
            hint="Formats: GeoTIFF, JPEG 2000, Erdas, JPEG, PNG, WebP.",
        )
    _log.info("aerial ingest", source=source, rasters=result.rasters, rejected=result.rejected)
    return result


def _listed(extents: Path | None) -> tuple[dict[Path, Extent], list[Reject]]:
    """Real path -> extent, and the rows of the table that cannot be used."""
    if extents is None:
        return {}, []
    if not extents.exists():
        raise NotFoundError(f"{extents} does not exist.", hint="Name a CSV with --extents.")
    good, bad = read_extents(extents)
    folder = extents.resolve().parent
    rejects = [Reject(name, error.reason, str(error)) for name, error in bad.items()]
    return {(folder / name).resolve(): extent for name, extent in good.items()}, rejects


def _common(values: Any) -> str | None:
    """The one value all rows agree on, or None."""
    distinct = {value for value in values if value}
    return distinct.pop() if len(distinct) == 1 else None


def _load(
    conn: Connection,
    dataset_id: int,
    batch: Sequence[Item],
    known: dict[str, queries.KnownRaster],
    options: Options,
    result: AerialResult,
) -> None:
    """Describe and merge one batch."""
    # A handle from before a file was replaced would still show the old pixels.
    close_all()
    load_tile.cache_clear()
    rows, rejects, good = [], [], []
    for item in batch:
        try:
            if item.error is not None:
                raise item.error
            before = known.get(item.uri)
            stamp = stamp_of(item, before)
            if before is not None and _unchanged(conn, dataset_id, item, stamp, before, options):
                result.unchanged += 1
                continue
            row, bad_tiles = describe_item(item, stamp, options)
            rows.append(row)
            good.append(item.key)
            rejects += [
                Reject(f"{item.key}/{name}", why, f"{name}: {why}") for name, why in bad_tiles.items()
            ]
        except RasterError as error:
            rejects.append(Reject(item.key, error.reason, str(error)))
    queries.clear_rejects(conn, dataset_id, "aerial", good)
    result.rasters += queries.merge_rasters(conn, dataset_id, rows)
    _note(conn, dataset_id, rejects, result)


def _unchanged(
    conn: Connection, dataset_id: int, item: Item, stamp: Stamp, before: queries.KnownRaster, options: Options
) -> bool:
    """Whether nothing has to be done; a new time of change alone is noted."""
    if before.options != options.key(item.extent) or not stamp.same_file(before):
        return False
    if stamp.file_mtime_ns is not None and stamp.file_mtime_ns != before.file_mtime_ns:
        queries.touch_raster(conn, dataset_id, item.uri, stamp.file_bytes or 0, stamp.file_mtime_ns)
    return True


def _note(conn: Connection, dataset_id: int, rejects: Sequence[Reject], result: AerialResult) -> None:
    """Write rejects and count them."""
    queries.add_rejects(conn, dataset_id, "aerial", rejects)
    result.rejected += len(rejects)
    for reject in rejects:
        result.reasons[reject.reason] = result.reasons.get(reject.reason, 0) + 1


def raster_sources(conn: Connection, *, source: str) -> dict[int, RasterSource]:
    """Raster id -> how to read it, for `geofix.imagery.raster.read_square`.

    Raises:
        UsageError: there is no such source.
    """
    dataset_id = queries.find_source(conn, source, "aerial")
    if dataset_id is None:
        raise UsageError(f"No aerial imagery called {source!r}.", hint="Load it with geofix ingest aerial.")
    return {
        number: RasterSource.from_row(uri, kind, crs, reading)  # type: ignore[arg-type]
        for number, uri, kind, crs, reading in queries.rasters(conn, dataset_id)
    }
