"""The content hash of a snapshot: equal content, equal hash, whatever wrote the file.

Parquet bytes depend on the writer's version, so values are hashed, not files: per column its name, type,
validity, lengths and bytes. Columns are independent of each other and of how rows are cut into batches.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Where a file lies is no content: the photo's own sha256 says what it is.
LOCATION_COLUMNS = frozenset({"uri"})


class ContentDigest:
    """Accumulates batches of one table whose rows are in canonical order (ascending photo_id)."""

    def __init__(self, *, exclude: Iterable[str] = LOCATION_COLUMNS) -> None:
        self._exclude = frozenset(exclude)
        self._columns: dict[str, _Column] = {}
        self._rows = 0

    def update(self, batch: pa.RecordBatch | pa.Table) -> None:
        """Add rows of the same columns each time; a batch without rows says nothing, as files omit it."""
        if not batch.num_rows:
            return
        self._rows += batch.num_rows
        for name in batch.schema.names:
            if name not in self._exclude:
                values = batch.column(name)
                if isinstance(values, pa.ChunkedArray):
                    values = values.combine_chunks()
                self._columns.setdefault(name, _Column(_plain(values.type))).update(values)

    def hexdigest(self) -> str:
        """Hash of everything so far."""
        whole = hashlib.sha256(str(self._rows).encode())
        for name in sorted(self._columns):
            whole.update(json.dumps([name, *self._columns[name].parts()]).encode())
        return whole.hexdigest()


class _Column:
    def __init__(self, kind: pa.DataType) -> None:
        self.kind = kind
        self.valid, self.lengths, self.data = (hashlib.sha256() for _ in range(3))

    def parts(self) -> list[str]:
        return [
            _type_name(self.kind),
            self.valid.hexdigest(),
            self.lengths.hexdigest(),
            self.data.hexdigest(),
        ]

    def update(self, values: pa.Array) -> None:
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        self.valid.update(
            np.asarray(values.is_valid().to_numpy(zero_copy_only=False), dtype=np.uint8).tobytes()
        )
        kind = values.type
        if _is_text(kind) or _is_bytes(kind):
            texts = [
                b"" if v is None else v.encode() if isinstance(v, str) else bytes(v)
                for v in values.to_pylist()
            ]
            self.lengths.update(np.fromiter(map(len, texts), dtype="<i8", count=len(texts)).tobytes())
            self.data.update(b"".join(texts))
        elif pa.types.is_boolean(kind):
            self.data.update(np.asarray(pc.fill_null(values, False).to_numpy(zero_copy_only=False)).tobytes())
        elif pa.types.is_timestamp(kind):
            micros = values.cast(pa.timestamp("us", tz=kind.tz), safe=False).cast(pa.int64())
            self._numbers(pc.fill_null(micros, 0), "<i8")
        elif pa.types.is_integer(kind):
            self._numbers(pc.fill_null(values, 0), "<u8" if pa.types.is_unsigned_integer(kind) else "<i8")
        elif pa.types.is_floating(kind):
            self._numbers(pc.fill_null(values, 0.0), "<f8")
        else:
            self.data.update(
                b"".join(json.dumps(v, default=str).encode() + b"\n" for v in values.to_pylist())
            )

    def _numbers(self, values: pa.Array, dtype: str) -> None:
        numbers = values.to_numpy(zero_copy_only=False).astype(dtype)
        if dtype == "<f8":
            # One bit pattern for every NaN and for both zeros.
            numbers = np.where(np.isnan(numbers), np.nan, numbers) + 0.0
        self.data.update(numbers.tobytes())


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _type_name(kind: pa.DataType) -> str:
    for name, test in (
        ("text", _is_text),
        ("bytes", _is_bytes),
        ("integer", pa.types.is_integer),
        ("float", pa.types.is_floating),
        ("timestamp", pa.types.is_timestamp),
    ):
        if test(kind):
            return name
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        # The name of a list's field differs between a table in memory and one read from a file.
        return f"list<{_type_name(kind.value_type)}>"
    return str(kind)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    )
