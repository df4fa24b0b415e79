"""A stored code set as a localizer: exact search of its codes, read from the same table that SQL searches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from geofix.codes.complete import complete_query, scores_from
from geofix.codes.host_matrix import host_matrix
from geofix.codes.matrix import CellMatrix
from geofix.database.engine import Connection
from geofix.database.queries.codes import SEARCHABLE, CodeSet
from geofix.errors import NotFoundError
from geofix.localizers.base import Candidates, Ints
from geofix.spatial import s2

# What a recipe is called as a localizer.
NAMES = {"cellmean": "cellmean", "aerial": "aerial_only", "prototype": "prototype_only", "hybrid": "cellcode"}


@dataclass(frozen=True, eq=False)
class CodeSetLocalizer:
    """Answers with the centres of the cells whose codes score highest.

    Attributes:
        matrix: Completed codes (n, D + 2).
        scale: M, the common norm that the codes were divided by.
        name: Name of the localizer that the recipe stands for.
    """

    matrix: CellMatrix
    scale: float
    name: str

    @classmethod
    def load(cls, conn: Connection, code_set: CodeSet) -> CodeSetLocalizer:
        """Read all codes of a set.

        Raises:
            NotFoundError: The set is being built or dropped.
        """
        if code_set.state not in SEARCHABLE:
            raise NotFoundError(
                f"Code set {code_set.name} is {code_set.state}.", hint="Wait, or build it again."
            )
        return cls.of(host_matrix(conn, code_set), code_set)

    @classmethod
    def of(cls, matrix: CellMatrix, code_set: CodeSet) -> CodeSetLocalizer:
        """Of codes that were read before."""
        return cls(matrix, code_set.scale, NAMES.get(code_set.recipe, code_set.recipe))

    def localize(self, embeddings: npt.NDArray[Any], k: int, ranges: Ints | None = None) -> Candidates:
        """Rank cells by score; see `Localizer.localize`."""
        found = Candidates.empty(len(embeddings), k)
        # fp16, as the query reaches SQL: both then agree.
        queries = complete_query(np.asarray(embeddings, np.float16).astype(np.float32))
        ids, scores = self.matrix.search(queries, k, ranges)
        lon, lat = s2.center(ids)
        found.put(slice(None), ids, lon, lat, scores_from(scores, self.scale))
        return found

    def log_partition(
        self, embeddings: npt.NDArray[Any], temperature: float, ranges: Ints | None = None
    ) -> npt.NDArray[np.float64]:
        """Logarithm of the sum of exp(score / T) over all cells in scope (q,); -inf where there is none.

        exp(score / T - this) is then the probability of a cell, the same that `geofix localize` gives it.

        Args:
            embeddings: (q, D) unit vectors.
            temperature: T in units of the score.
            ranges: As in `localize`.
        """
        queries = complete_query(np.asarray(embeddings, np.float16).astype(np.float32))
        total = np.full(len(queries), -np.inf)
        for _, scores in self.matrix.score_blocks(queries, ranges):
            part = logsumexp(scores.astype(np.float64) * (self.scale / temperature), axis=1)
            total = np.logaddexp(total, part)
        return total
