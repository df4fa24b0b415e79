"""What the accuracy page shows of photos and their first answers: shares by place, curves, differences.

All shares are percent and come with the photos they rest on and a Wilson interval. They are those of the
analysts' functions (`accuracy_by_region`, `accuracy_by_cell`): a photo whose own position is worse than the
distance is left out, and one without an answer is wrong, its error infinite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geofix.database.queries.dashboard import Bounds, with_cell_shapes
from geofix.database.queries.dashboard_accuracy import Asked
from geofix.evaluation.metrics import wilson
from geofix.spatial import s2

if TYPE_CHECKING:
    from geofix.evaluation.service import Pair

OUTSIDE = ("-", "outside every region")  # code and name of where no region is
MOST_PLACES = 5_000
# Of the ids of regions: a frame of region_id, code and place, and shape where it is to be drawn.
Names = Callable[[list[int], bool], pd.DataFrame]
_Z = 1.959963984540054


def bounds(asked: Asked) -> Bounds | None:
    """West, south, east, north of the photos in degrees; None without any."""
    if not len(asked.photo_id):
        return None
    lon, lat = asked.lon, asked.lat
    return float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max())


def counting(asked: Asked, threshold_m: float) -> Asked:
    """The photos that know their own position well enough for a distance in metres."""
    return asked if not (asked.gps_m > threshold_m).any() else asked.only(asked.gps_m <= threshold_m)


def hits(asked: Asked, threshold_m: float) -> NDArray[np.bool_]:
    """Which first answers are within a distance, as the evaluation compares."""
    return within(asked.error_m, threshold_m, asked.comparison)


def within(error_m: NDArray[np.float64], threshold_m: float, comparison: str) -> NDArray[np.bool_]:
    """Which errors in metres are within a distance, by `<` or `<=`."""
    return error_m < threshold_m if comparison == "<" else error_m <= threshold_m


def overall(asked: Asked, threshold_m: float) -> dict[str, float]:
    """n, hits, accuracy with its interval in percent, median_m (infinite without answers), answered."""
    here = counting(asked, threshold_m)
    n, hit = len(here.photo_id), int(hits(here, threshold_m).sum())
    median = float(_medians(np.zeros(n, np.intp), here.error_m, 1)[0]) if n else np.nan
    return _overall(n, hit, median, float((~np.isnan(here.error_m)).sum()))


def summed(counts: pd.DataFrame) -> dict[str, float]:
    """What `overall` says, from a summary of all photos: one row, or none where no photo counts."""
    if counts.empty:
        return _overall(0, 0, np.nan, 0.0)
    row = counts.iloc[0]
    return _overall(int(row["n"]), int(row["hits"]), float(row["median_m"]), float(row["answered"]))


def _overall(n: int, hit: int, median: float, answered: float) -> dict[str, float]:
    row = _shares(pd.DataFrame({"n": [n], "hits": [hit]})).iloc[0]
    shares = {key: float(row[key]) for key in ("n", "hits", "accuracy", "low", "high")}
    if not n:
        shares |= {"accuracy": np.nan, "low": np.nan, "high": np.nan}
    return {**shares, "median_m": median, "answered": answered}


def by_cell(asked: Asked, level: int, threshold_m: float, *, limit: int = MOST_PLACES) -> pd.DataFrame:
    """Accuracy per S2 cell of a level, fullest first.

    Columns: code, place, n, hits, accuracy, low, high, median_m, places, shape.
    """
    here = counting(asked, threshold_m)
    rows = _counted(_parents(here, level), here, threshold_m, "s2_id")
    return with_cell_shapes(_shares(_fullest(_named_by_token(rows), limit)))


def by_region(
    asked: Asked,
    regions: NDArray[np.int64],
    names: Names,
    threshold_m: float,
    *,
    limit: int = MOST_PLACES,
) -> pd.DataFrame:
    """Accuracy per region, fullest first, with the columns of `by_cell`.

    Only the regions that are kept are named. They have shapes where all are kept: more than the limit are
    drawn as cells.

    Args:
        asked: The photos.
        regions: Region of every photo of the evaluation, 0 outside.
        names: Gives the names, and perhaps the shapes, of regions.
        threshold_m: An answer counts within this many metres.
        limit: Places at most; the column `places` counts all.
    """
    here = counting(asked, threshold_m)
    rows = _counted(regions[here.place], here, threshold_m, "region_id")
    return summarized(rows, names, limit=limit)


def summarized(counts: pd.DataFrame, names: Names, *, limit: int = MOST_PLACES) -> pd.DataFrame:
    """What `by_region` says, from rows of region_id (0 outside), n, hits and median_m."""
    rows = counts[["region_id", "n", "hits", "median_m"]]
    return _shares(_named(_fullest(rows, limit, "region_id"), names))


def quantiles(asked: Asked, shares: Sequence[float]) -> tuple[int, NDArray[np.float64]]:
    """Number of photos, and the error in metres below which each share lies; infinite where unanswered."""
    errors = np.sort(_infinite(asked.error_m))
    n = len(errors)
    if not n:
        return 0, np.zeros(0)
    rank = np.ceil(np.asarray(shares, np.float64) * n).astype(np.int64)
    return n, errors[np.maximum(rank, 1) - 1]


def recall(
    asked: Asked, best: NDArray[np.float64], ks: Sequence[int], radii_m: Sequence[float]
) -> pd.DataFrame:
    """Share of photos with one of the first K answers within each radius, by `best_errors` of the evaluation.

    Columns: k, radius_m, n, hits, recall, low, high.
    """
    here = best[asked.place]
    made = []
    for radius in radii_m:
        known = asked.gps_m <= radius
        near = within(here[known], radius, asked.comparison)
        counts = zip(ks, near.sum(axis=0).tolist(), strict=True)
        made += [(k, float(radius), int(known.sum()), hit) for k, hit in counts if known.any()]
    rows = pd.DataFrame(made, columns=["k", "radius_m", "n", "hits"]).sort_values(["k", "radius_m"])
    return _shares(rows.reset_index(drop=True)).rename(columns={"accuracy": "recall"})


def by_bin(asked: Asked, threshold_m: float, *, by: str, edges: Sequence[float]) -> pd.DataFrame:
    """Accuracy by a quantity of the photo in bins [edge, next edge); 0 is below the first, unknown ones last.

    Args:
        asked: The photos.
        threshold_m: An answer counts within this many metres.
        by: `distance` to the nearest training photo in metres, or `photos`: training photos in the same cell.
        edges: Ascending.
    """
    here = counting(asked, threshold_m)
    value = here.nearest_training_m if by == "distance" else here.training_photos
    bins = np.searchsorted(np.asarray(edges, np.float64), value.astype(np.float64), side="right")
    bins[np.isnan(value)] = len(edges) + 1
    rows = _shares(_counted(bins.astype(np.int64), here, threshold_m, "bin"))
    return rows.assign(bin=rows["bin"].astype(float).where(rows["bin"] <= len(edges)))


def some(asked: Asked, limit: int) -> list[int]:
    """Ids of answered photos: a fixed random choice."""
    answered = asked.only(~np.isnan(asked.error_m))
    return [int(photo) for photo in answered.photo_id[np.lexsort((answered.photo_id, answered.mix))[:limit]]]


def worst(asked: Asked, limit: int, offset: int) -> list[int]:
    """Ids of the photos with the largest errors, unanswered ones first."""
    order = np.lexsort((asked.photo_id, -_infinite(asked.error_m)))
    return [int(photo) for photo in asked.photo_id[order[offset : offset + limit]]]


def compare_cells(
    a: Asked, b: Asked, level: int, threshold_m: float, *, limit: int = MOST_PLACES
) -> pd.DataFrame:
    """One evaluation minus another per S2 cell on their common photos; gains are right in the first alone."""
    first, hit_a, hit_b = _paired(a, b, threshold_m)
    rows = _tally(_parents(first, level), hit_a, hit_b, "s2_id")
    return with_cell_shapes(_difference(_fullest(_named_by_token(rows), limit)))


def compare_regions(
    a: Asked,
    b: Asked,
    regions: NDArray[np.int64],
    names: Names,
    threshold_m: float,
    *,
    limit: int = MOST_PLACES,
) -> pd.DataFrame:
    """The same per region; `regions` and `names` as in `by_region`, of the first evaluation."""
    first, hit_a, hit_b = _paired(a, b, threshold_m)
    rows = _tally(regions[first.place], hit_a, hit_b, "region_id")
    return _difference(_named(_fullest(rows, limit, "region_id"), names))


def of_pair(pair: Pair) -> tuple[Asked, Asked]:
    """The common photos of two evaluations, as each counts them; degrees and what training saw are unsaid."""
    from geofix.evaluation.compare import counting as counted_by

    n = len(pair.photo_id)
    unsaid = np.broadcast_to(np.float64(np.nan), n)
    both = []
    for protocol, errors in ((pair.protocol_a, pair.errors_a), (pair.protocol_b, pair.errors_b)):
        whole = Asked(
            comparison=protocol.comparison,
            photo_id=pair.photo_id,
            s2_id=pair.s2_id,
            lon=unsaid,
            lat=unsaid,
            gps_m=pair.gps_m,
            error_m=errors,
            nearest_training_m=unsaid.astype(np.float32),
            training_photos=unsaid.astype(np.float32),
            mix=np.zeros(n, np.int32),
            place=np.arange(n),
        )
        counted = counted_by(protocol, errors)
        both.append(whole if counted.all() else whole.only(counted))
    return both[0], both[1]


def _paired(a: Asked, b: Asked, threshold_m: float) -> tuple[Asked, NDArray[np.bool_], NDArray[np.bool_]]:
    """Photos that count in both, as rows of the first, and which answers are near enough."""
    first, second = counting(a, threshold_m), counting(b, threshold_m)
    in_a = np.isin(first.photo_id, second.photo_id, assume_unique=True)
    in_b = np.isin(second.photo_id, first.photo_id, assume_unique=True)
    return first.only(in_a), hits(first, threshold_m)[in_a], hits(second, threshold_m)[in_b]


def _parents(asked: Asked, level: int) -> NDArray[np.int64]:
    return s2.parent(asked.s2_id, level) if len(asked.s2_id) else asked.s2_id


def _infinite(error_m: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isnan(error_m), np.inf, error_m)


def _counted(keys: NDArray[np.int64], asked: Asked, threshold_m: float, name: str) -> pd.DataFrame:
    """n, hits and median_m by key."""
    unique, code = np.unique(keys, return_inverse=True)
    hit = np.bincount(code, hits(asked, threshold_m), len(unique)).astype(np.int64)
    n = np.bincount(code, minlength=len(unique))
    return pd.DataFrame(
        {name: unique, "n": n, "hits": hit, "median_m": _medians(code, asked.error_m, len(unique))}
    )


def _medians(code: NDArray[np.intp], error_m: NDArray[np.float64], groups: int) -> NDArray[np.float64]:
    """Median error of each group, none of them empty; infinite where one of two middle values is."""
    errors = _infinite(error_m)
    ordered = errors[np.lexsort((errors, code))]
    n = np.bincount(code, minlength=groups)
    start = np.cumsum(n) - n
    low, high = ordered[start + (n - 1) // 2], ordered[start + n // 2]
    with np.errstate(invalid="ignore"):  # both infinite
        between: NDArray[np.float64] = low + 0.5 * (high - low)
    return np.where(low == high, low, between)


def _tally(
    keys: NDArray[np.int64], hit_a: NDArray[np.bool_], hit_b: NDArray[np.bool_], name: str
) -> pd.DataFrame:
    unique, code = np.unique(keys, return_inverse=True)

    def count(which: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.bincount(code, which, len(unique)).astype(np.int64)

    columns = {"n": np.ones_like(hit_a), "hits_a": hit_a, "hits_b": hit_b}
    columns |= {"gains": hit_a & ~hit_b, "losses": hit_b & ~hit_a}
    return pd.DataFrame({name: unique, **{key: count(value) for key, value in columns.items()}})


def _named_by_token(rows: pd.DataFrame) -> pd.DataFrame:
    tokens = pd.Series(s2.token(rows["s2_id"].to_numpy(np.int64)), rows.index, dtype=object)
    return rows.assign(code=tokens, place=tokens)


def _named(rows: pd.DataFrame, names: Names) -> pd.DataFrame:
    """Code, place and shape of the fullest regions; what lies in none has no shape."""
    ids = sorted(int(region) for region in rows["region_id"] if region)
    every = len(rows) > 0 and int(rows["places"].iloc[0]) == len(rows)
    joined = rows.merge(names(ids, every).astype({"region_id": np.int64}), on="region_id", how="left")
    known = joined["code"].notna()
    code, place = (
        joined[name].where(known, text) for name, text in zip(("code", "place"), OUTSIDE, strict=True)
    )
    found = joined.assign(code=code, place=place, shape=joined["shape"].astype(object).where(known, None))
    return found.drop(columns="region_id").sort_values(
        ["n", "code"], ascending=[False, True], ignore_index=True
    )


def _fullest(rows: pd.DataFrame, limit: int, then: str = "code") -> pd.DataFrame:
    """The places with most photos, among equals by another column; `places` counts all."""
    told = rows.assign(places=len(rows)).sort_values(["n", then], ascending=[False, True])
    return told.head(limit).reset_index(drop=True)


def _shares(rows: pd.DataFrame) -> pd.DataFrame:
    """Columns accuracy, low and high, from n and hits."""
    low, high = wilson(rows["hits"].to_numpy(), rows["n"].to_numpy())
    return rows.assign(accuracy=100.0 * rows["hits"] / rows["n"], low=low, high=high)


def _difference(rows: pd.DataFrame) -> pd.DataFrame:
    """Shares of both, and their paired difference with its interval, in percent points.

    Interval: Agresti and Min, Statistics in Medicine 24 (2005), half a photo added to each cell.
    """
    n: Any = rows["n"].to_numpy(np.float64)
    net: Any = (rows["gains"] - rows["losses"]).to_numpy(np.float64)
    half = _Z * np.sqrt((rows["gains"] + rows["losses"]).to_numpy(np.float64) + 1 - net**2 / (n + 2))
    return rows.assign(
        accuracy_a=100 * rows["hits_a"] / n,
        accuracy_b=100 * rows["hits_b"] / n,
        difference=100 * net / n,
        low=100 * np.maximum(-1, (net - half) / (n + 2)),
        high=100 * np.minimum(1, (net + half) / (n + 2)),
    )
