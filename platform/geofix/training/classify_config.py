"""What the training of a classifier may be told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from geofix.training.config import EncoderSection, load_raw, weights_problem
from geofix.training.geoclasses import GeoclassSection
from geofix.training.scene_sections import (
    FusionSection,
    NetworksSection,
    SceneSection,
    SemanticSection,
    scene_problem,
)
from geofix.training.sections import Positive, Section, Share, Unit, checked

PUBLISHED_WEIGHTS = (0.5, 0.3, 0.2)
"""Of the coarse, middle and fine term in TransLocator's released script."""


class PartitionSection(Section):
    """The adaptive partitions of the training photos, coarse to fine."""

    tau_min: Annotated[int, Field(ge=0)] = 50
    tau_max: tuple[Unit, ...] = Field((5000, 2000, 1000), min_length=1)
    max_level: Annotated[int, Field(ge=0, le=30)] = 30
    position: Literal["sphere", "degrees"] = "sphere"
    weights: tuple[Positive, ...] | None = None

    @model_validator(mode="after")
    def _one_weight_each(self) -> Self:
        if any(a <= b for a, b in zip(self.tau_max, self.tau_max[1:], strict=False)):
            raise ValueError(f"tau_max {list(self.tau_max)} is not descending, such as [5000, 2000, 1000]")
        if self.tau_min >= self.tau_max[-1]:
            raise ValueError(f"tau_min {self.tau_min} is not below the least tau_max {self.tau_max[-1]}")
        if self.weights is not None and len(self.weights) != len(self.tau_max):
            raise ValueError(f"{len(self.weights)} weights for {len(self.tau_max)} partitions")
        return self


class MixtureSection(Section):
    """The von Mises-Fisher mixture."""

    prekappa: Annotated[float, Field(ge=-5, le=30)] | Literal["cells"] = 12.0
    share: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    train_centres: bool = False
    train_kappa: bool = False
    centre_lr: Positive = 1e-6
    kappa_lr: Positive = 1e-3


class PhotoSection(Section):
    """How a batch is drawn and varied."""

    photos: Annotated[int, Field(ge=2)] = 128
    balance: Share = 0.0
    jitter: Share = 0.25
    crop: Annotated[float, Field(gt=0, le=1)] = 0.66
    mirror: bool = True


class RateSection(Section):
    """SGD as in the sources, or AdamW."""

    kind: Literal["sgd", "adamw"] = "sgd"
    trunk_lr: Positive = 0.01
    head_lr: Positive = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    warmup: Share = 0.05
    final: Share = 0.0
    clip: Positive = 5.0


class CheckSection(Section):
    """What is looked at after an epoch."""

    photos: Unit = 2_000
    every: Unit = 1
    keep: Literal["best", "last"] = "best"


class ClassifierConfig(Section):
    """A training run of a classifier."""

    kind: Literal["softmax", "mvmf", "cplanet", "vit_mt", "translocator", "isn"] = "softmax"
    encoder: EncoderSection
    dimension: Annotated[int, Field(ge=2)] | None = None
    partitions: PartitionSection = PartitionSection()
    mixture: MixtureSection = MixtureSection()
    geoclasses: GeoclassSection = GeoclassSection()
    semantics: SemanticSection = SemanticSection()
    scenes: SceneSection = SceneSection()
    fusion: FusionSection = FusionSection()
    networks: NetworksSection = NetworksSection()
    batch: PhotoSection = PhotoSection()
    optimiser: RateSection = RateSection()
    validation: CheckSection = CheckSection()
    epochs: Unit = 20
    seed: Annotated[int, Field(ge=0, lt=1 << 62)] = 0
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    workers: Annotated[int, Field(ge=0)] = 2
    threads: Unit | None = None
    precision: Literal["auto", "native", "float32", "bfloat16"] = "auto"
    memory_gb: Positive | None = None
    checkpoint_minutes: Positive = 10.0

    @model_validator(mode="after")
    def _one_mixture(self) -> Self:
        if self.kind == "mvmf" and len(self.partitions.tau_max) != 1:
            raise ValueError(
                "kind mvmf takes its centres from one partition: partitions.tau_max has one value"
            )
        return self

    @model_validator(mode="after")
    def _weights_are_named(self) -> Self:
        # Networks by scene may begin at a classifier instead, whose trunk is trained.
        begins = self.kind == "isn" and self.networks.start is not None and self.encoder.sha256 is None
        if not begins and (problem := weights_problem("encoder", self.encoder)) is not None:
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _scenes_fit(self) -> Self:
        if (problem := scene_problem(self.kind, self.semantics, self.scenes, self.dimension)) is not None:
            raise ValueError(problem)
        return self

    @property
    def weights(self) -> tuple[float, ...]:
        """Weight of each partition's term."""
        if self.kind == "cplanet":
            return (1.0,) * (self.geoclasses.sets + self.geoclasses.planet)
        count = len(self.partitions.tau_max)
        published = self.kind in ("vit_mt", "translocator") and count == len(PUBLISHED_WEIGHTS)
        return self.partitions.weights or (PUBLISHED_WEIGHTS if published else (1.0,) * count)


def load_classifier_config(path: Path) -> ClassifierConfig:
    """Read a classifier's training configuration.

    Raises:
        NotFoundError: There is no such file.
        BadInputError: It is no YAML, or a key is unknown or out of range; the message names it.
    """
    return parse_classifier_config(load_raw(path), str(path))


def parse_classifier_config(raw: Any, where: str) -> ClassifierConfig:
    """Check a configuration that came from `where`.

    Raises:
        BadInputError: A key is unknown or out of range; the message names it.
    """
    return checked(ClassifierConfig, raw, where)
