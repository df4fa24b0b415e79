"""Metadata formats: one file each, chosen by content or by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from geofix.errors import BadInputError, NotFoundError, UsageError
from geofix.ingest.formats import csv, geoestimation, geojson, mapillary, osv5m, parquet
from geofix.ingest.formats.base import PhotoRow

__all__ = ["FORMATS", "PhotoRow", "detect_format", "read_rows"]

FORMATS: Mapping[str, Callable[..., Iterator[PhotoRow]]] = {
    "csv": csv.read,
    "parquet": parquet.read,
    "geojson": geojson.read,
    "geoestimation": geoestimation.read,
    "mapillary": mapillary.read,
    "osv5m": osv5m.read,
}


def detect_format(path: Path) -> str:
    """Name of a metadata file's format, from its first bytes.

    Raises:
        NotFoundError: No such file.
        BadInputError: None of the known formats.
    """
    try:
        with path.open("rb") as file:
            head = file.read(8192)
    except FileNotFoundError as error:
        raise NotFoundError(f"Metadata file {path} does not exist.", hint="Check the path.") from error
    except OSError as error:
        raise BadInputError(f"Metadata file {path} cannot be read: {error.strerror or error}.") from error
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"SQLite format 3\0"):
        return "geojson"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] in (b"{", b"["):
        mapillary_keys = (b'"MAP', b'"computed_geometry"', b'"compass_angle"', b'"data"')
        if b'"FeatureCollection"' not in text and any(key in text for key in mapillary_keys):
            return "mapillary"
        return "geojson"
    if not text or head.count(0) > len(head) // 100:
        raise BadInputError(
            f"{path} is {'empty' if not text else 'binary data of an unknown kind'}.",
            hint=f"Metadata may be {', '.join(FORMATS)}.",
        )
    header = {
        name.strip().strip(b'"').decode("utf-8", "replace") for name in text.split(b"\n")[0].split(b",")
    }
    if {"IMG_ID", "LAT", "LON"} <= header:
        return "geoestimation"
    if {"id", "latitude", "longitude", "sequence", "captured_at"} <= header and "image_path" not in header:
        return "osv5m"
    return "csv"


def read_rows(
    path: Path,
    *,
    name: str | None = None,
    columns: Mapping[str, str] | None = None,
    need: Iterable[str] = ("lat", "lon"),
) -> Iterator[PhotoRow]:
    """Rows of a metadata file in bounded memory; the format is `name` or what the content shows.

    Raises:
        UsageError: Unknown format or field name.
        BadInputError: The file cannot be read, or lacks a needed column.
    """
    chosen = name or detect_format(path)
    if chosen not in FORMATS:
        raise UsageError(f"Unknown metadata format {chosen!r}.", hint=f"Known: {', '.join(FORMATS)}.")
    return FORMATS[chosen](path, columns=columns, need=need)
