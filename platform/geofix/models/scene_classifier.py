"""What the classifiers that know of scenes have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from geofix.models.classifier import Classifier
from geofix.models.encoder import Encoder

S3_SCENES = 3


class SceneClassifier(Classifier):
    """A classifier with more than one trunk or more inputs than the photo.

    Images are (B, 3 + planes, H, W): the photo, then planes of labels (`geofix.training.planes`), which the
    network turns into what it needs.

    Attributes:
        scenes: Counts of the scenes that it tells apart, one layer each.
        planes: Planes of labels behind the photo.
    """

    scenes: tuple[int, ...] = ()
    planes: int = 0

    def __init__(self, encoder: Encoder) -> None:
        nn.Module.__init__(self)
        self.encoder = encoder

    def forward(self, images: Tensor) -> list[Tensor]:
        """Logits (B, classes) in float32, in the order of the partitions."""
        return self.outputs(images)[0]

    @abstractmethod
    def outputs(self, images: Tensor, together: int = 1) -> tuple[list[Tensor], list[Tensor]]:
        """Logits per partition, and those per count of scenes.

        Args:
            images: (B, 3 + planes, H, W).
            together: So many images one after the other are parts of one photo.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What beside the encoder and the partitions it is made of, as plain JSON."""

    def encoders(self) -> Sequence[Encoder]:
        """Every encoder, the one that embeds first."""
        return [module for module in self.modules() if isinstance(module, Encoder)]
