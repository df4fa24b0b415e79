"""Build the HNSW index of a code set, and measure what it loses against exact search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pgvector import HalfVector

from geofix.codes.complete import complete_query
from geofix.codes.host_matrix import host_matrix
from geofix.codes.matrix import CellMatrix
from geofix.database.engine import Connection
from geofix.database.queries import codes as code_queries
from geofix.database.queries.codes import CodeSet
from geofix.database.queries.shard_pieces import is_distributed, lock_for_now
from geofix.database.shard_moves import index_pieces
from geofix.errors import UsageError
from geofix.log import progress


@dataclass(frozen=True)
class Recall:
    """Share of the exact top k that the index also returned, over some queries.

    A cell whose score equals that of the last of the top k counts as one of them: children that copy one
    prototype tie, and exact search itself could have named any of them.
    """

    recall: float
    k: int
    queries: int
    method: str


def build_index(
    conn: Connection,
    code_set: CodeSet,
    *,
    m: int = 16,
    ef_construction: int = 64,
    memory_bytes: int = 512 << 20,
    parallel: int = 1,
) -> dict[str, Any]:
    """Estimate the graph's memory, build it, and return its parameters; the caller commits.

    Raises:
        SpaceError: The graph cannot fit in `memory_bytes`.
        UsageError: m or ef_construction is out of pgvector's range.
    """
    if not 2 <= m <= 100 or not max(4, 2 * m) <= ef_construction <= 1000:
        raise UsageError(
            f"m = {m}, ef_construction = {ef_construction} is out of range.",
            hint="2 <= m <= 100 and 2 m <= ef_construction <= 1000.",
        )
    if is_distributed(conn, code_set.code_set_id):
        size = index_pieces(conn, code_set, m=m, ef_construction=ef_construction, memory_bytes=memory_bytes)
    else:
        lock_for_now(conn, code_set.code_set_id)  # a refresh writes into the leaf
        size = code_queries.build_hnsw(
            conn, code_set, m=m, ef_construction=ef_construction, memory_bytes=memory_bytes, parallel=parallel
        )
    estimate = code_queries.hnsw_bytes(code_set.cells, code_set.dimension, m)
    return {
        "code_set": code_set.name,
        "m": m,
        "ef_construction": ef_construction,
        "estimated_bytes": estimate,
        "bytes": size,
    }


def measure_recall(
    conn: Connection, code_set: CodeSet, queries: NDArray[np.floating[Any]], *, k: int = 10
) -> Recall:
    """Compare HNSW with the exact matrix on the same queries and store the result; the caller commits.

    Args:
        conn: Open connection.
        code_set: A ready code set.
        queries: (q, D + 2) completed queries.
        k: How many cells each search returns.
    """
    matrix = host_matrix(conn, code_set)
    _, scores = matrix.search(queries, k)
    found = 0
    wanted = 0
    method = "exact"
    with progress("recall", len(queries), "queries") as advance:
        for row, query in enumerate(queries):
            answer, method = code_queries.search(
                conn, code_set, HalfVector(np.asarray(query, np.float16)), k, exact_below=0
            )
            rows = matrix.rows_containing(np.array(answer, np.int64))
            reached = _scores(matrix, query, rows)
            found += int((reached >= scores[row, -1]).sum())
            wanted += scores.shape[1]
            advance(1)
    recall = found / wanted if wanted else 1.0
    code_queries.store_recall(
        conn,
        {
            "code_set_id": code_set.code_set_id,
            "k": k,
            "queries": len(queries),
            "ef_search": min(1000, max(100, 2 * k)),
            "scope": "everywhere",
            "cells_in_scope": code_set.cells,
            "recall": recall,
        },
    )
    return Recall(recall, k, len(queries), method)


def _scores(
    matrix: CellMatrix, query: NDArray[np.floating[Any]], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Scores of some rows as `CellMatrix.search` rounds them, so that equal codes are equal."""
    wide = np.asarray(query, np.float64)
    return np.array([wide @ matrix.row(int(row)).astype(np.float64) for row in rows], np.float32)


def recall_with_photos(
    conn: Connection, code_set: CodeSet, *, limit: int = 100, k: int = 10
) -> Recall | None:
    """Measure the recall with embedded photos of the code set's model as queries; None where there are none.

    The photos are the model's first `limit` in the order of a hash of their id, so that a series of checks
    asks the same photos.
    """
    vectors = code_queries.sample_photo_embeddings(conn, code_set, limit)
    if not len(vectors):
        return None
    return measure_recall(conn, code_set, complete_query(vectors), k=k)
