"""Mixtures of von Mises-Fisher densities: they integrate to one, gradients and modes are right."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from geofix.errors import UsageError  # noqa: E402
from geofix.losses.mixture import mixture_nll  # noqa: E402
from geofix.models.config import EncoderConfig  # noqa: E402
from geofix.models.encoder import build_encoder  # noqa: E402
from geofix.models.mvmf import (  # noqa: E402
    Mixture,
    density_mode,
    half_square_distance,
    kappa_of_cells,
    log_vmf,
)
from geofix.spatial.distance import EARTH_RADIUS_M, unit_vectors  # noqa: E402

KAPPAS = [1.0, 10.0, 1e3, math.exp(12), math.exp(16), 4e9, 1e10]


def ring(depth: np.ndarray) -> torch.Tensor:
    """Points whose mu.y is 1 - depth for mu at the north pole."""
    sine = np.sqrt(np.maximum(depth * (2.0 - depth), 0.0))
    return torch.from_numpy(np.stack([sine, np.zeros_like(sine), 1.0 - depth], axis=1))


def integral(log_density, kappas) -> float:
    """2 pi times the integral over mu.y, Gauss-Legendre between breaks at every scale of the densities."""
    scales = np.concatenate([np.logspace(-6, 2, 33) / kappa for kappa in kappas])
    breaks = np.unique(np.concatenate([[0.0, 2.0], scales[scales < 2.0], 2.0 - scales[scales < 1.0]]))
    nodes, weights = np.polynomial.legendre.leggauss(20)
    low, width = breaks[:-1, None], np.diff(breaks)[:, None]
    values = log_density(ring((low + 0.5 * width * (nodes + 1.0)).ravel())).exp().numpy()
    return 2.0 * math.pi * float((values.reshape(len(low), -1) @ weights * 0.5 * width[:, 0]).sum())


@pytest.mark.parametrize("kappa", KAPPAS)
def test_a_density_integrates_to_one(kappa: float) -> None:
    pole = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    log_kappa = torch.tensor([math.log(kappa)], dtype=torch.float64)
    found = integral(lambda points: log_vmf(pole, log_kappa, points)[:, 0], [kappa])
    assert found == pytest.approx(1, abs=1e-7)


def test_a_mixture_integrates_to_one_from_kappa_1_to_1e10() -> None:
    """All components at one pole or the other, so that the whole density depends on mu.y alone."""
    centres = torch.tensor([[0.0, 0.0, 1.0]] * len(KAPPAS) + [[0.0, 0.0, -1.0]] * 2, dtype=torch.float64)
    kappas = [*KAPPAS, 5.0, 1e4]
    log_kappa = torch.log(torch.tensor(kappas, dtype=torch.float64))
    weights = torch.log_softmax(torch.randn(len(kappas), generator=torch.Generator().manual_seed(0)), 0)

    def density(points):
        return torch.logsumexp(weights.double() + log_vmf(centres, log_kappa, points), dim=1)

    assert integral(density, kappas) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("kappa", [*KAPPAS, 1e14])
@pytest.mark.parametrize("metres", [0.0, 1.0, 60.0, 5e4, math.pi * EARTH_RADIUS_M])
def test_nothing_overflows_from_a_metre_to_the_antipode(kappa: float, metres: float) -> None:
    angle = metres / EARTH_RADIUS_M
    point = torch.tensor([[math.sin(angle), 0.0, math.cos(angle)]], dtype=torch.float64)
    centre = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    log_kappa = torch.tensor([math.log(kappa)], dtype=torch.float64, requires_grad=True)
    loss = mixture_nll(torch.zeros(1, 1), log_vmf(centre, log_kappa, point))
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert torch.isfinite(centre.grad).all() and torch.isfinite(log_kappa.grad).all()


def test_near_points_keep_their_digits() -> None:
    """1 - mu.y by itself has none left at a metre; half the squared difference has nine."""
    lon = np.array([7.0, 7.0 + 1e-5])
    a, b = (torch.from_numpy(unit_vectors(x, 0.0)[None]) for x in lon)
    true = 2 * math.sin(math.radians(1e-5) / 2) ** 2
    assert float(half_square_distance(a, b)) == pytest.approx(true, rel=1e-8)


def test_gradients_are_those_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(1)
    points = torch.nn.functional.normalize(torch.randn(4, 3, generator=generator, dtype=torch.float64), dim=1)
    logits = torch.randn(4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    raw = torch.randn(5, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    log_kappa = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0], dtype=torch.float64, requires_grad=True)

    def loss(logits, raw, log_kappa):
        centres = torch.nn.functional.normalize(raw, dim=1)
        return mixture_nll(torch.log_softmax(logits, dim=1), log_vmf(centres, log_kappa, points))

    assert torch.autograd.gradcheck(loss, (logits, raw, log_kappa))


@pytest.mark.parametrize("edge_m", [10.0, 300.0, 2e4, 1e6, 8e6])
def test_kappa_of_a_cell_puts_its_share_within_the_edge(edge_m: float) -> None:
    (kappa,) = kappa_of_cells(np.array([edge_m]), 0.95)
    depth = 2 * math.sin(edge_m / EARTH_RADIUS_M / 2) ** 2
    assert math.expm1(-kappa * depth) / math.expm1(-2 * kappa) == pytest.approx(0.95, abs=1e-9)


def test_kappa_of_no_cell_is_refused() -> None:
    with pytest.raises(UsageError, match="No kappa"):
        kappa_of_cells(np.array([0.0]))
    with pytest.raises(UsageError, match="No kappa"):
        kappa_of_cells(np.array([3e7]), 0.95)


def test_the_mode_lies_where_many_weak_components_meet() -> None:
    """The largest weight is alone; three smaller ones close to each other are denser together."""
    lon, lat = np.array([0.0, 40.0, 40.5, 40.25]), np.array([0.0, 10.0, 10.0, 10.4])
    centres = torch.from_numpy(unit_vectors(lon, lat))
    log_kappa = torch.full((4,), math.log(5e3), dtype=torch.float64)
    weights = torch.log(torch.tensor([[0.34, 0.22, 0.22, 0.22]]))
    point, height = density_mode(weights, centres, log_kappa)
    at = [float(torch.logsumexp(weights.double() + log_vmf(centres, log_kappa, p[None]), 1)) for p in centres]
    assert float(height) > max(at)
    x, y, _ = point[0].tolist()
    assert math.degrees(math.atan2(y, x)) == pytest.approx(40.25, abs=0.05)
    grid = torch.from_numpy(
        unit_vectors(*np.meshgrid(np.linspace(39.5, 41, 151), np.linspace(9.5, 11, 151))).reshape(-1, 3)
    )
    best = float(torch.logsumexp(weights.double() + log_vmf(centres, log_kappa, grid), 1).max())
    assert float(height) == pytest.approx(best, abs=1e-3) and float(height) >= best - 1e-9


def test_only_what_is_asked_for_is_trained() -> None:
    encoder = build_encoder(EncoderConfig(trunk="test_resnet", image_size=32, aggregation="avg"))
    fixed = Mixture(encoder, unit_vectors([7.0, 8.0], [47.0, 47.0]))
    assert not fixed.centres.requires_grad and not fixed.prekappa.requires_grad
    both = Mixture(encoder, unit_vectors([7.0, 8.0], [47.0, 47.0]), train_centres=True, train_kappa=True)
    images = torch.rand(2, 3, 32, 32)
    points = torch.from_numpy(unit_vectors([7.1, 8.2], [47.0, 47.1]))
    mixture_nll(both(images), both.log_densities(points)).backward()
    assert both.centres.grad.abs().sum() > 0 and both.prekappa.grad.abs().sum() > 0
    assert both.log_densities(points).dtype == torch.float64
