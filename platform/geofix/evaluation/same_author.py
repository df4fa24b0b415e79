"""Methods that search training photos, asked without the photos of the asked photo's own author.

A photographer's pictures of one walk lie in training and test set alike, and such methods gain most from it,
at 1 km: a published result at 1 km may say more of the authors than of the method.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from geofix.database.engine import Connection
from geofix.database.queries.snapshots import snapshot_authors
from geofix.errors import BadInputError, UsageError
from geofix.localizers.base import Candidates, Ints, Localizer, Vectors
from geofix.localizers.density import DensityLocalizer
from geofix.localizers.knn import KnnLocalizer


class SearchesPhotos(Protocol):
    """A localizer whose references are single photos, so that some can be passed over."""

    def localize(
        self, embeddings: Vectors, k: int, ranges: Ints | None = None, *, exclude: Ints | None = None
    ) -> Candidates:
        """As `Localizer.localize`; photos whose group is the query's `exclude` (q,) are passed over."""
        ...


def without_own_author(
    conn: Connection, localizer: Localizer, snapshot_id: int
) -> tuple[Localizer, dict[int, int]]:
    """The localizer grouped by author, and each photo's group to exclude.

    A photo without an author is a group of its own: nothing but itself is passed over for it.

    Raises:
        UsageError: The localizer does not search photos.
        BadInputError: No photo of the snapshot has an author.
    """
    if not isinstance(localizer, KnnLocalizer | DensityLocalizer):
        raise UsageError(
            f"Localizer {localizer.name} does not search photos, so none can be passed over.",
            hint="Use --exclude-author with knn, knn_density or knn_density_compat.",
        )
    authors = snapshot_authors(conn, snapshot_id)
    groups = author_groups(authors)
    if max(groups.values(), default=-1) < 0:
        raise BadInputError(
            "No photo of this snapshot has an author.", hint="Ingest the photos with metadata that name one."
        )
    if isinstance(localizer, DensityLocalizer):
        return replace(localizer, knn=_grouped(localizer.knn, groups)), groups
    return _grouped(localizer, groups), groups


def author_groups(authors: dict[int, str | None]) -> dict[int, int]:
    """Photo id to a number from 0 per author, or to -1 - id where no author is known."""
    names = {name: i for i, name in enumerate(sorted({a for a in authors.values() if a}))}
    return {photo: names[name] if name else -1 - photo for photo, name in authors.items()}


def _grouped(knn: KnnLocalizer, groups: dict[int, int]) -> KnnLocalizer:
    # As fitted, the group of a training photo is its id.
    own: NDArray[np.int64] = np.array([groups[int(photo)] for photo in knn.group], dtype=np.int64)
    return replace(knn, group=own)
