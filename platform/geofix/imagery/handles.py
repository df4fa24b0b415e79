"""Open rasters, kept per thread and process: GDAL handles survive neither a fork nor another thread."""

from __future__ import annotations

import os
import threading
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.transform import from_gcps

from geofix.imagery.bands import BandPlan, band_plan
from geofix.imagery.sources import RasterError, RasterSource

# A VRT may name any other file of the machine, so it is no format for input that others hand in.
DRIVERS = ("GTiff", "JPEG", "PNG", "JP2OpenJPEG", "WEBP", "BMP", "HFA", "GIF")
MAX_OPEN = 32
# Read only the header of a remote COG, never list the bucket, retry, and merge ranges that touch.
REMOTE_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    "VSI_CACHE": "TRUE",
    "VSI_CACHE_SIZE": "5000000",
}


@dataclass
class OpenRaster:
    """A dataset with its place on earth resolved."""

    dataset: DatasetReader
    crs: CRS
    transform: Affine
    plan: BandPlan


class _Handles(threading.local):
    """The open rasters of one thread, least recently used first."""

    def __init__(self) -> None:
        self.open: OrderedDict[RasterSource, OpenRaster] = OrderedDict()


_handles = _Handles()
_inherited: list[Any] = []


def _forget_after_fork() -> None:
    """A child keeps the parent's datasets unreferenced but open: closing them could wait for a lost lock."""
    global _handles
    _inherited.append(_handles.open)
    _handles = _Handles()
    lonlat_to.cache_clear()


os.register_at_fork(after_in_child=_forget_after_fork)


def is_remote(uri: str) -> bool:
    """Whether GDAL reads the URI over a network."""
    return "://" in uri and not uri.startswith("file://")


def local_path(uri: str) -> Path:
    """The path of a local URI."""
    return Path(uri.removeprefix("file://"))


def open_raster(source: RasterSource) -> OpenRaster:
    """Open a raster, or hand out the one this thread has open already.

    Raises:
        RasterError: unreadable, zero-sized, without a usable CRS or transform.
    """
    cached = _handles.open.get(source)
    if cached is not None:
        _handles.open.move_to_end(source)
        return cached
    opened = _open(source)
    _handles.open[source] = opened
    while len(_handles.open) > MAX_OPEN:
        _, oldest = _handles.open.popitem(last=False)
        oldest.dataset.close()
    return opened


def close_all() -> None:
    """Close the rasters this thread has open: due before files are replaced or deleted."""
    while _handles.open:
        _, opened = _handles.open.popitem()
        opened.dataset.close()


def _open(source: RasterSource) -> OpenRaster:
    """Open and check; see `open_raster`."""
    remote = is_remote(source.uri)
    name = source.uri if remote else str(local_path(source.uri))
    if not remote:
        _check_file(local_path(source.uri))
    try:
        with rasterio.Env(**(REMOTE_OPTIONS if remote else {})), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            dataset = rasterio.open(name, sharing=False)
    except RasterioError as error:
        raise RasterError(
            "unreadable",
            f"{name}: not a readable raster ({error}).",
            hint=f"Formats read: {', '.join(DRIVERS)}.",
        ) from error
    try:
        if dataset.driver not in DRIVERS:
            raise RasterError(
                "unreadable", f"{name}: format {dataset.driver}.", hint=f"Formats read: {', '.join(DRIVERS)}."
            )
        crs, transform = georeference(dataset, source)
        return OpenRaster(dataset, crs, transform, band_plan(dataset, source.bands))
    except BaseException:
        dataset.close()
        raise


def _check_file(path: Path) -> None:
    """Say plainly what GDAL would say in riddles."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise RasterError("unreadable", f"{path}: {error.strerror or error}.") from error
    if size == 0:
        raise RasterError("zero_sized", f"{path}: the file is empty.", hint="Copy it again.")


def parse_crs(text: str, where: str) -> CRS:
    """A CRS from ``EPSG:n``, WKT or a PROJ string, which must lie on the earth.

    Raises:
        RasterError: unknown, or neither geographic nor projected.
    """
    try:
        crs = CRS.from_user_input(text)
    except CRSError as error:
        raise RasterError("unknown_crs", f"{where}: CRS {text!r} is unknown ({error}).") from error
    if not (crs.is_geographic or crs.is_projected):
        raise RasterError("missing_crs", f"{where}: CRS {text!r} is not tied to the earth.")
    return crs


def crs_name(crs: CRS) -> str:
    """``EPSG:n`` where the CRS is a registered one, else WKT."""
    code = crs.to_epsg(confidence_threshold=90)
    return f"EPSG:{code}" if code else str(crs.to_wkt())


def georeference(dataset: DatasetReader, source: RasterSource) -> tuple[CRS, Affine]:
    """CRS and pixel -> CRS transform: given ones first, the file's own, then its ground control points.

    An affine transform is fitted to ground control points by least squares; a residual above one pixel
    is refused.

    Raises:
        RasterError: zero-sized, no CRS, no or singular transform.
    """
    name = source.uri
    if dataset.width < 1 or dataset.height < 1 or dataset.count < 1:
        raise RasterError(
            "zero_sized", f"{name}: {dataset.width} x {dataset.height} px, {dataset.count} bands."
        )
    transform, crs = dataset.transform, dataset.crs
    points, points_crs = dataset.gcps
    if source.transform is not None:
        transform = Affine(*source.transform)
    elif len(points) >= 3 and transform.is_identity:
        transform, crs = from_gcps(points), crs or points_crs
        back = [~transform @ (p.x, p.y) for p in points]
        worst = max(np.hypot(x - p.col, y - p.row) for (x, y), p in zip(back, points, strict=True))
        if worst > 1.0:
            raise RasterError(
                "bad_transform",
                f"{name}: ground control points miss an affine transform by {worst:.1f} px.",
                hint="Warp the raster once with gdalwarp -tps.",
            )
    elif transform.is_identity:
        raise RasterError(
            "missing_georeference",
            f"{name}: the picture has no position.",
            hint="Give one with --extents FILE or a world file beside it.",
        )
    if crs is not None and not (crs.is_geographic or crs.is_projected):
        crs = None
    if source.crs is not None and (crs is None or source.transform is not None):
        crs = parse_crs(source.crs, name)
    if crs is None:
        crs = _crs_beside(name)
    if crs is None:
        raise RasterError(
            "missing_crs",
            f"{name}: the raster has no coordinate reference system.",
            hint="Name it with --crs EPSG:n, or write it into the file with rio edit-info --crs.",
        )
    if not all(np.isfinite(transform[:6])) or abs(transform.determinant) < 1e-300:
        raise RasterError("bad_transform", f"{name}: transform {tuple(transform[:6])} cannot be inverted.")
    return crs, transform


def _crs_beside(uri: str) -> CRS | None:
    """The CRS of a ``.prj`` file beside a local picture, as world files come with one."""
    if is_remote(uri):
        return None
    beside = local_path(uri).with_suffix(".prj")
    try:
        return parse_crs(beside.read_text(encoding="utf-8").strip(), str(beside))
    except (FileNotFoundError, UnicodeDecodeError):
        return None


@lru_cache(maxsize=64)
def lonlat_to(crs: CRS) -> Transformer:
    """Transformer from WGS 84 longitude, latitude in degrees to `crs`; x before y always."""
    return Transformer.from_crs("EPSG:4326", crs.to_wkt(), always_xy=True)
