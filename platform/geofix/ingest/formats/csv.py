"""Comma-, semicolon- or tab-separated metadata with a header line."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from geofix.errors import BadInputError
from geofix.ingest.formats.base import PhotoRow, photo_row, resolve_columns


def read(
    path: Path,
    *,
    columns: Mapping[str, str] | None = None,
    need: Iterable[str] = ("lat", "lon"),
    keep_extra: bool = True,
) -> Iterator[PhotoRow]:
    """Yield the rows of a CSV file, one at a time.

    Bytes that are no UTF-8 survive as surrogates, so that a path still names its file.

    Raises:
        BadInputError: No header, or columns missing.
    """
    try:
        with path.open("r", encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, delimiter=_delimiter(path))
            header = next(reader, [])
            mapping = resolve_columns(header, columns, where=str(path), need=need, keep_extra=keep_extra)
            line = 0
            for record in reader:
                if not any(record):
                    continue
                line += 1
                if len(record) > len(header):
                    detail = (
                        f"{len(record)} fields under {len(header)} columns; quote the one with the delimiter"
                    )
                    yield PhotoRow(line=line, problem=("bad_row", detail))
                    continue
                yield photo_row(dict(zip(header, record, strict=False)), mapping, line)
    except csv.Error as error:
        raise BadInputError(f"{path} is not readable as CSV: {error}.") from error
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror or error}.") from error


def _delimiter(path: Path) -> str:
    with path.open("r", encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        header = file.readline(65_536)
    return max(",;\t", key=header.count)
