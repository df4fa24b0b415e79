"""What the training of a classifier may be told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from geofix.errors import BadInputError
from geofix.training.config import EncoderSection, load_raw

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Unit = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    """A part of the file; unknown keys are refused, and so are infinity and what is no number."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PartitionSection(_Section):
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


class MixtureSection(_Section):
    """The von Mises-Fisher mixture."""

    prekappa: Annotated[float, Field(ge=-5, le=30)] | Literal["cells"] = 12.0
    share: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    train_centres: bool = False
    train_kappa: bool = False
    centre_lr: Positive = 1e-6
    kappa_lr: Positive = 1e-3


class PhotoSection(_Section):
    """How a batch is drawn and varied."""

    photos: Annotated[int, Field(ge=2)] = 128
    balance: Share = 0.0
    jitter: Share = 0.25
    crop: Annotated[float, Field(gt=0, le=1)] = 0.66
    mirror: bool = True


class RateSection(_Section):
    """SGD as in the sources, or AdamW."""

    kind: Literal["sgd", "adamw"] = "sgd"
    trunk_lr: Positive = 0.01
    head_lr: Positive = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    warmup: Share = 0.05
    final: Share = 0.0
    clip: Positive = 5.0


class CheckSection(_Section):
    """What is looked at after an epoch."""

    photos: Unit = 2_000
    every: Unit = 1
    keep: Literal["best", "last"] = "best"


class ClassifierConfig(_Section):
    """A training run of a classifier."""

    kind: Literal["softmax", "mvmf"] = "softmax"
    encoder: EncoderSection
    dimension: Annotated[int, Field(ge=2)] | None = None
    partitions: PartitionSection = PartitionSection()
    mixture: MixtureSection = MixtureSection()
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

    @property
    def weights(self) -> tuple[float, ...]:
        """Weight of each partition's term."""
        return self.partitions.weights or (1.0,) * len(self.partitions.tau_max)


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
    try:
        return ClassifierConfig.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        known = ""
        if first["type"] == "extra_forbidden":
            known = f"Keys there: {', '.join(_keys_beside(first['loc']))}."
        raise BadInputError(
            f"{where}: {place}: {first['msg']} ({str(first.get('input'))[:80]!r}).", hint=known
        ) from error


def _keys_beside(place: tuple[int | str, ...]) -> list[str]:
    """Names that are allowed where an unknown one was found."""
    section: type[BaseModel] = ClassifierConfig
    for part in place[:-1]:
        item = section.model_fields.get(str(part))
        kind = None if item is None else item.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            section = kind
    return list(section.model_fields)
