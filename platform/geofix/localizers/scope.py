"""Which rows of a localizer a region lets through: those whose centre lies in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely

from geofix.localizers.base import Ints, Localizer, PhotoLocalizer
from geofix.localizers.cellmean import CellMeanLocalizer
from geofix.localizers.code_set import CodeSetLocalizer
from geofix.localizers.density import DensityLocalizer
from geofix.localizers.knn import KnnLocalizer
from geofix.localizers.popular import PopularLocalizer
from geofix.spatial import s2


def ranges_inside(ids: Ints, region: Any) -> Ints:
    """Closed id ranges (n, 2) of those of sorted ids whose centre lies in a region or on its border.

    Args:
        ids: (m,) cells or leaves in ascending order; equal ones may follow each other.
        region: Valid shapely polygons in degrees.
    """
    shapely.prepare(region)
    lon, lat = s2.center(ids)
    inside = shapely.intersects_xy(region, lon, lat)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(np.int8)))
    return np.column_stack([ids[edges[0::2]], ids[edges[1::2] - 1]])


def answer_ids(localizer: Localizer | PhotoLocalizer) -> Ints:
    """Sorted ids of the cells, or of the photos' leaves, that a localizer can answer with."""
    if isinstance(localizer, PhotoLocalizer):
        return localizer.answer_ids
    if isinstance(localizer, PopularLocalizer):
        return localizer.ids
    if isinstance(localizer, DensityLocalizer):
        return localizer.knn.matrix.ids
    assert isinstance(localizer, CodeSetLocalizer | CellMeanLocalizer | KnnLocalizer)
    return localizer.matrix.ids
