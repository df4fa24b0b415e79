"""The CSV of OpenStreetView-5M: ``id,latitude,longitude,sequence,captured_at,...``, photos named by id."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from geofix.ingest.formats import csv
from geofix.ingest.formats.base import PhotoRow

COLUMNS = {"image_path": "{id}.jpg", "external_id": "id", "lat": "latitude", "lon": "longitude"}


def read(
    path: Path, *, columns: Mapping[str, str] | None = None, need: Iterable[str] = ("lat", "lon")
) -> Iterator[PhotoRow]:
    """Yield the rows; the photos may lie in any folder below the one that is ingested."""
    return csv.read(path, columns={**COLUMNS, **(columns or {})}, need=need, keep_extra=False)
