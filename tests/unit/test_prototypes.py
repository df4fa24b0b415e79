"""The table of prototypes, where positions lie in it, and its optimiser."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from geofix.errors import BadInputError, UsageError  # noqa: E402
from geofix.models.prototypes import RING, PrototypeTable  # noqa: E402
from geofix.models.row_adam import RowAdam  # noqa: E402
from geofix.spatial import s2  # noqa: E402
from geofix.spatial.frames import LocalFrame  # noqa: E402

torch.set_num_threads(1)
# Faces 0 and 2 of the cube meet near here.
BORDER = (9.19, 44.63)


def cells_around(lon: float, lat: float, rings: int = 4, level: int = 15) -> np.ndarray:
    cells = np.atleast_1d(s2.cell_at(lon, lat, level))
    for _ in range(rings):
        near = s2.neighbors(cells).ravel()
        cells = np.unique(np.concatenate([cells, near[near != 0]]))
    return cells


def positions(lon: float, lat: float, n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    metres = np.random.default_rng(seed).uniform(-400, 400, (2, n))
    return LocalFrame(lon, lat).to_lonlat(*metres)


def test_place_reproduces_positions_from_centres() -> None:
    table = PrototypeTable(cells_around(8.93, 44.41), 8)
    lon, lat = positions(8.93, 44.41)
    place = table.place(lon, lat)
    assert place.has_positive.all() and place.rows.dtype == torch.int64
    np.testing.assert_allclose(place.weights.sum(1), 1, atol=1e-6)
    east, north = LocalFrame(lon[:, None], lat[:, None]).to_metres(*s2.center(table.ids[place.rows.numpy()]))
    for metres in (east, north):
        assert np.abs((metres * place.weights.numpy()).sum(1)).max() < 0.01


@pytest.mark.parametrize("where", [(8.93, 44.41), BORDER, (45.0, 35.26439)])
def test_ring_is_all_that_touches_the_interpolation_set(where: tuple[float, float]) -> None:
    every = cells_around(*where)
    ids = every[np.random.default_rng(1).random(len(every)) < 0.7]
    table = PrototypeTable(ids, 4)
    place = table.place(*positions(*where))
    full = PrototypeTable(every, 4).place(*positions(*where))
    for k in range(len(place.rows)):
        four = every[full.rows[k].numpy()]
        touching = set(s2.neighbors(four).ravel().tolist()) | set(four.tolist())
        expected = sorted(table.rows_of(sorted(touching & set(ids.tolist()))).tolist())
        ring = place.ring[k]
        assert sorted(ring[ring >= 0].tolist()) == expected and len(ring) == RING


def test_border_of_two_faces_has_positives_on_both() -> None:
    table = PrototypeTable(cells_around(*BORDER, rings=20), 4)
    faces = (table.ids.view(np.uint64) >> np.uint64(61)).astype(int)
    assert set(faces) == {0, 2}
    lon, lat = s2.center(table.ids)
    place = table.place(lon + 1e-3, lat)
    rows = place.rows.numpy()
    mixed = [k for k in range(len(rows)) if rows[k].min() >= 0 and len(set(faces[rows[k]])) == 2]
    assert len(mixed) > 10 and place.weights[mixed].sum(1).allclose(torch.ones(len(mixed)))


def test_missing_cells_are_dropped_and_the_rest_renormalised() -> None:
    every = cells_around(8.93, 44.41)
    lon, lat = positions(8.93, 44.41)
    whole = PrototypeTable(every, 4).place(lon, lat)
    ids = every[np.random.default_rng(2).random(len(every)) < 0.4]
    table = PrototypeTable(ids, 4)
    place = table.place(lon, lat)
    there = np.isin(every[whole.rows.numpy()], ids)
    np.testing.assert_array_equal(place.rows.numpy() >= 0, there)
    kept = np.where(there, whole.weights.numpy(), 0)
    sums = kept.sum(1, keepdims=True)
    np.testing.assert_allclose(
        place.weights.numpy(), np.divide(kept, sums, out=np.zeros_like(kept), where=sums > 0), atol=1e-5
    )
    far = table.place([2.0], [48.0])
    assert not far.has_positive.any() and (far.weights == 0).all() and (far.ring == -1).all()


def test_without_interpolation_the_own_cell_has_all_weight() -> None:
    table = PrototypeTable(cells_around(8.93, 44.41), 4)
    lon, lat = positions(8.93, 44.41)
    place = table.place(lon, lat, interpolate=False)
    own = table.rows_of(s2.cell_at(lon, lat, 15))
    np.testing.assert_array_equal(place.rows[torch.arange(60), place.weights.argmax(1)].numpy(), own)
    assert (place.weights.max(1).values == 1).all()
    assert (place.ring == table.place(lon, lat).ring).all()


def test_rows_and_vectors() -> None:
    table = PrototypeTable(cells_around(8.93, 44.41), 6)
    assert table.level == 15 and table.dimension == 6 and len(table) == len(table.ids)
    cells = np.array([table.ids[3], 0x47A1CBD595522B39, table.ids[0]])
    assert table.rows_of(cells).tolist() == [3, -1, 0]
    vectors = torch.arange(12.0).reshape(2, 6) + 1
    table.set_rows(np.array([5, 2]), vectors)
    assert torch.equal(table.unit()[[5, 2]], table.unit(np.array([5, 2])))
    torch.testing.assert_close(table.unit()[5], vectors[0] / vectors[0].norm())
    with pytest.raises(BadInputError, match="row 4"):
        table.set_rows([4], torch.zeros(1, 6))


def test_shards_start_as_parts_of_the_whole() -> None:
    rng = np.random.default_rng(3)
    ids = np.unique(s2.cell_at(rng.uniform(5, 15, 9001), rng.uniform(45, 55, 9001), 15))
    whole = PrototypeTable(ids, 3, seed=7)
    parts = [PrototypeTable(ids, 3, seed=7, shard=(k, 3)) for k in range(3)]
    assert torch.equal(torch.cat([p.weight.detach() for p in parts]), whole.weight.detach())
    assert [p.first_row for p in parts[1:]] == [p.stop_row for p in parts[:-1]]
    assert not torch.equal(PrototypeTable(ids, 3, seed=8).weight, whole.weight)
    parts[1].set_rows(np.arange(len(ids)), torch.ones(len(ids), 3))
    torch.testing.assert_close(parts[1].unit(), torch.full_like(parts[1].weight, 3**-0.5))
    with pytest.raises(UsageError, match="not held"):
        parts[1].unit(np.array([0]))


def test_bad_ids_are_named() -> None:
    ids = cells_around(8.93, 44.41)
    for bad, message in (
        (ids[:0], "at least one"),
        (ids[::-1], "ascending"),
        (np.repeat(ids, 2), "ascending"),
        (np.sort(np.append(ids, s2.parent(ids[0], 14))), "levels 14 to 15"),
    ):
        with pytest.raises(BadInputError, match=message):
            PrototypeTable(bad, 4)


def test_optimiser_takes_adams_steps_with_one_moment_per_row() -> None:
    table = PrototypeTable(cells_around(8.93, 44.41), 5)
    start = table.weight.detach().clone()
    optimiser = RowAdam(table, lr=0.01, beta2=0.9, eps=1e-9)
    generator = torch.Generator().manual_seed(4)
    gradients = [torch.randn(len(table), 5, generator=generator) for _ in range(3)]
    gradients[1][3] = 0  # row 3 sits out the second step
    for gradient in gradients:
        optimiser.update(slice(0, 7), gradient[:7].clone())
        optimiser.update(torch.arange(7, len(table)).flip(0), gradient[7:].flip(0).clone())
    for row in range(len(table)):
        expected, moment, steps = start[row].double(), 0.0, 0
        for gradient in gradients:
            g = gradient[row].double()
            if not g.any():
                continue
            steps += 1
            moment = 0.9 * moment + 0.1 * float(g.square().mean())
            expected = expected - 0.01 * g / ((moment / (1 - 0.9**steps)) ** 0.5 + 1e-9)
        torch.testing.assert_close(table.weight[row].double(), expected, atol=1e-6, rtol=1e-5)


def test_a_row_met_late_moves_no_further_than_one_met_first() -> None:
    table = PrototypeTable(cells_around(8.93, 44.41), 5)
    optimiser = RowAdam(table, lr=0.01)
    for _ in range(200):
        optimiser.update(slice(0, 1), torch.ones(1, 5))
    before = table.weight.detach().clone()
    optimiser.update(slice(0, 2), torch.ones(2, 5))
    moved = (table.weight.detach() - before).abs()
    torch.testing.assert_close(moved[:2], torch.full((2, 5), 0.01), atol=1e-6, rtol=0)
    assert (moved[2:] == 0).all()


def test_optimiser_state_goes_on_where_it_stopped() -> None:
    ids = cells_around(8.93, 44.41)
    one, two = PrototypeTable(ids, 5), PrototypeTable(ids, 5)
    first, second = RowAdam(one), RowAdam(two)
    first.update(slice(0, 9), torch.full((9, 5), 0.3))
    two.load_state_dict(one.state_dict())
    second.load_state_dict(first.state_dict())
    for optimiser in (first, second):
        optimiser.update(slice(0, 9), torch.full((9, 5), -0.1))
    assert torch.equal(one.weight, two.weight)
    other = RowAdam(PrototypeTable(ids[:-1], 5))
    with pytest.raises(BadInputError, match="another set of prototypes"):
        other.load_state_dict(first.state_dict())
