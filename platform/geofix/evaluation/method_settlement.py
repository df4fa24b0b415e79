"""Urban and rural photos of the method's table: by regions that say it, else by how densely photos lie."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geofix.database.engine import Connection
from geofix.database.queries import settlement as queries
from geofix.database.queries.snapshots import SnapshotRow
from geofix.errors import NotFoundError
from geofix.evaluation.method_data import Photos
from geofix.localize.credible import cell_km2
from geofix.spatial import s2

URBAN = "urban"  # level of regions that is looked for where none is named
RURAL = "rural"  # code of a region that is not urban, in a set that covers all land
CELL_LEVEL = 13  # about 1.2 km2
THIRDS = ("thin", "middle", "dense")
GROUPS = (RURAL, URBAN, *THIRDS)


def settled(
    conn: Connection, snapshot: SnapshotRow, photos: dict[str, Photos], level: str | None
) -> tuple[dict[str, Photos], dict[str, Any]]:
    """The photos by split with `settlement` filled in, and what it was taken from.

    Where regions of the level are loaded, a photo inside one is urban, unless that region's code is `rural`;
    all others are rural. Else photos are divided into thirds, equal in number over all splits together, by
    the photos of the whole snapshot per km2 of the surrounding cell of level 13. All of its photos are
    counted, not the training photos: held-out blocks are such cells, and hold none of these.

    Args:
        conn: Open connection.
        snapshot: Whose photos they are.
        photos: By split.
        level: Level of regions; None: `urban`, and without regions of it density.

    Raises:
        NotFoundError: A level was named, and no region of it is loaded.
    """
    if queries.has_regions(conn, level or URBAN):
        return _by_regions(conn, snapshot, photos, level or URBAN)
    if level is not None:
        raise NotFoundError(
            f"There is no region of level {level!r}.",
            hint=f"Load some with `geofix ingest regions FILE --level {level}`, or leave the option out.",
        )
    return _by_density(conn, snapshot, photos)


def _by_regions(
    conn: Connection, snapshot: SnapshotRow, photos: dict[str, Photos], level: str
) -> tuple[dict[str, Photos], dict[str, Any]]:
    inside = queries.photos_inside(conn, snapshot.snapshot_id, list(photos), level, but=RURAL)
    made = {
        split: replace(part, settlement=_names(np.isin(part.photo_id, inside).astype(int), (RURAL, URBAN)))
        for split, part in photos.items()
    }
    return made, {"by": "regions", "level": level}


def _by_density(
    conn: Connection, snapshot: SnapshotRow, photos: dict[str, Photos]
) -> tuple[dict[str, Photos], dict[str, Any]]:
    cells, counts = queries.photos_around(conn, snapshot.snapshot_id)
    per_km2 = counts / cell_km2(cells)

    def density(part: Photos) -> NDArray[np.float64]:
        return np.asarray(per_km2[np.searchsorted(cells, s2.parent(part.leaf, CELL_LEVEL))], np.float64)

    found = {split: density(part) for split, part in photos.items()}
    edges = np.quantile(np.concatenate(list(found.values())), [1 / 3, 2 / 3])
    made = {
        split: replace(part, settlement=_names(np.searchsorted(edges, found[split]), THIRDS))
        for split, part in photos.items()
    }
    return made, {"by": "density", "level": CELL_LEVEL, "per_km2": edges.tolist()}


def _names(place: NDArray[np.int64], names: tuple[str, ...]) -> NDArray[Any]:
    return np.array(names, object)[place]
