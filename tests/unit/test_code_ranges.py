"""Codes made range by range: where ranges end, and that vectors do not depend on it, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from geofix.codes.fuse import Parts, Similarities, _largest_norm
from geofix.codes.means import cell_means
from geofix.codes.ranges import covering, covering_between, cut
from geofix.codes.upsample import brought_down, descendants, upsample
from geofix.codes.vectors import CellVectors, centres_inside
from geofix.models.hybrid import Fusion, fit_source
from geofix.models.scores import VectorScores
from geofix.spatial import s2
from geofix.spatial.covering import in_ranges


def unit(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    made = rng.normal(size=(n, d)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def test_ranges_hold_every_cell_once_and_few_pictures() -> None:
    ids = np.arange(100, 1100, 10)
    pictures = np.ones(100, np.int64)
    pictures[[7, 50]] = 35, 200
    spans = cut(ids, pictures, 10)
    for span in spans:
        own = (ids >= span.first) & (ids <= span.last)
        assert (own.sum(), pictures[own].sum()) == (span.cells, span.pictures)
        assert span.cells <= 10 and (span.pictures <= 40 or span.cells == 1)
    assert sum(span.cells for span in spans) == 100
    assert [span.cells for span in spans[:2]] == [7, 6]  # 7 + 35 is too much, 35 + 5 is not
    assert cut(ids[:0], pictures[:0], 10) == []
    assert [span.cells for span in cut(ids, 0 * pictures, 64)] == [64, 36]


@pytest.mark.parametrize("level", [6, 9, 12, 16, 18, 30])
@pytest.mark.parametrize("lon", [-0.6, 0.0, 90.0, 179.99])  # at 90: from one face of the cube to the next
def test_ranges_of_a_region_hold_its_cells_whole_and_little_else(level: int, lon: float) -> None:
    region = shapely.Point(lon, 44.8).buffer(0.4)
    ewkb = shapely.to_wkb(shapely.set_srid(region, 4326), include_srid=True)
    rng = np.random.default_rng(level)
    east = (lon + rng.normal(0, 0.5, 20_000) + 180) % 360 - 180
    cells = np.unique(s2.cell_at(east, rng.normal(44.8, 0.4, 20_000), level))
    inside = centres_inside(cells, ewkb)
    ranges = covering(ewkb, level)
    assert ranges is not None and len(ranges) <= 64 and (ranges[1:, 0] > ranges[:-1, 1]).all()
    for end in s2.range_of(cells[inside]):
        assert in_ranges(end, ranges).all()
    if level >= 9 and lon < 179:
        held = in_ranges(cells, ranges)
        assert inside.any() and held.sum() < 1.5 * inside.sum() + 30
    first, last = int(cells[len(cells) // 3]), int(cells[2 * len(cells) // 3])
    own = (cells >= first) & (cells <= last)
    between = covering_between(ewkb, level, first, last)
    assert in_ranges(cells[inside & own], between).all() and not in_ranges(cells[~own], between).any()
    whole = covering_between(None, level, first, last)
    np.testing.assert_array_equal(in_ranges(cells, whole), own)
    assert covering(None, level) is None


@pytest.mark.parametrize("most", [3, 17, 1 << 16])
def test_means_are_the_same_in_any_range(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geofix.codes.means._CHUNK", most)
    rng = np.random.default_rng(0)
    leaves = np.sort(s2.cell_at(rng.normal(7, 0.02, 900), rng.normal(47, 0.02, 900)))
    vectors = unit(rng, 900, 24).astype(np.float16)
    ids, means, counts = cell_means(vectors, leaves, 13)
    assert counts.max() > 40 and counts.min() == 1
    for size in (1, 2, 7):
        for span in cut(ids, 0 * counts, size):
            own = (s2.parent(leaves, 13) >= span.first) & (s2.parent(leaves, 13) <= span.last)
            some, part, _ = cell_means(vectors[own], leaves[own], 13)
            assert part.tobytes() == means[np.searchsorted(ids, some)].tobytes()
    none, empty, _ = cell_means(vectors[:0], leaves[:0], 13)
    assert len(none) == 0 and empty.shape == (0, 24)


@pytest.mark.parametrize(("lon", "lat"), [(8.9, 44.4), (45.0, 35.26438968)])
def test_interpolation_is_the_same_in_any_range(lon: float, lat: float) -> None:
    """With no more prototypes than those of the range and its neighbours; also at a corner of the cube."""
    rng = np.random.default_rng(1)
    ids = np.unique(s2.cell_at(lon, lat, 12))
    for _ in range(3):
        near = s2.neighbors(ids).ravel()
        ids = np.unique(np.concatenate([ids, near[near != 0]]))
    ids = ids[rng.random(len(ids)) < 0.8]
    vectors = unit(rng, len(ids), 8)
    cells, whole = upsample(ids, vectors, 14, "bilinear")
    for span in cut(cells, 0 * cells, 61):
        low, high = s2.parent(np.array([span.first, span.last]), 12)
        inside = (ids >= low) & (ids <= high)
        near = s2.neighbors(ids[inside]).ravel()
        needed = inside | np.isin(ids, near[near != 0])
        own = descendants(ids[inside], 14)
        own = own[(own >= span.first) & (own <= span.last)]
        part = brought_down(ids[needed], vectors[needed], own, "bilinear")
        assert part.tobytes() == whole[np.searchsorted(cells, own)].tobytes()


def test_a_fit_of_ranges_is_that_of_all_cells() -> None:
    rng = np.random.default_rng(2)
    n, d = 300, 12
    cells = np.sort(rng.choice(10_000, n, replace=False))
    base = unit(rng, n, d)
    with_p, with_a = rng.random(n) < 0.8, rng.random(n) < 0.7
    with_a |= ~with_p

    def noisy(scale: float) -> np.ndarray:
        made = base + scale * rng.normal(size=base.shape).astype(np.float32)
        return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)

    photos, tiles, true = noisy(0.2), noisy(0.3), rng.integers(0, n, 80)
    parts = Parts.of(
        CellVectors.of_photos(cells[with_p], photos[with_p]),
        CellVectors.of_tiles(cells[with_a], tiles[with_a]),
    )
    queries = noisy(0.25)[true]
    flags = parts.has_prototype, parts.has_aerial
    wanted = fit_source(VectorScores(queries, parts.prototype, parts.aerial, *flags, true))
    gathered = Similarities(queries, true)
    for first in range(0, n, 70):
        rows = slice(first, first + 70)
        names = ("ids", "prototype", "aerial", "has_prototype", "has_aerial")
        gathered.add(Parts(*(getattr(parts, name)[rows] for name in names)))
    found = fit_source(gathered)
    assert found.kappa == pytest.approx(wanted.kappa, rel=1e-3)
    assert found.nll == pytest.approx(wanted.nll, abs=1e-5) and found.queries == 80
    for fusion in (found, Fusion(0.5, 1, -2, 0.3, 0), Fusion(3, 1, 0, 0, 0)):
        point = fusion.kappa, fusion.bias_no_prototype, fusion.bias_no_aerial
        made = parts.combine(*point)
        longest = np.sqrt((made.vectors.astype(float) ** 2).sum(axis=1) + made.bias.astype(float) ** 2).max()
        assert longest * (1 - 1e-6) <= _largest_norm(gathered, fusion) <= 1.05 * longest * (1 + 1e-6)
