"""Pooling a feature map into one vector."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from geofix.errors import UsageError
from geofix.models.config import EncoderConfig

SINKHORN_ITERATIONS = 3


class GeM(nn.Module):
    """Generalised mean over positions: (mean x^p)^(1/p), with p learned.

    p = 1 is the average, p towards infinity the maximum. Values are clamped to `eps` first, so the pooling
    is meant for maps that are mostly positive (after a ReLU). Source: Radenovic, Tolias, Chum, *Fine-tuning
    CNN Image Retrieval with No Human Annotation*, TPAMI 2019, equation 3.
    """

    def __init__(self, p: float = 3.0, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(float(p)))
        self.eps = eps

    def forward(self, features: Tensor, token: Tensor | None = None) -> Tensor:
        """Pool (B, C, H, W) to (B, C), in float32 whatever the input's type; a class token is left out."""
        powered = features.float().clamp(min=self.eps).pow(self.p)
        return powered.mean(dim=(-2, -1)).pow(1.0 / self.p)


class Average(nn.Module):
    """Plain mean over positions."""

    def forward(self, features: Tensor, token: Tensor | None = None) -> Tensor:
        """Pool (B, C, H, W) to (B, C), in float32 whatever the input's type; a class token is left out."""
        return features.float().mean(dim=(-2, -1))


class ClassToken(nn.Module):
    """A trunk's class token instead of its positions, as the sources take it of a ViT."""

    def forward(self, features: Tensor, token: Tensor | None = None) -> Tensor:
        """The class token (B, C), in float32 whatever the input's type."""
        if token is None:
            raise UsageError(
                "Aggregation `token` takes a class token, which this trunk does not have.",
                hint="Use a ViT with a class token, or aggregation avg.",
            )
        return token.float()


class Salad(nn.Module):
    """Positions assigned to learned clusters by optimal transport, the uninformative ones to a dust-bin.

    A descriptor is [token | cluster 1 | ... | cluster m]: each part has unit length (intra-cluster norm),
    then the whole has. The token sums up the picture: from the class token, or from the mean of the map
    where the trunk has none. Source: Izquierdo, Civera, *Optimal Transport Aggregation for Visual Place
    Recognition*, CVPR 2024, section 3; its dropout is left out.
    """

    def __init__(self, channels: int, *, clusters: int, width: int, token: int, hidden: int) -> None:
        super().__init__()
        self.features = _two_layers(channels, hidden, width)
        self.scores = _two_layers(channels, hidden, clusters)
        self.token = _two_layers(channels, hidden, token) if token else None
        self.dust_bin = nn.Parameter(torch.tensor(1.0))

    def forward(self, features: Tensor, token: Tensor | None = None) -> Tensor:
        """Pool (B, C, H, W), with a class token (B, C) where there is one, to (B, m * width + token).

        The transport and the norms are computed in float32, also under autocast.
        """
        positions = features.flatten(2).transpose(1, 2)
        values, scores = self.features(positions), self.scores(positions)
        summary = None
        if self.token is not None:
            summary = self.token(positions.mean(dim=1) if token is None else token).float()
        with torch.autocast(features.device.type, enabled=False):
            shares = transport(scores.float(), self.dust_bin.float())
            clusters = torch.einsum("bnm,bnl->bml", shares, values.float())
            parts = functional.normalize(clusters, dim=2).flatten(1)
            if summary is not None:
                parts = torch.cat([functional.normalize(summary, dim=1), parts], dim=1)
            return functional.normalize(parts, dim=1)


def transport(scores: Tensor, dust_bin: Tensor, iterations: int = SINKHORN_ITERATIONS) -> Tensor:
    """Share of every position in every cluster, by Sinkhorn's iterations in the log domain.

    A position gives mass 1; a cluster takes 1 and the dust-bin the rest, N - m. The paper supposes N > m; a
    small map has fewer positions, and there every cluster and the dust-bin take the same, N / (m + 1), which
    meets the paper's rule at N = m + 1. The last step is that of the positions: with the dust-bin's share,
    which is not returned, each sums to 1 exactly.

    Args:
        scores: (B, N, m) of N positions and m clusters.
        dust_bin: Scalar score of the dust-bin, the same for every position.
        iterations: Alternations of the two constraints.

    Returns:
        (B, N, m), not negative.
    """
    batch, positions, clusters = scores.shape
    bins = torch.cat([scores, dust_bin.expand(batch, positions, 1)], dim=2)
    each = min(1.0, positions / (clusters + 1))
    mass = bins.new_full((clusters + 1,), math.log(each))
    mass[clusters] = math.log(positions - clusters * each)
    rows = bins.new_zeros(batch, positions, 1)
    for _ in range(iterations):
        columns = mass - torch.logsumexp(bins + rows, dim=1, keepdim=True)
        rows = -torch.logsumexp(bins + columns, dim=2, keepdim=True)
    return (bins + columns + rows).exp()[..., :clusters]


def build_aggregation(config: EncoderConfig, channels: int) -> nn.Module:
    """The pooling layer that a model's configuration names, for a map of so many channels."""
    if config.aggregation == "gem":
        return GeM(config.gem_p)
    if config.aggregation == "avg":
        return Average()
    if config.aggregation == "token":
        return ClassToken()
    return Salad(
        channels,
        clusters=config.salad_clusters,
        width=config.salad_width,
        token=config.salad_token,
        hidden=config.salad_hidden,
    )


def pooled_width(config: EncoderConfig, channels: int) -> int:
    """Length of the vector that `build_aggregation`'s layer returns."""
    if config.aggregation == "salad":
        return config.salad_clusters * config.salad_width + config.salad_token
    return channels


def _two_layers(channels: int, hidden: int, out: int) -> nn.Sequential:
    """Two linear layers over channels; on positions the same as two convolutions of 1 x 1."""
    return nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, out))
