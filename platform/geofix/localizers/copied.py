"""Codes of coarse cells answered with their finer descendants, each of which copies its ancestor's code.

The descendants of one cell score equally, so their order says nothing: who measures takes the expected
value over all orders, see `geofix.evaluation.method_hits.expected_hits`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geofix.localizers.base import Candidates, Ints, Vectors
from geofix.localizers.code_set import CodeSetLocalizer
from geofix.spatial import s2


@dataclass(frozen=True, eq=False)
class CopiedLocalizer:
    """Answers with the centres of the descendants at a finer level of the cells that score highest.

    Attributes:
        coarse: Codes of the coarse cells.
        steps: Levels between the two, at least 1; every coarse cell has 4^steps descendants.
        name: Name in results.
    """

    coarse: CodeSetLocalizer
    steps: int
    name: str = "prototype_only"

    @property
    def copies(self) -> int:
        """Descendants that share one code."""
        return int(4**self.steps)

    def localize(self, embeddings: Vectors, k: int, ranges: Ints | None = None) -> Candidates:
        """Rank descendants, those of one cell in the order of the curve; k is rounded up to whole cells."""
        cells = -(-k // self.copies)
        top = self.coarse.localize(embeddings, cells, ranges)
        found = Candidates.empty(len(embeddings), cells * self.copies)
        ok = np.repeat(top.answered, self.copies, axis=1)
        ids = top.s2_id[top.answered]
        for _ in range(self.steps):
            ids = s2.children(ids).reshape(-1)
        found.s2_id[ok] = ids
        found.lon[ok], found.lat[ok] = s2.center(ids)
        found.score[ok] = np.repeat(top.score, self.copies, axis=1)[ok]
        return found
