"""Prove that no test photo could have been learnt: sequences, copies, distance, look-alikes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geofix.errors import SplitLeakError, UsageError
from geofix.snapshots.groups import nearest_m, photo_groups, unit_vectors

_BLOCK = 2048  # Rows per side of one block of the similarity matrix: 16 MB in float32.
_LEARNT = ("train", "val")
_TESTED = ("test_seen", "test_unseen")


@dataclass(frozen=True)
class Leak:
    """One way in which a test photo meets a photo that was learnt from.

    Attributes:
        kind: sequence, copy, distance or lookalike.
        photo_id: The photo of the more protected split.
        split: Its split.
        other_photo_id: The photo it meets.
        other_split: The split of that.
        value: Metres for distance, cosine for lookalike, else 0.
    """

    kind: str
    photo_id: str
    split: str
    other_photo_id: str
    other_split: str
    value: float = 0.0

    def __str__(self) -> str:
        how = {
            "sequence": "share a sequence",
            "copy": "are the same file (sha256)",
            "distance": f"are {self.value:.1f} m apart",
            "lookalike": f"look alike (cosine {self.value:.4f}) in different sequences",
        }[self.kind]
        return f"{self.split} photo {self.photo_id} and {self.other_split} photo {self.other_photo_id} {how}"

    def as_record(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


def find_leaks(
    table: pd.DataFrame,
    *,
    buffer_m: float = 200.0,
    sequences: bool = True,
    embeddings: NDArray[np.floating[Any]] | None = None,
    min_cosine: float = 0.999,
    limit: int = 1000,
) -> list[Leak]:
    """Look for leaks in a split table.

    Args:
        table: One row per photo: photo_id, lon, lat, split; optional dataset, sequence_key, sha256. Rows
            labelled "dropped" are ignored.
        buffer_m: Metres between test_unseen and train or val, great circle on the sphere.
        sequences: Whether a sequence in two splits is a leak; False for a recording cut along time.
        embeddings: Shape (n, D), rows as in `table`; photos of different sequences that look alike are leaks.
        min_cosine: Cosine from which two photos look alike.
        limit: Most leaks returned per kind.

    Returns:
        Leaks, one per offending photo and kind, or none.

    Raises:
        UsageError: Embeddings of another length than the table.
    """
    if embeddings is not None and len(embeddings) != len(table):
        raise UsageError(f"{len(embeddings)} embeddings do not belong to {len(table)} photos.")
    used = np.flatnonzero(table["split"].astype(str).to_numpy() != "dropped")
    photos = table.iloc[used].reset_index(drop=True)
    found: list[Leak] = []
    if sequences and "sequence_key" in photos:
        found += _shared(
            photos, photo_groups(photos.drop(columns="sha256", errors="ignore")), "sequence", limit
        )
    if "sha256" in photos:
        found += _shared(
            photos, photo_groups(photos.drop(columns="sequence_key", errors="ignore")), "copy", limit
        )
    found += _near(photos, buffer_m, limit)
    if embeddings is not None:
        found += _lookalikes(photos, np.asarray(embeddings)[used], min_cosine, limit)
    return found


def prove(table: pd.DataFrame, **options: Any) -> None:
    """Raise unless the split is free of leaks; options as in `find_leaks`.

    Raises:
        SplitLeakError: Names the first offenders and counts the rest.
    """
    leaks = find_leaks(table, **options)
    if leaks:
        kinds = {k: sum(leak.kind == k for leak in leaks) for k in dict.fromkeys(leak.kind for leak in leaks)}
        shown = "; ".join(str(leak) for leak in leaks[:3])
        raise SplitLeakError(
            f"The split leaks: {len(leaks)} photo(s), {kinds}. {shown}.",
            hint="Build the snapshot again; do not edit its split column by hand.",
        )


def _shared(photos: pd.DataFrame, group: NDArray[np.int64], kind: str, limit: int) -> list[Leak]:
    """One leak per photo whose group has its first photo of another split."""
    split = photos["split"].astype(str).to_numpy()
    order = np.argsort(group, kind="stable")
    first = order[np.searchsorted(group[order], group)]
    offenders = np.flatnonzero(split != split[first])[:limit]
    return [_leak(photos, kind, int(i), int(first[i])) for i in offenders]


def _near(photos: pd.DataFrame, buffer_m: float, limit: int) -> list[Leak]:
    split = photos["split"].astype(str).to_numpy()
    test, learnt = np.flatnonzero(split == "test_unseen"), np.flatnonzero(np.isin(split, _LEARNT))
    if buffer_m <= 0:
        return []
    points = unit_vectors(photos["lon"], photos["lat"])
    metres, index = nearest_m(points[test], points[learnt], buffer_m)
    # A micrometre of rounding is no leak.
    offenders = np.flatnonzero(metres < buffer_m - 1e-6)[:limit]
    return [
        _leak(photos, "distance", int(test[i]), int(learnt[index[i]]), float(metres[i])) for i in offenders
    ]


def _lookalikes(
    photos: pd.DataFrame, embeddings: NDArray[np.floating[Any]], min_cosine: float, limit: int
) -> list[Leak]:
    split = photos["split"].astype(str).to_numpy()
    group = photo_groups(photos.drop(columns="sha256", errors="ignore"))
    norm = np.linalg.norm(embeddings.astype(np.float32), axis=1, keepdims=True)
    unit = embeddings.astype(np.float32) / np.maximum(norm, 1e-12)
    test, learnt = np.flatnonzero(np.isin(split, _TESTED)), np.flatnonzero(np.isin(split, _LEARNT))
    leaks = []
    for rows in _chunks(test):
        best, partner = np.full(len(rows), -np.inf, dtype=np.float32), np.zeros(len(rows), dtype=np.intp)
        for columns in _chunks(learnt):
            cosine = unit[rows] @ unit[columns].T
            cosine[group[rows][:, None] == group[columns][None, :]] = -np.inf
            at = cosine.argmax(axis=1)
            here = cosine[np.arange(len(rows)), at]
            better = here > best
            best[better], partner[better] = here[better], columns[at[better]]
        for i in np.flatnonzero(best >= min_cosine):
            leaks.append(_leak(photos, "lookalike", int(rows[i]), int(partner[i]), float(best[i])))
            if len(leaks) >= limit:
                return leaks
    return leaks


def _chunks(index: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    for start in range(0, len(index), _BLOCK):
        yield index[start : start + _BLOCK]


def _leak(photos: pd.DataFrame, kind: str, row: int, other: int, value: float = 0.0) -> Leak:
    def name(i: int) -> tuple[str, str]:
        return str(photos["photo_id"].iloc[i]), str(photos["split"].iloc[i])

    return Leak(kind, *name(row), *name(other), value)
