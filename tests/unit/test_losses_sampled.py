"""Sampled negatives: the sum over them is unbiased, its log nearly so, and what is near is all there."""

from __future__ import annotations

import numpy as np
import pytest
from pyproj import Geod

torch = pytest.importorskip("torch")
from torch import Tensor  # noqa: E402
from torch.nn.functional import normalize  # noqa: E402

from geofix.errors import UsageError  # noqa: E402
from geofix.losses import MultiSimilarity, SampledNegatives, prototype_terms  # noqa: E402
from geofix.models.prototypes import Place, PrototypeTable  # noqa: E402
from geofix.models.row_adam import RowAdam  # noqa: E402
from geofix.spatial import s2  # noqa: E402

torch.set_num_threads(1)
LOSS = MultiSimilarity()
ROWS, DIMENSION, ANCHORS = 12_000, 128, 6


@pytest.fixture(scope="module")
def country() -> tuple[PrototypeTable, Place, Tensor]:
    """A table over a country, and anchors in it that point somewhat towards their prototypes."""
    rng = np.random.default_rng(1)
    ids = np.unique(s2.cell_at(rng.uniform(8, 14, ROWS), rng.uniform(44, 50, ROWS), 15))
    table = PrototypeTable(ids, DIMENSION, seed=2)
    lon, lat = s2.center(ids[rng.integers(0, len(ids), ANCHORS)])
    place = table.place(lon, lat)
    noise = torch.randn(ANCHORS, DIMENSION, generator=torch.Generator().manual_seed(3))
    own = table.unit(place.rows.gather(1, place.weights.argmax(1, keepdim=True))[:, 0])
    return table, place, normalize(own.detach() + 0.1 * noise, dim=1)


def sampler(count: int, seed: int = 0, near_m: float = 50_000.0) -> SampledNegatives:
    return SampledNegatives(count, near_m=near_m, above=1000, seed=seed)


def test_each_row_counts_once_on_average(country: tuple[PrototypeTable, Place, Tensor]) -> None:
    table, place, _ = country
    source = sampler(1100)
    total = np.zeros(len(table))
    draws = 400
    for _ in range(draws):
        chosen = source.draw(table, place)
        assert chosen is not None and len(np.unique(chosen.rows)) == len(chosen.rows)
        total[chosen.rows] += np.exp(chosen.log_weight)
        assert np.exp(chosen.log_weight, dtype=np.float64).sum() == pytest.approx(len(table), rel=1e-6)
    near = chosen.rows[: chosen.sorted_part]
    assert (total[near] == draws).all() and (np.diff(near) > 0).all()
    mean = np.delete(total, near) / draws
    # A row is drawn about one time in ten and then counts about ten times: deviation sqrt(9 / draws) = 0.15.
    assert (
        mean.mean() == pytest.approx(1, abs=1e-6) and 0.1 < mean.std() < 0.2 and np.abs(mean - 1).max() < 0.9
    )


def test_near_is_everything_within_the_radius(country: tuple[PrototypeTable, Place, Tensor]) -> None:
    table, place, _ = country
    chosen = sampler(500).draw(table, place)
    assert chosen is not None
    lon, lat = s2.center(table.ids)
    at = place.rows.gather(1, place.weights.argmax(1, keepdim=True))[:, 0].numpy()
    ones = np.ones(len(lon))
    geod = Geod(ellps="WGS84")
    away = np.min([geod.inv(lon, lat, lon[k] * ones, lat[k] * ones)[2] for k in at], axis=0)
    near = chosen.rows[: chosen.sorted_part]
    assert set(np.flatnonzero(away <= 50_000)) <= set(near.tolist())
    assert away[near].max() < 50_000 + 17_000
    assert len(near) < len(table) / 3
    ring = place.ring[place.ring >= 0].numpy()
    tight = sampler(500, near_m=0.0).draw(table, place)
    assert tight is not None and set(ring.tolist()) <= set(tight.rows[: tight.sorted_part].tolist())


def test_sum_is_unbiased_and_its_log_nearly_so(country: tuple[PrototypeTable, Place, Tensor]) -> None:
    table, place, anchors = country
    exact = prototype_terms(anchors, table, place, LOSS, optimiser=None).detach()
    source = sampler(len(table) // 10)
    drawn = torch.stack(
        [
            prototype_terms(anchors, table, place, LOSS, optimiser=None, sampled=source).detach()
            for _ in range(300)
        ]
    ).double()
    assert (drawn.mean(0) - exact).abs().max() < 0.02  # of the loss, log(sum) / beta
    # exp(beta (loss - pull)) - 1 is the sum itself.
    with torch.no_grad():
        unit = table.unit()
        positive = normalize((place.weights[..., None] * unit[place.rows.clamp(min=0)]).sum(1), dim=1)
        pull = torch.nn.functional.softplus(-(anchors * positive).sum(1)).double()
    sums, truth = torch.expm1(50 * (drawn - pull)), torch.expm1(50 * (exact.double() - pull))
    error = sums.std(0) / len(sums) ** 0.5
    assert ((sums.mean(0) - truth).abs() < 4 * error + 1e-3 * truth).all()
    assert (error / truth < 0.2).all()  # else the line above says nothing


def test_with_enough_draws_it_is_exact(country: tuple[PrototypeTable, Place, Tensor]) -> None:
    table, place, anchors = country
    exact = prototype_terms(anchors, table, place, LOSS, optimiser=None)
    all_far = prototype_terms(
        anchors, table, place, LOSS, optimiser=None, sampled=sampler(10**6), chunk_rows=777
    )
    torch.testing.assert_close(all_far, exact, atol=1e-6, rtol=1e-6)
    assert SampledNegatives(10, above=len(table)).draw(table, place) is None


def test_gradient_is_that_of_the_weighted_sum(country: tuple[PrototypeTable, Place, Tensor]) -> None:
    table, place, anchors = country
    chosen = sampler(800, seed=5).draw(table, place)
    assert chosen is not None
    mine, other = (anchors.clone().requires_grad_() for _ in range(2))
    table.weight.grad = None
    prototype_terms(
        mine, table, place, LOSS, optimiser=None, sampled=sampler(800, seed=5), chunk_rows=500, negligible=0
    ).sum().backward()
    got = table.weight.grad
    table.weight.grad = None
    unit = table.unit()
    cosines = other @ unit.T
    logits = torch.full_like(cosines, -torch.inf)
    logits[:, chosen.rows] = 50 * cosines[:, chosen.rows] + torch.from_numpy(chosen.log_weight)
    hidden = torch.zeros_like(cosines, dtype=torch.bool)
    for k, ring in enumerate(place.ring):
        hidden[k, ring[ring >= 0]] = True
    positive = normalize((place.weights[..., None] * unit[place.rows.clamp(min=0)]).sum(1), dim=1)
    LOSS.combine(
        torch.logsumexp(logits.masked_fill(hidden, -torch.inf), 1), (other * positive).sum(1)
    ).sum().backward()
    torch.testing.assert_close(mine.grad, other.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(got, table.weight.grad, atol=1e-5, rtol=1e-4)
    table.weight.grad = None


def test_rows_not_drawn_stay(country: tuple[PrototypeTable, Place, Tensor]) -> None:
    whole, place, anchors = country
    table = PrototypeTable(whole.ids, DIMENSION, seed=2)
    chosen = sampler(300, seed=6).draw(table, place)
    assert chosen is not None
    before = table.weight.detach().clone()
    optimiser = RowAdam(table, lr=0.01)
    prototype_terms(
        anchors, table, place, LOSS, optimiser=optimiser, sampled=sampler(300, seed=6)
    ).sum().backward()
    moved = (table.weight.detach() != before).any(dim=1).nonzero()[:, 0].numpy()
    assert len(moved) and set(moved.tolist()) <= set(chosen.rows.tolist())


def test_draws_differ_and_go_on_after_a_stop(country: tuple[PrototypeTable, Place, Tensor]) -> None:
    table, place, _ = country
    one, two = sampler(300), sampler(300)
    first, second = one.draw(table, place), one.draw(table, place)
    assert first is not None and second is not None and not np.array_equal(first.rows, second.rows)
    two.draw(table, place)
    three = sampler(300)
    three.load_state_dict(two.state_dict())
    third = three.draw(table, place)
    assert third is not None and np.array_equal(third.rows, second.rows)
    with pytest.raises(UsageError, match="Cannot sample"):
        SampledNegatives(0)
