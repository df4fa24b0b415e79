"""Sub-cell refinement: towards neighbours that score, never to a better answer, fitted on photos."""

from __future__ import annotations

import numpy as np
import pytest

from geofix.errors import BadInputError
from geofix.localizers.ensemble import localizer_of
from geofix.localizers.refine import RefinedLocalizer, fit_refinement, rows_of
from geofix.spatial import s2
from geofix.spatial.distance import great_circle_m

LEVEL = 16


@pytest.fixture(scope="module")
def block():
    """All level-16 cells of a level-12 cell."""
    ids = s2.cell_at(np.array([8.93]), np.array([44.41]), 12)
    for _ in range(4):
        ids = s2.children(ids).reshape(-1)
    return np.sort(ids)


def field(ids, width_m=150.0, seed=0):
    """Codes that vary smoothly over the ground: random Fourier features of the position."""
    rng = np.random.default_rng(seed)
    lon, lat = s2.center(ids)
    return features(lon, lat, rng.normal(size=(2, 64)) / width_m, rng.uniform(0, 2 * np.pi, 64))


def features(lon, lat, waves, phases):
    east = (np.asarray(lon) - 8.93) * 111_195 * np.cos(np.radians(44.41))
    north = (np.asarray(lat) - 44.41) * 111_195
    made = np.cos(np.stack([east, north], axis=1) @ waves + phases)
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def asked(lon, lat, width_m=150.0, seed=0):
    rng = np.random.default_rng(seed)
    waves = rng.normal(size=(2, 64)) / width_m
    return features(lon, lat, waves, rng.uniform(0, 2 * np.pi, 64))


def places(ids, n, seed=1):
    """Random places well inside the block."""
    rng = np.random.default_rng(seed)
    lon, lat = s2.center(ids)
    box = [np.quantile(lon, 0.3), np.quantile(lon, 0.7), np.quantile(lat, 0.3), np.quantile(lat, 0.7)]
    return rng.uniform(box[0], box[1], n), rng.uniform(box[2], box[3], n)


def test_a_fitted_refinement_brings_answers_nearer(block):
    base = localizer_of(block, field(block))
    lon, lat = places(block, 300)
    queries = asked(lon, lat)
    temperature, tried = fit_refinement(base, queries[:150], lon[:150], lat[:150], start=0.02)
    assert len(tried) > 5 and f"{temperature:.4g}" in tried
    assert min(tried.values()) == tried[f"{temperature:.4g}"]
    plain = base.localize(queries[150:], 5)
    moved = RefinedLocalizer(base, temperature).localize(queries[150:], 5)
    before = great_circle_m(lon[150:], lat[150:], plain.lon[:, 0], plain.lat[:, 0])
    after = great_circle_m(lon[150:], lat[150:], moved.lon[:, 0], moved.lat[:, 0])
    assert np.median(after) < 0.6 * np.median(before)
    assert np.array_equal(moved.score, plain.score)


def test_a_small_temperature_leaves_centres_and_a_large_one_averages(block):
    base = localizer_of(block, field(block))
    queries = asked(*places(block, 40))
    plain = base.localize(queries, 20)
    still = RefinedLocalizer(base, 1e-6, places=3).localize(queries, 20)
    assert np.allclose(still.lon, plain.lon, atol=1e-9) and np.allclose(still.lat, plain.lat, atol=1e-9)
    flat = RefinedLocalizer(base, 1e6, places=3).localize(queries, 20)
    # All nine weigh alike, and the centre of the nine is that of the cell in the middle but for its slant.
    assert great_circle_m(flat.lon[:, 0], flat.lat[:, 0], plain.lon[:, 0], plain.lat[:, 0]).max() < 5.0
    assert np.array_equal(flat.lon[:, 3:], plain.lon[:, 3:])
    assert np.array_equal(flat.s2_id[:, 3:], plain.s2_id[:, 3:])
    assert (s2.level(flat.s2_id[:, :3]) == 30).all()
    # A worse answer goes nowhere near the better ones around it: they stay answers of their own.
    second = great_circle_m(flat.lon[:, 1], flat.lat[:, 1], plain.lon[:, 0], plain.lat[:, 0])
    assert (
        second > 0.9 * great_circle_m(plain.lon[:, 1], plain.lat[:, 1], plain.lon[:, 0], plain.lat[:, 0])
    ).all()


def test_an_answer_is_weighted_by_hand(block):
    """Two cells: the neighbour's score decides how far the answer moves along the line between them."""
    first = block[len(block) // 2]
    second = next(i for i in s2.edge_neighbors(np.array([first]))[0] if i in set(block.tolist()))
    ids = np.array([first, second])
    codes = np.array([[1.0, 0.0], [0.8, 0.6]], np.float32)
    base = localizer_of(ids, codes)
    temperature = 0.25
    found = RefinedLocalizer(base, temperature).localize(np.array([[1.0, 0.0]], np.float32), 5)
    share = np.exp(-0.2 / temperature) / (1 + np.exp(-0.2 / temperature))
    lon, lat = s2.center(ids)
    assert found.lon[0, 0] == pytest.approx(lon[0] + share * (lon[1] - lon[0]), abs=2e-6)
    assert found.lat[0, 0] == pytest.approx(lat[0] + share * (lat[1] - lat[0]), abs=2e-6)
    assert found.s2_id[0, 0] == s2.cell_at(found.lon[0, 0], found.lat[0, 0])
    assert not found.answered[0, 2:].any() and np.isnan(found.lon[0, 2:]).all()


def test_rows_are_found_and_missing_ones_are_told(block):
    matrix = localizer_of(block[::2], field(block[::2])).matrix
    rows = rows_of(matrix, block.reshape(2, -1))
    assert (rows.reshape(-1)[::2] >= 0).all() and (rows.reshape(-1)[1::2] == -1).all()
    assert np.array_equal(matrix.ids[rows.reshape(-1)[::2]], block[::2])


def test_a_fit_needs_photos(block):
    with pytest.raises(BadInputError, match="no validation photo"):
        fit_refinement(localizer_of(block, field(block)), np.zeros((0, 64)), [], [], start=1.0)
