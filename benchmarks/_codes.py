"""Codes for the benchmarks of search: made, but with the shape of real ones. Seeded; memory flat in rows.

Cells are S2 cells of level 16 around real places (points/places_1M.parquet below GEOFIX_SHARED, and cells
near them where more are asked for); without the shared data around 4,000 made towns.

A cell's vector is the sum of three parts, then completed to unit norm as any code set is
(geofix/codes/complete.py), in D = 2 + the length of the vector:

- where it is: 16 random Fourier waves of its position, of 20 km to 5,000 km: neighbours look alike;
- what it shows: one of 256 kinds of scene with 12 own directions each, in a space of 32 that all share, and
  per cell a point among them: a mixture of low-dimensional clouds, which overlap;
- noise in every direction, a fifth of the length: what no encoder explains.

So the intrinsic dimension is far below D, but no cell has a twin (`describe` measures it). A query is a
photo of a cell: its vector with half of "what it shows" drawn anew, and more noise. Random vectors would
make every index look bad, tight clusters every index good.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geofix.codes.complete import complete_codes, complete_query
from geofix.codes.matrix import CellMatrix
from geofix.database.queries import code_ranges, leaves, models
from geofix.database.queries import codes as code_queries
from geofix.database.queries.code_ranges import CodeBlock
from geofix.database.queries.codes import BLOCK_LEVEL
from geofix.spatial import s2

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
LEVEL = 16
KINDS, OWN, SHARED = 256, 12, 32
STEP = 32_768
NORM = 1.05  # M: room for what the parts of a cell add up to


@dataclass(frozen=True)
class Codes:
    """Cells in ascending order, and what makes the vector of each."""

    ids: Ids
    dimension: int
    seed: int
    told: str

    def __len__(self) -> int:
        return len(self.ids)

    def blocks(self, step: int = STEP) -> Iterator[CodeBlock]:
        """Completed codes (b, D), in order of the cells."""
        for first in range(0, len(self.ids), step):
            rows = np.arange(first, min(first + step, len(self.ids)))
            flags = np.ones(len(rows), bool)
            yield CodeBlock(self.ids[rows], self.rows(rows), flags, flags)

    def rows(self, rows: NDArray[np.intp], scale: float = NORM) -> Floats:
        """Completed codes (b, D) of some rows; the same whichever are asked for together."""
        return complete_codes(self.vectors(rows), self._bias(rows), norm=scale)

    def vectors(self, rows: NDArray[np.intp], *, photo: int = 0) -> Floats:
        """Vectors (b, D - 2): of the cells, or of a photo of each (`photo` above 0)."""
        made = _Parts.of(self.dimension - 2, self.seed)
        place = made.place(self.ids[rows])
        kind = (_hashed(rows, self.seed, 1) * KINDS).astype(np.intp)[:, 0]
        inner = _normal(rows, OWN, self.seed + 17)
        if photo:
            inner = 0.7 * inner + 0.7 * _normal(rows, OWN, self.seed + 17 + photo)
        shown = 0.35 * np.einsum("no,nos->ns", inner, made.own[kind]) + made.centre[kind]
        noise = _normal(rows, self.dimension - 2, self.seed + 31 + photo)
        length = 0.2 if not photo else 0.35
        vectors = place + shown @ made.shared + length / np.sqrt(self.dimension - 2) * noise
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / lengths, np.float32)

    def queries(self, count: int, *, rows: NDArray[np.intp] | None = None) -> Floats:
        """Completed queries (q, D) of photos of random cells (or of given rows), rounded to float16."""
        if rows is None:
            rows = np.sort(np.random.default_rng(self.seed + 5).integers(0, len(self.ids), count))
        return complete_query(self.vectors(rows, photo=1).astype(np.float16).astype(np.float32))

    def matrix(self, folder: Path) -> CellMatrix:
        """All codes as memory-mapped files, written unless they are there."""
        where = folder / f"codes-{len(self.ids)}-{self.dimension}-{self.seed}"
        if not where.exists():
            CellMatrix.write(where, ((block.ids, block.codes) for block in self.blocks()))
        return CellMatrix.open(where)

    def _bias(self, rows: NDArray[np.intp]) -> Floats:
        """A small bias per cell, as a hybrid has where a part is missing."""
        return np.where(_hashed(rows, self.seed + 3, 1)[:, 0] < 0.3, 0.05, 0.0).astype(np.float32)


@dataclass(frozen=True)
class _Parts:
    waves: NDArray[np.float64]
    phase: NDArray[np.float64]
    mix: Floats
    centre: Floats
    own: Floats
    shared: Floats

    @classmethod
    def of(cls, d: int, seed: int) -> _Parts:
        rng = np.random.default_rng(seed)
        lengths = np.geomspace(5_000, 20, 16) / 6_371.0  # wave lengths in radii of the earth
        turn = rng.standard_normal((16, 3))
        turn /= np.linalg.norm(turn, axis=1, keepdims=True)
        mix = rng.standard_normal((16, d)) / np.sqrt(d) * 0.22
        shared = np.linalg.qr(rng.standard_normal((d, min(SHARED, d))))[0].T
        own = rng.standard_normal((KINDS, OWN, len(shared))) / np.sqrt(len(shared))
        centre = rng.standard_normal((KINDS, len(shared))) / np.sqrt(len(shared)) * 0.8
        return cls(
            2 * np.pi * turn / lengths[:, None],
            rng.uniform(0, 2 * np.pi, 16),
            mix.astype(np.float32),
            centre.astype(np.float32),
            own.astype(np.float32),
            shared.astype(np.float32),
        )

    def place(self, ids: Ids) -> Floats:
        lon, lat = (np.radians(value) for value in s2.center(ids))
        xyz = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
        return np.sin(xyz @ self.waves.T + self.phase).astype(np.float32) @ self.mix


def made_codes(count: int, dimension: int, data: Path, *, seed: int = 1) -> Codes:
    """`count` cells on land and their codes of a dimension (D, completion included)."""
    rng = np.random.default_rng(seed)
    file = data / "points" / "places_1M.parquet"
    if file.exists():
        frame = pd.read_parquet(file, columns=["lon_e6", "lat_e6"])
        lon, lat = frame["lon_e6"].to_numpy() / 1e6, frame["lat_e6"].to_numpy() / 1e6
        told = "cells of level 16 at and around 1,000,000 real places"
    else:
        lon = np.repeat(rng.uniform(-175, 175, 4_000), 300) + rng.normal(0, 0.1, 1_200_000)
        lat = np.repeat(rng.uniform(-50, 65, 4_000), 300) + rng.normal(0, 0.1, 1_200_000)
        told = "cells of level 16 around 4,000 made towns (no shared data)"
    ids = np.zeros(0, np.int64)
    spread = 0.0
    while len(ids) < count:
        near_lat = np.clip(lat + rng.normal(0, spread, len(lat)), -89.9, 89.9)
        near_lon = (lon + rng.normal(0, spread, len(lon)) / np.cos(np.radians(near_lat)) + 180) % 360 - 180
        fresh = s2.cell_at(near_lon, near_lat, LEVEL)
        rng.shuffle(fresh)
        ids = np.unique(np.concatenate([ids, fresh[: 2 * count]]))
        spread += 0.01
    keep = np.sort(rng.permutation(len(ids))[:count])
    return Codes(ids[keep], dimension, seed, f"{count:,} {told}; D = {dimension}, seed {seed}")


def describe(codes: Codes, sample: int = 4_000) -> str:
    """What the codes are, with their intrinsic dimension by two nearest neighbours (Facco et al. 2017)."""
    rows = np.sort(np.random.default_rng(0).permutation(len(codes))[:sample])
    vectors = codes.rows(rows)[:, :-2].astype(np.float64)
    squares = (vectors**2).sum(axis=1)
    apart = np.maximum(squares[:, None] + squares[None] - 2 * vectors @ vectors.T, 0)
    np.fill_diagonal(apart, np.inf)
    nearest = np.sqrt(np.partition(apart, 1, axis=1)[:, :2])
    ratio = np.log(nearest[:, 1] / np.maximum(nearest[:, 0], 1e-9))
    intrinsic = (len(ratio) - 1) / ratio.sum()
    spread = np.linalg.eigvalsh(np.cov(vectors.T))
    share = spread.sum() ** 2 / (spread**2).sum()
    return (
        f"{codes.told}; intrinsic dimension {intrinsic:.1f} (two nearest neighbours of {len(rows):,} cells), "
        f"participation ratio of the covariance {share:.1f}"
    )


def register(conn: Any, codes: Codes, name: str) -> int:
    """A code set row in state `building`, with its model; returns its id."""
    model = f"m{codes.dimension}"
    taken = conn.execute("SELECT model_id FROM geofix.model WHERE name = %s", (model,)).fetchone()
    values: dict[str, Any] = {"kind": "encoder", "dimension": codes.dimension - 2, "name": model}
    values |= {"directory_uri": "nowhere", "config": {}, "weights_sha256": f"{codes.dimension:064x}"}
    values |= {"input_transform": {}, "metrics": {}, "snapshot_id": None}
    model_id = models.insert_model(conn, values) if taken is None else taken[0]
    row: dict[str, Any] = {"name": name, "model_id": model_id, "snapshot_id": None, "recipe": "cellmean"}
    row |= {"level": LEVEL, "dimension": codes.dimension, "scale": NORM, "kappa": None, "temperature": None}
    row |= {"block_level": BLOCK_LEVEL, "calibration": {}, "config": {}}
    return code_queries.insert_code_set(conn, row)


def load(conn: Any, codes: Codes, name: str, blocks: Iterator[CodeBlock] | None = None) -> int:
    """Store and publish a code set unless one of that name is there; commits. Returns its id."""
    found = conn.execute("SELECT code_set_id FROM geofix.code_set WHERE name = %s", (name,)).fetchone()
    if found is not None:
        return int(found[0])
    made = register(conn, codes, name)
    code_ranges.fill_leaf(conn, made, codes.dimension, codes.blocks() if blocks is None else blocks)
    code_queries.publish(conn, made, BLOCK_LEVEL)
    conn.commit()
    return made


def leaf(code_set_id: int) -> str:
    """Name of the table that holds a code set."""
    return leaves.leaf_name("cell_code", code_set_id)


def stored_blocks(matrix: CellMatrix, rows: int | None = None, step: int = STEP) -> Iterator[CodeBlock]:
    """Blocks of the first rows, read from the files of a matrix: nothing is computed, nothing mapped."""
    total = len(matrix) if rows is None else rows
    with Path(matrix.codes.filename).open("rb") as file:
        file.seek(matrix.codes.offset)
        for first in range(0, total, step):
            ids = np.array(matrix.ids[first : min(first + step, total)])
            codes = np.fromfile(file, np.float16, len(ids) * matrix.dimension).reshape(len(ids), -1)
            flags = np.ones(len(ids), bool)
            yield CodeBlock(ids, codes, flags, flags)


def recall(found: list[list[int]], exact: Ids) -> float:
    """Share of the exact best (q, k) that the answers hold."""
    hits = sum(len(set(a) & set(b)) for a, b in zip(found, exact.tolist(), strict=True))
    return hits / max(1, exact.size)


def _mixed(rows: NDArray[np.intp], seed: int, columns: int) -> NDArray[np.uint64]:
    """Random bits of (row, column) by splitmix64, whichever rows are asked for together."""
    with np.errstate(over="ignore"):
        at = rows.astype(np.uint64)[:, None] * np.uint64(columns) + np.arange(columns, dtype=np.uint64)
        at = at + np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x632BE59BD9B4E019)
        at = (at ^ (at >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        at = (at ^ (at >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return at ^ (at >> np.uint64(31))


def _hashed(rows: NDArray[np.intp], seed: int, columns: int) -> NDArray[np.float64]:
    """Uniform in [0, 1)."""
    return (_mixed(rows, seed, columns) >> np.uint64(11)) * 2.0**-53


def _normal(rows: NDArray[np.intp], columns: int, seed: int) -> Floats:
    """Nearly normal: the sum of four 16-bit uniforms, of variance one."""
    bits = _mixed(rows, seed, columns)
    total = sum((bits >> np.uint64(16 * i)) & np.uint64(0xFFFF) for i in range(4))
    return ((np.asarray(total, np.float32) / 65536.0) - 2.0) * np.float32(np.sqrt(3.0))
