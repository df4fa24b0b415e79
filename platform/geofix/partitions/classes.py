"""Classes made from photos or from a table: counted, averaged, described."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike

from geofix.errors import BadInputError, UsageError
from geofix.partitions.containment import assign_cells
from geofix.partitions.partition import Floats, Ints, Kind, Partition, Position
from geofix.spatial import s2
from geofix.spatial.distance import unit_vectors
from geofix.spatial.faces import checked_lonlat


def class_means(
    label: Ints, classes: int, lon: ArrayLike, lat: ArrayLike, how: Position = "sphere"
) -> tuple[Floats, Floats, Ints]:
    """Mean position and number of the photos of each class.

    Args:
        label: Class of each photo, -1 for none, shape (n,).
        classes: Number of classes.
        lon: Degrees, shape (n,).
        lat: Degrees, shape (n,).
        how: sphere: direction of the summed unit vectors. degrees: means of longitude and latitude, as in
            the published tables of ISNs and TransLocator; wrong across the 180th meridian.

    Raises:
        BadInputError: A class has no photo.
        UsageError: Unknown `how`.
    """
    if how not in get_args(Position):
        raise UsageError(f"Unknown class position {how!r}.", hint="Use sphere or degrees.")
    inside = label >= 0
    owner = label[inside]
    x, y = checked_lonlat(lon, lat)
    x, y = x[inside], y[inside]
    photos = np.bincount(owner, minlength=classes).astype(np.int64)
    if not photos.all():
        raise BadInputError(
            f"Class {int(np.argmin(photos))} of {classes} has no photo, so no position to answer with.",
            hint="Drop it, or give a higher least number of photos.",
        )
    if how == "degrees":
        means = [np.bincount(owner, axis, classes) / photos for axis in (x, y)]
        return means[0], means[1], photos
    sums = np.stack(
        [np.bincount(owner, axis, classes).astype(np.float64) for axis in unit_vectors(x, y).T], axis=-1
    )
    lon_mean, lat_mean = direction(sums)
    return lon_mean, lat_mean, photos


def direction(vectors: Floats) -> tuple[Floats, Floats]:
    """Longitude and latitude in degrees of vectors (n, 3) of any length."""
    x, y, z = vectors.T
    return np.rad2deg(np.arctan2(y, x)), np.rad2deg(np.arctan2(z, np.hypot(x, y)))


def describe(partition: Partition, photos: int) -> dict[str, Any]:
    """Its figures: classes, cells, their levels, photos in a class and left out, photos of the fullest."""
    levels = s2.level(partition.cells) if len(partition.cells) else None
    kept = int(partition.photos.sum())
    return {
        "name": partition.name,
        "kind": partition.kind,
        "classes": len(partition),
        "cells": len(partition.cells),
        "min_level": None if levels is None else int(levels.min()),
        "max_level": None if levels is None else int(levels.max()),
        "photos": kept,
        "left_out": photos - kept,
        "fullest": int(partition.photos.max()),
    }


def photo_leaves(lon: ArrayLike, lat: ArrayLike) -> tuple[Floats, Floats, Ints]:
    """Checked positions (n,) and their leaf ids (n,).

    Raises:
        BadInputError: No photo, or a coordinate that cannot be.
    """
    x, y = checked_lonlat(np.atleast_1d(lon), np.atleast_1d(lat))
    if x.size == 0 or x.ndim != 1:
        raise BadInputError("A partition needs photos, and there are none.", hint="Check split and data set.")
    return x, y, s2.cell_at(x, y)


def of_cells(
    name: str,
    kind: Kind,
    cells: Ints,
    lon: Floats,
    lat: Floats,
    leaves: Ints,
    *,
    parameters: Mapping[str, Any],
    position: Position = "sphere",
) -> Partition:
    """The partition whose classes are given cells, in ascending order, with photos counted and averaged."""
    ordered = np.sort(cells)
    label = assign_cells(leaves, ordered).astype(np.int64)
    x, y, photos = class_means(label, len(ordered), lon, lat, position)
    return Partition(
        name=name,
        kind=kind,
        cells=ordered,
        cell_class=np.arange(len(ordered)),
        lon=x,
        lat=y,
        photos=photos,
        parameters={**parameters, "position": position},
    )


def listed(
    name: str,
    cells: ArrayLike,
    lon: ArrayLike,
    lat: ArrayLike,
    photos: ArrayLike,
    parameters: Mapping[str, Any] | None = None,
) -> Partition:
    """The partition of a table: one cell per row, classes numbered as the rows.

    Raises:
        BadInputError: Cells overlap or repeat, a class has no photo, a position cannot be.
    """
    ids = np.asarray(cells, np.int64)
    order = np.argsort(ids)
    return Partition(
        name=name,
        kind="listed",
        cells=ids[order],
        cell_class=order.astype(np.int64),
        lon=np.asarray(lon, np.float64),
        lat=np.asarray(lat, np.float64),
        photos=np.asarray(photos, np.int64),
        parameters=dict(parameters or {}),
    )
