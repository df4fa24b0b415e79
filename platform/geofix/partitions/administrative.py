"""Administrative regions as classes: the region code that each photo was given."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray

from geofix.errors import BadInputError, UsageError
from geofix.partitions.classes import class_means, photo_leaves
from geofix.partitions.partition import Partition, Position


def administrative_partition(
    name: str,
    codes: ArrayLike,
    lon: ArrayLike,
    lat: ArrayLike,
    *,
    level: str,
    outlines: Mapping[str, shapely.Geometry] | None = None,
    tau_min: int = 0,
    position: Position = "sphere",
) -> Partition:
    """One class per region code with more than `tau_min` photos, in the order of the codes.

    Args:
        name: Name of the partition.
        codes: Region code of each photo, None where it has none (it is then in no class), shape (n,).
        lon: Degrees, shape (n,).
        lat: Degrees, shape (n,).
        level: Level of the regions: country, admin1 or one of the user's own.
        outlines: Code to polygon, for `assign` and maps.
        tau_min: Regions with this many photos or fewer are dropped.
        position: How a class's position is averaged (`class_means`).

    Raises:
        UsageError: Numbers of codes and positions differ.
        BadInputError: No photo, none with a code, no region is left, or a region has no outline.
    """
    x, y, _ = photo_leaves(lon, lat)
    texts = np.asarray(codes, object)
    if texts.shape != x.shape:
        raise UsageError(f"{texts.size} region codes for {x.size} photos.")
    known = np.array([isinstance(code, str) and code != "" for code in texts])
    if not known.any():
        raise BadInputError(
            f"None of {x.size} photos has a region of level {level!r}.",
            hint="Load the regions with `geofix ingest regions`; the photos then get theirs.",
        )
    unique, owner, photos = np.unique(texts[known].astype(str), return_inverse=True, return_counts=True)
    kept = np.flatnonzero(photos > tau_min)
    if not kept.size:
        raise BadInputError(f"No region of level {level!r} has more than {tau_min} photos.")
    number = np.full(len(unique), -1, np.int64)
    number[kept] = np.arange(len(kept))
    label = np.full(len(x), -1, np.int64)
    label[known] = number[owner]
    wanted = tuple(str(code) for code in unique[kept])
    mean_lon, mean_lat, counts = class_means(label, len(kept), x, y, position)
    return Partition(
        name=name,
        kind="administrative",
        cells=np.empty(0, np.int64),
        cell_class=np.empty(0, np.int64),
        lon=mean_lon,
        lat=mean_lat,
        photos=counts,
        parameters={"level": level, "tau_min": tau_min, "position": position},
        codes=wanted,
        outlines=None if outlines is None else _in_order(outlines, wanted, level),
    )


def _in_order(
    outlines: Mapping[str, shapely.Geometry], codes: tuple[str, ...], level: str
) -> NDArray[np.object_]:
    if missing := [code for code in codes if code not in outlines]:
        raise BadInputError(
            f"{len(missing)} regions of level {level!r} have no outline, first {missing[0]!r}.",
            hint="Load the boundaries the photos were given their regions from.",
        )
    out = np.empty(len(codes), object)
    out[:] = [outlines[code] for code in codes]
    return out
