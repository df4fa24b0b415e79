"""World files on disk: JPEG with EXIF, COG, GeoPackage, CSV, each complete or absent."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import IFDRational
from rasterio.transform import from_origin

from geofix.world.noise import Mask
from geofix.world.plan import CAMERAS, Shot
from geofix.world.terrain import COUNTRIES, CRS, Continent, Patch

LICENCE = "CC0-1.0"
PHOTO_COLUMNS = (
    "image_path", "sequence_id", "captured_at", "heading_deg", "fov_deg", "gps_accuracy_m", "camera_make",
    "camera_model", "licence", "attribution",
)  # fmt: skip


def part_of(path: Path) -> Path:
    """Where a file is written before it takes its name."""
    return path.with_name(f".{path.name}.part")


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that it is either complete under its name or not there."""
    part = part_of(path)
    with part.open("wb") as f:
        f.write(data)
    part.replace(path)


def is_jpeg(path: Path) -> bool:
    """Whether a file exists and ends as a JPEG does."""
    try:
        with path.open("rb") as f:
            f.seek(-2, os.SEEK_END)
            return f.read() == b"\xff\xd9"
    except OSError:
        return False


def _degrees(value: float) -> tuple[IFDRational, IFDRational, IFDRational]:
    """Degrees, minutes, seconds; seconds to 1e-4, which is 3 mm."""
    minutes = Fraction(round(abs(value) * 36_000_000), 600_000)
    whole, rest = divmod(minutes, 60)
    full, seconds = divmod(rest, 1)
    return IFDRational(int(whole)), IFDRational(int(full)), IFDRational(round(seconds * 600_000), 10_000)


def _exif(shot: Shot) -> Image.Exif:
    make, model, fov, _, _ = CAMERAS[shot.device]
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0112] = make, model, 1
    stamp = shot.captured_at.strftime("%Y:%m:%d %H:%M:%S")
    detail = exif.get_ifd(0x8769)
    detail[0x9003], detail[0x9011] = stamp, "+00:00"
    detail[0xA405] = round(18 / np.tan(np.radians(fov) / 2))
    gps = exif.get_ifd(0x8825)
    gps[0] = b"\x02\x03\x00\x00"
    gps[1], gps[2] = "N" if shot.lat >= 0 else "S", _degrees(shot.lat)
    gps[3], gps[4] = "E" if shot.lon >= 0 else "W", _degrees(shot.lon)
    gps[7] = tuple(
        IFDRational(v) for v in (shot.captured_at.hour, shot.captured_at.minute, shot.captured_at.second)
    )
    gps[16], gps[17] = "T", IFDRational(round(shot.heading_deg * 100), 100)
    gps[18] = "WGS-84"
    gps[29] = shot.captured_at.strftime("%Y:%m:%d")
    gps[31] = IFDRational(round(shot.accuracy_m * 10), 10)
    return exif


def write_photo(root: Path, shot: Shot, pixels: NDArray[np.uint8]) -> None:
    """A JPEG whose EXIF carries position, heading, time and camera; its file time is the capture time."""
    path = root / shot.path
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=CAMERAS[shot.device][4], exif=_exif(shot))
    write_bytes(path, buffer.getvalue())
    stamp = shot.captured_at.timestamp()
    os.utime(path, (stamp, stamp))


def write_cog(path: Path, pixels: NDArray[np.uint8], inside: Mask, patch: Patch, step_m: float) -> None:
    """A JPEG-compressed cloud-optimised GeoTIFF with overviews and a mask of what lies outside the patch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.part.tif")
    n = pixels.shape[0]
    half = n * step_m / 2
    profile = {
        "driver": "COG", "width": n, "height": n, "count": 3, "dtype": "uint8", "crs": CRS,
        "transform": from_origin(patch.x - half, patch.y + half, step_m, step_m), "compress": "JPEG",
        "quality": 88, "blocksize": 256, "overview_resampling": "average",
    }  # fmt: skip
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True, GDAL_NUM_THREADS=1),
        rasterio.open(part, "w", **profile) as out,
    ):
        out.write(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        out.write_mask(inside)
    part.replace(path)


def write_regions(path: Path, continent: Continent) -> None:
    """Countries and their provinces as layers `countries` and `admin1`, EPSG:4326."""
    import geopandas as gpd  # slow to import, and rendering processes never need them
    import pyogrio

    part = path.with_name(f".{path.stem}.part.gpkg")
    part.unlink(missing_ok=True)
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": "2024-01-01T00:00:00.000Z"})
    countries = gpd.GeoDataFrame(
        {
            "iso_a2": [c.code for c in continent.countries],
            "iso_a3": [c.code3 for c in continent.countries],
            "name": [c.name for c in continent.countries],
        },
        geometry=[c.geom for c in continent.countries],
        crs=CRS,
    )
    provinces = gpd.GeoDataFrame(
        {
            "code": [p.code for p in continent.provinces],
            "name": [p.name for p in continent.provinces],
            "country": [COUNTRIES[p.country][0] for p in continent.provinces],
        },
        geometry=[p.geom for p in continent.provinces],
        crs=CRS,
    )
    for layer, frame in (("countries", countries), ("admin1", provinces)):
        frame.to_crs("EPSG:4326").to_file(
            part, layer=layer, driver="GPKG", engine="pyogrio", promote_to_multi=True
        )
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})
    part.replace(path)


def write_table(path: Path, shots: Iterable[Shot]) -> None:
    """Metadata of the photos in the order of their names; positions are in the photos alone."""
    part = part_of(path)
    with part.open("w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(PHOTO_COLUMNS)
        for s in sorted(shots, key=lambda s: s.path):
            make, model, fov, _, _ = CAMERAS[s.device]
            writer.writerow(
                (
                    s.path,
                    s.sequence_id,
                    s.captured_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    s.heading_deg,
                    fov,
                    s.accuracy_m,
                    make,
                    model,
                    LICENCE,
                    "Mini continent survey",
                )
            )
    part.replace(path)
