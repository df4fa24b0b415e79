"""What a snapshot offers to training, and which photos form a batch."""

from __future__ import annotations

import hashlib
import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from training_files import DAYS, LAT, LON, imagery, photo_table, snapshot

from geofix.errors import BadInputError, UsageError
from geofix.imagery.sources import RasterSource
from geofix.snapshots.digest import ContentDigest
from geofix.snapshots.format import AERIAL, TILES, combined_hash, write_snapshot
from geofix.snapshots.reader import load_snapshot
from geofix.spatial import s2
from geofix.spatial.distance import destination, great_circle_m
from geofix.training.batches import plan_epoch
from geofix.training.places import AerialIndex, Texts, TrainingPhotos


def photos_at(lon: np.ndarray, lat: np.ndarray) -> TrainingPhotos:
    n = len(lon)
    zeros = np.zeros(n, np.int64)
    uris = Texts(pa.array([f"{i}.jpg" for i in range(n)]))
    leaves = s2.cell_at(lon, lat)
    return TrainingPhotos(np.arange(n), uris, lon, lat, leaves, zeros, zeros, np.zeros(n, bool))


def crowded(seed: int = 0) -> TrainingPhotos:
    """One spot with 900 photos, and 100 photos strewn over some 60 km."""
    rng = np.random.default_rng(seed)
    lon = np.concatenate([np.full(900, LON), LON + rng.uniform(-0.4, 0.4, 100)])
    lat = np.concatenate([np.full(900, LAT), LAT + rng.uniform(-0.3, 0.3, 100)])
    return photos_at(lon, lat)


def test_photos_of_a_split_without_a_database(tmp_path: Path) -> None:
    made = snapshot(tmp_path)
    train = TrainingPhotos.from_snapshot(made)
    table = made.read(split="train").to_pandas()
    assert len(train) == len(table) == 20
    for name in ("photo_id", "lon", "lat", "s2_id"):
        np.testing.assert_array_equal(getattr(train, name), table[name])
    np.testing.assert_array_equal(train.sequence, table["split_group"])
    np.testing.assert_array_equal(train.block, table["block_s2"])
    assert list(train.uri) == list(table["uri"]) and train.uri[1:3] == list(table["uri"][1:3])
    both = TrainingPhotos.from_snapshot(made, ["train", "val"])
    assert len(both) == 24 and (np.diff(both.photo_id) > 0).all()
    some = train.take(np.array([5, 2]))
    assert some.photo_id.tolist() == train.photo_id[[5, 2]].tolist() and some.uri[1] == train.uri[2]
    again = pickle.loads(pickle.dumps(some))
    assert again.uri[0] == some.uri[0]
    with pytest.raises(BadInputError, match="test_unseen"):
        TrainingPhotos.from_snapshot(made, ["test_unseen"])


def test_imagery_is_part_of_the_snapshot_and_its_hash(tmp_path: Path) -> None:
    photos = photo_table(tmp_path / "photos")
    rasters, tiles = imagery(tmp_path / "imagery")
    options = {"config": {}, "sources": {"town": {}}}
    plain = write_snapshot(tmp_path / "plain", photos, **options)  # type: ignore[arg-type]
    both = write_snapshot(tmp_path / "both", photos, aerial=(rasters, [tiles]), **options)  # type: ignore[arg-type]
    halves = (rasters, [tiles.slice(0, 7), tiles.slice(7)])
    cut = write_snapshot(tmp_path / "cut", photos, aerial=halves, **options)  # type: ignore[arg-type]
    other = rasters.set_column(1, "uri", pa.array(["/moved/a.tif", "/moved/b.tif"]))
    moved = write_snapshot(tmp_path / "moved", photos, aerial=(other, [tiles]), **options)  # type: ignore[arg-type]
    fewer = write_snapshot(tmp_path / "fewer", photos, aerial=(rasters, [tiles.slice(1)]), **options)  # type: ignore[arg-type]
    assert both["aerial"] == {"rasters": 2, "tiles": tiles.num_rows} and "aerial" not in plain
    assert both["sha256"] == cut["sha256"] == moved["sha256"]
    assert len({plain["sha256"], both["sha256"], fewer["sha256"]}) == 3
    assert load_snapshot(tmp_path / "plain").aerial() is None
    found = load_snapshot(tmp_path / "cut").aerial()
    assert found is not None and found[0].equals(rasters) and found[1].equals(tiles)


def test_without_imagery_the_hash_is_the_old_one() -> None:
    digest = ContentDigest()
    digest.update(pa.table({"photo_id": [1, 2]}))
    old = hashlib.sha256("\n".join([digest.hexdigest(), ""]).encode()).hexdigest()
    assert combined_hash(digest, None) == old


def test_changed_imagery_is_noticed(tmp_path: Path) -> None:
    path = snapshot(tmp_path).path
    data = (path / TILES).read_bytes()
    (path / TILES).write_bytes(data[:-20] + bytes(20))
    with pytest.raises(BadInputError, match=r"tiles\.parquet changed"):
        load_snapshot(path)
    (path / TILES).unlink()
    with pytest.raises(BadInputError, match=r"lacks tiles\.parquet"):
        load_snapshot(path)
    manifest = json.loads((path / "snapshot.json").read_text())
    for name in (AERIAL, TILES):
        del manifest["files"][name]
    (path / "snapshot.json").write_text(json.dumps(manifest))
    with pytest.raises(BadInputError, match="content hash"):
        load_snapshot(path)


def test_every_date_over_a_position_is_a_view(tmp_path: Path) -> None:
    made = snapshot(tmp_path)
    index = AerialIndex.from_snapshot(made)
    assert index is not None and AerialIndex.from_snapshot(replace_files(made)) is None
    lon, lat = np.array([LON, LON + 1.0]), np.array([LAT, LAT])
    here, nowhere = index.views(lon, lat)
    assert [view.captured_at for view in here] == [day.isoformat() for day in DAYS] and nowhere == []
    assert [len(view.rasters) for view in here] == [1, 1] and here[0].source == "ortho"
    assert index.covered(lon, lat).tolist() == [True, False]
    row = int(np.searchsorted(index.s2_id, s2.cell_at(LON, LAT, 16)))
    assert index.label_of(row) == ("ortho", DAYS[0].isoformat()) and index.sources_of(row) == here[0].rasters


def replace_files(made):  # type: ignore[no-untyped-def]
    """The same snapshot as if it had been built without imagery."""
    kept = {k: v for k, v in made.manifest["files"].items() if k not in (AERIAL, TILES)}
    return replace(made, manifest={**made.manifest, "files": kept})


def test_neighbours_fill_up_the_own_cells_rasters() -> None:
    own = s2.cell_at(LON, LAT, 16)
    beside = s2.neighbors(own)
    tiles = pa.table(
        {
            "s2_id": np.array([own, own, beside[0], beside[5], beside[6]]),
            "level": np.full(5, 16, np.int16),
            "side_m": np.full(5, 154, np.float32),
            "captured_at": pa.array([None, DAYS[0], DAYS[0], DAYS[0], DAYS[1]]),
            "source": ["a", "b", "b", "b", "b"],
            "rasters": [[4], [2, 1], [1, 3], [0], [5]],
        }
    )
    rasters = [RasterSource(f"{i}.tif") for i in range(6)]
    views = {v.source: v for v in AerialIndex(tiles, rasters).views(np.array([LON]), np.array([LAT]))[0]}
    # The day that the own cell lacks is no view; the own cell's rasters come first, in their order.
    assert set(views) == {"a", "b"} and views["a"].captured_at == ""
    assert [r.uri for r in views["a"].rasters] == ["4.tif"]
    assert [r.uri for r in views["b"].rasters][:2] == ["2.tif", "1.tif"]
    assert sorted(r.uri for r in views["b"].rasters) == ["0.tif", "1.tif", "2.tif", "3.tif"]
    with pytest.raises(BadInputError, match="names raster 5"):
        AerialIndex(tiles, rasters[:5])


def test_a_plan_is_the_same_again_and_differs_by_epoch_and_seed() -> None:
    photos = crowded()
    plan = plan_epoch(photos, batch=32, seed=3, epoch=1)
    assert plan.shape == (31, 32) and plan.dtype == np.int64
    assert plan.min() >= 0 and plan.max() < len(photos)
    np.testing.assert_array_equal(plan, plan_epoch(photos, batch=32, seed=3, epoch=1))
    for other in ({"seed": 3, "epoch": 2}, {"seed": 4, "epoch": 1}):
        assert (plan != plan_epoch(photos, batch=32, **other)).mean() > 0.5


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_cells_are_drawn_by_count_to_the_power(balance: float) -> None:
    photos = crowded()
    drawn = plan_epoch(photos, batch=50, seed=0, epoch=0, neighbourhood=0.0, balance=balance).ravel()
    ids, number, count = np.unique(s2.parent(photos.s2_id, 15), return_inverse=True, return_counts=True)
    weight = count ** (1.0 - balance)
    expected = len(drawn) * weight / weight.sum()
    got = np.bincount(number[drawn], minlength=len(ids))
    assert np.abs(got - expected).max() <= 1.0 + 1e-9, "each cell gets its share to within one photo"
    times = np.bincount(drawn, minlength=len(photos))
    for cell in range(len(ids)):
        mine = times[number == cell]
        assert mine.max() - mine.min() <= 1, "a cell's photos are used up before one comes again"


def test_half_a_batch_is_one_neighbourhood() -> None:
    rng = np.random.default_rng(0)
    photos = photos_at(LON + rng.uniform(-1, 1, 5000), LAT + rng.uniform(-1, 1, 5000))
    plan = plan_epoch(photos, batch=40, seed=0, epoch=0, neighbourhood_km=(8.0, 10.0))
    spread = []
    for rows in plan:
        lon, lat = photos.lon[rows], photos.lat[rows]
        between = great_circle_m(lon[:, None], lat[:, None], lon, lat)
        # Two photos within 10 km of one cell's centre, each at most 215 m from its own cell's centre.
        spread.append(between[:15, :15].max())
        assert len(set(rows[:15].tolist())) == 15 and np.median(between[20:, 20:]) > 40_000
    assert max(spread) <= 20_430 and np.median(spread) > 5_000


def test_lonely_photos_get_company_from_anywhere() -> None:
    lon, lat = destination(LON, LAT, np.arange(40) * 9.0, 100_000.0 + 20_000.0 * np.arange(40))
    plan = plan_epoch(photos_at(lon, lat), batch=10, seed=0, epoch=0)
    assert plan.shape == (4, 10)
    assert all(len(set(rows.tolist())) >= 8 for rows in plan)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_fewer_photos_than_a_batch_are_repeated(count: int) -> None:
    photos = photos_at(LON + 1e-3 * np.arange(count), np.full(count, LAT))
    plan = plan_epoch(photos, batch=16, seed=0, epoch=0)
    assert plan.shape == (1, 16) and set(plan.ravel().tolist()) == set(range(count))


def test_senseless_plans_are_refused() -> None:
    photos = photos_at(np.array([LON]), np.array([LAT]))
    with pytest.raises(BadInputError, match="no photo"):
        plan_epoch(photos.take(np.zeros(0, np.int64)), batch=4, seed=0, epoch=0)
    for wrong in ({"batch": 0}, {"neighbourhood": 1.5}, {"balance": -0.1}, {"neighbourhood_km": (5.0, 2.0)}):
        with pytest.raises(UsageError):
            plan_epoch(photos, **{"batch": 4, "seed": 0, "epoch": 0, **wrong})  # type: ignore[arg-type]


def test_positions_alone_are_nothing_to_train_on(tmp_path: Path) -> None:
    table = photo_table(tmp_path / "photos").assign(uri=pd.Series([None] * 24, dtype=object))
    write_snapshot(tmp_path / "s", table, config={}, sources={"town": {}})
    with pytest.raises(BadInputError, match="with pixels"):
        TrainingPhotos.from_snapshot(load_snapshot(tmp_path / "s"))
