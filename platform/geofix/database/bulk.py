"""Binary COPY, both ways, with memory flat in the number of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pgvector import HalfVector
from psycopg import sql

from geofix.database.engine import Connection
from geofix.errors import BadInputError, UsageError

_HEADER = 19  # signature (11), flags (4), length of the extension (4)
_TRAILER = b"\xff\xff"
_CHUNK_BYTES = 8_000_000
_SEND_BYTES = 131_072  # handed to the server at a time: it works on them while the next are made
_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
# PostgreSQL type -> NumPy type of its binary form.
_BINARY = {
    "int2": ">i2",
    "int4": ">i4",
    "int8": ">i8",
    "float4": ">f4",
    "float8": ">f8",
    "bool": "?",
    "halfvec": ">f2",
}


def _identifier(name: str) -> sql.Identifier:
    return sql.Identifier(*name.split("."))


def copy_rows(conn: Connection, table: str, columns: Mapping[str, str], rows: Iterable[Sequence[Any]]) -> int:
    """Stream rows into a table.

    Args:
        conn: An open connection; the caller commits.
        table: Table name, with its schema where needed.
        columns: Column name -> PostgreSQL type name (``int8``, ``text``, ``halfvec``, ``bytea`` ...).
        rows: Tuples in the order of `columns`; consumed once.

    Returns:
        The number of rows sent.
    """
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        _identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    sent = 0
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        # A geometry travels as EWKB, and binary COPY sends no type: bytes are written as they are.
        copy.set_types(["bytea" if kind == "geometry" else kind for kind in columns.values()])
        for row in rows:
            copy.write_row(row)
            sent += 1
    return sent


def copy_arrays(
    conn: Connection, table: str, columns: Mapping[str, str], chunks: Iterable[Sequence[NDArray[Any]]]
) -> int:
    """Stream arrays into a table: no Python object per row.

    Args:
        conn: An open connection; the caller commits.
        table: Table name, with its schema where needed.
        columns: Column name -> ``int2``, ``int4``, ``int8``, ``float4``, ``float8``, ``bool`` or ``halfvec``.
        chunks: One array per column, (n,) or for a halfvec (n, D); n and D may differ from chunk to chunk.
            Consumed once; memory is that of one chunk.

    Returns:
        The number of rows sent.

    Raises:
        UsageError: A column has a type whose binary form is not known here; use `copy_rows`.
        BadInputError: The columns of a chunk differ in length, or a vector is not (n, D).
    """
    for name, kind in columns.items():
        if kind not in _BINARY:
            raise UsageError(
                f"copy_arrays: column {name} is {kind}.", hint=f"Give one of {', '.join(_BINARY)}, or rows."
            )
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        _identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    sent = 0
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(_SIGNATURE)
        for chunk in chunks:
            _check_lengths(columns, chunk)
            record = _record(columns, chunk)
            step = max(1, _SEND_BYTES // record.itemsize)
            for first in range(0, len(chunk[0]), step):
                copy.write(_packed(record, columns, [array[first : first + step] for array in chunk]))
            sent += len(chunk[0])
        copy.write(_TRAILER)
    return sent


def _check_lengths(columns: Mapping[str, str], chunk: Sequence[NDArray[Any]]) -> None:
    for (name, kind), array in zip(columns.items(), chunk, strict=True):
        if len(array) != len(chunk[0]) or array.ndim != (2 if kind == "halfvec" else 1):
            raise BadInputError(
                f"copy_arrays: column {name} ({kind}) has shape {array.shape}, the first has {len(chunk[0])} rows.",
                hint="Give (n,) per column and (n, D) for a vector.",
            )


def _record(columns: Mapping[str, str], chunk: Sequence[NDArray[Any]]) -> np.dtype[Any]:
    """The binary form of one row: how many fields, then each with its length before it."""
    fields: list[tuple[Any, ...]] = [("fields", ">i2")]
    for (name, kind), array in zip(columns.items(), chunk, strict=True):
        fields.append((f"{name} length", ">i4"))
        if kind == "halfvec":
            fields += [(f"{name} dimension", ">i2"), (f"{name} unused", ">i2")]
            fields.append((name, ">f2", (array.shape[1],)))
        else:
            fields.append((name, _BINARY[kind]))
    return np.dtype(fields)


def _packed(record: np.dtype[Any], columns: Mapping[str, str], arrays: Sequence[NDArray[Any]]) -> bytes:
    rows = np.zeros(len(arrays[0]), record)
    rows["fields"] = len(columns)
    for (name, kind), array in zip(columns.items(), arrays, strict=True):
        rows[name] = array
        rows[f"{name} length"] = rows.dtype[name].itemsize + (4 if kind == "halfvec" else 0)
        if kind == "halfvec":
            rows[f"{name} dimension"] = array.shape[1]
    return rows.tobytes()


def vector_rows(
    ids: NDArray[np.int64], vectors: NDArray[np.floating[Any]], *extra: Sequence[Any]
) -> Iterator[tuple[Any, ...]]:
    """Rows (id, halfvec, extra...) for `copy_rows`.

    Args:
        ids: (n,) identifiers.
        vectors: (n, D) vectors, sent as fp16.
        extra: Further columns of length n.
    """
    half = np.ascontiguousarray(vectors, dtype=np.float16)
    for i, identifier in enumerate(ids):
        yield (int(identifier), HalfVector(half[i]), *(column[i] for column in extra))


def read_vectors(
    conn: Connection, query: sql.Composable | str, params: Mapping[str, Any] | None = None, *, dimension: int
) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """Read (id bigint, halfvec) rows by binary COPY into arrays.

    Args:
        conn: An open connection.
        query: A SELECT of exactly two columns, an int8 and a halfvec of `dimension`.
        params: Bound on the client (COPY takes no server-side parameters).
        dimension: D, used to check every row's length.

    Returns:
        (n,) ids and (n, D) fp16 vectors, in the order of the query.

    Raises:
        BadInputError: A vector has another dimension.
    """
    # Two int4 lengths, an int2 field count, an int8, and halfvec's own int2 dimension and int2 unused.
    record = np.dtype(
        [
            ("fields", ">i2"),
            ("id_length", ">i4"),
            ("id", ">i8"),
            ("vector_length", ">i4"),
            ("dimension", ">i2"),
            ("unused", ">i2"),
            ("vector", ">f2", (dimension,)),
        ]
    )
    ids: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    vectors: list[NDArray[np.float16]] = [np.empty((0, dimension), np.float16)]
    for rows in _records(conn, query, params, record, {"vector_length": 4 + 2 * dimension}):
        ids.append(rows["id"].astype(np.int64))
        vectors.append(rows["vector"].astype(np.float16))
    return np.concatenate(ids), np.concatenate(vectors)


def read_columns(
    conn: Connection,
    query: sql.Composable | str,
    columns: Mapping[str, str],
    params: Mapping[str, Any] | None = None,
) -> dict[str, NDArray[Any]]:
    """Read rows of numbers by binary COPY into one array per column: no Python object per value.

    Args:
        conn: An open connection.
        query: A SELECT of exactly these columns; none may be NULL (say coalesce(x, 'NaN')).
        columns: Name -> NumPy type of the same width as the column's: i2, i4, i8, f4, f8.
        params: Bound on the client.
    """
    fields: list[tuple[str, str]] = [("fields", ">i2")]
    for name, kind in columns.items():
        fields += [(f"{name}_length", ">i4"), (name, f">{kind}")]
    lengths = {f"{name}_length": np.dtype(kind).itemsize for name, kind in columns.items()}
    found: dict[str, list[NDArray[Any]]] = {name: [np.empty(0, kind)] for name, kind in columns.items()}
    for rows in _records(conn, query, params, np.dtype(fields), lengths):
        for name, kind in columns.items():
            found[name].append(rows[name].astype(kind))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _records(
    conn: Connection,
    query: sql.Composable | str,
    params: Mapping[str, Any] | None,
    record: np.dtype[Any],
    lengths: Mapping[str, int],
) -> Iterator[NDArray[Any]]:
    """Rows of a query whose binary form has one length, some thousand at a time.

    Raises:
        BadInputError: A field is NULL or of another length than `lengths` says.
    """
    composed = query if isinstance(query, sql.Composable) else sql.SQL(query)
    statement = sql.SQL("COPY ({}) TO STDOUT (FORMAT BINARY)").format(composed)
    pending = bytearray()
    header_seen = False
    with conn.cursor() as cursor, cursor.copy(statement, params) as copy:
        for block in copy:
            pending += block
            if not header_seen and len(pending) >= _HEADER:
                del pending[: _HEADER + int.from_bytes(pending[_HEADER - 4 : _HEADER], "big")]
                header_seen = True
            if len(pending) > _CHUNK_BYTES:
                yield _checked(_take(pending, record), lengths)
    yield _checked(_take(pending, record), lengths)
    if bytes(pending) != _TRAILER:
        raise _misfit(lengths, "rows of another length")


def _checked(rows: NDArray[Any], lengths: Mapping[str, int]) -> NDArray[Any]:
    for name, length in lengths.items():
        wrong = np.flatnonzero(rows[name] != length)
        if len(wrong):
            raise _misfit(lengths, f"{name} {int(rows[name][wrong[0]])}")
    return rows


def _misfit(lengths: Mapping[str, int], found: str) -> BadInputError:
    wanted = ", ".join(f"{name} {length}" for name, length in lengths.items())
    return BadInputError(
        f"The database sent {found} where {wanted} bytes were expected.",
        hint="The vectors of one model or code set have one dimension: check which one was asked.",
    )


def _take(pending: bytearray, record: np.dtype[Any]) -> NDArray[Any]:
    """Cut all whole records off the front of `pending`, leaving the trailer."""
    count = len(pending) // record.itemsize
    taken = np.frombuffer(bytes(pending[: count * record.itemsize]), record)
    del pending[: count * record.itemsize]
    return taken
