"""Polygons of classes, for maps; labels are made by ids."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from geofix.partitions.partition import Partition
from geofix.spatial import s2


def class_outlines(partition: Partition) -> NDArray[np.object_]:
    """One MultiPolygon per class in degrees, (n,); None for a region whose outline is unknown.

    Edges of cells are geodesics, drawn straight in degrees: `geofix.spatial.s2.polygon` says how far that
    is off.
    """
    out = np.full(len(partition), None, dtype=object)
    if partition.codes is not None:
        if partition.outlines is not None:
            out[:] = partition.outlines
        return _multi(out)
    shapes = np.asarray(s2.polygon(partition.cells), dtype=object)
    order = np.argsort(partition.cell_class, kind="stable")
    owner = partition.cell_class[order]
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    for start, end in zip(starts, np.append(starts[1:], len(owner)), strict=True):
        one = end - start == 1
        out[owner[start]] = shapes[order[start]] if one else shapely.union_all(shapes[order[start:end]])
    return _multi(out)


def _multi(shapes: NDArray[np.object_]) -> NDArray[np.object_]:
    for i in np.flatnonzero(shapely.get_type_id(shapes) == shapely.GeometryType.POLYGON):
        shapes[i] = shapely.MultiPolygon([shapes[i]])
    return shapes
