"""Splitting photos into train, val, test_seen and test_unseen so that no test photo is learnt by heart.

- `test_unseen`: whole S2 blocks held out. Photos of other splits within the buffer of one are dropped.
- `test_seen`: other sequences in cells that do have training photos.
- `val`: half seen, half from held-out blocks of its own, buffered against train in the same way.
- A sequence never straddles splits, and exact copies of a photo belong to one sequence. Where a sequence
  runs out of a held-out block, its photos outside are dropped.

The buffer is measured on a sphere, which differs from the ellipsoid by at most 0.56 %; 1 % is added, so that
the buffer also holds when a database measures it on the ellipsoid.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geofix.errors import BadInputError, UsageError
from geofix.log import progress
from geofix.snapshots.blocks import split_blocks
from geofix.snapshots.groups import photo_groups, unit_vectors
from geofix.snapshots.tracks import split_tracks
from geofix.spatial import s2

SPLITS = ("train", "val", "test_seen", "test_unseen")
BUFFER_MARGIN = 1.01

Mode = Literal["blocks", "track", "test"]


@dataclass(frozen=True)
class SplitConfig:
    """How a split was made; kept in the snapshot.

    Attributes:
        block_level: S2 level of the blocks held out whole.
        cell_level: S2 level of the cells in which test_seen needs a training photo.
        buffer_m: Metres between test_unseen and everything else.
        test: Share of photos for both test splits together, half each.
        val: Share for val, half of it unseen.
        gap_s: Track mode: seconds dropped on both sides of a seen test or val stretch.
        stretch_s: Track mode: wanted length of one such stretch, seconds.
        seed: Same seed and photos, same split, whatever their order.
        mode: "blocks"; "track" for one continuous recording per sequence; "test" makes every photo
            test_unseen, for codes that no photo takes part in.
        train_share: Of the training photos, drawn by the seed; a smaller share is part of a larger one. The
            other splits stay as they are, so test_seen may hold photos of cells that lost theirs.
    """

    block_level: int = 13
    cell_level: int = 15
    buffer_m: float = 200.0
    test: float = 0.15
    val: float = 0.1
    gap_s: float = 10.0
    stretch_s: float = 30.0
    seed: int = 0
    mode: Mode = "blocks"
    train_share: float = 1.0

    def __post_init__(self) -> None:
        """Refuse impossible wishes."""
        if not 0 <= self.block_level <= self.cell_level <= 30:
            raise UsageError(
                f"Levels must satisfy 0 <= block_level ({self.block_level}) <= cell_level "
                f"({self.cell_level}) <= 30."
            )
        if self.test < 0 or self.val < 0 or self.test + self.val >= 1:
            raise UsageError(
                f"Shares test={self.test} and val={self.val} must be >= 0 and leave photos for train."
            )
        if self.buffer_m < 0 or self.gap_s < 0 or self.stretch_s <= 0:
            raise UsageError("buffer_m and gap_s must be >= 0, stretch_s > 0.")
        if not 0 < self.train_share <= 1:
            raise UsageError(f"train_share={self.train_share} must be above 0 and at most 1.")
        if self.mode not in ("blocks", "track", "test"):
            raise UsageError(f"Split mode {self.mode!r} must be 'blocks', 'track' or 'test'.")


@dataclass(frozen=True)
class Split:
    """Labels in the order of the table handed in.

    Attributes:
        labels: train, val, test_seen, test_unseen or dropped, shape (n,).
        reason: Why a photo was dropped: buffer, sequence, not_seen, gap or share; "" otherwise.
        unseen: True for photos from held-out blocks or stretches (test_unseen and half of val).
        group: Number of the photo's sequence (copies merged), shape (n,).
        block_s2: S2 id of the photo's block.
        config: How it was made.
        counts: Photos per split and "dropped".
        dropped: Photos per reason.
    """

    labels: NDArray[np.str_]
    reason: NDArray[np.str_]
    unseen: NDArray[np.bool_]
    group: NDArray[np.int64]
    block_s2: NDArray[np.int64]
    config: SplitConfig
    counts: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)


def split_photos(table: pd.DataFrame, *, required: tuple[str, ...] = SPLITS, **options: Any) -> Split:
    """Split photos.

    Args:
        table: One row per photo with photo_id, lon, lat (degrees); optional s2_id (leaf cells), dataset,
            sequence_key, sha256, captured_at (needed in track mode).
        required: Splits that may not come out empty.
        **options: Fields of `SplitConfig`.

    Raises:
        BadInputError: Columns, positions or ids are unusable, or a required split would be empty; the
        message says
            how many photos, sequences and blocks there are and what to change.
        UsageError: An option is out of range.
    """
    config = SplitConfig(**options)
    _check(table, config)
    # Work in the order of photo_id: the result must not depend on the order of rows.
    order = np.argsort(table["photo_id"].to_numpy(), kind="stable")
    with progress("Splitting photos", len(table), "photos") as advance:
        ordered = table.iloc[order].reset_index(drop=True)
        labels, reason, unseen, group, block = _split_ordered(ordered, config)
        _thin(labels, reason, config)
        advance(len(table))
    back = np.empty(len(order), dtype=np.intp)
    back[order] = np.arange(len(order))
    result = Split(
        labels[back],
        reason[back],
        (unseen & (labels != "dropped"))[back],
        group[back],
        block[back],
        config,
        {name: int((labels == name).sum()) for name in (*SPLITS, "dropped")},
        {str(name): int((reason == name).sum()) for name in np.unique(reason[reason != ""])},
    )
    _require(result, required)
    return result


def _split_ordered(
    photos: pd.DataFrame, config: SplitConfig
) -> tuple[NDArray[np.str_], NDArray[np.str_], NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
    """Labels, reasons, unseen, groups and blocks of photos in order of photo_id."""
    lon, lat = (photos[c].to_numpy(dtype=np.float64) for c in ("lon", "lat"))
    leaf = photos["s2_id"].to_numpy(dtype=np.int64) if "s2_id" in photos else s2.cell_at(lon, lat, 30)
    block = np.asarray(s2.parent(leaf, config.block_level), dtype=np.int64)
    cell = np.asarray(s2.parent(leaf, config.cell_level), dtype=np.int64)
    group = photo_groups(photos)
    rng = np.random.default_rng(config.seed)
    points = unit_vectors(lon, lat)
    buffer_m = config.buffer_m * BUFFER_MARGIN
    if config.mode == "blocks":
        labels, reason, unseen = split_blocks(
            points, block, cell, group, test=config.test, val=config.val, buffer_m=buffer_m, rng=rng
        )
    elif config.mode == "test":
        n = len(photos)
        labels, reason, unseen = (
            np.full(n, "test_unseen"),
            np.full(n, "", dtype="<U8"),
            np.ones(n, dtype=bool),
        )
    else:
        labels, reason, unseen = split_tracks(
            points,
            cell,
            group,
            pd.to_datetime(photos["captured_at"], utc=True),
            shares=(config.test, config.val),
            buffer_m=buffer_m,
            times=(config.gap_s, config.stretch_s),
            rng=rng,
        )
    return labels, reason, unseen, group, block


def _thin(labels: NDArray[np.str_], reason: NDArray[np.str_], config: SplitConfig) -> None:
    """Drop training photos beyond the share that is asked for."""
    draw = np.random.default_rng([config.seed, len(labels)]).random(len(labels))
    gone = (labels == "train") & (draw >= config.train_share)
    labels[gone], reason[gone] = "dropped", "share"


def _check(table: pd.DataFrame, config: SplitConfig) -> None:
    needed = ["photo_id", "lon", "lat"] + (["captured_at"] if config.mode == "track" else [])
    if lost := [c for c in needed if c not in table]:
        raise BadInputError(f"The photo table lacks columns {lost}; it has {list(table.columns)}.")
    if len(table) == 0:
        raise BadInputError(
            "There are no photos to split.", hint="Check the data set's name, or ingest photos first."
        )
    twice = table["photo_id"][table["photo_id"].duplicated()]
    if len(twice):
        raise BadInputError(f"{len(twice)} photo_id(s) occur twice, such as {twice.iloc[0]}.")
    lon, lat = (table[c].to_numpy(dtype=np.float64) for c in ("lon", "lat"))
    bad = ~((np.abs(lon) <= 180) & (np.abs(lat) <= 90))
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        raise BadInputError(
            f"{int(bad.sum())} photo(s) have no valid position, such as {table['photo_id'].iloc[at]} "
            f"(lon {lon[at]}, lat {lat[at]}).",
            hint="Reject them at ingest.",
        )
    if config.mode == "track":
        unknown = int(table["captured_at"].isna().sum())
        if unknown:
            raise BadInputError(
                f"Track mode cuts along time, but {unknown} of {len(table)} photos have no captured_at.",
                hint="Use mode 'blocks', or supply capture times.",
            )


def _require(result: Split, required: tuple[str, ...]) -> None:
    config = result.config
    empty = [name for name in required if result.counts.get(name, 0) == 0]
    if not empty:
        return
    blocks, groups = len(np.unique(result.block_s2)), len(np.unique(result.group))
    advice = []
    if "train" in empty or "test_unseen" in empty or "val" in empty:
        if config.mode == "blocks":
            advice.append(f"smaller blocks (--block-level above {config.block_level})")
        advice.append(f"a smaller buffer (--buffer-m below {config.buffer_m:g})")
    if "test_seen" in empty or "val" in empty:
        advice.append("more sequences per cell" if config.mode == "blocks" else "a shorter gap")
    if config.mode == "blocks" and groups <= 2:
        advice.append("track mode, since the photos form one recording")
    if config.test == 0 or config.val == 0:
        advice.append("shares above 0")
    raise BadInputError(
        f"The split would leave {', '.join(empty)} empty: {len(result.labels)} photos in {groups} "
        f"sequence(s) and "
        f"{blocks} block(s) of level {config.block_level} gave {result.counts}, dropped {result.dropped}.",
        hint=f"Try {', or '.join(advice)}.",
    )
