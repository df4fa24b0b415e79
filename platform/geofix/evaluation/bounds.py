"""What a method that answers with positions of cells can reach on given photos, and what it must beat.

Three rows per partition: the position of the cell that contains the photo (a perfect classifier), the best of
all positions (a strict bound), and always the position of the most populated cell (the trivial baseline).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from geofix.database.engine import Connection
from geofix.database.queries import partitions as queries
from geofix.errors import BadInputError, NotFoundError
from geofix.evaluation import metrics
from geofix.evaluation.cell_tables import read_listed_cells
from geofix.evaluation.protocols import EvaluationProtocol
from geofix.partitions.containment import assign_cells
from geofix.partitions.files import load_partition
from geofix.partitions.partition import Partition
from geofix.partitions.store import load_stored
from geofix.spatial import s2
from geofix.spatial.distance import unit_vectors

Floats = NDArray[np.float64]
_COUNTS = ("imgs_per_cell", "count", "photos", "n")


@dataclass(frozen=True)
class ClassPositions:
    """A partition as its classes answer.

    Attributes:
        lon: Position that the class answers with, degrees, shape (m,).
        lat: Degrees.
        count: Training photos of each class, shape (m,), or None.
        cells: Disjoint S2 cells, two's complement, shape (c,); None where classes are no cells.
        cell_class: Class of each cell, shape (c,); None: the cells are the classes, in their order.
        regions: The partition whose polygons hold the classes, where classes are regions.
        warnings: What was mended when it was read, or looks odd.
    """

    lon: Floats
    lat: Floats
    count: NDArray[np.int64] | None = None
    cells: NDArray[np.int64] | None = None
    cell_class: NDArray[np.int64] | None = None
    regions: Partition | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse arrays of different lengths, no class, and positions that are no place."""
        per_class = [self.lon, self.lat, *([] if self.count is None else [self.count])]
        if self.cells is not None and self.cell_class is None:
            per_class.append(self.cells)
        lengths = sorted({len(values) for values in per_class})
        if len(lengths) != 1 or not len(self.lon):
            raise BadInputError(f"A partition needs one cell, position and count per class, not {lengths}.")
        if not (np.abs(self.lat) <= 90).all() or not (np.abs(self.lon) <= 180).all():
            raise BadInputError("A class of the partition has no position on earth.")
        if self.cells is not None and self.cell_class is not None:
            inside = (self.cell_class >= 0) & (self.cell_class < len(self.lon))
            if len(self.cell_class) != len(self.cells) or not inside.all():
                raise BadInputError(f"The {len(self.cells)} cells do not each belong to a class.")

    def labels(self, lon: ArrayLike, lat: ArrayLike) -> NDArray[np.int64] | None:
        """Class of each position, -1 outside all; None where classes are neither cells nor polygons."""
        if self.regions is not None:
            return self.regions.assign(lon, lat)
        if self.cells is None:
            return None
        cell = assign_cells(s2.cell_at(lon, lat, 30), self.cells)
        classes = np.arange(len(self.cells)) if self.cell_class is None else self.cell_class
        return np.where(cell >= 0, classes[np.maximum(cell, 0)], -1)


def cell_bounds(
    lon: ArrayLike,
    lat: ArrayLike,
    classes: ClassPositions,
    *,
    own: ArrayLike | None = None,
    protocol: EvaluationProtocol | None = None,
) -> dict[str, dict[str, Any]]:
    """The three bounds of a partition on photos at lon, lat (degrees, shape (n,)).

    `nearest_mean` takes the position nearest on the sphere. Under a protocol on the ellipsoid another one may
    be nearer by at most 0.56 % of the distance, so that row is then a bound to within this share.

    Args:
        lon: Degrees, shape (n,).
        lat: Degrees, shape (n,).
        classes: What can be answered.
        own: True class of each photo, -1 for none, shape (n,); None: that of the cell it lies in.
        protocol: How to count; photos outside every class are wrong whatever it says of missing answers.

    Returns:
        `{"true_cell" | "nearest_mean" | "most_populated": {"n", "answered", "accuracy_km", "median_km",
        "mean_km", "geoscore"}}`. A photo outside every cell is wrong in `true_cell`; `answered` is the
        percent inside. Without counts there is no `most_populated`, without cells or polygons no
        `true_cell`.

    Raises:
        BadInputError: No photo, or two cells overlap.
    """
    rules = protocol or EvaluationProtocol()
    x, y = np.asarray(lon, dtype=np.float64), np.asarray(lat, dtype=np.float64)
    if not x.size:
        raise BadInputError("There is no photo to bound.", hint="Give the truth of a test set.")
    found = {}
    labels = classes.labels(x, y) if own is None else np.asarray(own, dtype=np.int64)
    if labels is not None:
        at = np.maximum(labels, 0)
        place = [np.where(labels >= 0, axis[at], np.nan) for axis in (classes.lon, classes.lat)]
        found["true_cell"] = _row(rules.distance_m(place[0], place[1], x, y), rules)
    _, near = cKDTree(unit_vectors(classes.lon, classes.lat)).query(unit_vectors(x, y))
    found["nearest_mean"] = _row(rules.distance_m(classes.lon[near], classes.lat[near], x, y), rules)
    if classes.count is not None:
        most = int(np.argmax(classes.count))
        answer = (float(classes.lon[most]), float(classes.lat[most]))
        found["most_populated"] = {**_row(metrics.constant_errors(answer, x, y, protocol=rules), rules)}
        found["most_populated"]["position"] = {"lon": answer[0], "lat": answer[1]}
    return found


def read_classes(path: Path) -> ClassPositions:
    """A published cell table (s2_token, latitude_mean, longitude_mean, imgs_per_cell), or a partition.

    Raises:
        NotFoundError: No such file.
        BadInputError: As `read_listed_cells`; the counts may be missing.
    """
    if path.is_dir():
        return _of_partition(load_partition(path))
    found = read_listed_cells(path, photos=_COUNTS)
    return ClassPositions(
        found.lon, found.lat, found.photos, cells=found.s2_id, warnings=tuple(found.warnings)
    )


def stored_classes(conn: Connection, name: str) -> ClassPositions:
    """A stored partition.

    Raises:
        NotFoundError: There is none of that name; the message lists those there are.
        BadInputError: Its rows do not make a partition that can be used.
    """
    try:
        stale = queries.find_partition(conn, name)["stale_reason"]
    except NotFoundError as error:
        raise NotFoundError(
            f"{name!r} is neither a file nor a folder, and no partition is stored under this name.",
            hint=error.hint,
        ) from error
    return _of_partition(
        load_stored(conn, name), *([f"Partition {name} is stale: {stale}."] if stale else [])
    )


def _of_partition(made: Partition, *warnings: str) -> ClassPositions:
    if made.codes is None:
        return ClassPositions(made.lon, made.lat, made.photos, made.cells, made.cell_class, warnings=warnings)
    regions = None if made.outlines is None else made
    return ClassPositions(made.lon, made.lat, made.photos, regions=regions, warnings=warnings)


def bounds_of(
    lon: ArrayLike,
    lat: ArrayLike,
    partitions: Mapping[str, ClassPositions],
    *,
    protocol: EvaluationProtocol | None = None,
) -> dict[str, dict[str, dict[str, Any]]]:
    """`cell_bounds` of several partitions by name."""
    return {name: cell_bounds(lon, lat, one, protocol=protocol) for name, one in partitions.items()}


def _row(error_m: Floats, rules: EvaluationProtocol) -> dict[str, Any]:
    # A perfect classifier has no answer outside the cells; to leave such photos out would flatter it.
    wrong = rules.with_missing("wrong")
    median = metrics.median_m(error_m)
    return {
        "n": len(error_m),
        "answered": metrics.share_answered(error_m),
        "accuracy_km": metrics.accuracy_km(error_m, rules.radii_km, protocol=wrong),
        "median_km": None if median is None else median / 1000.0,
        "mean_km": metrics.mean_km(error_m),
        "geoscore": metrics.geoscore(error_m, missing="wrong", scale_km=rules.geoscore_scale_km),
    }
