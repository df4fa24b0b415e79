"""Two sets of codes as one: a sum of scores of two encoders is an inner product of concatenated vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from geofix.codes.complete import complete_codes, completion_norm
from geofix.codes.matrix import CellMatrix
from geofix.errors import BadInputError
from geofix.localizers.base import Ints
from geofix.localizers.code_set import CodeSetLocalizer

Vectors = npt.NDArray[Any]


def localizer_of(
    ids: Ints, vectors: Vectors, bias: Vectors | None = None, *, name: str = "cellcode"
) -> CodeSetLocalizer:
    """Codes in memory as the localizer that a stored code set of them would be: completed, float16.

    Args:
        ids: (n,) S2 ids.
        vectors: (n, D) codes of any norm.
        bias: (n,) added to a cell's score; zeros when left out.
        name: Name in results.
    """
    norm = completion_norm(vectors, bias)
    return CodeSetLocalizer(CellMatrix.from_rows(ids, complete_codes(vectors, bias, norm=norm)), norm, name)


def ensemble(
    first: tuple[Ints, Vectors], second: tuple[Ints, Vectors], weight: float, *, name: str = "ensemble"
) -> CodeSetLocalizer:
    """Score weight * s_1 + s_2 of two models over the cells that both know.

    A photo is asked with both models' embeddings one after the other (q, D_1 + D_2), see `joined`.

    Args:
        first: Ids (n,) and codes (n, D_1) of one model.
        second: Ids (m,) and codes (m, D_2) of the other.
        weight: Of the first model's score.
        name: Name in results.

    Raises:
        BadInputError: The two have no cell in common.
    """
    common, a, b = np.intersect1d(first[0], second[0], assume_unique=True, return_indices=True)
    if not len(common):
        raise BadInputError(
            "The two models of an ensemble have no cell in common.",
            hint="Train both on one snapshot, with prototypes of one level.",
        )
    return localizer_of(common, joined(weight * first[1][a], second[1][b]), name=name)


def joined(first: Vectors, second: Vectors) -> npt.NDArray[np.float32]:
    """Rows of two matrices (n, D_1) and (n, D_2) side by side."""
    return np.concatenate([np.asarray(first, np.float32), np.asarray(second, np.float32)], axis=1)
