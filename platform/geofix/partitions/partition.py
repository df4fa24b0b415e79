"""A partition: classes, the cells or regions that each is made of, and where each class answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray

from geofix.errors import BadInputError, UsageError
from geofix.spatial import s2
from geofix.spatial.faces import checked_lonlat

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Kind = Literal["uniform", "adaptive", "geoclass", "combinatorial", "administrative", "listed"]
Position = Literal["sphere", "degrees"]
KINDS: tuple[str, ...] = get_args(Kind)


@dataclass(frozen=True, eq=False)
class Partition:
    """How the earth is cut into n classes.

    Attributes:
        name: Its name in the database and in file names.
        kind: uniform, adaptive or listed: a class is one S2 cell. geoclass, combinatorial: a class is several
            cells. administrative: a class is a region with a code, and there are no cells.
        parameters: What it was made with; JSON.
        cells: Disjoint S2 cells in ascending order, two's complement, shape (m,).
        cell_class: Class of each cell, shape (m,).
        lon: Longitude of each class's answer in degrees, shape (n,): the mean of its photos.
        lat: Latitude, shape (n,).
        photos: Photos that each class was made from, at least one, shape (n,).
        codes: Region code of each class; administrative alone.
        outlines: Polygon of each class in degrees, shape (n,); administrative alone, and None where unknown.
        coarser: Name of the partition that `parent` points into.
        parent: Class of the coarser partition that holds each class, -1 for none, shape (n,).
        sets: Names of the partitions that a combinatorial one is the intersection of.
        members: Class of each set that holds each region, -1 for none, shape (n, len(sets)).
    """

    name: str
    kind: Kind
    cells: Ints
    cell_class: Ints
    lon: Floats
    lat: Floats
    photos: Ints
    parameters: Mapping[str, Any] = field(default_factory=dict)
    codes: tuple[str, ...] | None = None
    outlines: NDArray[np.object_] | None = None
    coarser: str | None = None
    parent: Ints | None = None
    sets: tuple[str, ...] = ()
    members: Ints | None = None

    def __post_init__(self) -> None:
        _check(self)

    def __len__(self) -> int:
        return len(self.photos)

    @property
    def one_cell_each(self) -> bool:
        """Whether every class is one S2 cell."""
        return self.codes is None and len(self.cells) == len(self)

    def class_cells(self) -> Ints:
        """The S2 cell of each class, shape (n,).

        Raises:
            UsageError: Classes are not single cells.
        """
        if not self.one_cell_each:
            raise UsageError(f"Classes of partition {self.name!r} ({self.kind}) are not single S2 cells.")
        out = np.empty(len(self), np.int64)
        out[self.cell_class] = self.cells
        return out

    def assign(
        self,
        lon: ArrayLike | None = None,
        lat: ArrayLike | None = None,
        *,
        leaf_ids: ArrayLike | None = None,
    ) -> Ints:
        """Class of each position, -1 outside every class.

        By S2 containment, so edges are geodesics; polygons decide for administrative partitions alone (edges
        straight in degrees, as regions are drawn, the smallest region where several hold a position).

        Args:
            lon: Degrees, with `lat`; or neither.
            lat: Degrees.
            leaf_ids: Leaf ids, or ids of cells no coarser than the partition's, instead of positions.

        Raises:
            UsageError: Both or none given, or an administrative partition without outlines.
            BadInputError: A coordinate is NaN or out of range, or a number is no cell id.
        """
        if (leaf_ids is None) == (lon is None or lat is None):
            raise UsageError("Give longitudes and latitudes, or leaf ids.")
        if self.codes is not None:
            return _in_outlines(self, lon, lat, leaf_ids)
        if leaf_ids is None:
            assert lon is not None and lat is not None
            leaf_ids = s2.cell_at(lon, lat)
        leaves = np.asarray(leaf_ids)
        low, high = s2.range_of(self.cells)
        first, last = s2.range_of(leaves)
        at = np.searchsorted(low, first, side="right") - 1
        inside = (at >= 0) & (last <= high[np.maximum(at, 0)]) if len(low) else np.zeros(leaves.shape, bool)
        found = self.cell_class[np.maximum(at, 0)] if len(low) else np.full(leaves.shape, -1)
        return np.asarray(np.where(inside, found, -1), np.int64)

    def assign_codes(self, codes: ArrayLike) -> Ints:
        """Class of each region code, -1 for one that is no class (and for None); administrative alone."""
        if self.codes is None:
            raise UsageError(f"Partition {self.name!r} ({self.kind}) has no region codes.")
        index = {code: i for i, code in enumerate(self.codes)}
        return np.array([index.get(str(code), -1) for code in np.asarray(codes, object)], np.int64)


def _in_outlines(
    partition: Partition, lon: ArrayLike | None, lat: ArrayLike | None, leaf_ids: ArrayLike | None
) -> Ints:
    if partition.outlines is None:
        raise UsageError(
            f"Partition {partition.name!r} has region codes and no outlines.",
            hint="Give the photos' region codes (assign_codes), or load it from the database.",
        )
    if leaf_ids is not None:
        lon, lat = s2.center(leaf_ids)
    x, y = checked_lonlat(lon, lat)  # type: ignore[arg-type]
    out = np.full(x.size, -1, np.int64)
    # Asked from the side of the polygons, each is prepared once for all its points.
    tree = shapely.STRtree(shapely.points(x.ravel(), y.ravel()))
    area, point = tree.query(partition.outlines, predicate="intersects")
    largest_first = np.argsort(-shapely.area(partition.outlines)[area], kind="stable")
    out[point[largest_first]] = area[largest_first]
    return out.reshape(x.shape)


def _check(p: Partition) -> None:
    """Raise where a partition cannot be used.

    Raises:
        UsageError: Unknown kind, a bad name, or arrays of different lengths.
        BadInputError: No class, an empty class, a class without a cell, overlapping cells, a bad position.
    """
    n = len(p.photos)
    where = f"Partition {p.name!r}"
    if p.kind not in KINDS:
        raise UsageError(f"Unknown kind of partition {p.kind!r}.", hint=f"Kinds are {', '.join(KINDS)}.")
    if not p.name or any(c in p.name for c in "/\\\0\n") or p.name.startswith("."):
        raise UsageError(f"{p.name!r} cannot be the name of a partition: it names files too.")
    if n == 0:
        raise BadInputError(f"{where} has no class.", hint="Lower the least number of photos of a class.")
    wrong = len(p.lon) != n or len(p.lat) != n or len(p.cells) != len(p.cell_class)
    wrong |= p.parent is not None and len(p.parent) != n
    wrong |= p.members is not None and p.members.shape != (n, len(p.sets))
    wrong |= p.codes is not None and len(p.codes) != n
    wrong |= p.outlines is not None and len(p.outlines) != n
    if wrong or (p.codes is None) == (p.kind == "administrative"):
        raise UsageError(f"{where}: its parts do not have {n} classes each, or are not those of {p.kind}.")
    checked_lonlat(p.lon, p.lat)
    if (empty := np.flatnonzero(p.photos < 1)).size:
        raise BadInputError(
            f"{where}: class {int(empty[0])} has {int(p.photos[empty[0]])} photos ({empty.size} such).",
            hint="A class without photos has no position to answer with; drop it.",
        )
    if p.codes is None:
        _check_cells(p, where)


def _check_cells(p: Partition, where: str) -> None:
    n = len(p.photos)
    if len(p.cell_class) and (p.cell_class.min() < 0 or p.cell_class.max() >= n):
        raise UsageError(f"{where} has cells of classes beyond its {n}.")
    without = np.flatnonzero(np.bincount(p.cell_class, minlength=n) == 0)
    if without.size:
        raise BadInputError(f"{where}: class {int(without[0])} has no cell.")
    first, last = s2.range_of(p.cells)
    clash = np.flatnonzero(first[1:] <= last[:-1])
    if clash.size:
        pair = s2.token(p.cells[[clash[0], clash[0] + 1]])
        raise BadInputError(
            f"{where}: cells {pair[0]} and {pair[1]} overlap or are out of order ({clash.size} such pairs).",
            hint="A partition needs disjoint cells; a cell and its child cannot both be classes.",
        )
