"""Losses between photos and tiles: against pytorch-metric-learning, definitions, and gradients."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import Tensor  # noqa: E402
from torch.nn.functional import cross_entropy, normalize  # noqa: E402

from geofix.errors import UsageError  # noqa: E402
from geofix.losses import MultiSimilarity, Softmax, pair_term  # noqa: E402

torch.set_num_threads(1)


def units(seed: int, n: int, d: int = 16, dtype: torch.dtype = torch.float64) -> Tensor:
    return normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype), dim=1)


@pytest.mark.parametrize("constants", [(1.0, 50.0, 0.0), (2.0, 50.0, 0.5), (5.0, 10.0, 0.3)])
def test_pair_term_equals_pytorch_metric_learning(constants: tuple[float, float, float]) -> None:
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    alpha, beta, lam = constants
    other = losses.MultiSimilarityLoss(alpha=alpha, beta=beta, base=lam)
    ground, aerial = units(1, 12), units(2, 12)
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 3, 4, 4, 5, 5, 5])
    same = labels[:, None] == labels
    again = labels.clone()  # the same object would mean "these are the anchors themselves"
    there = other(ground, labels, ref_emb=aerial, ref_labels=again)
    back = other(aerial, labels, ref_emb=ground, ref_labels=again)
    ours = pair_term(ground, aerial, same, ~same, MultiSimilarity(alpha, beta, lam)).mean()
    torch.testing.assert_close(ours, (there + back) / 2)


def test_pairs_of_the_ignore_zone_equal_pytorch_metric_learning() -> None:
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    ground, aerial = units(3, 10).requires_grad_(), units(4, 10).requires_grad_()
    positive = torch.eye(10, dtype=torch.bool)
    positive[2, 3] = positive[7, 1] = True
    negative = ~positive & (torch.rand(10, 10, generator=torch.Generator().manual_seed(5)) < 0.6)
    pairs = (*positive.nonzero(as_tuple=True), *negative.nonzero(as_tuple=True))
    labels = torch.arange(10)
    theirs = losses.MultiSimilarityLoss(alpha=1, beta=50, base=0)(
        ground, labels, indices_tuple=pairs, ref_emb=aerial, ref_labels=labels
    )
    cosines = normalize(ground, dim=1) @ normalize(aerial, dim=1).T  # theirs normalises too
    ours = MultiSimilarity()(cosines, positive, negative).mean()
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(
        torch.autograd.grad(ours, (ground, aerial)),
        torch.autograd.grad(theirs, (ground, aerial)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_softmax_equals_cross_entropy() -> None:
    ground, aerial = units(6, 9), units(7, 9)
    same = torch.eye(9, dtype=torch.bool)
    logits = ground @ aerial.T / 0.05
    target = torch.arange(9)
    expected = (
        cross_entropy(logits, target, reduction="none") + cross_entropy(logits.T, target, reduction="none")
    ) / 2
    torch.testing.assert_close(pair_term(ground, aerial, same, ~same, Softmax(0.05)), expected)


@pytest.mark.parametrize("loss", [MultiSimilarity(2.0, 20.0, 0.3), Softmax(0.2)])
def test_gradients(loss: MultiSimilarity | Softmax) -> None:
    positive = torch.eye(5, dtype=torch.bool)
    positive[0, 1], positive[3, 3] = True, False  # row 3: nothing to pull
    negative = ~torch.eye(5, dtype=torch.bool) & ~positive
    negative[4] = False  # row 4: nothing to push
    inputs = (units(8, 5).requires_grad_(), units(9, 5).requires_grad_())
    assert torch.autograd.gradcheck(lambda g, a: pair_term(g, a, positive, negative, loss), inputs)


@pytest.mark.parametrize("loss", [MultiSimilarity(), Softmax()])
def test_rows_without_positive_cost_nothing(loss: MultiSimilarity | Softmax) -> None:
    ground, aerial = units(10, 4).requires_grad_(), units(11, 4)
    none = torch.zeros(4, 4, dtype=torch.bool)
    positive = none.clone()
    positive[1, 1] = True
    cost = pair_term(ground, aerial, positive, ~positive, loss)
    assert (cost[[0, 2, 3]] == 0).all() and cost[1] > 0
    pair_term(ground, aerial, none, none, loss).sum().backward()
    assert ground.grad is not None and (ground.grad == 0).all()


@pytest.mark.parametrize("loss", [MultiSimilarity(1.0, 50.0, 0.3), Softmax(0.05)])
def test_one_positive_equals_the_matrix_form(loss: MultiSimilarity | Softmax) -> None:
    similarity = units(12, 6) @ units(13, 8).T
    first = torch.zeros(6, 8, dtype=torch.bool)
    first[:, 0] = True
    log_sum = torch.logsumexp(loss.scale * similarity[:, 1:], dim=1)
    torch.testing.assert_close(loss.combine(log_sum, similarity[:, 0]), loss(similarity, first, ~first))
    nothing = torch.full((6,), -torch.inf, dtype=torch.float64)
    torch.testing.assert_close(
        loss.combine(nothing, similarity[:, 0]), loss(similarity, first, torch.zeros_like(first))
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_does_not_round_cosines(dtype: torch.dtype) -> None:
    ground, aerial = units(14, 32, 64, torch.float32).to(dtype), units(15, 32, 64, torch.float32).to(dtype)
    same = torch.eye(32, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = pair_term(ground, aerial, same, ~same, MultiSimilarity())
    assert got.dtype == torch.float32
    expected = pair_term(ground.double(), aerial.double(), same, ~same, MultiSimilarity())
    torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=1e-5)


def test_bad_constants_and_shapes_are_named() -> None:
    with pytest.raises(UsageError, match="positive"):
        Softmax(0.0)
    with pytest.raises(UsageError, match="out of range"):
        MultiSimilarity(lam=3.0)
    same = torch.eye(4, dtype=torch.bool)
    with pytest.raises(UsageError, match="one batch"):
        pair_term(units(1, 4), units(1, 5), same, ~same, MultiSimilarity())
