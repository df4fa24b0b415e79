"""Why a photo is not loaded: every reason, and the checks of positions and files."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from geofix.imagery.photo import EXTENSIONS, BadPhoto, PhotoInfo, read_photo_info

REASONS: Mapping[str, str] = {
    "no_gps": "neither the metadata nor the file names a position",
    "not_listed": "the file is not in the metadata file, and names no position itself",
    "null_island": "the position is (0, 0), which devices without a fix write",
    "out_of_range": "latitude beyond 90 or longitude beyond 180 degrees",
    "swapped": "latitude beyond 90 while longitude is not: the two columns are probably exchanged",
    "bad_position": "a coordinate in the metadata is not a number",
    "bad_time": "the capture time in the metadata is no known or no plausible time",
    "bad_row": "the metadata row cannot be read, or names no photo",
    "bad_geometry": "the feature is not a point",
    "source_error": "the metadata itself says that this photo is bad",
    "duplicate_row": "the metadata names this photo a second time; the first row counts",
    "duplicate_file": "another photo of the data set has the same bytes",
    "missing_file": "the metadata names a file that does not exist",
    "truncated": "the file ends too early",
    "unreadable": "the file cannot be opened or decoded",
    "bomb": "decoding would give more pixels than GEOFIX_MAX_PHOTO_PIXELS",
    "too_large": "the file is larger than GEOFIX_MAX_PHOTO_BYTES",
    "wrong_extension": "the content is not what the name says",
    "symlink_outside": "a symbolic link leads out of the folder",
    "outside_folder": "the metadata names a file outside the folder",
    "bad_name": "the file name is not UTF-8",
}

# A fix this close to (0, 0), about 10 cm, is a missing fix.
NULL_ISLAND_DEG = 1e-6


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something was not loaded: a key of `REASONS` and the particulars."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file may be.

    Attributes:
        max_pixels: Width times height.
        max_bytes: File size.
        any_extension: Take an image whose name claims another image format.
    """

    max_pixels: int
    max_bytes: int
    any_extension: bool = False


def check_position(lat: float | None, lon: float | None) -> Refusal | None:
    """Why (lat, lon) in degrees is no usable position, or None when it is one."""
    if lat is None or lon is None or math.isnan(lat) or math.isnan(lon):
        return Refusal("no_gps", "no position in the metadata or in the file's EXIF")
    shown = f"latitude {lat:.10g}, longitude {lon:.10g}"
    if abs(lat) > 90 and abs(lon) <= 90 and abs(lat) <= 180:
        return Refusal("swapped", f"{shown}: latitude and longitude are probably exchanged")
    if abs(lat) > 90 or abs(lon) > 180:
        return Refusal("out_of_range", f"{shown}: outside [-90, 90] and [-180, 180]")
    if abs(lat) < NULL_ISLAND_DEG and abs(lon) < NULL_ISLAND_DEG:
        return Refusal("null_island", f"{shown}: a device without a fix")
    return None


def check_file(path: str, limits: Limits) -> PhotoInfo | Refusal:
    """Decode a photo whole and compare its content with its name."""
    try:
        info = read_photo_info(path, max_pixels=limits.max_pixels, max_bytes=limits.max_bytes)
    except BadPhoto as error:
        return Refusal(error.reason, str(error))
    extension = os.path.splitext(path)[1].lower()  # noqa: PTH122 - the path may not be valid UTF-8
    if extension not in EXTENSIONS[info.format] and not limits.any_extension:
        detail = f"the content is {info.format}, the name ends in {extension or 'nothing'}"
        return Refusal("wrong_extension", f"{detail}; rename it, or allow any extension")
    return info


def check_files(paths: Sequence[str], limits: Limits) -> list[PhotoInfo | Refusal]:
    """`check_file` for several files: the unit of work of one process."""
    return [check_file(path, limits) for path in paths]
