"""Mapillary's two JSON forms: the image description of its uploader, and answers of its Graph API."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from geofix.errors import BadInputError, UsageError
from geofix.imagery.exif import heading
from geofix.ingest.formats.base import PhotoRow, clean_text, decimal, label, parse_time

CHUNK_CHARS = 1 << 18
# One description is below a kilobyte; a "record" this long is not such a file.
MAX_RECORD_CHARS = 1 << 24
_START = re.compile(r'\s*(?:\{(?:(?!"data").){0,2000}?"data"\s*:\s*)?\[', re.DOTALL)


def read(
    path: Path, *, columns: Mapping[str, str] | None = None, need: Iterable[str] = ("lat", "lon")
) -> Iterator[PhotoRow]:
    """Yield the photos of a Mapillary file (an array, ``{"data": [...]}``, or one object per line).

    Raises:
        UsageError: A column mapping was given; the names are fixed.
        BadInputError: Not such a file.
    """
    if columns:
        raise UsageError("Mapillary's files have fixed names; a column mapping cannot be used with them.")
    for line, record in enumerate(_objects(path), start=1):
        if not isinstance(record, dict):
            yield PhotoRow(line, problem=("bad_row", f"entry {line} is no JSON object"))
        elif "MAPLatitude" in record or "filename" in record:
            yield _description(record, line)
        else:
            yield _graph(record, line)


def _objects(path: Path) -> Iterator[Any]:
    """Decode one element at a time, so that memory does not grow with the file."""
    decoder = json.JSONDecoder()
    with path.open("r", encoding="utf-8-sig", errors="surrogateescape") as file:
        buffer = file.read(CHUNK_CHARS)
        start = _START.match(buffer)
        position, ended = (start.end() if start else 0), False
        while True:
            while position < len(buffer) and buffer[position] in " \t\r\n,":
                position += 1
            if position < len(buffer) and start and buffer[position] == "]":
                return
            try:
                value, position = decoder.raw_decode(buffer, position)
            except json.JSONDecodeError as error:
                if ended and not buffer[position:].strip():
                    if start:
                        raise BadInputError(f"{path} ends inside its JSON array.") from error
                    return
                more = "" if ended or len(buffer) - position > MAX_RECORD_CHARS else file.read(CHUNK_CHARS)
                if not more:
                    at = f"near {buffer[position : position + 40]!r}"
                    if ended or len(buffer) - position > MAX_RECORD_CHARS:
                        raise BadInputError(f"{path} is not valid JSON {at}: {error.msg}.") from error
                    ended = True
                buffer, position = buffer[position:] + more, 0
                continue
            yield value


def _description(record: Mapping[str, Any], line: int) -> PhotoRow:
    name = clean_text(record.get("filename"))
    if "error" in record:
        error = record["error"] if isinstance(record["error"], dict) else {}
        detail = f"Mapillary's tools could not use it: {clean_text(error.get('message')) or record['error']}"
        return PhotoRow(line, name, problem=("source_error", detail))
    compass = record.get("MAPCompassHeading")
    compass = compass if isinstance(compass, dict) else {}
    true = decimal(compass.get("TrueHeading"))[0]
    return _row(
        line,
        image_path=name,
        position=(record.get("MAPLatitude"), record.get("MAPLongitude")),
        direction=true if true is not None else decimal(compass.get("MagneticHeading"))[0],
        time=record.get("MAPCaptureTime"),
        sequence=record.get("MAPSequenceUUID"),
        accuracy=record.get("MAPGPSAccuracyMeters"),
        external_id=None,
        author=None,
        extra=_kept(
            record, {"MAPAltitude": "altitude_m", "MAPDeviceMake": "make", "MAPDeviceModel": "model"}
        ),
    )


def _graph(record: Mapping[str, Any], line: int) -> PhotoRow:
    point = record.get("computed_geometry") or record.get("geometry")
    pair = point.get("coordinates") if isinstance(point, dict) else None
    lon, lat = (pair[0], pair[1]) if isinstance(pair, list) and len(pair) >= 2 else (None, None)
    creator = record.get("creator")
    angle = record.get("computed_compass_angle")
    photo_id = label(record.get("id"))
    return _row(
        line,
        image_path=f"{photo_id}.jpg" if photo_id else None,
        position=(lat, lon),
        direction=decimal(record.get("compass_angle") if angle is None else angle)[0],
        time=record.get("captured_at"),
        sequence=record.get("sequence"),
        accuracy=None,
        external_id=photo_id,
        author=creator.get("username") if isinstance(creator, dict) else None,
        extra=_kept(
            record, {"altitude": "altitude_m", "make": "make", "model": "model", "camera_type": "camera_type"}
        ),
    )


def _row(
    line: int,
    *,
    image_path: str | None,
    position: tuple[Any, Any],
    direction: float | None,
    time: Any,
    sequence: Any,
    accuracy: Any,
    external_id: str | None,
    author: Any,
    extra: dict[str, Any],
) -> PhotoRow:
    (lat, bad_lat), (lon, bad_lon) = decimal(position[0]), decimal(position[1])
    when, assumed, bad_time = parse_time(time)
    problem = None
    if bad_lat or bad_lon:
        problem = ("bad_position", f"latitude {position[0]!r}, longitude {position[1]!r}")
    elif bad_time:
        problem = ("bad_time", f"capture time is {time!r}, which is no known time")
    return PhotoRow(
        line=line,
        image_path=PurePosixPath(image_path).as_posix() if image_path else None,
        lat=lat,
        lon=lon,
        heading_deg=heading(direction),
        captured_at=when,
        time_assumed_utc=assumed and not isinstance(time, int),
        sequence=label(sequence),
        gps_accuracy_m=decimal(accuracy)[0],
        author=label(author),
        external_id=external_id,
        extra=extra,
        problem=problem,
    )


def _kept(record: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {
        ours: record[theirs]
        for theirs, ours in names.items()
        if isinstance(record.get(theirs), (str, int, float))
    }
