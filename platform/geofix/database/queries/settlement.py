"""What tells urban from rural photos: regions that say so, or how many photos lie around."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geofix.database.engine import Connection

HAS_REGIONS = "SELECT EXISTS (SELECT FROM geofix.region WHERE level = %(level)s)"
# Photos near a region are given it as well; here only those inside count.
INSIDE = """
SELECT s.photo_id FROM geofix.snapshot_photo s
JOIN geofix.photo_region pr ON pr.photo_id = s.photo_id AND pr.level = %(level)s AND pr.distance_m = 0
JOIN geofix.region r USING (region_id)
WHERE s.snapshot_id = %(snapshot_id)s AND s.split = ANY (%(splits)s) AND lower(r.code) <> %(but)s
"""
# By cell of level 13.
AROUND = """
SELECT (p.s2_id & -(1::bigint << 34)) | (1::bigint << 34) AS cell, count(*)
FROM geofix.snapshot_photo s JOIN geofix.photo_record p USING (photo_id)
WHERE s.snapshot_id = %(snapshot_id)s GROUP BY 1 ORDER BY 1
"""


def has_regions(conn: Connection, level: str) -> bool:
    """Whether any region of a level is loaded."""
    row = conn.execute(HAS_REGIONS, {"level": level}).fetchone()
    return bool(row and row[0])


def photos_inside(
    conn: Connection, snapshot_id: int, splits: list[str], level: str, *, but: str
) -> NDArray[np.int64]:
    """Photos (n,) of some splits inside a region of a level, but for regions of one code."""
    key = {"snapshot_id": snapshot_id, "splits": splits, "level": level, "but": but}
    return np.array([row[0] for row in conn.execute(INSIDE, key)], np.int64)


def photos_around(conn: Connection, snapshot_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cells of level 13 (n,), ascending, that hold photos of a snapshot, and how many each (n,), of all splits."""
    found = conn.execute(AROUND, {"snapshot_id": snapshot_id}).fetchall()
    cells, counts = np.array(found, np.int64).reshape(-1, 2).T
    return cells, counts
