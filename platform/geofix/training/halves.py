"""Which dimensions prototypes and tiles are compared in: all of them together, or half of them each."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn.functional import normalize, pad

from geofix.training.config import TrainingConfig

Partner = Literal["prototypes", "tiles"]
PARTNERS: tuple[Partner, ...] = ("prototypes", "tiles")
"""The order of the halves."""


def prototype_length(config: TrainingConfig) -> int:
    """Dimensions in which prototypes are trained."""
    return config.dimension // len(PARTNERS) if config.separate else config.dimension


def compared(vectors: Tensor, partner: Partner, config: TrainingConfig) -> Tensor:
    """The unit vectors (B, d) that are compared with prototypes or with tiles; zero where there is none.

    Args:
        vectors: (B, D) embeddings of photos or tiles.
        partner: With what.
        config: The run.
    """
    if not config.separate:
        return vectors
    length = config.dimension // len(PARTNERS)
    first = PARTNERS.index(partner) * length
    return normalize(vectors[:, first : first + length], dim=1)


def has_proxies(config: TrainingConfig) -> bool:
    """Whether photos and tiles also meet at a table of the tiles' half."""
    return config.separate and config.loss.aerial_prototype > 0


def among_all(prototypes: Tensor, config: TrainingConfig) -> Tensor:
    """Trained prototypes (N, d) as vectors of the model (N, D), zero in the half that is the tiles'."""
    return pad(prototypes, (0, config.dimension - prototypes.shape[1])) if config.separate else prototypes
