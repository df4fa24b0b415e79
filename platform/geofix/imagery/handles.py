"""Open rasters, kept per thread and process: GDAL handles survive neither a fork nor another thread."""

from __future__ import annotations

import os
import threading
import warnings
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.transform import from_gcps

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


@dataclass(frozen=True)
class BandPlan:
    """Which bands are shown, and how.

    Args:
        indexes: One (gray or palette), three (RGB) or four (CMYK) band numbers, from 1.
        palette: (256, 4) uint8 RGBA where the band holds colour numbers.
        cmyk: The four bands are inks.
        masked: The raster has nodata, alpha or a mask; otherwise all pixels are valid.
    """

    indexes: tuple[int, ...]
    palette: NDArray[np.uint8] | None = field(default=None, compare=False)
    cmyk: bool = False
    masked: bool = False


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
    """Close the rasters this thread has open: due before files are replaced, deleted, or read again after that."""
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


def _is_alpha(dataset: DatasetReader, band: int, shown: tuple[int, ...] | None) -> bool:
    """Whether a band marked as alpha is one: GDAL calls the fourth band of a plain 8-bit TIFF so.

    True alpha is nearly everywhere either nothing or full; a band that is asked for as a colour is none.
    """
    if shown and band in shown:
        return False
    shape = (min(dataset.height, 256), min(dataset.width, 256))
    try:
        values = dataset.read(band, out_shape=shape, resampling=Resampling.nearest)
    except RasterioError:
        return True  # the damage is reported where pixels are read
    full = np.iinfo(values.dtype).max if np.issubdtype(values.dtype, np.integer) else values.max()
    return bool(np.isin(values, (0, 255, full)).mean() > 0.9)


def _crs_beside(uri: str) -> CRS | None:
    """The CRS of a ``.prj`` file beside a local picture, as world files come with one."""
    if is_remote(uri):
        return None
    beside = local_path(uri).with_suffix(".prj")
    try:
        return parse_crs(beside.read_text(encoding="utf-8").strip(), str(beside))
    except (FileNotFoundError, UnicodeDecodeError):
        return None


def band_plan(dataset: DatasetReader, wished: tuple[int, ...] | None = None) -> BandPlan:
    """Which bands show as RGB: the wished, else by colour interpretation, else the first three or the first.

    Raises:
        RasterError: complex numbers cannot be shown.
    """
    if any("complex" in kind or kind == "cint16" for kind in dataset.dtypes):
        raise RasterError("not_showable", f"{dataset.name}: {dataset.dtypes[0]} cannot be shown as RGB.")
    if wished and (len(wished) not in (1, 3) or not all(1 <= band <= dataset.count for band in wished)):
        raise RasterError(
            "not_showable", f"{dataset.name}: bands {wished} of {dataset.count}; name one or three."
        )
    roles = list(dataset.colorinterp)
    masked = any(flag != MaskFlags.all_valid for flags in dataset.mask_flag_enums for flag in flags)
    if ColorInterp.alpha in roles and MaskFlags.alpha in dataset.mask_flag_enums[0]:
        masked = _is_alpha(dataset, roles.index(ColorInterp.alpha) + 1, wished)

    def bands(*wanted: ColorInterp) -> tuple[int, ...] | None:
        return tuple(roles.index(role) + 1 for role in wanted) if all(r in roles for r in wanted) else None

    if wished:
        return BandPlan(wished, masked=masked)
    if roles[0] == ColorInterp.palette:
        palette = np.zeros((256, 4), np.uint8)
        for number, rgba in dataset.colormap(1).items():
            if 0 <= number < 256:
                palette[number] = rgba
        masked = masked or bool((palette[list(dataset.colormap(1))][:, 3] < 128).any())
        return BandPlan((1,), palette=palette, masked=masked)
    inks = bands(ColorInterp.cyan, ColorInterp.magenta, ColorInterp.yellow, ColorInterp.black)
    if inks:
        return BandPlan(inks, cmyk=True, masked=masked)
    colours = bands(ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    plain = tuple(i + 1 for i, role in enumerate(roles) if role != ColorInterp.alpha)
    if not colours:
        colours = plain[:3] if len(plain) >= 3 else plain[:1]
    if not colours:
        raise RasterError("not_showable", f"{dataset.name}: no band but alpha.")
    return BandPlan(colours, masked=masked)


@lru_cache(maxsize=64)
def lonlat_to(crs: CRS) -> Transformer:
    """Transformer from WGS 84 longitude, latitude in degrees to `crs`; x before y always."""
    return Transformer.from_crs("EPSG:4326", crs.to_wkt(), always_xy=True)
