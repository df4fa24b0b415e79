"""A region as people write it: LEVEL:CODE of a loaded region, a file of polygons, or WKT."""

from __future__ import annotations

from pathlib import Path

import shapely
from shapely.geometry.base import BaseGeometry

from geofix.database.engine import Connection
from geofix.database.queries.cells import find_region
from geofix.errors import BadInputError, NotFoundError

_WKT = ("POLYGON", "MULTIPOLYGON", "GEOMETRYCOLLECTION", "SRID=4326;")


def region_ewkb(conn: Connection, text: str) -> bytes:
    """The region as EWKB in EPSG:4326, valid, polygons only.

    Args:
        conn: Open connection, for LEVEL:CODE.
        text: `country:FRA`, the name or code of a region alone, `area.geojson`, or `POLYGON((...))`.

    Raises:
        NotFoundError: No such region and no such file.
        BadInputError: The file or WKT holds no polygon.
    """
    if text.upper().lstrip().startswith(_WKT):
        try:
            shape = shapely.from_wkt(text.split(";", 1)[-1])
        except shapely.errors.ShapelyError as error:
            raise BadInputError(f"WKT {text[:60]!r} cannot be read: {error}.") from error
        return _ewkb(shape, "the WKT")
    path = Path(text)
    if path.suffix and path.is_file():
        return _ewkb(_read(path), str(path))
    level, _, code = text.rpartition(":")
    found = find_region(conn, level or None, code)
    if found is None:
        raise NotFoundError(
            f"{text!r} is no loaded region, no file and no WKT.",
            hint="Regions are written LEVEL:CODE, for example country:FRA.",
        )
    return found


def _read(path: Path) -> BaseGeometry:
    """All polygons of a file as one geometry in EPSG:4326."""
    import pyogrio

    try:
        frame = pyogrio.read_dataframe(path)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise BadInputError(f"{path} cannot be read as polygons: {error}.") from error
    if frame.crs is not None:
        frame = frame.to_crs(4326)
    return frame.geometry.union_all()


def _ewkb(shape: BaseGeometry, where: str) -> bytes:
    """Repair, keep polygons, check that there are any."""
    whole = shapely.make_valid(shape)
    parts = [part for part in shapely.get_parts(whole) if part.geom_type in ("Polygon", "MultiPolygon")]
    merged = shapely.union_all(parts)
    if merged.is_empty:
        raise BadInputError(f"{where} holds no polygon.", hint="Give a polygon in longitude and latitude.")
    west, south, east, north = merged.bounds
    if west < -180 or east > 180 or south < -90 or north > 90:
        raise BadInputError(
            f"{where} lies outside longitude and latitude ({west:g} {south:g} {east:g} {north:g}).",
            hint="Give it in EPSG:4326.",
        )
    ewkb: bytes = shapely.to_wkb(shapely.set_srid(merged, 4326), include_srid=True)
    return ewkb
