"""A region as people write it: LEVEL:CODE of a loaded region, a file of polygons, or WKT."""

from __future__ import annotations

from pathlib import Path

import shapely
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from geofix.database.engine import Connection
from geofix.database.queries.cells import find_region
from geofix.errors import BadInputError, NotFoundError

_WKT = ("POLYGON", "MULTIPOLYGON", "GEOMETRYCOLLECTION", "SRID=4326;")
_SHOWN = 60  # characters of a text in messages


def region_ewkb(conn: Connection, text: str) -> bytes:
    """The region as EWKB in EPSG:4326, valid, polygons only; longitudes beyond 180 degrees are wrapped.

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
            raise BadInputError(f"WKT {text[:_SHOWN]!r} cannot be read: {error}.") from error
        return _ewkb(shape, "the WKT")
    path = region_file(text)
    if path is not None:
        return _ewkb(_read(path), str(path))
    level, _, code = text.rpartition(":")
    # A NUL can stand in no text of the database, so no region is called that.
    found = None if "\0" in text else find_region(conn, level or None, code)
    if found is None:
        raise NotFoundError(
            f"{text[:_SHOWN]!r} is no loaded region, no file and no WKT.",
            hint="Regions are written LEVEL:CODE, for example country:FRA.",
        )
    return found


def region_file(text: str) -> Path | None:
    """The file that a region's text names; None when it names none. A name without a suffix is no file."""
    path = Path(text)
    try:
        return path if path.suffix and path.is_file() else None
    except (OSError, ValueError):  # longer than a path may be
        return None


def _read(path: Path) -> BaseGeometry:
    """All polygons of a file as one geometry in EPSG:4326."""
    import geopandas
    import pyogrio
    from pyproj.exceptions import ProjError

    try:
        frame = pyogrio.read_dataframe(path)
        if not isinstance(frame, geopandas.GeoDataFrame):
            raise BadInputError(f"{path} has no geometry column.", hint="Give a file of polygons.")
        if frame.crs is not None:
            frame = frame.to_crs(4326)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, ProjError) as error:
        raise BadInputError(f"{path} cannot be read as polygons: {error}.") from error
    return shapely.GeometryCollection([shape for shape in frame.geometry if shape is not None])


def _ewkb(shape: BaseGeometry, where: str) -> bytes:
    """Repair, keep polygons, check that there are any."""
    from geofix.imagery.footprints import keep_polygons

    try:
        polygons = keep_polygons(shapely.make_valid(shape))
    except shapely.errors.ShapelyError as error:  # a coordinate that is no number
        raise BadInputError(f"{where} cannot be repaired: {error}.") from error
    if polygons.is_empty:
        raise BadInputError(f"{where} holds no polygon.", hint="Give a polygon in longitude and latitude.")
    west, south, east, north = polygons.bounds
    if not (west >= -540 and east <= 540 and south >= -90 and north <= 90 and east - west <= 360):
        raise BadInputError(
            f"{where} lies outside longitude and latitude ({west:g} {south:g} {east:g} {north:g}).",
            hint="Give it in EPSG:4326.",
        )
    merged = shapely.union_all(polygons)
    if west < -180 or east > 180:
        turned = [translate(merged, xoff=turn) for turn in (-360.0, 0.0, 360.0)]
        whole = shapely.intersection(turned, shapely.box(-180, -90, 180, 90))
        merged = shapely.union_all(keep_polygons(shapely.union_all(whole)))
    ewkb: bytes = shapely.to_wkb(shapely.set_srid(merged, 4326), include_srid=True)
    return ewkb
