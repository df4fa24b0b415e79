"""Administrative accuracy: is the answer in the right country, region, area, city?

As OSV-5M counts: names of the places at the answer against names at the photo, photos without a label on a
level left out of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import shapely
from numpy.typing import ArrayLike, NDArray

from geofix.errors import BadInputError, NotFoundError
from geofix.evaluation.metrics import wilson
from geofix.evaluation.protocols import MissingPolicy

Labels = Mapping[str, Sequence[Any] | NDArray[Any]]


def administrative_accuracy(
    predicted: Labels, truth: Labels, *, missing: MissingPolicy = "wrong", answered: ArrayLike | None = None
) -> dict[str, dict[str, Any]]:
    """Percent of photos whose answer has the true label, on each level that both sides know.

    Args:
        predicted: Level to names at the answers, shape (n,); None, NaN or "" where there is none.
        truth: Level to names at the photos, same order; a photo without a name is left out of the level.
        missing: Under `wrong` a photo without an answer counts, under `drop` it leaves the level.
        answered: Shape (n,), which photos have an answer; None: all. An answer at a place without a name is
            wrong under both policies.

    Returns:
        `{level: {"n", "hits", "percent", "unlabelled"}}`; percent is None where no photo has a label.

    Raises:
        BadInputError: The numbers of labels differ.
    """
    result = {}
    for level in [name for name in truth if name in predicted]:
        given, right = _texts(predicted[level]), _texts(truth[level])
        if len(given) != len(right):
            raise BadInputError(f"Level {level!r}: {len(given)} labels of answers for {len(right)} photos.")
        there = np.ones(len(right), bool) if answered is None else np.asarray(answered, dtype=bool)
        labelled = right != ""
        counted = labelled if missing == "wrong" else labelled & there
        hits = (given == right) & counted & there
        result[level] = {
            "n": int(counted.sum()),
            "hits": int(hits.sum()),
            "percent": float(100.0 * hits.sum() / counted.sum()) if counted.any() else None,
            "unlabelled": int((~labelled).sum()),
        }
    return result


def level_rows(name: str, stored: Mapping[str, Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """What an evaluation stored of right regions, a row per level, in percent with a 95 % Wilson interval.

    Args:
        name: Of the evaluation.
        stored: `administrative` of its metrics.

    Raises:
        NotFoundError: It was measured before right regions were counted.
    """
    if stored is None:
        raise NotFoundError(
            f"Right regions of {name} have not been counted.", hint="Run `geofix evaluate summarize`."
        )
    rows = []
    for level, row in stored.items():
        low, high = wilson(row["hits"], row["n"])
        rows.append(
            {
                "level": level,
                "n": row["n"],
                "hits": row["hits"],
                "accuracy": row["percent"],
                "low": float(low),
                "high": float(high),
                "unlabelled": row["unlabelled"],
            }
        )
    return rows


def labels_at(
    lon: ArrayLike, lat: ArrayLike, areas: Sequence[shapely.Geometry], names: Sequence[str]
) -> NDArray[np.object_]:
    """Name of the area that covers each position (planar in degrees), "" outside all and for NaN.

    Where areas overlap the smallest counts. Planar edges differ from geodesic ones by at most about
    R d^2 sin(2 lat) / 16 for an edge of d radians along a parallel: 19 m at one degree.
    """
    if len(areas) != len(names):
        raise BadInputError(f"{len(areas)} areas have {len(names)} names.")
    x, y = np.asarray(lon, dtype=np.float64), np.asarray(lat, dtype=np.float64)
    found = np.full(len(x), "", dtype=object)
    known = np.flatnonzero(~(np.isnan(x) | np.isnan(y)))
    if not len(known) or not len(areas):
        return found
    tree = shapely.STRtree(shapely.points(x[known], y[known]))
    sizes = shapely.area(list(areas))
    for i in np.argsort(-sizes, kind="stable"):
        found[known[tree.query(areas[i], predicate="covers")]] = names[i]
    return found


def _texts(values: Sequence[Any] | NDArray[Any]) -> NDArray[np.object_]:
    text = pd.Series(list(values), dtype=object)
    known = text.notna() & ~text.astype(str).str.strip().str.lower().isin(("", "nan", "none"))
    return text.astype(str).str.strip().where(known, "").to_numpy(dtype=object)
