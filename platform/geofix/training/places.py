"""What a snapshot offers to learn from: its photos, and the aerial imagery around any position."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from geofix.errors import BadInputError
from geofix.imagery.sources import RasterSource
from geofix.snapshots.reader import Snapshot
from geofix.spatial import s2

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
PHOTO_COLUMNS = ("photo_id", "uri", "lon", "lat", "s2_id")


class Texts(Sequence[str]):
    """Many strings in two buffers: a forked process shares them, and a pickle of them is quick."""

    def __init__(self, values: pa.ChunkedArray | pa.Array) -> None:
        whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        self._values = whole.cast(pa.large_string())

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[str]: ...
    def __getitem__(self, row: int | slice) -> str | Sequence[str]:
        if isinstance(row, slice):
            return [str(value) for value in self._values[row].to_pylist()]
        return str(self._values[int(row)].as_py())


@dataclass(frozen=True)
class TrainingPhotos:
    """Photos of some splits, in order of their id.

    Attributes:
        photo_id: (n,) ids in the database that made the snapshot.
        uri: n paths or URIs.
        lon: (n,) degrees.
        lat: (n,) degrees.
        s2_id: (n,) leaf cells.
        sequence: (n,) number of the photo's group: photos of one recording, or copies of each other.
        block: (n,) block of the split.
        unseen: (n,) the photo lies in a held-out block.
    """

    photo_id: Ints
    uri: Texts
    lon: Floats
    lat: Floats
    s2_id: Ints
    sequence: Ints
    block: Ints
    unseen: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.photo_id)

    @classmethod
    def from_snapshot(cls, snapshot: Snapshot, splits: Sequence[str] = ("train",)) -> TrainingPhotos:
        """Photos with pixels of the named splits.

        Raises:
            BadInputError: Unknown split, a column is missing, or no such photo is in the snapshot.
        """
        optional = [c for c in ("split_group", "block_s2", "unseen") if c in snapshot.columns]
        parts = [snapshot.read(split=split, columns=[*PHOTO_COLUMNS, *optional]) for split in splits]
        table = pa.concat_tables(parts).sort_by("photo_id")
        table = table.filter(table.column("uri").is_valid())
        if not table.num_rows:
            raise BadInputError(
                f"{snapshot.path} holds no photo of {', '.join(splits)} with pixels.",
                hint="Build the snapshot from photos, not from positions alone.",
            )

        def column(name: str, default: Any, dtype: type) -> NDArray[Any]:
            if name not in optional and name not in PHOTO_COLUMNS:
                return np.full(table.num_rows, default, dtype)
            return np.asarray(table.column(name).to_numpy(), dtype)

        return cls(
            photo_id=column("photo_id", 0, np.int64),
            uri=Texts(table.column("uri")),
            lon=column("lon", 0, np.float64),
            lat=column("lat", 0, np.float64),
            s2_id=column("s2_id", 0, np.int64),
            sequence=column("split_group", -1, np.int64),
            block=column("block_s2", 0, np.int64),
            unseen=column("unseen", False, np.bool_),
        )

    def take(self, rows: NDArray[np.integer[Any]]) -> TrainingPhotos:
        """These rows, in this order."""
        return TrainingPhotos(
            self.photo_id[rows],
            Texts(self.uri._values.take(pa.array(rows))),
            self.lon[rows],
            self.lat[rows],
            self.s2_id[rows],
            self.sequence[rows],
            self.block[rows],
            self.unseen[rows],
        )


@dataclass(frozen=True)
class View:
    """Imagery of one source and date around a position: rasters, those that lie on top first."""

    source: str
    captured_at: str
    rasters: tuple[RasterSource, ...]


class AerialIndex:
    """Which imagery, of which sources and dates, covers a position; and the tiles of all cells.

    Tiles are rows in ascending order of (s2_id, source, date).

    Args:
        tiles: Columns s2_id, level, side_m, captured_at, source and rasters (numbers into `rasters`).
        rasters: Every raster's source.
    """

    def __init__(self, tiles: pa.Table, rasters: Sequence[RasterSource]) -> None:
        tiles = tiles.sort_by([("s2_id", "ascending"), ("source", "ascending"), ("captured_at", "ascending")])
        self.rasters = tuple(rasters)
        self.s2_id: Ints = np.asarray(tiles.column("s2_id").to_numpy(), np.int64)
        self.level: NDArray[np.int16] = np.asarray(tiles.column("level").to_numpy(), np.int16)
        self.side_m: NDArray[np.float32] = np.asarray(tiles.column("side_m").to_numpy(), np.float32)
        self._labels, self.view = _views(tiles)
        lists = tiles.column("rasters").combine_chunks().cast(pa.large_list(pa.int64()))
        self._offsets: Ints = np.asarray(lists.offsets.to_numpy(), np.int64)
        self._members: Ints = np.asarray(lists.values.to_numpy(), np.int64)
        self._levels = [int(level) for level in np.unique(self.level)]
        if len(self._members) and not 0 <= self._members.min() <= self._members.max() < len(self.rasters):
            raise BadInputError(
                f"A tile names raster {self._members.max()}; there are {len(self.rasters)}.",
                hint="Build the snapshot again.",
            )

    def __len__(self) -> int:
        return len(self.s2_id)

    @classmethod
    def from_snapshot(cls, snapshot: Snapshot) -> AerialIndex | None:
        """The imagery of a snapshot; None where it was built without any."""
        found = snapshot.aerial()
        if found is None or not found[1].num_rows:
            return None
        rasters, tiles = found
        return cls(tiles, raster_sources(rasters))

    def sources_of(self, row: int) -> tuple[RasterSource, ...]:
        """Rasters of one tile, in the order they are laid over each other."""
        members = self._members[self._offsets[row] : self._offsets[row + 1]]
        return tuple(self.rasters[item] for item in members)

    def label_of(self, row: int) -> tuple[str, str]:
        """Source and date (ISO, empty where unknown) of one tile."""
        return self._labels[int(self.view[row])]

    def centers(self, rows: NDArray[np.integer[Any]] | None = None) -> tuple[Floats, Floats]:
        """Longitudes and latitudes of tile centres in degrees."""
        return s2.center(self.s2_id if rows is None else self.s2_id[rows])

    def covered(self, lon: Floats, lat: Floats) -> NDArray[np.bool_]:
        """Whether the cell of each position has a tile, of any source and date."""
        out = np.zeros(len(lon), bool)
        for level in self._levels:
            own = self.s2_id[self.level == level]
            out |= np.isin(s2.cell_at(lon, lat, level), own)
        return out

    def views(self, lon: Floats, lat: Floats) -> list[list[View]]:
        """For each position the sources and dates whose tile its own cell has.

        The rasters of the eight cells around follow those of the own cell, so that a shifted square is
        filled as well. A position without a tile has no view.
        """
        out: list[list[View]] = [[] for _ in range(len(lon))]
        for level in self._levels:
            own = s2.cell_at(lon, lat, level)
            near = np.concatenate([own[:, None], s2.neighbors(own)], axis=1)
            first = np.searchsorted(self.s2_id, near, side="left")
            last = np.searchsorted(self.s2_id, near, side="right")
            for place, (begin, end) in enumerate(zip(first, last, strict=True)):
                out[place] += self._views_at(begin, end)
        return out

    def _views_at(self, begin: NDArray[np.intp], end: NDArray[np.intp]) -> list[View]:
        """The views of one position from the tile rows of its nine cells, its own cell first."""
        members: dict[int, dict[int, None]] = {}
        for cell, (a, b) in enumerate(zip(begin.tolist(), end.tolist(), strict=True)):
            for row in range(a, b):
                key = int(self.view[row])
                if cell == 0 or key in members:
                    found = self._members[self._offsets[row] : self._offsets[row + 1]]
                    members.setdefault(key, {}).update(dict.fromkeys(found.tolist()))
        return [
            View(*self._labels[key], tuple(self.rasters[item] for item in items))
            for key, items in members.items()
        ]


def raster_sources(rasters: pa.Table) -> list[RasterSource]:
    """How to read each row of a snapshot's raster table."""
    columns = (rasters.column(name).to_pylist() for name in ("uri", "kind", "crs", "reading"))
    return [
        RasterSource.from_row(uri, kind, crs, json.loads(reading))
        for uri, kind, crs, reading in zip(*columns, strict=True)
    ]


def _views(tiles: pa.Table) -> tuple[list[tuple[str, str]], NDArray[np.int32]]:
    """The distinct (source, date) of all tiles, and the number of each tile's own."""
    source = tiles.column("source").combine_chunks().dictionary_encode()
    day = pc.fill_null(tiles.column("captured_at").cast(pa.string()), "").combine_chunks().dictionary_encode()
    days = max(len(day.dictionary), 1)
    key = source.indices.to_numpy().astype(np.int64) * days + day.indices.to_numpy()
    distinct, number = np.unique(key, return_inverse=True)
    names, dates = source.dictionary.to_pylist(), day.dictionary.to_pylist()
    return [(names[k // days], dates[k % days]) for k in distinct.tolist()], number.astype(np.int32)
