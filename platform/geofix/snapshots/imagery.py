"""The aerial imagery near a snapshot's photos, frozen with them: training then needs no database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geofix.database.engine import Connection
from geofix.database.queries import snapshots as queries
from geofix.errors import BadInputError
from geofix.snapshots.format import AERIAL_SCHEMA, TILE_SCHEMA
from geofix.spatial import s2

BLOCK_LEVEL = 9
"""Every tile of a block of this level (about 18 km) that holds a photo belongs to the snapshot."""
NO_IMAGERY = "none"


@dataclass(frozen=True)
class Imagery:
    """Rasters and tiles to be frozen.

    Attributes:
        rasters: One row per raster, columns of `AERIAL_SCHEMA`.
        licences: Source to its name, licence and attribution.
        numbers: Raster id in the database to its number in the snapshot.
        low: First leaf of each block.
        high: Last leaf of each block.
    """

    rasters: pa.Table
    licences: dict[str, dict[str, Any]]
    numbers: dict[int, int]
    low: list[int]
    high: list[int]

    def tiles(self, conn: Connection) -> Iterator[pa.Table]:
        """All tiles in order of cell, source and date, piece by piece; columns of `TILE_SCHEMA`."""
        for rows in queries.aerial_tiles(conn, sorted(self.licences), self.low, self.high):
            *columns, members = (list(column) for column in zip(*rows, strict=True))
            numbered = [[self.numbers[item] for item in ids] for ids in members]
            yield pa.Table.from_arrays(
                [pa.array(c, f.type) for c, f in zip([*columns, numbered], TILE_SCHEMA, strict=True)],
                schema=TILE_SCHEMA,
            )


def find_imagery(conn: Connection, leaves: NDArray[np.int64], names: Sequence[str] | None) -> Imagery | None:
    """Imagery near photos; None where there is or shall be none.

    Args:
        conn: Open connection.
        leaves: (n,) leaf cells of the photos.
        names: Aerial sources; None: every source with tiles there; empty or `none`: none.

    Raises:
        NotFoundError: A source does not exist.
        BadInputError: A named source has no tile near the photos.
    """
    wanted = None if names is None else sorted({name for name in names if name != NO_IMAGERY})
    if wanted is not None and not wanted:
        return None
    licences = {item["name"]: item for item in queries.aerial_licences(conn, wanted)}
    low, high = (ids.tolist() for ids in s2.range_of(np.unique(s2.parent(leaves, BLOCK_LEVEL))))
    rows = queries.aerial_rasters(conn, sorted(licences), low, high)
    found = {row["source"] for row in rows}
    if wanted is not None and (empty := sorted(set(wanted) - found)):
        raise BadInputError(
            f"Aerial source {', '.join(empty)} has no tile near the photos.",
            hint="Register tiles with `geofix ingest aerial`, or leave the source out.",
        )
    if not rows:
        return None
    numbers = {int(row["aerial_raster_id"]): number for number, row in enumerate(rows)}
    columns = [range(len(rows)), *([row[name] for row in rows] for name in AERIAL_SCHEMA.names[1:])]
    rasters = pa.Table.from_arrays(
        [pa.array(c, f.type) for c, f in zip(columns, AERIAL_SCHEMA, strict=True)], schema=AERIAL_SCHEMA
    )
    return Imagery(rasters, {name: licences[name] for name in sorted(found)}, numbers, low, high)
