"""Principal components and similarities of cell vectors, in NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_CLIP = (2.0, 98.0)  # percentiles of a component that become 0 and 1


@dataclass(frozen=True, eq=False)
class Components:
    """The first principal components of vectors.

    Attributes:
        place: (n, c) each component scaled to 0..1 between its 2nd and 98th percentile.
        share: (c,) share of the variance.
    """

    place: NDArray[np.float64]
    share: NDArray[np.float64]


def components(vectors: NDArray[np.floating], count: int = 3) -> Components:
    """Principal components of (n, D) vectors, by the eigenvectors of their covariance.

    Of fewer cells than dimensions, by those of the products of cells: as many as there are cells. The sign
    of a component is arbitrary; here its largest weight is positive, so that a rerun looks the same.
    Fewer than `count` dimensions or cells leave the rest at one half.
    """
    n, d = vectors.shape
    place, share = np.full((n, count), 0.5), np.zeros(count)
    if n < 2:
        return Components(place, share)
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    square = centred @ centred.T if n < d else centred.T @ centred
    values, axes = np.linalg.eigh(square / n)
    values, axes = np.maximum(values[::-1], 0.0), axes[:, ::-1]
    total = values.sum()
    for i in range(min(count, n, d)):
        if total <= 0 or values[i] <= 1e-12 * total:
            break
        axis = centred.T @ axes[:, i] / np.sqrt(n * values[i]) if n < d else axes[:, i]
        axis = axis * np.sign(axis[np.argmax(np.abs(axis))])
        scores = centred @ axis
        low, high = np.percentile(scores, _CLIP)
        place[:, i] = np.clip((scores - low) / max(high - low, 1e-12), 0.0, 1.0)
        share[i] = values[i] / total
    return Components(place, share)


def cosine_to(vectors: NDArray[np.floating], index: int) -> NDArray[np.float64]:
    """Cosine similarity (n,) of every vector to one of them; 0 for a zero vector."""
    full = vectors.astype(np.float64)
    full /= np.maximum(np.linalg.norm(full, axis=1, keepdims=True), 1e-12)
    return np.asarray(np.clip(full @ full[index], -1.0, 1.0), np.float64)
