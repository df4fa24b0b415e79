"""What a raster is: place, resolution, outline of its valid pixels, and how its values show as RGB."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import Geod, Transformer
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.windows import Window
from shapely import MultiPolygon

from geofix.imagery.footprints import mask_outline, to_lonlat
from geofix.imagery.handles import OpenRaster, crs_name, is_remote, local_path, lonlat_to, open_raster
from geofix.imagery.patches import Stretch, read_raw
from geofix.imagery.sources import RasterError, RasterSource, SourceKind

OVERVIEW_PX = 1024
"""Longest side of the picture from which footprint and stretch are computed."""
PERCENTILES = (2.0, 98.0)
MAX_BLOCKS_CHECKED = 4096
_WGS84 = Geod(ellps="WGS84")
_DATE_TAGS = (
    "ACQUISITIONDATETIME",
    "ACQUISITION_DATE",
    "TIFFTAG_DATETIME",
    "EXIF_DateTimeOriginal",
    "EXIF_DateTime",
)
_DATE = re.compile(r"((?:19|20)\d{2})[-:/]?(0[1-9]|1[0-2])[-:/]?(0[1-9]|[12]\d|3[01])")


@dataclass(frozen=True)
class RasterInfo:
    """What is known of a raster.

    Args:
        source: How to read it again with `read_square`, stretch included.
        crs: ``EPSG:n`` or WKT.
        epsg: The code, or None for an unregistered CRS.
        width: Columns.
        height: Rows.
        bands: Bands stored, not only the shown ones.
        dtype: Data type of the first shown band.
        nodata: Value that marks missing pixels, if the file names one.
        gsd_m: Ground metres per pixel at the centre, geometric mean of both axes.
        footprint: Valid pixels in EPSG:4326, exact to one pixel of an overview of at most `OVERVIEW_PX`.
        overviews: Factors of the overviews the file holds.
        captured_at: Day of capture if a tag names it.
        transform: Pixel corner -> CRS units.
    """

    source: RasterSource
    crs: str
    epsg: int | None
    width: int
    height: int
    bands: int
    dtype: str
    nodata: float | None
    gsd_m: float
    footprint: MultiPolygon
    overviews: tuple[int, ...]
    captured_at: date | None
    transform: tuple[float, float, float, float, float, float]


def describe_raster(
    path: str | Path,
    *,
    kind: SourceKind = "raster",
    crs: str | None = None,
    transform: tuple[float, float, float, float, float, float] | None = None,
    bands: tuple[int, ...] | None = None,
) -> RasterInfo:
    """Open a raster, check it and describe it, reading one overview whatever its size.

    Args:
        path: Path or URI.
        kind: ``extent`` for a plain picture whose place is given here.
        crs: CRS for a file that has none, or for the given transform.
        transform: Pixel corner -> CRS units, replacing the file's own.
        bands: The one or three bands to show, from 1; None: by colour interpretation.

    Raises:
        RasterError: with its reason; see that class.
    """
    source = RasterSource(str(path), kind, crs, transform, bands)
    opened = open_raster(source)
    dataset = opened.dataset
    if not is_remote(source.uri):
        _check_complete(dataset, local_path(source.uri))
    shape, values, valid = _overview(opened, source.uri)
    if not valid.any():
        raise RasterError("no_valid_pixels", f"{path}: every pixel is nodata.", hint="Leave the file out.")
    centre_lon, centre_lat, gsd = _centre(opened, source.uri)
    scaled = opened.transform @ Affine.scale(dataset.width / shape[1], dataset.height / shape[0])
    inverse = Transformer.from_crs(opened.crs.to_wkt(), "EPSG:4326", always_xy=True)
    footprint = to_lonlat(mask_outline(valid, scaled), inverse)
    if footprint.is_empty:
        raise RasterError(
            "outside_earth", f"{path}: no valid outline around lon {centre_lon:.4f}, lat {centre_lat:.4f}."
        )
    index = opened.plan.indexes[0]
    return RasterInfo(
        source=replace(source, stretch=stretch_of(values, valid, opened)),
        crs=crs_name(opened.crs),
        epsg=opened.crs.to_epsg(confidence_threshold=90),
        width=dataset.width,
        height=dataset.height,
        bands=dataset.count,
        dtype=dataset.dtypes[index - 1],
        nodata=dataset.nodatavals[index - 1],
        gsd_m=gsd,
        footprint=footprint,
        overviews=tuple(dataset.overviews(index)),
        captured_at=tagged_date(dataset),
        transform=tuple(opened.transform[:6]),
    )


def _overview(opened: OpenRaster, uri: str) -> tuple[tuple[int, int], NDArray[np.generic], NDArray[np.bool_]]:
    """The whole raster at no more than `OVERVIEW_PX` a side: shape, values, validity."""
    dataset = opened.dataset
    shrink = max(1.0, max(dataset.width, dataset.height) / OVERVIEW_PX)
    shape = (max(1, round(dataset.height / shrink)), max(1, round(dataset.width / shrink)))
    values, valid = read_raw(
        opened, uri, Window(0, 0, dataset.width, dataset.height), shape, Resampling.nearest
    )
    return shape, values, valid


def stretch_of(values: NDArray[np.generic], valid: NDArray[np.bool_], opened: OpenRaster) -> Stretch | None:
    """The (low, high) per shown band that maps to 0..255; None where 8 bits show as they are.

    The 2nd and 98th percentile of the valid overview pixels, band by band; computed once per raster so
    that neighbouring tiles agree.
    """
    plan, dataset = opened.plan, opened.dataset
    if plan.palette is not None:
        return None
    if values.dtype == np.uint8:
        bits = dataset.tags(plan.indexes[0], ns="IMAGE_STRUCTURE").get("NBITS")
        return ((0.0, 2.0 ** int(bits) - 1.0),) * len(plan.indexes) if bits and int(bits) < 8 else None
    pairs = []
    for band in values:
        low, high = np.percentile(band[valid].astype(np.float64), PERCENTILES)
        pairs.append((float(low), float(high) if high > low else float(low) + 1.0))
    return tuple(pairs)


def _centre(opened: OpenRaster, uri: str) -> tuple[float, float, float]:
    """Longitude and latitude of the centre, and metres per pixel there.

    Raises:
        RasterError: the centre is not on earth.
    """
    column, row = opened.dataset.width / 2, opened.dataset.height / 2
    xy = np.array([opened.transform @ p for p in ((column, row), (column + 1, row), (column, row + 1))])
    lon, lat = lonlat_to(opened.crs).transform(xy[:, 0], xy[:, 1], direction="INVERSE")
    if not (np.isfinite(lon).all() and np.isfinite(lat).all() and (np.abs(lat) <= 90).all()):
        raise RasterError(
            "outside_earth",
            f"{uri}: centre x {xy[0, 0]:.6g}, y {xy[0, 1]:.6g} lies outside {crs_name(opened.crs)}.",
            hint="Check CRS and transform with rio info.",
        )
    _, _, across = _WGS84.inv(lon[0], lat[0], lon[1], lat[1])
    _, _, down = _WGS84.inv(lon[0], lat[0], lon[2], lat[2])
    if not across > 0 or not down > 0:
        raise RasterError("bad_transform", f"{uri}: pixels have no size on the ground.")
    return float(lon[0]), float(lat[0]), math.sqrt(across * down)


def _check_complete(dataset: DatasetReader, path: Path) -> None:
    """Refuse a TIFF whose blocks lie beyond the end of the file, which GDAL only notices when it reads them.

    Raises:
        RasterError: `truncated`.
    """
    if dataset.driver != "GTiff":
        return
    size = path.stat().st_size
    height, width = dataset.block_shapes[0]
    columns, rows = math.ceil(dataset.width / width), math.ceil(dataset.height / height)
    for number in np.unique(
        np.linspace(0, columns * rows - 1, min(columns * rows, MAX_BLOCKS_CHECKED)).astype(int)
    ):
        key = f"{number % columns}_{number // columns}"
        offset = _block_tag(dataset, f"BLOCK_OFFSET_{key}")
        length = _block_tag(dataset, f"BLOCK_SIZE_{key}")
        if offset and offset + length > size:
            raise RasterError(
                "truncated",
                f"{path}: the file ends at byte {size}, its block {key} at {offset + length}.",
                hint="Copy it again.",
            )


def _block_tag(dataset: DatasetReader, name: str) -> int:
    """A number GDAL keeps about a block of the first band; 0 for a block that is not stored."""
    value = dataset.get_tag_item(name, "TIFF", bidx=1)
    return int(value) if value else 0


def tagged_date(dataset: DatasetReader) -> date | None:
    """Day of capture from the file's tags; the TIFF date is the last resort: it may be the day of writing."""
    tags: dict[str, Any] = {**dataset.tags(), **dataset.tags(ns="IMAGERY"), **dataset.tags(ns="EXIF")}
    for name in _DATE_TAGS:
        found = parse_date(str(tags.get(name, "")))
        if found:
            return found
    return None


def parse_date(text: str) -> date | None:
    """The first calendar day in a text: 2020-08-31, 2020:08:31 12:00:00, or 20200831."""
    for match in _DATE.finditer(text):
        before, after = text[: match.start()][-1:], text[match.end() :][:1]
        if before.isdigit() or after.isdigit():
            continue
        try:
            return datetime.strptime("".join(match.groups()), "%Y%m%d").date()
        except ValueError:
            continue
    return None
