"""Freeze a training set from the database: split, write, register, and have the database prove the split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from geofix.database.engine import Connection
from geofix.database.queries import snapshots as queries
from geofix.database.queries.snapshots import SnapshotRow
from geofix.errors import BadInputError
from geofix.snapshots.format import labelled, write_snapshot
from geofix.snapshots.imagery import find_imagery
from geofix.snapshots.leaks import prove
from geofix.snapshots.reader import load_snapshot
from geofix.snapshots.split import SPLITS, split_photos
from geofix.spatial import s2


def build_snapshot(
    conn: Connection,
    datasets: list[str],
    out: Path,
    *,
    aerial: Sequence[str] | None = None,
    overwrite: bool = False,
    required: tuple[str, ...] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Split the photos of some data sets, write them to a directory and register it; the caller commits.

    Args:
        conn: Open connection of the writer or owner.
        datasets: Names of photo data sets.
        out: Directory to create.
        aerial: Sources whose rasters and tiles near the photos go into the snapshot; None takes every source
            that has any there, and an empty list, or `none`, none.
        overwrite: Replace an existing snapshot.
        required: Splits that may not come out empty; None: all, but in mode `test` test_unseen alone.
        **options: Fields of `SplitConfig`.

    Returns:
        photos per split, cells with training photos, tiles, dropped photos by reason, sha256, directory.

    Raises:
        NotFoundError: A data set or source does not exist.
        BadInputError: There are too few photos for the split asked for, or a named source has no tile there.
        SplitLeakError: The split leaks (a defect, or photos that lie about their sequence).
    """
    photos = queries.candidates(conn, datasets)
    if photos.empty:
        raise BadInputError(
            f"Data sets {', '.join(datasets)} hold no photo with pixels.",
            hint="Load photos with `geofix ingest photos`.",
        )
    if required is None:
        required = ("test_unseen",) if options.get("mode") == "test" else SPLITS
    split = split_photos(photos, required=required, **options)
    table = labelled(photos, split)
    sequences = split.config.mode == "blocks"
    prove(table, buffer_m=split.config.buffer_m, sequences=sequences)
    cells = _training_cells(table, split.config.cell_level)
    sources = {item["name"]: item for item in queries.licences(conn, datasets)}
    kept = table[table["split"] != "dropped"]
    imagery = find_imagery(conn, kept["s2_id"].to_numpy(np.int64), aerial)
    if imagery is not None:
        sources |= imagery.licences
    manifest = write_snapshot(
        out,
        table,
        config=split,
        sources=sources,
        cells=cells,
        aerial=None if imagery is None else (imagery.rasters, imagery.tiles(conn)),
        overwrite=overwrite,
        extra={"datasets": datasets, "aerial_sources": sorted(imagery.licences) if imagery else []},
    )
    snapshot_id = queries.store_snapshot(
        conn,
        uri=str(out.resolve()),
        sha256=manifest["sha256"],
        config={
            **manifest["config"],
            "datasets": datasets,
            "aerial": sorted(imagery.licences) if imagery else [],
        },
        counts=manifest["photos"],
        splits=zip(kept["photo_id"].tolist(), kept["split"].astype(str).tolist(), strict=True),
    )
    queries.prove_split(conn, snapshot_id, split.config.buffer_m, sequences=sequences)
    return {
        "photos": manifest["photos"],
        "cells": len(cells),
        "tiles": manifest.get("aerial", {}).get("tiles", 0),
        "dropped": split.dropped,
        "sha256": manifest["sha256"],
        "directory": str(out),
    }


def stored_snapshot(conn: Connection, directory: Path) -> SnapshotRow:
    """The database's row of a snapshot directory, its content hash checked.

    Raises:
        NotFoundError: There is no snapshot in the directory, or this database never saw it.
        BadInputError: The directory was changed after it was written.
    """
    return queries.find_snapshot(conn, load_snapshot(directory).sha256)


def _training_cells(table: pd.DataFrame, level: int) -> pd.DataFrame:
    """Cells of a level that hold training photos, with their number."""
    leaf = table.loc[table["split"] == "train", "s2_id"].to_numpy(np.int64)
    ids, counts = np.unique(s2.parent(leaf, level), return_counts=True)
    return pd.DataFrame({"s2_id": ids, "level": np.int16(level), "photos": counts.astype(np.int32)})
