"""Binary COPY, both ways, with memory flat in the number of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pgvector import HalfVector
from psycopg import sql

from geofix.database.engine import Connection


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
    """
    composed = query if isinstance(query, sql.Composable) else sql.SQL(query)
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
    chunks: list[NDArray[Any]] = []
    pending = bytearray()
    header_seen = False
    statement = sql.SQL("COPY ({}) TO STDOUT (FORMAT BINARY)").format(composed)
    with conn.cursor() as cursor, cursor.copy(statement, params) as copy:
        for block in copy:
            pending += block
            if not header_seen and len(pending) >= 19:
                del pending[: 19 + int.from_bytes(pending[15:19], "big")]
                header_seen = True
            if len(pending) > 8_000_000:
                chunks.append(_take(pending, record))
    chunks.append(_take(pending, record))
    rows = np.concatenate(chunks) if chunks else np.empty(0, record)
    if len(rows) and not (rows["dimension"] == dimension).all():
        raise ValueError(f"expected vectors of dimension {dimension}, got {int(rows['dimension'][0])}")
    return rows["id"].astype(np.int64), rows["vector"].astype(np.float16)


def _take(pending: bytearray, record: np.dtype[Any]) -> NDArray[Any]:
    """Cut all whole records off the front of `pending`, leaving the trailer."""
    count = len(pending) // record.itemsize
    taken = np.frombuffer(bytes(pending[: count * record.itemsize]), record)
    del pending[: count * record.itemsize]
    return taken
