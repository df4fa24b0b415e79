"""The built-in world: same bytes whoever renders it, readable by ordinary tools, shaped as promised."""

from __future__ import annotations

import csv
import hashlib
import json
from itertools import pairwise
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from PIL import Image
from pyproj import Transformer

from geofix.errors import BadInputError, UsageError
from geofix.spatial import s2
from geofix.world import WorldSummary, create_world
from geofix.world.plan import Shot
from geofix.world.sizes import SIZES, Size
from geofix.world.write import Recipe, plan_world

SEED = 5


def digests(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def nano() -> Size:
    return Size("nano", 3, 300.0, 45, (64, 48), 1.0)


@pytest.fixture(scope="module", autouse=True)
def _small(nano: Size):
    SIZES["nano"] = nano
    yield
    del SIZES["nano"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, WorldSummary]:
    root = tmp_path_factory.mktemp("tiny")
    return root, create_world(root, size="tiny", seed=SEED, workers=2)


@pytest.fixture(scope="module")
def shots() -> dict[str, Shot]:
    return {s.path: s for s in plan_world(Recipe("tiny", SEED))}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, _small: None) -> tuple[Path, WorldSummary, dict[str, str]]:
    root = tmp_path_factory.mktemp("nano")
    summary = create_world(root, size="nano", seed=SEED, workers=1)
    return root, summary, digests(root)


def rows_of(root: Path) -> list[dict[str, str]]:
    with (root / "photos.csv").open(newline="") as f:
        return list(csv.DictReader(f))


def lonlat_of(path: Path) -> tuple[float, float]:
    gps = Image.open(path).getexif().get_ifd(0x8825)
    lat, lon = (sum(float(v) / 60**i for i, v in enumerate(gps[k])) for k in (2, 4))
    return (-lon if gps[3] == "W" else lon), (-lat if gps[1] == "S" else lat)


def test_summary_counts_files(tiny):
    root, summary = tiny
    size = SIZES["tiny"]
    assert summary.photos == size.photos == len(list(root.glob("photos/*/*.jpg")))
    assert summary.aerial_rasters == 2 * size.patches == len(list(root.glob("aerial/*/*.tif")))
    assert summary.regions == 3
    assert summary.bytes == sum(p.stat().st_size for p in root.rglob("*") if p.is_file())


def test_workers_do_not_change_bytes(tiny, shots, tmp_path):
    """Two processes wrote the fixture; here a few of its photos are rendered again in this one."""
    from geofix.world.files import write_photo
    from geofix.world.write import take_photo

    root, _ = tiny
    recipe = Recipe("tiny", SEED)
    for shot in list(shots.values())[::75]:
        write_photo(tmp_path, shot, take_photo(recipe, shot, SIZES["tiny"].photo_px))
        assert (tmp_path / shot.path).read_bytes() == (root / shot.path).read_bytes()


def test_same_seed_same_bytes_other_seed_other_bytes(one, tmp_path):
    before = one[2]
    create_world(tmp_path / "again", size="nano", seed=SEED, workers=1)
    assert digests(tmp_path / "again") == before
    create_world(tmp_path / "other", size="nano", seed=SEED + 1, workers=1)
    after = digests(tmp_path / "other")
    assert not set(before.values()) & set(after.values())


def test_second_call_does_nothing(one):
    root, summary, _ = one
    stamps = {p: p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()}
    assert create_world(root, size="nano", seed=SEED) == summary
    assert stamps == {p: p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()}


def test_half_written_directory_is_completed(one):
    root, summary, before = one
    for path in sorted(p for p in root.rglob("*") if p.is_file() and p.suffix != ".json")[::3]:
        path.unlink()
    jpeg = next(root.glob("photos/*/*.jpg"))
    jpeg.write_bytes(jpeg.read_bytes()[:700])
    manifest = root / "world.json"
    manifest.write_bytes(manifest.read_bytes()[: manifest.stat().st_size // 2])
    (jpeg.parent / ".left.jpg.part").write_bytes(b"half")
    assert create_world(root, size="nano", seed=SEED, workers=1) == summary
    assert digests(root) == before


def test_other_world_is_refused(one):
    root, _, before = one
    with pytest.raises(UsageError, match="already holds"):
        create_world(root, size="nano", seed=SEED + 1)
    with pytest.raises(UsageError, match="already holds") as refused:
        create_world(root, size="nano", seed=SEED, drop_shared=True)
    assert "size nano, seed 5, not of size nano, seed 5, without its shared cues." in str(refused.value)
    assert "{" not in str(refused.value)
    manifest = (root / "world.json").read_bytes()
    (root / "world.json").unlink()
    with pytest.raises(BadInputError, match="no photo of this world"):
        create_world(root, size="nano", seed=SEED + 1)
    (root / "world.json").write_bytes(manifest)
    assert digests(root) == before


def test_unknown_size_and_negative_seed(tmp_path):
    with pytest.raises(UsageError, match="huge"):
        create_world(tmp_path, size="huge", seed=1)
    with pytest.raises(UsageError, match="-1"):
        create_world(tmp_path, size="tiny", seed=-1)
    assert not list(tmp_path.iterdir())


def test_exif_round_trip(tiny, shots):
    root, _ = tiny
    rows = rows_of(root)
    assert {r["image_path"] for r in rows} == set(shots)
    for row in rows[::7]:
        shot = shots[row["image_path"]]
        path = root / row["image_path"]
        lon, lat = lonlat_of(path)
        assert abs(lon - shot.lon) < 1e-6 and abs(lat - shot.lat) < 1e-6
        exif = Image.open(path).getexif()
        gps = exif.get_ifd(0x8825)
        assert abs(float(gps[17]) - float(row["heading_deg"])) < 0.011 and gps[16] == "T"
        assert exif[0x010F] == row["camera_make"] and exif[0x0110] == row["camera_model"]
        stamp = exif.get_ifd(0x8769)[0x9003]
        assert row["captured_at"] == stamp.replace(":", "-", 2).replace(" ", "T") + "Z"
        assert Image.open(path).size == SIZES["tiny"].photo_px


def test_table_says_nothing_about_place(tiny):
    rows = rows_of(tiny[0])
    names = [r["image_path"] for r in rows]
    assert names == sorted(names)
    assert not {"lon", "lat", "longitude", "latitude", "cell", "country"} & set(rows[0])


def test_aerial_rasters_are_cogs_of_two_dates(tiny):
    root, _ = tiny
    dates = sorted(p.name for p in (root / "aerial").iterdir())
    assert len(dates) == 2
    different = []
    for first in sorted((root / "aerial" / dates[0]).glob("*.tif")):
        with rasterio.open(first) as a, rasterio.open(root / "aerial" / dates[1] / first.name) as b:
            assert a.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert a.crs.to_epsg() == 3035 and a.crs.is_projected
            assert a.overviews(1) and a.res == (1.0, 1.0) and a.count == 3
            mask = a.dataset_mask() > 0
            assert 0.4 < mask.mean() < 1.0
            assert (a.bounds, a.shape) == (b.bounds, b.shape)
            x, y = a.read().astype(int), b.read().astype(int)
            assert x[:, mask].std() > 20
            different.append((np.abs(x - y).max(0)[mask] > 60).mean())
    assert 0.005 < np.mean(different) < 0.5


def test_photos_lie_on_the_imagery_and_show_something(tiny):
    root, _ = tiny
    at = np.array([lonlat_of(root / r["image_path"]) for r in rows_of(root)])
    covered = np.zeros(len(at), dtype=bool)
    for path in (root / "aerial").glob("2019*/*.tif"):
        with rasterio.open(path) as raster:
            x, y = Transformer.from_crs("EPSG:4326", raster.crs, always_xy=True).transform(*at.T)
            near = (x > raster.bounds.left) & (x < raster.bounds.right)
            near &= (y > raster.bounds.bottom) & (y < raster.bounds.top)
            cols, rows = ~raster.transform @ (x[near], y[near])
            covered[near] |= raster.dataset_mask()[rows.astype(int), cols.astype(int)] > 0
    assert covered.mean() > 0.98
    spread = [np.asarray(Image.open(p)).std() for p in list(root.glob("photos/*/*.jpg"))[::10]]
    assert min(spread) > 3 and np.median(spread) > 25


def test_regions(tiny):
    root, _ = tiny
    countries = gpd.read_file(root / "regions.gpkg", layer="countries")
    provinces = gpd.read_file(root / "regions.gpkg", layer="admin1")
    assert countries.crs.to_epsg() == 4326 and len(countries) == 3 and len(provinces) == 9
    assert countries.geometry.is_valid.all() and provinces.geometry.is_valid.all()
    assert countries["iso_a2"].str.fullmatch("X[A-Z]").all() and countries["name"].is_unique
    metres = countries.to_crs("EPSG:3035")
    overlap = sum(
        a.intersection(b).area for i, a in enumerate(metres.geometry) for b in metres.geometry[i + 1 :]
    )
    assert overlap < 1.0
    left, bottom, right, top = metres.total_bounds
    assert 300_000 < right - left < 450_000 and 220_000 < top - bottom < 350_000
    assert abs(provinces.to_crs("EPSG:3035").area.sum() / metres.area.sum() - 1) < 1e-6
    photos = gpd.GeoSeries.from_xy(
        *np.array([lonlat_of(root / r["image_path"]) for r in rows_of(root)]).T, crs=4326
    )
    home = photos.apply(lambda p: countries.index[countries.contains(p)].tolist())
    assert home.map(len).max() == 1 and len({h[0] for h in home if h}) == 3


def test_sequences_follow_roads(tiny):
    """Neighbours in a sequence are metres apart and most headings point along the way taken."""
    root, _ = tiny
    to_metres = Transformer.from_crs("EPSG:4326", "EPSG:3035", always_xy=True)
    sequences: dict[str, list[tuple[str, float, float, float]]] = {}
    for row in rows_of(root):
        x, y = to_metres.transform(*lonlat_of(root / row["image_path"]))
        sequences.setdefault(row["sequence_id"], []).append(
            (row["captured_at"], x, y, float(row["heading_deg"]))
        )
    gaps, turned = [], []
    for shots in sequences.values():
        shots.sort()
        for a, b in pairwise(shots):
            gaps.append(np.hypot(b[1] - a[1], b[2] - a[2]))
            way = np.degrees(np.arctan2(b[1] - a[1], b[2] - a[2]))
            turned.append(abs((2 * (a[3] - way) + 180 + 2 * 17) % 360 - 180) / 2)
    assert len(sequences) >= 20 and len(gaps) > 150
    assert np.percentile(gaps, 90) < 60 and min(gaps) > 0.5
    assert 0.6 < np.mean(np.array(turned) < 25) < 0.95


def test_counts_per_cell_are_spread_and_some_are_empty():
    SIZES["meso"] = Size("meso", 3, 1300.0, 4500, (64, 48), 1.0)
    try:
        shots = plan_world(Recipe("meso", SEED))
    finally:
        del SIZES["meso"]
    assert len(shots) == len({s.path for s in shots}) == 4500
    cells = s2.cell_at(np.array([s.lon for s in shots]), np.array([s.lat for s in shots]), 15)
    count = np.unique(cells, return_counts=True)[1]
    count = count[count >= 2]
    assert 10 <= np.median(count) <= 60
    assert 0.8 < np.log(count).std() < 1.6
    assert {s.epoch for s in shots} == {0, 1}
    along = [abs((2 * (s.camera.azimuth_deg - s.road_azimuth_deg) + 180) % 360 - 180) / 2 < 16 for s in shots]
    assert 0.66 < np.mean(along) < 0.82


def test_ablations_change_the_views_they_should(one, tmp_path, _small):
    """Without ground-only things the roofs and roads from above stay as they were."""
    root, _, _ = one
    create_world(tmp_path / "blank", size="nano", seed=SEED, workers=1, drop_ground_only=True)
    create_world(tmp_path / "grey", size="nano", seed=SEED, workers=1, drop_shared=True)

    def difference(a: Path, b: Path, pattern: str) -> float:
        total = []
        for path in sorted(a.glob(pattern)):
            other = b / path.relative_to(a)
            with rasterio.open(path) as x, rasterio.open(other) as y:
                total.append(np.abs(x.read().astype(int) - y.read().astype(int)).mean())
        return float(np.mean(total))

    blank_above = difference(root, tmp_path / "blank", "aerial/*/*.tif")
    grey_above = difference(root, tmp_path / "grey", "aerial/*/*.tif")
    blank_below = difference(root, tmp_path / "blank", "photos/*/*.jpg")
    assert blank_above < 0.5 * grey_above
    assert blank_below > 3 and grey_above > 8


def test_manifest_is_readable(tiny):
    content = json.loads((tiny[0] / "world.json").read_text())
    assert content["complete"] and content["recipe"]["seed"] == SEED and content["crs"] == "EPSG:3035"


def test_neighbouring_districts_look_different_in_both_views():
    """Paving, gardens and roofs, which both views show, tell a district from those around it."""
    from geofix.world.styles import STYLES, make_districts

    for country in range(len(STYLES)):
        d = make_districts(np.random.default_rng(country), country, 800.0)
        look = np.concatenate([d.asphalt[:, 0], d.lawn, d.roofs[:, 0]], axis=1)
        gap = np.hypot(d.x[:, None] - d.x, d.y[:, None] - d.y)
        near = (gap > 0) & (gap < 500)
        assert 200 < np.where(near, gap, np.inf).min(axis=1).mean() < 400
        difference = np.abs(look[:, None] - look).max(axis=2)[near]
        assert (difference > 0.1).mean() > 0.95
        shown = d.at(d.x, d.y)
        assert (shown == np.arange(len(d.x))).all()
