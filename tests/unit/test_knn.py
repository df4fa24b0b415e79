"""Nearest photos, means of cells and the most photographed cell, each against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from geofix.codes.means import cell_means, prototype_means
from geofix.errors import BadInputError, UsageError
from geofix.localizers.base import Candidates, Localizer
from geofix.localizers.cellmean import CellMeanLocalizer
from geofix.localizers.density import DensityLocalizer
from geofix.localizers.knn import KnnLocalizer
from geofix.localizers.popular import PopularLocalizer
from geofix.spatial import s2

LEVEL = 15


@pytest.fixture(scope="module")
def photos() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """400 unit vectors around Genoa, where an S2 face ends; half of the positions occur twice."""
    rng = np.random.default_rng(5)
    lon, lat = 8.9 + rng.normal(0, 0.01, 300), 44.4 + rng.normal(0, 0.01, 300)
    lon, lat = np.append(lon, lon[:100]), np.append(lat, lat[:100])
    vectors = rng.normal(size=(400, 16))
    return unit(vectors), lon, lat


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float16)


def queries(n: int = 6) -> np.ndarray:
    return unit(np.random.default_rng(6).normal(size=(n, 16))).astype(np.float32)


def test_all_are_localizers(photos: tuple) -> None:
    vectors, lon, lat = photos
    leaves = s2.cell_at(lon, lat, 30)
    knn = KnnLocalizer.fit(vectors, lon, lat)
    made = [
        knn,
        CellMeanLocalizer.fit(vectors, leaves, LEVEL),
        PopularLocalizer.fit(leaves, LEVEL),
        DensityLocalizer(knn),
    ]
    low, high = s2.range_of(s2.parent(leaves[:1], 12))
    ranges = np.stack([low, high], axis=1)
    for localizer in made:
        assert isinstance(localizer, Localizer) and localizer.name
        for k in (1, 5, 500):
            found = localizer.localize(queries(), k, ranges)
            assert found.s2_id.shape == found.lon.shape == found.lat.shape == found.score.shape == (6, k)
            full = found.answered
            assert full[:, 0].all() and (np.diff(full.astype(int), axis=1) <= 0).all()
            assert ((found.s2_id >= low) & (found.s2_id <= high))[full].all()
            assert np.isnan(found.lon[~full]).all() and np.isneginf(found.score[~full]).all()
            assert (found.score[:, 1:] <= found.score[:, :-1]).all()
        nothing = localizer.localize(queries(), 2, np.array([[8, 9]]))
        assert not nothing.answered.any()


def test_nearest_photos_equal_brute_force(photos: tuple) -> None:
    vectors, lon, lat = photos
    found = KnnLocalizer.fit(vectors, lon, lat).localize(queries(), 20)
    scores = queries().astype(np.float64) @ vectors.astype(np.float64).T
    order = np.argsort(-scores, axis=1)[:, :20]
    np.testing.assert_array_equal(found.lon, lon[order])
    np.testing.assert_array_equal(found.lat, lat[order])
    np.testing.assert_allclose(found.score, np.take_along_axis(scores, order, 1), atol=1e-6)
    np.testing.assert_array_equal(found.s2_id, s2.cell_at(lon[order], lat[order], 30))


@pytest.mark.parametrize("k", [3, 60, 1000])
def test_one_photo_per_cell(photos: tuple, k: int) -> None:
    vectors, lon, lat = photos
    found = KnnLocalizer.fit(vectors, lon, lat, dedupe_level=13).localize(queries(), k)
    cells = s2.cell_at(lon, lat, 13)
    scores = queries().astype(np.float64) @ vectors.astype(np.float64).T
    for query in range(6):
        expected: list[int] = []
        for row in np.argsort(-scores[query]):
            if cells[row] not in cells[expected]:
                expected.append(int(row))
        expected = expected[:k]
        np.testing.assert_array_equal(found.lon[query, : len(expected)], lon[expected])
        assert found.answered[query].sum() == len(expected) == min(k, len(np.unique(cells)))


def test_own_photo_and_author_are_passed_over(photos: tuple) -> None:
    vectors, lon, lat = photos
    plain = KnnLocalizer.fit(vectors, lon, lat)
    np.testing.assert_array_equal(plain.localize(vectors, 1).lon[:, 0], lon)
    without = plain.localize(vectors, 1, exclude=np.arange(400))
    scores = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    np.fill_diagonal(scores, -2)
    np.testing.assert_array_equal(without.lon[:, 0], lon[scores.argmax(axis=1)])
    author = np.arange(400) // 200
    grouped = KnnLocalizer.fit(vectors, lon, lat, group=author)
    near = grouped.neighbours(vectors[:10], 300, exclude=np.zeros(10, dtype=int))
    assert (near.found.sum(axis=1) == 200).all()
    assert (grouped.group[near.row[near.found]] == 1).all()


def test_distance_of_unit_vectors(photos: tuple) -> None:
    vectors, lon, lat = photos
    knn = KnnLocalizer.fit(vectors, lon, lat)
    near = knn.neighbours(queries(), 5)
    codes = knn.matrix.codes[near.row].astype(np.float64)
    codes /= np.linalg.norm(codes, axis=2, keepdims=True)
    exact = np.linalg.norm(codes - queries()[:, None].astype(np.float64), axis=2)
    np.testing.assert_allclose(near.distance, exact, atol=2e-3)


def test_cell_means_equal_a_loop(photos: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geofix.codes.means._CHUNK", 17)  # cells are cut by chunks
    vectors, lon, lat = photos
    leaves = s2.cell_at(lon, lat, 30)
    ids, means, counts = cell_means(vectors, leaves, LEVEL)
    assert (np.diff(ids) > 0).all() and counts.sum() == 400
    parents = s2.parent(leaves, LEVEL)
    for cell, mean, count in zip(ids, means, counts, strict=True):
        own = vectors[parents == cell].astype(np.float64)
        assert len(own) == count
        np.testing.assert_allclose(mean, own.sum(0) / np.linalg.norm(own.sum(0)), atol=1e-6)


def test_means_stand_in_for_prototypes_in_the_numbers_that_these_fill(photos: tuple) -> None:
    vectors, lon, lat = photos
    leaves = s2.cell_at(lon, lat, 30)
    learned = np.zeros((3, 16), np.float32)
    learned[:, :8] = 1
    ids, means = prototype_means(vectors, leaves, LEVEL, learned)
    alone, expected, _ = cell_means(vectors[:, :8], leaves, LEVEL)
    assert (ids == alone).all() and not means[:, 8:].any()
    np.testing.assert_allclose(means[:, :8], expected, atol=1e-6)
    whole = prototype_means(vectors, leaves, LEVEL, learned[:0])[1]
    np.testing.assert_array_equal(whole, cell_means(vectors, leaves, LEVEL)[1])


def test_cell_mean_answers_with_centres(photos: tuple) -> None:
    vectors, lon, lat = photos
    leaves = s2.cell_at(lon, lat, 30)
    mean = CellMeanLocalizer.fit(vectors, leaves, LEVEL, min_photos=2)
    assert mean.counts.min() >= 2 and len(mean.matrix) == len(mean.counts)
    found = mean.localize(queries(), 3)
    assert (s2.level(found.s2_id) == LEVEL).all()
    east, north = s2.center(found.s2_id)
    np.testing.assert_array_equal(found.lon, east)
    np.testing.assert_array_equal(found.lat, north)
    own = mean.matrix.codes[7:8].astype(np.float32)
    assert mean.localize(own, 1).s2_id[0, 0] == mean.matrix.ids[7]


def test_most_photographed_cell() -> None:
    cells = np.array([s2.cell_at(lon, 50.0, 10) for lon in (1, 2, 3, -100)])
    popular = PopularLocalizer.fit(np.repeat(cells, [2, 5, 2, 9]), 10)
    found = popular.localize(np.zeros((2, 3)), 5)
    assert found.score[0].tolist()[:4] == [9, 5, 2, 2] and not found.answered[0, 4]
    assert found.s2_id[1, 0] == cells[3] and found.s2_id[1, 2] == min(cells[0], cells[2])
    low, high = s2.range_of(cells[:3])
    assert popular.localize(np.zeros((1, 3)), 1, np.stack([low, high], 1)).s2_id[0, 0] == cells[1]


def test_faults(photos: tuple) -> None:
    vectors, lon, lat = photos
    with pytest.raises(BadInputError, match="numbers differ"):
        KnnLocalizer.fit(vectors, lon[:-1], lat)
    with pytest.raises(BadInputError, match="belong together"):
        cell_means(vectors, s2.cell_at(lon, lat, 30)[:-1], LEVEL)
    with pytest.raises(UsageError):
        Candidates.empty(1, 0)
    with pytest.raises(UsageError):
        DensityLocalizer(KnnLocalizer.fit(vectors, lon, lat), mode="flat")  # type: ignore[arg-type]
