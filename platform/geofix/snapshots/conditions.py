"""Whether seen test photos were taken in another season and light than what was learnt: measured, not forced.

A split by sequences keeps a recording together, but another recording of the same street may be of the same
week and hour. An evaluation can say how many of its test photos that concerns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from geofix.snapshots.groups import photo_groups
from geofix.spatial import s2

YEAR_DAYS = 365.25
_APART = 10.0  # between two cells, in radii of the search; any value above 1


def same_conditions(
    table: pd.DataFrame, *, level: int, split: str = "test_seen", days: float = 30.0, hours: float = 2.0
) -> NDArray[np.bool_]:
    """Which photos of a split have a training photo of their cell in the same season and at the same hour.

    Season is the day of the year, whatever the year, and wraps around at its end; the hour is that of the
    day in UTC, which within one cell differs as the local one does (but for summer time). Bounds count as
    the same. A photo without a capture time has none.

    Args:
        table: One row per photo: split, captured_at, s2_id (leaf cells).
        level: S2 level of the cells.
        split: The split that is looked at.
        days: Days of the year.
        hours: Hours of the day.

    Returns:
        True where there is one, shape (n,); False outside the split.
    """
    labels = table["split"].astype(str).to_numpy()
    time = pd.to_datetime(table["captured_at"], utc=True)
    known = time.notna().to_numpy()
    tested = np.flatnonzero((labels == split) & known)
    learnt = np.flatnonzero((labels == "train") & known)
    found = np.zeros(len(table), dtype=bool)
    if len(tested) == 0 or len(learnt) == 0:
        return found
    cells = np.unique(s2.parent(table["s2_id"].to_numpy(np.int64), level), return_inverse=True)[1]
    hour = ((time - time.dt.normalize()).dt.total_seconds() / 3600).to_numpy(np.float64)
    day = (time.dt.day_of_year - 1).to_numpy(np.float64) + hour / 24
    periods = np.array([0.0, YEAR_DAYS / days, 24 / hours])  # 0: cells do not wrap around
    points = np.stack([_APART * cells, day / days, hour / hours], axis=1)
    points[:, 1:] = np.mod(np.nan_to_num(points[:, 1:]), periods[1:])
    tree = cKDTree(points[learnt], boxsize=periods)
    distance, _ = tree.query(points[tested], p=np.inf, distance_upper_bound=1 + 1e-9)
    found[tested] = np.isfinite(distance)
    return found


def conditions_report(
    table: pd.DataFrame, *, level: int, split: str = "test_seen", days: float = 30.0, hours: float = 2.0
) -> dict[str, Any]:
    """The same, counted for a snapshot's manifest.

    A group is a sequence with the copies of its photos; it counts as the same when any of its photos does.

    Returns:
        level, days, hours; photos, photos_same, photos_without_time, groups, groups_same; share: of the
        photos with a time, None where there are none.
    """
    same = same_conditions(table, level=level, split=split, days=days, hours=hours)
    inside = (table["split"].astype(str) == split).to_numpy()
    timeless = int((inside & table["captured_at"].isna().to_numpy()).sum())
    group = photo_groups(table)
    photos, repeated = int(inside.sum()), int(same.sum())
    return {
        "split": split,
        "level": level,
        "days": days,
        "hours": hours,
        "photos": photos,
        "photos_same": repeated,
        "photos_without_time": timeless,
        "groups": len(np.unique(group[inside])),
        "groups_same": len(np.unique(group[same])),
        "share": repeated / (photos - timeless) if photos > timeless else None,
    }
