"""Codes of one common norm, so that nearest neighbour and largest inner product are the same search.

A code is a sum and its norm varies, on which graph indexes for inner product break. Two more dimensions
mend that: D + 1 holds the cell's bias (the query's component is 1), D + 2 fills every code up to the
largest norm M (the query's component is 0), and all is divided by M:

    code_i = [ z_i, b_i, sqrt(M^2 - |z_i|^2 - b_i^2) ] / M        query = [ q, 1, 0 ]
    query . code_i = (q . z_i + b_i) / M

so the order of scores is untouched. Source of the reduction: Bachrach et al., *Speeding Up the Xbox
Recommender System Using a Euclidean Transformation for Inner-Product Spaces*, RecSys 2014.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geofix.errors import BadInputError

Floats = npt.NDArray[np.float32] | npt.NDArray[np.float16] | npt.NDArray[np.float64]


def completion_norm(z: Floats, bias: Floats | None = None) -> float:
    """The largest norm M of [z_i, b_i] over the rows of z (n, D) and bias (n,).

    For codes built in parts, M is the largest of the parts' values and is handed to `complete_codes`.
    """
    vectors, biases = _checked(z, bias)
    if not len(vectors):
        return 1.0
    return float(np.sqrt((_squares(vectors) + biases**2).max())) or 1.0


def complete_codes(
    z: Floats, bias: Floats | None = None, *, norm: float | None = None
) -> npt.NDArray[np.float32]:
    """Complete codes to unit norm.

    Stored as float16, norms stay within 1 +- 5e-4 (half a unit in the last place, 2^-11) and a score moves
    by at most |query| x 5e-4 (worst case: every component is rounded the same way).

    Args:
        z: (n, D) cell codes of any norm.
        bias: (n,) added to a cell's score, in units of the score; zeros when left out.
        norm: M, when it is larger than that of these rows.

    Returns:
        (n, D + 2) float32 of unit norm.

    Raises:
        BadInputError: A value is not finite, shapes differ, or `norm` is smaller than a row's.
    """
    vectors, biases = _checked(z, bias)
    largest = completion_norm(z, bias)
    scale = largest if norm is None else float(norm)
    if scale < largest * (1 - 1e-6):
        raise BadInputError(
            f"norm {scale} is below the largest code's {largest}.",
            hint="Take the maximum of completion_norm over all parts of the code set.",
        )
    rest = np.sqrt(np.maximum(scale**2 - _squares(vectors) - biases**2, 0.0))
    return (np.column_stack([vectors, biases, rest]) / scale).astype(np.float32)


def complete_query(q: Floats) -> npt.NDArray[np.float32]:
    """Append the components 1 and 0 to a query (D,), or to each row of (q, D)."""
    queries = np.asarray(q, dtype=np.float32)
    tail = np.zeros((*queries.shape[:-1], 2), dtype=np.float32)
    tail[..., 0] = 1.0
    return np.concatenate([queries, tail], axis=-1)


def scores_from(scores: Floats, norm: float) -> npt.NDArray[np.float64]:
    """Turn completed scores back into q . z + b by the norm M of their code set."""
    return np.asarray(scores, dtype=np.float64) * norm


def split_codes(codes: Floats, norm: float) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Undo `complete_codes`: the codes (n, D) and the biases (n,)."""
    full = np.asarray(codes, dtype=np.float64) * norm
    return full[:, :-2].astype(np.float32), full[:, -2].astype(np.float32)


def _squares(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.einsum("nd,nd->n", vectors, vectors), dtype=np.float64)


def _checked(z: Floats, bias: Floats | None) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    vectors = np.asarray(z, dtype=np.float64)
    biases = np.zeros(len(vectors)) if bias is None else np.asarray(bias, dtype=np.float64)
    if vectors.ndim != 2 or biases.shape != (len(vectors),):
        raise BadInputError(
            f"codes of shape {vectors.shape} and biases of shape {biases.shape} do not belong together.",
            hint="Give (n, D) and (n,).",
        )
    if not (np.isfinite(vectors).all() and np.isfinite(biases).all()):
        raise BadInputError("a code or bias is not finite.", hint="Find the model that made it; drop it.")
    return vectors, biases
