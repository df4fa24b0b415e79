"""Aerial imagery on disk: finding it, telling whether it changed, and describing one piece of it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import fsspec
import shapely
from PIL import Image, UnidentifiedImageError
from psycopg.types.json import Jsonb

from geofix.database.queries.aerial import KnownRaster
from geofix.errors import NotFoundError
from geofix.imagery.describe import describe_raster, parse_date
from geofix.imagery.extents import Extent
from geofix.imagery.handles import is_remote
from geofix.imagery.pyramid import footprint, is_pyramid, listing_digest, scan_pyramid
from geofix.imagery.raster import SIDE_M, SIZE_PX
from geofix.imagery.sources import RasterError, RasterSource, SourceKind
from geofix.imagery.xyz import fitting_zoom, gsd_m
from geofix.ingest.formats.base import printable

EXTENSIONS = frozenset({".tif", ".tiff", ".jp2", ".img", ".jpg", ".jpeg", ".png", ".webp"})
MAX_HASHED_BYTES = 256 * 2**20
"""Files up to this size are told apart by sha256, larger ones by size and time of change."""


@dataclass(frozen=True, slots=True)
class Options:
    """How everything of one call is to be read; part of what makes a raster unchanged.

    Args:
        captured_at: Day of capture of all imagery; None: tags, then a date in the name of file or folder.
        crs: CRS of rasters that name none.
        bands: The one or three bands to show.
        tms: Pyramid rows are counted from the south.
        fallback_zooms: How many zooms finer or coarser may fill in for missing tiles.
        blank_rgb: Colour of areas without imagery inside a pyramid's tiles.
    """

    captured_at: date | None = None
    crs: str | None = None
    bands: tuple[int, ...] | None = None
    tms: bool = False
    fallback_zooms: int = 0
    blank_rgb: tuple[int, int, int] | None = None

    def key(self, extent: Extent | None) -> str:
        """A text that differs when anything here, or the extent, differs."""
        values = [self.captured_at, self.crs, self.bands, self.tms, self.fallback_zooms, self.blank_rgb]
        place = None if extent is None else [extent.crs, extent.bounds, extent.captured_at]
        return json.dumps([values, place], default=str)


@dataclass(frozen=True, slots=True)
class Item:
    """One raster or pyramid: its key in the rejects, its URI, the folder it was found under, or an error."""

    key: str
    uri: str
    kind: SourceKind
    extent: Extent | None = None
    error: RasterError | None = None


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells whether a file changed; `sha256` is None for remote and very large files."""

    file_bytes: int | None
    file_mtime_ns: int | None
    sha256: bytes | None

    def same_file(self, known: KnownRaster) -> bool:
        """Whether the bytes are the ones that were loaded."""
        if self.sha256 is not None:
            return self.sha256 == known.sha256
        return (self.file_bytes, self.file_mtime_ns) == (known.file_bytes, known.file_mtime_ns)


def find_items(paths: Sequence[str | Path], extents: Mapping[Path, Extent]) -> Iterator[Item]:
    """Rasters and pyramids named by paths; folders are walked in the order of names.

    Symbolic links that lead out of a folder are refused; sidecars and other files are passed over.

    Args:
        paths: Files, folders, z/x/y folders, or URIs of rasters.
        extents: Real path -> extent of plain pictures.

    Raises:
        NotFoundError: a path does not exist.
    """
    for given in paths:
        if is_remote(str(given)):
            yield Item(str(given), str(given), "raster")
            continue
        path = Path(str(given).removeprefix("file://"))
        if path.is_dir():
            yield from _walk(path.resolve(), extents)
        elif path.exists():
            yield _item(path.resolve(), path.name, extents)
        else:
            raise NotFoundError(
                f"{path} does not exist.", hint="Name a raster, a folder of rasters, or a z/x/y folder."
            )


def _walk(root: Path, extents: Mapping[Path, Extent]) -> Iterator[Item]:
    """Everything below a folder."""
    if is_pyramid(root):
        yield Item(printable(str(root)), str(root), "xyz")
        return
    for folder, subfolders, names in os.walk(root):
        here = Path(folder)
        for name in sorted(subfolders):
            if (here / name).is_symlink():
                yield from _link(here / name, root)
            elif is_pyramid(here / name):
                path = here / name
                yield Item(printable(path.relative_to(root).as_posix()), str(path), "xyz")
        subfolders[:] = sorted(name for name in subfolders if not is_pyramid(here / name))
        for name in sorted(names):
            path = here / name
            if path.suffix.lower() not in EXTENSIONS or name.startswith("._"):
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                yield from _link(path, root)
            else:
                yield _item(path, path.relative_to(root).as_posix(), extents)


def _link(path: Path, root: Path) -> Iterator[Item]:
    """The refusal of a link that leads out of the folder; nothing for one that stays inside."""
    if not path.resolve().is_relative_to(root):
        key = printable(path.relative_to(root).as_posix())
        error = RasterError("symlink_outside", f"{key}: links to {printable(str(path.resolve()))}.")
        yield Item(key, printable(str(path)), "raster", error=error)


def _item(path: Path, key: str, extents: Mapping[Path, Extent]) -> Item:
    """One file."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        error = RasterError("bad_name", f"{printable(key)}: the name is not UTF-8.", hint="Rename the file.")
        return Item(printable(key), printable(str(path)), "raster", error=error)
    extent = extents.get(path.resolve())
    return Item(key, str(path), "raster" if extent is None else "extent", extent)


def stamp_of(item: Item, known: KnownRaster | None) -> Stamp:
    """Size, time and hash of an item; the hash is not computed again when size and time are those known.

    Raises:
        RasterError: `unreadable`.
    """
    try:
        if item.kind == "xyz":
            digest, size, newest = listing_digest(Path(item.uri))
            return Stamp(size, newest, digest)
        if is_remote(item.uri):
            files, path = fsspec.url_to_fs(item.uri)
            return Stamp(int(files.info(path)["size"]), None, None)
        status = Path(item.uri).stat()
        if known is not None and (status.st_size, status.st_mtime_ns) == (
            known.file_bytes,
            known.file_mtime_ns,
        ):
            return Stamp(status.st_size, status.st_mtime_ns, known.sha256)
        sha256 = None
        if status.st_size <= MAX_HASHED_BYTES:
            with Path(item.uri).open("rb") as stream:
                sha256 = hashlib.file_digest(stream, "sha256").digest()
        return Stamp(status.st_size, status.st_mtime_ns, sha256)
    except (OSError, KeyError, ImportError) as error:
        raise RasterError("unreadable", f"{item.uri}: {error}.") from error


def describe_item(item: Item, stamp: Stamp, options: Options) -> tuple[tuple[Any, ...], dict[str, str]]:
    """The database row of one raster or pyramid, and the bad tiles of a pyramid (name -> reason).

    Raises:
        RasterError: with its reason.
    """
    if item.kind == "xyz":
        return _describe_pyramid(item, stamp, options)
    transform = None
    if item.extent is not None:
        try:
            with Image.open(item.uri) as image:
                transform = item.extent.transform(*image.size)
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
            raise RasterError("unreadable", f"{item.uri}: {error}.") from error
    info = describe_raster(
        item.uri,
        kind=item.kind,
        crs=item.extent.crs if item.extent else options.crs,
        transform=transform,
        bands=options.bands,
    )
    listed = item.extent.captured_at if item.extent else None
    path = Path(item.uri)
    named = parse_date(path.stem) or parse_date(path.parent.name)
    day = options.captured_at or listed or info.captured_at or named
    reading = {
        **info.source.to_reading(),
        "options": options.key(item.extent),
        "overviews": list(info.overviews),
    }
    if info.nodata is not None and info.nodata == info.nodata:
        reading["nodata"] = info.nodata
    row = (
        item.uri,
        item.kind,
        stamp.sha256,
        stamp.file_bytes,
        stamp.file_mtime_ns,
        info.crs,
        info.width,
        info.height,
        info.bands,
        info.dtype,
        info.gsd_m,
        day,
        Jsonb(reading),
        _ewkb(info.footprint),
    )
    return row, {}


def _describe_pyramid(item: Item, stamp: Stamp, options: Options) -> tuple[tuple[Any, ...], dict[str, str]]:
    """One row for the whole pyramid; its geometry is the area where a 154 m tile at 256 px can be cut."""
    index = scan_pyramid(
        Path(item.uri),
        tms=options.tms,
        fallback_zooms=options.fallback_zooms,
        blank_rgb=options.blank_rgb,
    )
    layout = index.layout
    source = RasterSource(item.uri, "xyz", "EPSG:3857", xyz=layout)
    areas = {zoom: footprint(index, zoom) for zoom in layout.zooms}
    lat = areas[layout.zooms[-1]].centroid.y
    fit = fitting_zoom(layout, lat, SIDE_M / SIZE_PX)
    used = [zoom for zoom in layout.zooms if abs(zoom - fit) <= options.fallback_zooms]
    reading = {
        **source.to_reading(),
        "options": options.key(None),
        "fitting_zoom": fit,
        "blank_tiles": len(index.blank),
        "tiles": {str(zoom): len(tiles) for zoom, tiles in index.tiles.items()},
        "footprints": {str(zoom): shapely.geometry.mapping(area) for zoom, area in areas.items()},
    }
    row = (
        item.uri,
        item.kind,
        stamp.sha256,
        stamp.file_bytes,
        stamp.file_mtime_ns,
        "EPSG:3857",
        None,
        None,
        3,
        "uint8",
        gsd_m(fit, lat, layout.tile_px),
        options.captured_at,
        Jsonb(reading),
        _ewkb(shapely.union_all([areas[zoom] for zoom in used])),
    )
    return row, index.bad


def _ewkb(geometry: shapely.Geometry) -> bytes:
    """EWKB in EPSG:4326."""
    return bytes(shapely.to_wkb(shapely.set_srid(geometry, 4326), include_srid=True))
