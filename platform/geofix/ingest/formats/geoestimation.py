"""The CSV of the GeoEstimation benchmarks: ``IMG_ID,AUTHOR,LAT,LON,S3_Label,...``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from geofix.ingest.formats import csv
from geofix.ingest.formats.base import PhotoRow

COLUMNS = {"image_path": "IMG_ID", "author": "AUTHOR", "lat": "LAT", "lon": "LON"}


def read(
    path: Path, *, columns: Mapping[str, str] | None = None, need: Iterable[str] = ("lat", "lon")
) -> Iterator[PhotoRow]:
    """Yield the rows; scene labels and probabilities are derived data and are not kept."""
    return csv.read(path, columns={**COLUMNS, **(columns or {})}, need=need, keep_extra=False)
