"""Prototypes passed down to finer cells: copies, weights between centres, borders and gaps."""

from __future__ import annotations

import numpy as np
import pytest

from geofix.codes.upsample import descendants, upsample
from geofix.errors import UsageError
from geofix.spatial import s2
from geofix.spatial.frames import LocalFrame


def patch(lon: float, lat: float, level: int = 15, rings: int = 3) -> np.ndarray:
    """All cells within some steps of a place, ascending."""
    cells = np.unique(s2.cell_at(lon, lat, level))
    for _ in range(rings):
        near = s2.neighbors(cells).ravel()
        cells = np.unique(np.concatenate([cells, near[near != 0]]))
    return cells


def random_unit(n: int, d: int = 8) -> np.ndarray:
    made = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_copy_is_the_parents(steps):
    ids = patch(8.9, 44.4)
    vectors = random_unit(len(ids))
    cells, made = upsample(ids, vectors, 15 + steps, "copy")
    assert len(cells) == len(ids) * 4**steps and (np.diff(cells) > 0).all()
    assert (s2.level(cells) == 15 + steps).all()
    parents = np.searchsorted(ids, s2.parent(cells, 15))
    assert (made == vectors[parents]).all()


def test_at_their_own_level_both_ways_return_the_prototypes():
    ids = patch(8.9, 44.4)
    vectors = random_unit(len(ids))
    for how in ("copy", "bilinear"):
        cells, made = upsample(ids, vectors, 15, how)
        assert (cells == ids).all() and (made == vectors).all()


@pytest.mark.parametrize(("lon", "lat"), [(8.9, 44.4), (45.0, 20.0), (134.99, 0.3), (45.0, 35.26438968)])
def test_a_direction_that_turns_evenly_is_continued(lon, lat):
    """Also across the faces of the cube and at its corner: (x, y, 1) turns as places do, up to its length."""
    ids = patch(lon, lat)
    frame = LocalFrame(lon, lat)

    def field(cells):
        east, north = frame.to_metres(*s2.center(cells))
        made = np.stack([east / 1000, north / 1000, np.ones(len(cells))], axis=1)
        return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)

    cells, made = upsample(ids, field(ids), 16, "bilinear")
    inner = np.isin(s2.parent(cells, 15), patch(lon, lat, rings=1))
    copied = upsample(ids, field(ids), 16, "copy")[1]
    wanted = field(cells)
    error = np.linalg.norm(made - wanted, axis=1)[inner]
    assert error.max() < 0.02 < np.linalg.norm(copied - wanted, axis=1)[inner].max() / 2
    assert np.allclose(np.linalg.norm(made, axis=1), 1, atol=1e-6)


def test_missing_neighbours_are_dropped_and_gaps_are_not_filled():
    ids = patch(8.9, 44.4)
    alone = s2.cell_at(8.9, 44.4, 15)
    vector = random_unit(1)
    cells, made = upsample(np.array([alone]), vector, 16, "bilinear")
    assert sorted(cells) == sorted(s2.children(alone).tolist()) and np.allclose(made, vector, atol=1e-6)
    holed = ids[ids != alone]
    cells, _ = upsample(holed, random_unit(len(holed)), 16, "bilinear")
    assert not np.isin(s2.children(alone), cells).any() and len(cells) == 4 * len(holed)


def test_opposite_neighbours_leave_the_parents_direction():
    ids = patch(8.9, 44.4, rings=1)
    vectors = np.zeros((len(ids), 2), np.float32)
    vectors[:, 0] = np.where(ids == s2.cell_at(8.9, 44.4, 15), 1, -1)
    _, made = upsample(ids, vectors, 16, "bilinear")
    assert np.isfinite(made).all() and np.allclose(np.linalg.norm(made, axis=1), 1, atol=1e-6)


def test_codes_may_not_be_coarser_than_prototypes():
    with pytest.raises(UsageError, match="Prototypes stand at level 15; codes of level 14"):
        upsample(patch(0, 50), random_unit(49), 14, "copy")
    assert len(descendants(np.zeros(0, np.int64), 16)) == 0
