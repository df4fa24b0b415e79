"""The method's table as a document: every row on every split, by groups, with intervals and differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geofix.evaluation.method_data import Photos
from geofix.evaluation.method_hits import Hits, difference, interval, mean_percent
from geofix.evaluation.method_rows import Row
from geofix.evaluation.method_settlement import GROUPS
from geofix.evaluation.metrics import key, nearest_distance_groups
from geofix.evaluation.protocols import EvaluationProtocol

MIX = "mix"
COUNTS = {"0": (0, 0), "1-4": (1, 4), "5-19": (5, 19), "20+": (20, None)}


@dataclass(frozen=True)
class Counting:
    """How the table is counted.

    Attributes:
        protocol: Radii, numbers of candidates and comparison.
        threshold_m: Radius of groups and of the best part, one of the protocol's.
        replicates: Of the bootstrap.
        seed: Of the bootstrap.
    """

    protocol: EvaluationProtocol
    threshold_m: float = 200.0
    replicates: int = 2000
    seed: int = 0

    @property
    def column(self) -> int:
        """Place of the threshold among the radii."""
        return self.protocol.radii_m.index(self.threshold_m)


def table_rows(
    rows: list[Row],
    photos: Mapping[str, Photos],
    hits: Mapping[str, Mapping[str, Hits]],
    area_km2: float,
    counting: Counting,
) -> list[dict[str, Any]]:
    """One document per row.

    Args:
        rows: In the order of the table.
        photos: By split, and `mix`.
        hits: By row and split, and `mix`.
        area_km2: Of the searched cells.
        counting: How.
    """
    return [_row(row, photos, hits[row.key], area_km2, counting) for row in rows]


def _row(
    row: Row, photos: Mapping[str, Photos], hits: Mapping[str, Hits], area_km2: float, counting: Counting
) -> dict[str, Any]:
    splits = {name: split_figures(hits[name], part, counting) for name, part in photos.items()}
    whole = MIX if MIX in photos else next(iter(photos))
    pair = [splits[name]["recall"]["1"][key(counting.threshold_m)] for name in photos if name != MIX]
    return {
        "key": row.key,
        "label": row.label,
        "localizer": row.localizer,
        "models": list(row.models),
        "level": row.level,
        "role": row.role,
        "bytes": row.stored_bytes,
        "bytes_per_km2": row.stored_bytes / area_km2 if row.stored_bytes and area_km2 > 0 else None,
        "splits": splits,
        "harmonic_mean": harmonic_mean(pair),
        "by": {
            "photos_per_cell": _groups(photos[whole], hits[whole], counts_groups(photos[whole]), counting),
            "country": _groups(photos[whole], hits[whole], country_groups(photos[whole]), counting),
            "settlement": _groups(photos[whole], hits[whole], settlement_groups(photos[whole]), counting),
            "training_distance": {
                name: _groups(part, hits[name], nearest_distance_groups(part.nearest_m), counting)
                for name, part in photos.items()
                if name != MIX
            },
        },
    }


def split_figures(hits: Hits, photos: Photos, counting: Counting) -> dict[str, Any]:
    """What a row did on one split: recall with intervals, median, photos and clusters."""
    first = hits.share[:, counting.protocol.ks.index(1)] if 1 in counting.protocol.ks else hits.share[:, 0]
    intervals = {}
    for j, radius in enumerate(counting.protocol.radii_m):
        found = interval(first[:, j], photos.clusters, replicates=counting.replicates, seed=counting.seed)
        intervals[key(radius)] = None if found is None else list(found)
    return {
        "n": len(photos),
        "clusters": 0 if photos.clusters is None else len(np.unique(photos.clusters)),
        "answered": hits.answered,
        "median_m": hits.median_m,
        "recall": hits.recall(counting.protocol),
        "interval": intervals,
    }


def _groups(
    photos: Photos, hits: Hits, groups: Mapping[str, NDArray[np.bool_]], counting: Counting
) -> dict[str, Any]:
    """N, R@1 within the threshold and its interval of each group that has photos."""
    share = hits.share[:, 0, counting.column]
    made = {}
    for name, mask in groups.items():
        if not mask.any():
            continue
        clusters = None if photos.clusters is None else photos.clusters[mask]
        made[name] = {
            "n": int(mask.sum()),
            "recall": mean_percent(share[mask]),
            "interval": interval(share[mask], clusters, replicates=counting.replicates, seed=counting.seed),
        }
    return made


def counts_groups(photos: Photos) -> dict[str, NDArray[np.bool_]]:
    """Masks by number of training photos in the photo's own prototype cell."""
    n = photos.training_photos
    return {name: (n >= low) & (True if high is None else n <= high) for name, (low, high) in COUNTS.items()}


def country_groups(photos: Photos) -> dict[str, NDArray[np.bool_]]:
    """Masks by country; photos without one are `unknown`."""
    names = np.where(photos.country == "", "unknown", photos.country).astype(str)
    return {str(name): names == name for name in np.unique(names)}


def settlement_groups(photos: Photos) -> dict[str, NDArray[np.bool_]]:
    """Masks of urban and rural photos, or of the thirds by density."""
    return {name: photos.settlement == name for name in GROUPS}


def harmonic_mean(shares: list[float | None]) -> float | None:
    """Of the splits' recalls in percent: high only where all are; None unless there are two at least."""
    if len(shares) < 2 or any(share is None for share in shares):
        return None
    values = [share for share in shares if share is not None]
    return 0.0 if min(values) <= 0 else len(values) / sum(1 / value for value in values)


def differences(
    rows: list[Row],
    main: str,
    photos: Mapping[str, Photos],
    hits: Mapping[str, Mapping[str, Hits]],
    counting: Counting,
) -> dict[str, list[dict[str, Any]]]:
    """Main row minus every other one on the same photos, R@1 at each radius, by split.

    `best_part` marks the part with the highest recall at the threshold on that very split: choosing it on
    the photos that judge favours the part, never the main row.
    """
    made: dict[str, list[dict[str, Any]]] = {}
    for name, part in photos.items():
        best = best_part(rows, {row.key: hits[row.key][name] for row in rows}, counting)
        made[name] = [
            {
                "row": row.key,
                "role": row.role,
                "best_part": row.key == best,
                "recall": {
                    key(radius): difference(
                        hits[main][name].share[:, 0, j],
                        hits[row.key][name].share[:, 0, j],
                        part.clusters,
                        replicates=counting.replicates,
                        seed=counting.seed,
                    )
                    for j, radius in enumerate(counting.protocol.radii_m)
                },
            }
            for row in rows
            if row.key != main and row.role != "bound"
        ]
    return made


def best_part(rows: list[Row], hits: Mapping[str, Hits], counting: Counting) -> str | None:
    """The part with the highest R@1 within the threshold; None where there is no part."""
    parts = {
        row.key: mean_percent(hits[row.key].share[:, 0, counting.column]) or 0.0
        for row in rows
        if row.role == "part"
    }
    return max(parts, key=lambda name: parts[name]) if parts else None
