"""The aerial imagery that a snapshot takes along."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import rasterio
from affine import Affine
from small_world import LEVEL, TOWNS, SmallWorld, orthophoto

from geofix.database.engine import Connection, connect
from geofix.errors import BadInputError, NotFoundError
from geofix.imagery.transforms import InputTransform
from geofix.ingest.aerial import ingest_aerial
from geofix.ingest.aerial_tiles import register_tiles
from geofix.snapshots.build import build_snapshot
from geofix.snapshots.format import AERIAL, TILES
from geofix.snapshots.imagery import BLOCK_LEVEL, find_imagery
from geofix.snapshots.reader import Snapshot, load_snapshot
from geofix.spatial import s2
from geofix.training.places import AerialIndex, TrainingPhotos
from geofix.training.samples import tile_input
from servers import Database


def frozen(conn: Connection, out: Path, *names: str, **options: object) -> Snapshot:
    options = {"test": 0.3, "val": 0.2, "seed": 1, **options}
    build_snapshot(conn, ["streets"], out, **options)  # type: ignore[arg-type]
    return load_snapshot(out)


class _Undone(Exception):
    """Ends a test's transaction without a trace in the database that others use."""


def test_tiles_and_rasters_come_along(small: SmallWorld, tmp_path: Path) -> None:
    with pytest.raises(_Undone), connect() as conn:
        made = frozen(conn, tmp_path / "s")
        found = made.aerial()
        assert found is not None
        rasters, tiles = (table.to_pylist() for table in found)
        stored = conn.execute(
            "SELECT s2_id, level, side_m, t.captured_at, name"
            " FROM aerial_tile t JOIN dataset USING (dataset_id) ORDER BY s2_id"
        ).fetchall()
        assert [(t["s2_id"], t["level"], t["side_m"], t["captured_at"], t["source"]) for t in tiles] == stored
        assert stored and all(t["rasters"] == [0] for t in tiles)
        (raster,) = rasters
        uri, digest = conn.execute("SELECT uri, encode(sha256, 'hex') FROM aerial_raster").fetchone()  # type: ignore[misc]
        assert (raster["uri"], raster["sha256"], raster["source"]) == (uri, digest, "ortho")
        assert raster["captured_at"] == date(2021, 6, 1)
        lon, lat = TOWNS[0]
        assert raster["west"] < lon < raster["east"] and raster["south"] < lat < raster["north"]
        assert made.manifest["aerial"] == {"rasters": 1, "tiles": len(stored)}
        assert "ortho" in made.manifest["sources"] and made.manifest["aerial_sources"] == ["ortho"]
        config = conn.execute("SELECT config FROM snapshot WHERE sha256 = %s", [made.sha256]).fetchone()
        assert config is not None and config[0]["aerial"] == ["ortho"]
        raise _Undone


def test_training_needs_no_database(small: SmallWorld, tmp_path: Path) -> None:
    with pytest.raises(_Undone), connect() as conn:
        made = frozen(conn, tmp_path / "s")
        raise _Undone
    index, photos = AerialIndex.from_snapshot(made), TrainingPhotos.from_snapshot(made)
    assert index is not None and set(index.level.tolist()) == {LEVEL}
    near = np.hypot(photos.lon - TOWNS[0][0], photos.lat - TOWNS[0][1]) < 0.02
    covered = index.covered(photos.lon, photos.lat)
    assert not covered[~near].any()
    views = index.views(np.array([TOWNS[0][0]]), np.array([TOWNS[0][1]]))[0]
    assert [(v.source, v.captured_at) for v in views] == [("ortho", "2021-06-01")]
    transform = InputTransform((32, 32), 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3)
    tile = tile_input(index, 0, transform)
    assert tile is not None and tile.shape == (3, 32, 32) and tile.std() > 0


def test_imagery_can_be_left_out_or_named(small: SmallWorld, tmp_path: Path) -> None:
    with pytest.raises(_Undone), connect() as conn:
        plain = frozen(conn, tmp_path / "none", aerial=["none"])
        assert plain.aerial() is None and not (plain.path / TILES).exists()
        assert not (plain.path / AERIAL).exists() and "aerial" not in plain.manifest
        assert frozen(conn, tmp_path / "empty", aerial=[]).sha256 == plain.sha256
        every, named = (
            frozen(conn, tmp_path / "every"), frozen(conn, tmp_path / "named", aerial=["ortho"])
        )  # fmt: skip
        assert every.sha256 == named.sha256 != plain.sha256
        with pytest.raises(NotFoundError, match="nowhere"):
            frozen(conn, tmp_path / "x", aerial=["nowhere"])
        raise _Undone
    assert not (tmp_path / "x").exists()


def test_far_tiles_stay_behind(db: Database, tmp_path: Path) -> None:
    """Only blocks that hold photos count, and of several dates each is taken."""
    leaves = s2.cell_at(*(np.array(x) for x in zip(*TOWNS, strict=True)))
    with connect() as conn:
        for name, day, town, shift in (("a", 2021, 0, 0.0), ("a", 2023, 0, 0.0), ("far", 2023, 1, 3.0)):
            path = moved(orthophoto(tmp_path / f"{name}{day}.tif", town), shift)
            ingest_aerial(conn, [path], source=name, captured_at=date(day, 1, 1))
        for name in ("a", "far"):
            assert register_tiles(conn, source=name, level=LEVEL).tiles > 0
        found = find_imagery(conn, leaves, None)
        assert found is not None and set(found.licences) == {"a"}
        table = pa.concat_tables(found.tiles(conn)).to_pandas()
        assert len(table) and (np.diff(table["s2_id"]) >= 0).all()
        assert set(s2.parent(table["s2_id"].to_numpy(), BLOCK_LEVEL)) <= set(s2.parent(leaves, BLOCK_LEVEL))
        days = table.groupby("s2_id")["captured_at"].agg(list)
        assert all(item == [date(2021, 1, 1), date(2023, 1, 1)] for item in days)
        of_raster = found.rasters.column("captured_at").to_pylist()
        assert [of_raster[numbers[0]] for numbers in table["rasters"]] == table["captured_at"].tolist()
        with pytest.raises(BadInputError, match="far has no tile"):
            find_imagery(conn, leaves, ["a", "far"])
        assert find_imagery(conn, leaves[:0], None) is None


def moved(path: Path, degrees: float) -> Path:
    """The raster, so many degrees further east."""
    with rasterio.open(path, "r+") as dataset:
        dataset.transform = Affine.translation(degrees, 0) @ dataset.transform
    return path
