"""Why a cell was answered: how much of its score comes from ground photos, how much from the air."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geofix.codes.complete import split_codes
from geofix.codes.matrix import CellMatrix
from geofix.database.engine import Connection
from geofix.database.queries.codes import CodeSet
from geofix.database.queries.localizations import tile_vectors

EXPLAINED = 20  # candidates; more are not looked at one by one


def score_parts(
    conn: Connection,
    code_set: CodeSet,
    matrix: CellMatrix,
    vector: NDArray[Any],
    ids: Sequence[int],
) -> dict[int, dict[str, float]]:
    """The parts of a score: prototype (ground photos), aerial and bias; they add up to it within 0.01.

    In a hybrid score = kappa q.p + q.a + b: the aerial part is computed from the stored embeddings of the
    cell's tiles, the bias is read from the code, and the prototype has the rest. fp16 storage of code and
    tiles is what the sum may miss.

    Args:
        conn: Open connection.
        code_set: Whose codes.
        matrix: All its codes.
        vector: (D,) the photo's embedding.
        ids: Cells of the code set; others are left out, and all beyond the first 20.
    """
    asked = np.asarray(list(ids)[:EXPLAINED], np.int64)
    place = np.searchsorted(matrix.ids, asked).clip(max=max(len(matrix.ids) - 1, 0))
    held = matrix.ids[place] == asked
    if not held.any():
        return {}
    asked = asked[held]
    query = np.asarray(vector, np.float32)
    z, bias = split_codes(np.asarray(matrix.codes[place[held]], np.float32), code_set.scale)
    total = z @ query
    aerial = np.zeros(len(asked), np.float32)
    if code_set.recipe == "aerial":
        aerial = total
    elif code_set.recipe == "hybrid":
        aerial = _aerial(conn, code_set, asked, query)
    return {
        int(cell): {"prototype": float(whole - part), "aerial": float(part), "bias": float(extra)}
        for cell, whole, part, extra in zip(asked, total, aerial, bias, strict=True)
    }


def _aerial(
    conn: Connection, code_set: CodeSet, ids: NDArray[np.int64], query: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Similarity (n,) to each cell's normalised mean aerial embedding; 0 where it has no tile."""
    found = tile_vectors(conn, code_set.model_id, ids.tolist(), code_set.config.get("datasets"))
    return np.array([_similarity(found, int(cell), query) for cell in ids], np.float32)


def _similarity(found: Mapping[int, NDArray[np.float32]], cell: int, query: NDArray[np.float32]) -> float:
    if cell not in found:
        return 0.0
    mean = found[cell].mean(axis=0)
    return float(query @ mean) / max(float(np.linalg.norm(mean)), 1e-9)
