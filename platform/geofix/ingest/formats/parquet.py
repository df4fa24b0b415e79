"""Parquet metadata, read by row batches; coordinates in degrees or in micro-degrees (``lat_e6``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from geofix.errors import BadInputError
from geofix.ingest.formats.base import PhotoRow, photo_row, resolve_columns

BATCH_ROWS = 10_000


def read(
    path: Path, *, columns: Mapping[str, str] | None = None, need: Iterable[str] = ("lat", "lon")
) -> Iterator[PhotoRow]:
    """Yield the rows of a Parquet file with one batch in memory.

    Raises:
        BadInputError: Not Parquet, or columns missing.
    """
    try:
        with pq.ParquetFile(path) as file:
            simple = [field.name for field in file.schema_arrow if not pa.types.is_nested(field.type)]
            mapping = resolve_columns(simple, columns, where=str(path), need=need)
            line = 0
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=simple):
                for record in batch.to_pylist():
                    line += 1
                    yield photo_row(record, mapping, line)
    except (pa.ArrowException, OSError) as error:
        raise BadInputError(f"{path} is not readable as Parquet: {error}.") from error


def count(path: Path) -> int:
    """Number of rows, from the footer."""
    return int(pq.read_metadata(path).num_rows)
