"""Pairs of photo and tile: where they are cut, how they are varied, and what happens to bad files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import rasterio
import torch
from PIL import Image
from pyproj import Transformer
from raster_files import centred, write
from training_files import CRS, LAT, LON, PLAIN, SIZE_M, colour_at, snapshot

from geofix.codes.embed import load_input
from geofix.codes.embed_store import tile_loader
from geofix.errors import BadInputError, UsageError
from geofix.imagery.sources import RasterSource
from geofix.spatial import s2
from geofix.spatial.frames import LocalFrame
from geofix.training.batches import plan_epoch
from geofix.training.colour import Jitter, jitter
from geofix.training.places import AerialIndex, Texts, TrainingPhotos, raster_sources
from geofix.training.samples import NONE, Augmentation, Batch, Pairs, pair_masks, tile_input

TURNED = Augmentation(jitter=None, scale=1.0)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingPhotos, AerialIndex]:
    made = snapshot(tmp_path_factory.mktemp("town"), count=48)
    index = AerialIndex.from_snapshot(made)
    assert index is not None
    return TrainingPhotos.from_snapshot(made, ["train"]), index


def pairs(town: tuple[TrainingPhotos, AerialIndex], **options: object) -> Pairs:
    photos, index = town
    plan = plan_epoch(photos, batch=16, seed=0, epoch=0)
    return Pairs(photos, plan, PLAIN, PLAIN, index, **options)  # type: ignore[arg-type]


def same(one: Batch, two: Batch) -> bool:
    names = ("lon", "lat", "tile_lon", "tile_lat", "tile_rotation_deg", "has_aerial", "rows")
    arrays = all(np.array_equal(getattr(one, name), getattr(two, name)) for name in names)
    return arrays and torch.equal(one.ground, two.ground) and torch.equal(one.aerial, two.aerial)


def test_a_batch_has_the_promised_shapes(town: tuple[TrainingPhotos, AerialIndex]) -> None:
    batch = pairs(town)[1]
    assert len(batch) == 16 and batch.ground.shape == batch.aerial.shape == (16, 3, 32, 32)
    assert batch.ground.dtype == batch.aerial.dtype == torch.float32
    for name in ("lon", "lat", "tile_lon", "tile_lat", "tile_rotation_deg"):
        assert getattr(batch, name).shape == (16,) and getattr(batch, name).dtype == np.float64
    assert batch.has_aerial.all() and batch.unreadable == []
    np.testing.assert_array_equal(batch.lon, town[0].lon[batch.rows])
    photos, _ = town
    alone = Pairs(photos, np.array([[0, 1]]), PLAIN)[0]
    assert alone.aerial.shape == (2, 3, 0, 0) and not alone.has_aerial.any()
    without = Pairs(photos, np.array([[0, 1]]), PLAIN, PLAIN)[0]
    assert without.aerial.shape == (2, 3, 32, 32) and not without.has_aerial.any()


def test_workers_and_resuming_change_nothing(town: tuple[TrainingPhotos, AerialIndex]) -> None:
    made = pairs(town, seed=5, epoch=2)
    direct = list(made)
    loader = torch.utils.data.DataLoader(made, batch_size=None, num_workers=2)
    for one, two in zip(direct, loader, strict=True):
        assert same(one, two)
    assert same(direct[1], pairs(town, seed=5, epoch=2)[1])
    assert not same(direct[1], pairs(town, seed=5, epoch=3)[1])
    assert not same(direct[1], pairs(town, seed=6, epoch=2)[1])


def test_without_variation_pixels_are_those_of_embedding(town: tuple[TrainingPhotos, AerialIndex]) -> None:
    photos, index = town
    ground = replace(
        PLAIN, size=(24, 24), crop=0.9, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.3), channels="bgr"
    )
    batch = Pairs(photos, np.arange(4)[None], ground, PLAIN, index, augmentation=NONE)[0]
    for i in range(4):
        expected = load_input(Path(photos.uri[i]), ground)
        np.testing.assert_array_equal(batch.ground[i].numpy(), expected)
    row = int(np.searchsorted(index.s2_id, s2.cell_at(LON, LAT, 16)))
    tile = tile_input(index, row, PLAIN)
    cut = tile_loader(int(index.s2_id[row]), 154.0, list(index.sources_of(row)), 32)
    assert tile is not None
    np.testing.assert_array_equal(tile, load_input(cut, PLAIN))


def test_tiles_lie_where_they_say(town: tuple[TrainingPhotos, AerialIndex]) -> None:
    blues = set()
    turns = []
    for batch in pairs(town, augmentation=TURNED):
        centre = batch.aerial.numpy()[:, :2, 15:17, 15:17].mean(axis=(2, 3))
        np.testing.assert_allclose(
            centre, colour_at(batch.tile_lon, batch.tile_lat), atol=2 / 255, err_msg="the middle of the tile"
        )
        # Half-way to the upper edge, along the bearing: a mirrored or wrongly turned tile would differ.
        for bearing, place in ((0.0, np.s_[:, :2, 7:9, 15:17]), (90.0, np.s_[:, :2, 15:17, 23:25])):
            turn = np.deg2rad(batch.tile_rotation_deg + bearing)
            frame = LocalFrame(batch.tile_lon, batch.tile_lat)
            beyond = frame.to_lonlat(38.5 * np.sin(turn), 38.5 * np.cos(turn))
            seen = batch.aerial.numpy()[place].mean(axis=(2, 3))
            np.testing.assert_allclose(seen, colour_at(*beyond), atol=3 / 255)
        blues |= set(np.round(batch.aerial.numpy()[:, 2].mean(axis=(1, 2)) * 255).astype(int).tolist())
        turns += batch.tile_rotation_deg.tolist()
    assert blues == {50, 150}, "both days are shown"
    assert np.histogram(turns, 4, (0, 360))[0].min() > 0


def test_the_camera_stays_inside_its_tile(town: tuple[TrainingPhotos, AerialIndex]) -> None:
    far = []
    for step in range(len(pairs(town))):
        batch = pairs(town)[step]
        positive, negative = pair_masks(batch)
        assert positive.diagonal().all() and not (positive & negative).any()
        east, north = LocalFrame(batch.tile_lon, batch.tile_lat).to_metres(batch.lon, batch.lat)
        far.append(np.hypot(east, north))
    assert 77 < np.max(far) <= 99.1, "corners are used, yet no camera is beyond"
    cropped = replace(PLAIN, crop=0.5)
    photos, index = town
    batch = Pairs(photos, np.arange(20)[None], PLAIN, cropped, index)[0]
    assert pair_masks(batch, 77.0)[0].diagonal().all(), "the camera is inside what the encoder's crop leaves"
    squashed = Pairs(photos, np.arange(20)[None], PLAIN, replace(cropped, fit="squash"), index)[0]
    assert not pair_masks(squashed, 77.0)[0].diagonal().all()


def test_pairs_are_told_apart_by_place(town: tuple[TrainingPhotos, AerialIndex]) -> None:
    rng = np.random.default_rng(0)
    n = 60
    batch = pairs(town)[0]
    lon, lat = LON + rng.uniform(-0.004, 0.004, n), LAT + rng.uniform(-0.003, 0.003, n)
    lon[:2], lat[:2] = (-179.9999, 179.9999), (LAT, LAT)  # 14 m apart, across the 180th meridian
    turn = rng.uniform(0, 360, n)
    seen = np.arange(n) != 7
    batch = replace(
        batch, lon=lon, lat=lat, tile_lon=lon, tile_lat=lat, tile_rotation_deg=turn, has_aerial=seen
    )
    positive, negative = (mask.numpy() for mask in pair_masks(batch, 154.0))
    assert positive[0, 1] and positive[1, 0] and negative[0, 5]
    for j in range(2, n):
        local = f"+proj=aeqd +lat_0={lat[j]} +lon_0={lon[j]} +datum=WGS84"
        east, north = Transformer.from_crs("EPSG:4326", local, always_xy=True).transform(lon[2:], lat[2:])
        bearing = np.arctan2(east, north) - np.deg2rad(turn[j])
        distance = np.hypot(east, north)
        inside = distance * np.maximum(np.abs(np.sin(bearing)), np.abs(np.cos(bearing))) <= 77.0
        np.testing.assert_array_equal(positive[2:, j], inside & seen[j])
        sure = np.abs(distance - 300) > 2  # a sphere against the ellipsoid
        np.testing.assert_array_equal(negative[2:, j][sure], (distance > 300)[sure] & seen[j])
    assert not positive[:, 7].any() and not negative[:, 7].any()


def with_photo(photos: TrainingPhotos, row: int, path: Path) -> TrainingPhotos:
    uris = list(photos.uri)
    uris[row] = str(path)
    return replace(photos, uri=Texts(pa.array(uris)))


@pytest.mark.parametrize("kind", ["text", "cut", "missing", "empty"])
def test_a_bad_photo_gives_its_place_to_another(
    town: tuple[TrainingPhotos, AerialIndex], tmp_path: Path, kind: str
) -> None:
    path = tmp_path / f"{kind}.jpg"
    if kind == "text":
        path.write_text("no photo")
    elif kind == "empty":
        path.touch()
    elif kind == "cut":
        Image.effect_noise((80, 80), 90).convert("RGB").save(path)
        path.write_bytes(path.read_bytes()[:900])
    photos = with_photo(town[0], 3, path)
    made = Pairs(photos, np.array([[1, 3, 3, 2]]), PLAIN, PLAIN, town[1])
    batch, again = made[0], made[0]
    assert same(batch, again), "what is known to be bad is replaced by the same photos"
    assert 3 not in batch.rows and batch.rows[[0, 3]].tolist() == [1, 2]
    assert [uri for uri, _ in batch.unreadable] == [str(path)] and str(path) in batch.unreadable[0][1]
    np.testing.assert_array_equal(batch.lon, photos.lon[batch.rows])


def test_nothing_but_bad_photos_stops_with_a_name(town: tuple[TrainingPhotos, AerialIndex]) -> None:
    photos = replace(town[0], uri=Texts(pa.array([f"/nowhere/{i}.jpg" for i in range(len(town[0]))])))
    with pytest.raises(BadInputError, match=r"cannot be read; /nowhere/\d+\.jpg"):
        Pairs(photos, np.array([[0, 1]]), PLAIN)[0]


def test_odd_photos_are_shown_as_rgb(town: tuple[TrainingPhotos, AerialIndex], tmp_path: Path) -> None:
    gray = np.full((20, 30), 128, np.uint8)
    made = {
        "cmyk.jpg": Image.new("CMYK", (30, 20), (0, 127, 127, 127)),
        "deep.png": Image.fromarray(gray.astype(np.uint16) * 257),
        "palette.png": Image.fromarray(gray).convert("P"),
        "alpha.png": Image.new("RGBA", (500, 20), (128, 128, 128, 255)),
        "clear.png": Image.new("LA", (20, 300), (0, 0)),
    }
    photos = town[0]
    for row, (name, image) in enumerate(made.items()):
        image.save(tmp_path / name)
        photos = with_photo(photos, row, tmp_path / name)
    batch = Pairs(photos, np.arange(5)[None], PLAIN, augmentation=NONE)[0]
    assert batch.unreadable == [] and batch.ground.shape == (5, 3, 32, 32)
    middle = batch.ground[:, :, 16, 16].numpy() * 255
    assert np.ptp(middle, axis=1)[1:].max() <= 1 and np.abs(middle[1:4] - 128).max() <= 1
    assert (middle[4] == 255).all(), "transparency lies on white"


def index_of(tmp_path: Path, sources: list[RasterSource]) -> AerialIndex:
    """One tile over the middle, its rasters given."""
    own = int(s2.cell_at(LON, LAT, 16))
    columns = {
        "s2_id": [own],
        "level": np.array([16], np.int16),
        "side_m": np.array([154], np.float32),
        "captured_at": pa.array([None], pa.date32()),
        "source": ["x"],
        "rasters": [list(range(len(sources)))],
    }
    return AerialIndex(pa.table(columns), sources)


def test_tiles_that_show_nothing(town: tuple[TrainingPhotos, AerialIndex], tmp_path: Path) -> None:
    photos = town[0].take(np.zeros(2, np.int64))
    photos = replace(photos, lon=np.array([LON, LON + 0.5]), lat=np.array([LAT, LAT]))
    plan = np.array([[0, 1]])
    black, place = np.zeros((3, 512, 512), np.uint8), centred(CRS, LON, LAT, 1.0, 512)
    empty = write(tmp_path / "empty.tif", black, CRS, place, nodata=0)
    for source, unreadable in (
        (RasterSource(str(empty)), []),  # all nodata
        (RasterSource(str(tmp_path / "gone.tif")), [str(tmp_path / "gone.tif")]),
    ):
        batch = Pairs(photos, plan, PLAIN, PLAIN, index_of(tmp_path, [source]))[0]
        assert not batch.has_aerial.any() and not batch.aerial.any() and len(batch) == 2
        assert [uri for uri, _ in batch.unreadable] == unreadable
        positive, negative = pair_masks(batch)
        assert not positive.any() and not negative.any()
    elsewhere = centred(CRS, LON + 0.1, LAT, 1.0, 512)
    beside = write(tmp_path / "beside.tif", np.full((3, 512, 512), 90, np.uint8), CRS, elsewhere)
    assert not Pairs(photos, plan, PLAIN, PLAIN, index_of(tmp_path, [RasterSource(str(beside))]))[
        0
    ].has_aerial[0]


def test_a_damaged_date_leaves_the_other(tmp_path: Path) -> None:
    made = snapshot(tmp_path, count=12)
    first = tmp_path / "imagery" / "0.tif"
    first.write_bytes(first.read_bytes()[:2000])
    photos, index = TrainingPhotos.from_snapshot(made), AerialIndex.from_snapshot(made)
    batch = Pairs(photos, np.arange(8)[None], PLAIN, PLAIN, index, augmentation=TURNED)[0]
    assert batch.has_aerial.all()
    assert set(np.round(batch.aerial.numpy()[:, 2].mean(axis=(1, 2)) * 255).astype(int).tolist()) == {150}
    assert [uri for uri, _ in batch.unreadable] == [str(first)]


def test_the_damaged_one_of_several_rasters_is_named(
    town: tuple[TrainingPhotos, AerialIndex], tmp_path: Path
) -> None:
    beside = write(
        tmp_path / "beside.tif",
        np.full((3, 64, 64), 90, np.uint8),
        CRS,
        centred(CRS, LON + 0.1, LAT, 1.0, 64),
    )
    broken = tmp_path / "broken.tif"
    broken.write_bytes(b"II*")
    photos = replace(town[0].take(np.zeros(1, np.int64)), lon=np.array([LON]), lat=np.array([LAT]))
    index = index_of(tmp_path, [RasterSource(str(beside)), RasterSource(f"file://{broken}")])
    batch = Pairs(photos, np.array([[0]]), PLAIN, PLAIN, index)[0]
    assert [uri for uri, _ in batch.unreadable] == [f"file://{broken}"]


def test_at_the_border_a_tile_is_not_moved_out(tmp_path: Path) -> None:
    made = snapshot(tmp_path, count=40, spread_m=SIZE_M / 2 - 1)
    photos, index = TrainingPhotos.from_snapshot(made, ["train", "val"]), AerialIndex.from_snapshot(made)
    assert index is not None
    batch = Pairs(photos, np.tile(np.arange(40), 8)[None], PLAIN, PLAIN, index)[0]
    covered = index.covered(batch.lon, batch.lat)
    np.testing.assert_array_equal(batch.has_aerial, covered)
    still = (np.abs(batch.lon - batch.tile_lon) < 1e-9) & (np.abs(batch.lat - batch.tile_lat) < 1e-9)
    assert still[covered].any() and not still[covered].all()


def test_photos_are_cropped_not_distorted_nor_mirrored(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    picture = np.stack(
        [np.tile(ramp, (64, 1)), np.tile(ramp[:, None], (1, 64)), np.zeros((64, 64), np.uint8)], 2
    )
    Image.fromarray(picture).save(tmp_path / "ramp.png")
    made = snapshot(tmp_path, aerial=False, count=4)
    photos = with_photo(TrainingPhotos.from_snapshot(made), 0, tmp_path / "ramp.png")
    plan = np.zeros((1, 40), np.int64)
    batch = Pairs(photos, plan, PLAIN, augmentation=Augmentation(jitter=None, scale=0.5))[0]
    across = (batch.ground[:, 0, :, -1] - batch.ground[:, 0, :, 0]).mean(dim=1)
    down = (batch.ground[:, 1, -1] - batch.ground[:, 1, 0]).mean(dim=1)
    assert (across > 0.6).all() and (down > 0.6).all(), "never mirrored, at least 0.7 of each side"
    assert (across - down).abs().max() < 0.05 and across.max() - across.min() > 0.1


def test_jitter_changes_colours_alone() -> None:
    rng = np.random.default_rng(0)
    rgb = rng.uniform(0.2, 0.8, (3, 16, 16)).astype(np.float32)
    strange = replace(PLAIN, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), channels="bgr")
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (strange.mean, strange.std))
    plain = jitter(rgb, PLAIN, Jitter(), np.random.default_rng(7))
    other = jitter((rgb[::-1] - mean) / std, strange, Jitter(balance=0.0), np.random.default_rng(7))
    assert plain.min() >= 0 and plain.max() <= 1 and np.abs(plain - rgb).mean() > 0.01
    expected = jitter(rgb, PLAIN, Jitter(balance=0.0), np.random.default_rng(7))
    np.testing.assert_allclose((other * std + mean)[::-1], expected, atol=1e-5)
    np.testing.assert_allclose(jitter(rgb, PLAIN, Jitter(0, 0, 0, 0), rng), rgb, atol=1e-6)


def test_senseless_variation_is_refused() -> None:
    for wrong in ({"shift_m": -1.0}, {"scale": 0.0}, {"scale": 1.5}):
        with pytest.raises(UsageError):
            Augmentation(**wrong)


def test_remote_and_file_uris_are_read(town: tuple[TrainingPhotos, AerialIndex]) -> None:
    photos = with_photo(town[0], 0, Path("x"))
    uris = [f"file://{town[0].uri[0]}", f"local://{town[0].uri[1]}", *list(town[0].uri)[2:]]
    photos = replace(photos, uri=Texts(pa.array(uris)))
    one, two = (Pairs(p, np.array([[0, 1]]), PLAIN, augmentation=NONE)[0] for p in (photos, town[0]))
    assert torch.equal(one.ground, two.ground) and one.unreadable == []


def test_rasters_keep_their_reading(tmp_path: Path) -> None:
    """A stretch that was found when the raster was ingested is used again."""
    made = snapshot(tmp_path, count=6)
    found = made.aerial()
    assert found is not None
    reading = json.dumps({"stretch": [[0, 510]] * 3})
    rasters = found[0].set_column(4, "reading", pa.array([reading] * 2))
    sources = raster_sources(rasters)
    assert sources[0].stretch == ((0.0, 510.0),) * 3
    with rasterio.open(sources[0].uri) as dataset:
        assert dataset.count == 3
    index = AerialIndex(found[1], sources)
    photos = TrainingPhotos.from_snapshot(made)
    batch = Pairs(photos, np.array([[0]]), PLAIN, PLAIN, index, augmentation=NONE)[0]
    dark = batch.aerial[0, :2, 15:17, 15:17].mean(dim=(1, 2)).numpy()
    np.testing.assert_allclose(dark, colour_at(batch.lon, batch.lat)[0] / 2, atol=2 / 255)
