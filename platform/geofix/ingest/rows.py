"""One photo's database row, put together from its metadata row, its file and what is already stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geofix.database.queries.photos import Known
from geofix.imagery.photo import PhotoInfo
from geofix.ingest.checks import Refusal, check_position
from geofix.ingest.formats import PhotoRow
from geofix.spatial.s2 import cell_at

_EMPTY = PhotoRow(line=0)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A photo to load.

    Attributes:
        key: Its name in the data set, valid UTF-8.
        path: Its file; None for a position alone.
        row: What the metadata say.
        refusal: Known before the file is opened.
        label: How the metadata row is called in a reject, for example ``metadata.csv#12``.
        unlisted: There are metadata, but they do not name this file.
    """

    key: str
    path: str | None = None
    row: PhotoRow | None = None
    refusal: Refusal | None = None
    label: str = ""
    unlisted: bool = False


@dataclass(frozen=True, slots=True)
class Values:
    """A row for the staging table, without its number and S2 id."""

    key: str
    uri: str | None
    sha256: bytes | None
    file_bytes: int | None
    file_mtime_ns: int | None
    width: int | None
    height: int | None
    lon: float
    lat: float
    gps_accuracy_m: float | None
    heading_deg: float | None
    captured_at: Any
    sequence: str | None
    author: str | None
    licence: str | None
    extra: dict[str, Any]


def combine(candidate: Candidate, info: PhotoInfo | None, known: Known | None) -> Values | Refusal:
    """Values of a photo: the metadata row's where it has them, else the file's, else those stored.

    Args:
        candidate: The photo.
        info: Its file as just read; None when the file is unchanged or absent.
        known: The stored photo; its file fields are taken when `info` is None.
    """
    row = candidate.row or _EMPTY
    file = _of_file(info) if info is not None else _of_known(known)
    lat, lon = (row.lat, row.lon) if row.lat is not None and row.lon is not None else (file.lat, file.lon)
    refusal = check_position(lat, lon)
    if refusal is not None or lat is None or lon is None:
        if refusal is not None and refusal.reason == "no_gps" and candidate.unlisted:
            return Refusal("not_listed", "not in the metadata file, and no position in the file's EXIF")
        return refusal or Refusal("no_gps", "no position")
    stored = known if candidate.path is None or info is None else None
    return Values(
        key=candidate.key,
        uri=candidate.path,
        sha256=file.sha256,
        file_bytes=file.file_bytes,
        file_mtime_ns=file.file_mtime_ns,
        width=file.width,
        height=file.height,
        lon=lon + 0.0,
        lat=lat + 0.0,
        gps_accuracy_m=_first(row.gps_accuracy_m, file.gps_accuracy_m),
        heading_deg=_first(row.heading_deg, file.heading_deg),
        captured_at=_first(row.captured_at, file.captured_at),
        sequence=_first(row.sequence, stored.sequence if stored else None),
        author=_first(row.author, stored.author if stored else None),
        licence=_first(row.licence, stored.licence if stored else None),
        extra=_extra(row, file.extra),
    )


def stage_rows(values: Sequence[Values], first: int) -> list[tuple[Any, ...]]:
    """Tuples for the staging table, numbered from `first`, with their S2 leaf ids."""
    lon = np.array([v.lon for v in values], dtype=np.float64)
    lat = np.array([v.lat for v in values], dtype=np.float64)
    cells = cell_at(lon, lat).tolist() if values else []
    return [
        (
            first + i,
            v.key,
            v.uri,
            v.sha256,
            v.file_bytes,
            v.file_mtime_ns,
            v.width,
            v.height,
            v.lon,
            v.lat,
            cells[i],
            v.gps_accuracy_m,
            _below_360(v.heading_deg),
            v.captured_at,
            v.sequence,
            v.author,
            v.licence,
            v.extra,
        )
        for i, v in enumerate(values)
    ]


def _first(one: Any, other: Any) -> Any:
    return other if one is None else one


def _below_360(heading: float | None) -> float | None:
    """A heading that is below 360 in single precision too."""
    return None if heading is None else float(np.float32(heading)) % 360.0


def _of_known(known: Known | None) -> Known:
    nothing = Known(None, None, None, None, None, *(float("nan"),) * 2, *(None,) * 7)
    return known or nothing


def _of_file(info: PhotoInfo) -> Known:
    gps = info.gps
    flags: dict[str, Any] = {
        "altitude_m": gps.altitude_m,
        "heading_ref": gps.heading_ref if gps.heading_deg is not None else None,
        "hemisphere_assumed": gps.assumed_refs or None,
        "time_assumed_utc": info.time_assumed_utc or None,
        "orientation": info.orientation if info.orientation != 1 else None,
        "make": info.make,
        "model": info.model,
    }
    nan = float("nan")
    return Known(
        file_bytes=info.file_bytes,
        file_mtime_ns=info.file_mtime_ns,
        sha256=info.sha256,
        width=info.width,
        height=info.height,
        lon=nan if gps.lon is None else gps.lon,
        lat=nan if gps.lat is None else gps.lat,
        gps_accuracy_m=gps.accuracy_m,
        heading_deg=gps.heading_deg,
        captured_at=info.captured_at,
        extra={name: value for name, value in flags.items() if value is not None},
        sequence=None,
        author=None,
        licence=None,
    )


def _extra(row: PhotoRow, file: dict[str, Any] | None) -> dict[str, Any]:
    """Other facts; a flag about the file's value goes when the metadata's value takes its place."""
    result = dict(file or {})
    if row.captured_at is not None:
        result.pop("time_assumed_utc", None)
        if row.time_assumed_utc:
            result["time_assumed_utc"] = True
    if row.heading_deg is not None:
        result.pop("heading_ref", None)
    if row.lat is not None and row.lon is not None:
        result.pop("hemisphere_assumed", None)
    if row.external_id is not None:
        result["external_id"] = row.external_id
    result.update(row.extra)
    return result
