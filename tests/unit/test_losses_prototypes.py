"""Losses against a table of prototypes: streamed equals the plain formula, and nothing grows to N x D."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import Tensor  # noqa: E402
from torch.nn.functional import cross_entropy, normalize  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from geofix.errors import UsageError  # noqa: E402
from geofix.losses import MultiSimilarity, Softmax, prototype_terms  # noqa: E402
from geofix.models.prototypes import Place, PrototypeTable  # noqa: E402
from geofix.models.row_adam import RowAdam  # noqa: E402
from geofix.spatial import s2  # noqa: E402

torch.set_num_threads(1)
LOSSES = [
    MultiSimilarity(1.0, 50.0, 0.0),
    MultiSimilarity(2.0, 20.0, 0.3),
    Softmax(0.1),
    Softmax(0.1, soft_labels=True),
]


def town(seed: int, rows: int = 300, dimension: int = 8, anchors: int = 20) -> tuple[PrototypeTable, Place]:
    """A table with gaps, rows of any length, and positions of which some have no prototype around."""
    rng = np.random.default_rng(seed)
    ids = np.unique(s2.cell_at(rng.uniform(8.8, 8.9, rows), rng.uniform(44.4, 44.46, rows), 15))
    table = PrototypeTable(ids, dimension, seed=seed).double()
    with torch.no_grad():
        table.weight *= torch.rand(len(ids), 1, generator=torch.Generator().manual_seed(seed)) + 0.5
    return table, table.place(rng.uniform(8.8, 8.93, anchors), rng.uniform(44.4, 44.46, anchors))


def units(seed: int, n: int, d: int = 8) -> Tensor:
    return normalize(
        torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1
    )


def plain(anchors: Tensor, table: PrototypeTable, place: Place, loss: Any) -> Tensor:
    """The formula as it is written, with all of autograd."""
    unit = normalize(table.weight, dim=1)
    weights = place.weights.to(unit.dtype)
    if loss.soft_labels:
        logits = anchors @ unit.T / loss.temperature
        # The weights are of float32 and sum to 1 within its rounding.
        each = logits.logsumexp(1) - (weights * logits.gather(1, place.rows.clamp(min=0))).sum(1)
        return torch.where(place.has_positive, each, 0.0)
    positive = normalize((weights[..., None] * unit[place.rows.clamp(min=0)]).sum(1), dim=1)
    cosines = torch.cat([(anchors * positive).sum(1, keepdim=True), anchors @ unit.T], dim=1)
    is_negative = torch.ones_like(cosines, dtype=torch.bool)
    is_negative[:, 0] = False
    for anchor, ring in enumerate(place.ring):
        is_negative[anchor, ring[ring >= 0] + 1] = False
    is_positive = torch.zeros_like(is_negative)
    is_positive[:, 0] = place.has_positive
    return loss(cosines, is_positive, is_negative)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("chunk_rows", "keep_bytes"), [(10_000, 1 << 30), (37, 1 << 30), (64, 0), (1, 0)])
def test_streamed_equals_plain(loss: Any, chunk_rows: int, keep_bytes: int) -> None:
    table, place = town(1)
    assert 0 < int(place.has_positive.sum()) < len(place.rows)
    cost = torch.rand(len(place.rows), dtype=torch.float64)  # anchors count unequally
    results = []
    for streamed in (True, False):
        anchors = units(2, len(place.rows)).requires_grad_()
        table.weight.grad = None
        if streamed:
            each = prototype_terms(
                anchors,
                table,
                place,
                loss,
                optimiser=None,
                chunk_rows=chunk_rows,
                keep_bytes=keep_bytes,
                negligible=0.0,
            )
        else:
            each = plain(anchors, table, place, loss)
        (each * cost).sum().backward()
        results.append((each.detach(), anchors.grad, table.weight.grad))
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-10, rtol=1e-8)
    assert (results[0][0][~place.has_positive] == 0).all()
    assert (results[0][1][~place.has_positive] == 0).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients(loss: Any) -> None:
    table, place = town(3, rows=40, dimension=4, anchors=5)

    def cost(anchors: Tensor, weight: Tensor) -> Tensor:
        view = Rows(table, weight)
        return prototype_terms(anchors, view, place, loss, optimiser=None, chunk_rows=16, negligible=0)

    inputs = (units(4, 5, 4).requires_grad_(), table.weight.detach().clone().requires_grad_())
    assert torch.autograd.gradcheck(cost, inputs)


class Rows:
    """A table whose weight is any tensor."""

    def __init__(self, table: PrototypeTable, weight: Tensor) -> None:
        self.ids, self.level, self.first_row, self.weight = table.ids, table.level, 0, weight


def test_equals_pytorch_metric_learning_without_interpolation() -> None:
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    table, _ = town(5)
    lon, lat = s2.center(table.ids[::17])
    place = table.place(lon, lat, interpolate=False)
    anchors = units(6, len(lon))
    labels = torch.from_numpy(table.rows_of(s2.cell_at(lon, lat, 15)))
    negative = torch.ones(len(lon), len(table.ids), dtype=torch.bool)
    for anchor, ring in enumerate(place.ring):
        negative[anchor, ring[ring >= 0]] = False
    pairs = (torch.arange(len(lon)), labels, *negative.nonzero(as_tuple=True))
    theirs = losses.MultiSimilarityLoss(alpha=1, beta=50, base=0.3)(
        anchors, labels, indices_tuple=pairs, ref_emb=table.weight, ref_labels=torch.arange(len(table.ids))
    )
    ours = prototype_terms(anchors, table, place, MultiSimilarity(lam=0.3), optimiser=None).mean()
    torch.testing.assert_close(ours, theirs)


def test_soft_labels_without_interpolation_are_those_of_a_classifier() -> None:
    table, _ = town(5)
    lon, lat = s2.center(table.ids[::17])
    place = table.place(lon, lat, interpolate=False)
    anchors = units(6, len(lon))
    labels = torch.from_numpy(table.rows_of(s2.cell_at(lon, lat, 15)))
    expected = cross_entropy(anchors @ table.unit().T / 0.1, labels, reduction="none")
    ours = prototype_terms(anchors, table, place, Softmax(0.1, soft_labels=True), optimiser=None)
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("chunk_rows", [41, 10_000])
def test_optimiser_gets_the_dense_gradient_in_parts(chunk_rows: int) -> None:
    table, place = town(7)
    other, _ = town(7)
    anchors = units(8, len(place.rows))
    prototype_terms(anchors, table, place, LOSSES[0], optimiser=None).mean().backward()
    assert table.weight.grad is not None
    RowAdam(table, lr=0.1).update(slice(0, len(table)), table.weight.grad)
    optimiser = RowAdam(other, lr=0.1)
    before = other.weight.detach().clone()
    cost = prototype_terms(
        anchors, other, place, LOSSES[0], optimiser=optimiser, chunk_rows=chunk_rows
    ).mean()
    assert torch.equal(other.weight, before)  # nothing moves before backward()
    cost.backward()
    assert other.weight.grad is None and (other.weight != before).any()
    torch.testing.assert_close(other.weight, table.weight, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("negligible", [1e-4, 0.05])
def test_negligible_rows_rest_and_the_error_is_bounded(negligible: float) -> None:
    table, place = town(17, rows=400, dimension=6, anchors=3)
    grads = []
    for share in (0.0, negligible):
        anchors = units(18, 3, 6).requires_grad_()
        table.weight.grad = None
        each = prototype_terms(
            anchors, table, place, LOSSES[0], optimiser=None, negligible=share / len(table), chunk_rows=100
        )
        each.sum().backward()
        grads.append((each.detach(), anchors.grad, table.weight.grad))
    (cost, exact, rows), (same_cost, near, some) = grads
    assert torch.equal(cost, same_cost)
    assert exact is not None and near is not None and rows is not None and some is not None
    assert 0 < (exact - near).norm(dim=1).max() <= negligible
    moved = (some != 0).any(dim=1)
    assert 0 < moved.sum() < 0.7 * len(table) and (rows != 0).any(dim=1).sum() > moved.sum()
    unit = 1 / table.weight.norm(dim=1)
    assert (((rows - some).norm(dim=1) / unit).sum() <= len(anchors) * negligible).all()
    positives = place.rows[place.rows >= 0].unique()
    assert moved[positives].all()


def test_a_step_lowers_the_cost() -> None:
    table, place = town(9, rows=200, dimension=32)
    optimiser = RowAdam(table, lr=1e-2)
    anchors = units(10, len(place.rows), 32)
    costs = []
    for _ in range(30):
        cost = prototype_terms(anchors, table, place, LOSSES[0], optimiser=optimiser).mean()
        cost.backward()
        costs.append(cost.item())
    assert costs[-1] < 0.75 * costs[0] and all(b < a for a, b in itertools.pairwise(costs))


def test_rows_move_once_per_pass() -> None:
    table, place = town(11)
    cost = prototype_terms(units(1, 20), table, place, LOSSES[0], optimiser=RowAdam(table)).sum()
    cost.backward(retain_graph=True)
    with pytest.raises(UsageError, match="already moved"):
        cost.backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_does_not_round_cosines(dtype: torch.dtype) -> None:
    table, place = town(12, dimension=64)
    anchors = normalize(units(13, 20, 64), dim=1).to(dtype)
    expected = plain(anchors.double(), table, place, LOSSES[0])
    table.float()
    leaf = anchors.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = prototype_terms(leaf, table, place, LOSSES[0], optimiser=None)
        got.mean().backward()
    assert got.dtype == torch.float32 and leaf.grad is not None and leaf.grad.dtype == dtype
    torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=1e-5)


class Largest(TorchDispatchMode):
    """Remembers the most numbers that one operation made (views of what exists aside)."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            for value in out if isinstance(out, tuple | list) else (out,):
                if isinstance(value, Tensor) and not any(value is a for a in args):
                    self.numbers = max(self.numbers, value.numel())
        return out


def test_nothing_as_large_as_the_table_is_made() -> None:
    table, place = town(14, rows=4000, dimension=32, anchors=8)
    assert len(table) > 700
    anchors = units(15, 8, 32).requires_grad_()
    optimiser = RowAdam(table)
    with Largest() as seen:
        prototype_terms(
            anchors, table, place, LOSSES[0], optimiser=optimiser, chunk_rows=32, keep_bytes=0, negligible=0
        ).sum().backward()
    assert 32 * 32 <= seen.numbers <= 2 * 32 * 32  # a chunk's gradient, or the rows behind the positives
    with Largest() as seen:
        prototype_terms(anchors, table, place, LOSSES[0], optimiser=None, chunk_rows=32).sum().backward()
    assert seen.numbers == table.weight.numel()


def test_misfits_are_named() -> None:
    table, place = town(16)
    with pytest.raises(UsageError, match="do not belong together"):
        prototype_terms(units(1, 20, 7), table, place, LOSSES[0], optimiser=None)
    with pytest.raises(UsageError, match="do not belong together"):
        prototype_terms(units(1, 19), table, place, LOSSES[0], optimiser=None)
    half = PrototypeTable(table.ids, 8, shard=(0, 2))
    with pytest.raises(UsageError, match="process group"):
        prototype_terms(units(1, 20).float(), half, place, LOSSES[0], optimiser=None)
