"""Two parts as one code per cell: the cells of either, what validation photos say of them, the codes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geofix.codes.fuse import Parts
from geofix.codes.recipes import CellVectors
from geofix.errors import BadInputError
from geofix.evaluation.method_data import Cells
from geofix.localizers.code_set import CodeSetLocalizer
from geofix.localizers.ensemble import localizer_of
from geofix.models.hybrid import Fusion
from geofix.models.scores import VectorScores
from geofix.spatial import s2


def parts_of(prototype: Cells, aerial: Cells) -> Parts:
    """Both vectors of every cell that has either; both of one level."""
    return Parts.of(
        CellVectors.of_photos(prototype.ids, prototype.vectors),
        CellVectors.of_tiles(aerial.ids, aerial.vectors),
    )


PAIRS = 50_000_000  # of photo and cell in one pass of a fit: some 2 s at D = 256 on two cores


def source_of(
    parts: Parts, queries: NDArray[np.float32], leaf: NDArray[np.int64], *, pairs: int = PAIRS
) -> VectorScores:
    """Similarities of the photos (q, D) whose cell is here, for the fits of `geofix.models.hybrid`.

    Where photos times cells exceed `pairs`, a random sample of the photos (seed 0, at least 500) is compared
    with all cells.

    Raises:
        BadInputError: None is.
    """
    own = s2.parent(leaf, int(s2.level(parts.ids[:1])[0]))
    place = np.searchsorted(parts.ids, own).clip(max=len(parts.ids) - 1)
    inside = np.flatnonzero(parts.ids[place] == own)
    if not len(inside):
        raise BadInputError(
            f"None of {len(leaf)} embedded validation photos lies in a searched cell.",
            hint="Embed the val photos of this snapshot, and aerial tiles around them.",
        )
    most = max(500, pairs // len(parts.ids))
    if len(inside) > most:
        inside = np.sort(np.random.default_rng(0).choice(inside, most, replace=False))
    return VectorScores(
        np.ascontiguousarray(queries[inside]),
        parts.prototype,
        parts.aerial,
        parts.has_prototype,
        parts.has_aerial,
        place[inside],
    )


def codes_of(parts: Parts, fusion: Fusion) -> CodeSetLocalizer:
    """Codes kappa z_P + z_A with the bias of what a cell lacks."""
    made = parts.combine(fusion.kappa, fusion.bias_no_prototype, fusion.bias_no_aerial)
    return localizer_of(made.ids, made.vectors, made.bias)
