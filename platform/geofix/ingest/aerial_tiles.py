"""From rasters to one north-up tile per cell, and what a pyramid lacks for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geofix.database.engine import Connection
from geofix.database.queries import aerial as queries
from geofix.database.queries.aerial import TileCounts
from geofix.errors import UsageError
from geofix.imagery.footprints import repair
from geofix.imagery.pyramid import missing_tiles as missing_of_square
from geofix.imagery.raster import SIDE_M, SIZE_PX, RasterSource, Square, square_points
from geofix.imagery.xyz import fitting_zoom
from geofix.log import progress
from geofix.spatial import s2
from geofix.spatial.covering import iter_cells_in
from geofix.spatial.frames import square_around


@dataclass(frozen=True, slots=True)
class MissingTiles:
    """The tiles of a pyramid that one cell's square needs and that do not exist.

    Args:
        s2_id: The cell.
        token: Its S2 token.
        zoom: Zoom at which the square would be read.
        needed: Tiles that cover the square.
        missing: Names ``z/x/y.ext`` of those that are not there.
    """

    s2_id: int
    token: str
    zoom: int
    needed: int
    missing: tuple[str, ...]


def register_tiles(
    conn: Connection,
    *,
    source: str,
    level: int = 16,
    side_m: float = SIDE_M,
    min_coverage: float = 0.5,
) -> TileCounts:
    """Give every cell whose centre lies in imagery a tile, per capture date.

    Set-based and repeatable: tiles that are no longer covered, or are cut from other rasters than before, are
    replaced; the rest keep their ids. Rasters of one date are laid over each other, finest first.

    Args:
        conn: An open connection; the caller commits.
        source: Name of the aerial data set.
        level: S2 level of the cells.
        side_m: Side of a tile, metres.
        min_coverage: Least share of the tile's area inside footprints, 0..1.

    Raises:
        UsageError: no such source, or numbers out of range.
    """
    if not (0 <= level <= 30 and side_m > 0 and 0 <= min_coverage <= 1):
        raise UsageError(f"level {level}, side {side_m} m, coverage {min_coverage}: out of range.")
    dataset_id = _dataset(conn, source)
    areas = [(day, shapely.from_wkb(wkb)) for day, wkb in queries.footprints(conn, dataset_id)]
    return queries.merge_tiles(
        conn,
        dataset_id,
        _squares(areas, level, side_m),
        level=level,
        side_m=side_m,
        min_coverage=min_coverage,
    )


def _dataset(conn: Connection, source: str) -> int:
    """Id of an aerial data set."""
    dataset_id = queries.find_source(conn, source, "aerial")
    if dataset_id is None:
        raise UsageError(f"No aerial imagery called {source!r}.", hint="Load it with geofix ingest aerial.")
    return dataset_id


def _squares(
    areas: list[tuple[date | None, Any]], level: int, side_m: float
) -> Iterator[tuple[int, date | None, bytes]]:
    """(cell, date, WKB of the square) for the cells whose centre lies in the imagery of a date."""
    for day, area in areas:
        with progress("aerial tiles", None, "cells") as advance:
            for cells in iter_cells_in(area, level):
                for part in np.array_split(cells, max(1, cells.size // 16_384)):
                    for cell, outline in zip(part, _outlines(part, side_m), strict=True):
                        yield int(cell), day, outline
                    advance(part.size)


def _outlines(cells: NDArray[np.int64], side_m: float) -> list[bytes]:
    """WKB outlines of the squares around cell centres, cut at the 180th meridian."""
    lon, lat = s2.center(cells)
    corners = square_around(lon, lat, side_m)
    polygons = shapely.polygons(corners)
    for row in np.flatnonzero(np.ptp(corners[..., 0], axis=1) > 180.0):
        polygons[row] = repair(polygons[row])[0]
    return [bytes(wkb) for wkb in shapely.to_wkb(polygons)]


def missing_tiles(
    conn: Connection,
    *,
    source: str,
    level: int = 16,
    side_m: float = SIDE_M,
    size_px: int = SIZE_PX,
    within: Any = None,
) -> Iterator[MissingTiles]:
    """Report, cell by cell, the tiles that pyramids lack at the zoom that fits.

    Cells looked at are those in the area where the pyramid has tiles at the fitting zoom, up to one zoom
    coarser or any finer one: where only coarser tiles exist, all fine ones count as missing.

    Args:
        conn: An open connection.
        source: Name of the aerial data set.
        level: S2 level of the cells.
        side_m: Side of a tile, metres.
        size_px: Side of the picture, pixels; with `side_m` it decides the zoom.
        within: Shapely geometry in degrees to look at instead.

    Yields:
        One row per cell that lacks at least one tile, in the order of cells.
    """
    dataset_id = _dataset(conn, source)
    pyramids = {
        number: RasterSource.from_row(uri, "xyz", crs, reading)
        for number, uri, kind, crs, reading in queries.rasters(conn, dataset_id)
        if kind == "xyz"
    }
    for number, areas in queries.zoom_footprints(conn, dataset_id):
        pyramid = pyramids[number]
        layout = pyramid.xyz
        assert layout is not None
        shapes = {int(zoom): shapely.geometry.shape(area) for zoom, area in areas.items()}
        fit = fitting_zoom(layout, shapes[layout.zooms[-1]].centroid.y, side_m / size_px)
        area = within or shapely.union_all([shape for zoom, shape in shapes.items() if zoom >= fit - 1])
        for cells in iter_cells_in(area, level):
            centres = np.stack(s2.center(cells), axis=-1)
            for cell, (lon, lat) in zip(cells, centres, strict=True):
                zoom = fitting_zoom(layout, lat, side_m / size_px)
                _, lons, lats = square_points(Square(float(lon), float(lat), side_m, size_px))
                needed, names = missing_of_square(pyramid, zoom, lons, lats)
                if names:
                    yield MissingTiles(int(cell), str(s2.token(cell)), zoom, needed, tuple(names))
