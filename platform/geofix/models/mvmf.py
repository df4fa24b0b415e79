"""A mixture of von Mises-Fisher densities on the sphere whose weights a photo decides (MvMF).

Izbicki, Papalexakis, Tsotras: *Exploiting the Earth's Spherical Geometry to Geolocate Images*, ECML 2019.
Densities are computed in float64 up to kappa 1e10 (a deviation of 64 m on earth) and beyond.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from torch import Tensor, nn
from torch.nn.functional import log_softmax, normalize

from geofix.errors import UsageError
from geofix.models.classifier import linear_head
from geofix.models.encoder import Encoder
from geofix.spatial.distance import EARTH_RADIUS_M

PREKAPPA = 12.0
"""First logarithm of kappa; the authors used 10 to 14 (standard deviation 43 to 6 km)."""
_ARRIVED = 1e-9  # of the unit sphere: 6 mm on the ground


class Mixture(nn.Module):
    """Images in, logarithms of the mixture's weights out; centres and concentrations are those of all photos.

    Attributes:
        centres: (n, 3) float64 directions of the components.
        prekappa: (n,) float64 logarithms of the concentrations.
    """

    def __init__(
        self,
        encoder: Encoder,
        centres: ArrayLike,
        prekappa: ArrayLike = PREKAPPA,
        *,
        train_centres: bool = False,
        train_kappa: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        points = torch.from_numpy(np.array(centres, np.float64))
        if points.ndim != 2 or points.shape[1] != 3 or not len(points):
            raise UsageError(f"Centres of shape {tuple(points.shape)} are not (n, 3) with n at least 1.")
        start = torch.from_numpy(np.broadcast_to(np.asarray(prekappa, np.float64), (len(points),)).copy())
        self.encoder = encoder
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.weights = linear_head(encoder.dimension, len(points))
        self.centres = nn.Parameter(normalize(points, dim=1), requires_grad=train_centres)
        self.prekappa = nn.Parameter(start, requires_grad=train_kappa)

    def forward(self, images: Tensor) -> Tensor:
        """Log weights (B, n) in float32 of (B, 3, H, W) images."""
        return log_softmax(self.logits(images), dim=1)

    def logits(self, images: Tensor) -> Tensor:
        """The weights' logits (B, n) in float32."""
        found: Tensor = self.weights(self.encoder.features(images)).float()
        return found

    def directions(self) -> Tensor:
        """Centres (n, 3) of unit length, float64."""
        return normalize(self.centres, dim=1)

    def log_densities(self, points: Tensor) -> Tensor:
        """Logarithm of each component's density per steradian at unit vectors (B, 3): (B, n), float64."""
        return log_vmf(self.directions(), self.prekappa, points)


def log_vmf(centres: Tensor, log_kappa: Tensor, points: Tensor) -> Tensor:
    """Logarithm of von Mises-Fisher densities on the sphere.

    f(y) = kappa / (4 pi sinh kappa) exp(kappa mu.y), written so that nothing overflows or cancels:

        log f = log kappa - log 2 pi - log(1 - exp(-2 kappa)) - kappa |mu - y|^2 / 2

    where |mu - y|^2 / 2 = 1 - mu.y: taken as a difference of unit vectors it keeps its digits however near
    they lie. Error of the exponent below 1e-6 at kappa 1e10 within ten standard deviations.

    Args:
        centres: (n, 3) unit vectors, float64.
        log_kappa: (n,) float64.
        points: (B, 3) unit vectors, float64.

    Returns:
        (B, n) float64, per steradian.
    """
    gap = half_square_distance(points.double(), centres.double())
    kappa = torch.exp(log_kappa.double())
    constant = log_kappa.double() - math.log(2.0 * math.pi) - torch.log(-torch.expm1(-2.0 * kappa))
    return constant - kappa * gap


def half_square_distance(points: Tensor, centres: Tensor) -> Tensor:
    """|p - c|^2 / 2 = 1 - p.c of unit vectors (B, 3) and (n, 3): (B, n)."""
    total = torch.zeros(len(points), len(centres), dtype=points.dtype, device=points.device)
    for axis in range(3):
        total = total + (points[:, axis, None] - centres[None, :, axis]) ** 2
    return 0.5 * total


def kappa_of_cells(edge_m: ArrayLike, share: float = 0.95) -> NDArray[np.float64]:
    """Concentrations whose components hold a share of their mass within one cell's edge of the centre.

    Solves (1 - exp(kappa (cos t - 1))) / (1 - exp(-2 kappa)) = share with t = edge / radius of the earth.

    Args:
        edge_m: Edges of the cells in metres, shape (n,).
        share: Of the mass, between the share of the area (kappa 0) and 1.

    Raises:
        UsageError: An edge or the share that no kappa belongs to.
    """
    angle = np.asarray(edge_m, np.float64) / EARTH_RADIUS_M
    depth = 2.0 * np.sin(np.minimum(angle, np.pi) / 2.0) ** 2  # 1 - cos t
    if not (angle > 0).all() or not 0 < share < 1 or (depth / 2.0 >= share).any():
        raise UsageError(f"No kappa puts {share} of its mass within the edges given.", hint="Use 0.95.")
    return np.array([_solve(float(value), share) for value in depth.ravel()]).reshape(depth.shape)


def _solve(depth: float, share: float) -> float:
    def missing(log_kappa: float) -> float:
        kappa = math.exp(log_kappa)
        return math.expm1(-kappa * depth) / math.expm1(-2.0 * kappa) - share

    # Without the antipode's part, -log(1 - share) / depth; the root is no larger.
    upper = math.log(-math.log1p(-share) / depth) + 1.0
    return math.exp(float(brentq(missing, -20.0, upper, xtol=1e-12)))


def density_mode(
    log_weights: Tensor, centres: Tensor, log_kappa: Tensor, *, starts: int = 64, steps: int = 50
) -> tuple[Tensor, Tensor]:
    """Where the mixture of each photo is densest, looked for from its highest single peaks.

    From each of the `starts` centres with the highest weight x kappa the density rises along the fixed point
    y = direction of the sum of r_i kappa_i mu_i (r_i: the component's share of the density at y), which never
    lowers it; the highest end is the answer. A mode that no such start leads to is not found. A point that
    moves by less than 1e-9 (6 mm on the ground) has arrived.

    Args:
        log_weights: (B, n).
        centres: (n, 3) unit vectors, float64.
        log_kappa: (n,) float64.
        starts: Centres to begin at, per photo.
        steps: Most steps from each.

    Returns:
        Unit vectors (B, 3) float64 and the logarithm of the density there (B,), per steradian.
    """
    peaks = log_weights.double() + log_kappa
    first = peaks.topk(min(starts, peaks.shape[1]), dim=1).indices
    best, heights = [], []
    for row, chosen in enumerate(first):
        points, weights = centres[chosen], log_weights[row].double()
        for _ in range(steps):
            parts = weights + log_vmf(centres, log_kappa, points) + log_kappa
            pull = torch.softmax(parts, dim=1) @ centres
            moved = normalize(pull, dim=1)
            still = bool((moved - points).abs().max() < _ARRIVED)
            points = moved
            if still:
                break
        height = torch.logsumexp(weights + log_vmf(centres, log_kappa, points), dim=1)
        top = int(height.argmax())
        best.append(points[top])
        heights.append(height[top])
    return torch.stack(best), torch.stack(heights)
