"""Where plain pictures lie: a table beside them says so."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from affine import Affine

from geofix.imagery.describe import parse_date
from geofix.imagery.handles import lonlat_to, parse_crs
from geofix.imagery.sources import RasterError

_NAMES = ("image_path", "path", "file", "filename", "image", "name")
_CENTRES = (
    ("center_lon", "center_lat"),
    ("centre_lon", "centre_lat"),
    ("lon", "lat"),
    ("longitude", "latitude"),
)
_BOUNDS = (
    ("west", "south", "east", "north"),
    ("minx", "miny", "maxx", "maxy"),
    ("xmin", "ymin", "xmax", "ymax"),
)
_FALSE = {"false", "0", "no", "f", "n"}


@dataclass(frozen=True)
class Extent:
    """The place of one picture.

    Args:
        crs: ``EPSG:n``, WKT or PROJ string in which the picture's axes lie.
        bounds: Left, bottom, right, top in units of the CRS.
        captured_at: Day of capture, if the table names it.
        licence: Licence of the picture, if the table names it.
        attribution: Where it comes from, if the table names it.
    """

    crs: str
    bounds: tuple[float, float, float, float]
    captured_at: date | None = None
    licence: str | None = None
    attribution: str | None = None

    def transform(self, width: int, height: int) -> tuple[float, float, float, float, float, float]:
        """Pixel corner -> CRS units for a picture of width x height pixels."""
        left, bottom, right, top = self.bounds
        return tuple(
            (Affine.translation(left, top) @ Affine.scale((right - left) / width, (bottom - top) / height))[
                :6
            ]
        )


def read_extents(path: Path) -> tuple[dict[str, Extent], dict[str, RasterError]]:
    """Read a CSV table of extents.

    One row per picture: its path relative to the table (``image_path``, ``path`` or ``file``) and either
    ``center_lon, center_lat`` (degrees) with ``extent_m`` (or ``width_m, height_m``), or ``west, south, east,
    north`` in units of ``crs``. ``crs`` is optional: without it bounds are degrees of EPSG:4326; a picture
    around a centre is taken as north-up in the azimuthal equidistant frame of that centre (true metres; a
    picture cut in a national grid is turned against that by the meridian convergence, under 2 degrees in
    most zones, that is 3 m at 100 m from the centre: name the grid's CRS to avoid it). ``captured_at``,
    ``licence`` and ``source`` are kept where present.

    Returns:
        Name -> extent, and name -> error for rows that cannot be used.

    Raises:
        RasterError: `bad_extent`: the table has no column that names the picture.
    """
    extents: dict[str, Extent] = {}
    errors: dict[str, RasterError] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            names = [
                name for name in _NAMES if name in {str(f).strip().lower() for f in reader.fieldnames or []}
            ]
            if not names:
                raise RasterError(
                    "bad_extent",
                    f"{path}: columns {reader.fieldnames} name no picture.",
                    hint=f"Call the column {', '.join(_NAMES[:3])}.",
                )
            for number, raw in enumerate(reader, start=2):
                row = {
                    str(k).strip().lower(): (v or "").strip()
                    for k, v in raw.items()
                    if isinstance(v, str | None)
                }
                name = row[names[0]]
                try:
                    extents[name] = _extent(row, f"{path}:{number} ({name})")
                except RasterError as error:
                    errors[name or f"line {number}"] = error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RasterError("bad_extent", f"{path}: not a readable CSV table ({error}).") from error
    return extents, errors


def _extent(row: Mapping[str, str], where: str) -> Extent:
    """The extent of one row."""
    if row.get("north_up", "").lower() in _FALSE:
        raise RasterError(
            "bad_extent", f"{where}: not north-up.", hint="Give such pictures a world file (.jgw) instead."
        )
    crs = row.get("crs", "")
    bounds = _bounds(row, crs, where)
    if bounds is None:
        crs, bounds = _around_centre(row, crs, where)
    if not (bounds[2] > bounds[0] and bounds[3] > bounds[1]):
        raise RasterError("bad_extent", f"{where}: bounds {bounds} enclose nothing.")
    return Extent(
        crs or "EPSG:4326",
        bounds,
        parse_date(row.get("captured_at", "")),
        row.get("licence") or row.get("license") or None,
        row.get("attribution") or row.get("source") or None,
    )


def _bounds(row: Mapping[str, str], crs: str, where: str) -> tuple[float, float, float, float] | None:
    """Bounds given outright, or None."""
    for names in _BOUNDS:
        if all(row.get(name) for name in names):
            left, bottom, right, top = (_number(row, name, where) for name in names)
            if not crs and not (
                -540 <= left <= 540 and -540 <= right <= 540 and -90 <= bottom <= 90 and top <= 90
            ):
                raise RasterError(
                    "bad_extent",
                    f"{where}: {left}, {bottom}, {right}, {top} are no degrees.",
                    hint="Add a crs column.",
                )
            return left, bottom, right, top
    return None


def _around_centre(
    row: Mapping[str, str], crs: str, where: str
) -> tuple[str, tuple[float, float, float, float]]:
    """CRS and bounds from a centre and a size in metres."""
    for lon_name, lat_name in _CENTRES:
        if row.get(lon_name) and row.get(lat_name):
            break
    else:
        raise RasterError(
            "missing_extent",
            f"{where}: neither bounds nor a centre.",
            hint="Columns west, south, east, north, or center_lon, center_lat, extent_m.",
        )
    lon, lat = _number(row, lon_name, where), _number(row, lat_name, where)
    if not (abs(lon) <= 180 and abs(lat) <= 90):
        raise RasterError("bad_extent", f"{where}: centre lon {lon}, lat {lat} is not on earth.")
    width = _number(row, "width_m" if row.get("width_m") else "extent_m", where)
    height = _number(row, "height_m" if row.get("height_m") else "extent_m", where)
    x = y = 0.0
    if crs:
        x, y = lonlat_to(parse_crs(crs, where)).transform(lon, lat)
    else:
        crs = f"+proj=aeqd +lat_0={lat!r} +lon_0={lon!r} +datum=WGS84 +units=m +no_defs"
    return crs, (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _number(row: Mapping[str, str], name: str, where: str) -> float:
    """A finite number of a column."""
    try:
        value = float(row.get(name, ""))
    except ValueError as error:
        raise RasterError("bad_extent", f"{where}: {name} is {row.get(name)!r}, not a number.") from error
    if value != value or abs(value) == float("inf"):
        raise RasterError("bad_extent", f"{where}: {name} is {value}.")
    return value
