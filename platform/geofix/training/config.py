"""What a training run may be told: one small typed file, and nothing that is not in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import ConfigDict, Field, field_validator, model_validator

from geofix.errors import BadInputError, NotFoundError
from geofix.imagery.transforms import Fit
from geofix.training.sections import Positive, Section, Share, Unit, checked


class EncoderSection(Section):
    """One encoder: trunk, weights, input and pooling."""

    trunk: str = Field(description="A timm name.")
    trunk_options: dict[str, Any] = Field(default_factory=dict, description="More for timm.create_model.")
    weights: str | None = Field(None, description="Local file or URI of the trunk; none: seeded random.")
    sha256: str | None = None
    size: int | tuple[int, int] | None = Field(
        None, description="Input side, or height and width, in pixels; the trunk's own where left out."
    )
    fit: Fit | None = None
    mean: float | None = Field(None, description="Of every channel; the trunk's own where left out.")
    std: float | None = None
    aggregation: Literal["gem", "avg", "salad", "token"] = "gem"
    gem_p: Annotated[float, Field(ge=1, le=64)] = 3.0
    salad_clusters: Unit | None = None
    salad_width: Unit | None = None
    salad_token: Annotated[int, Field(ge=0)] | None = None
    train_blocks: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Train the last n blocks of the trunk alone; left out: the whole trunk."
    )


def weights_problem(name: str, section: EncoderSection) -> str | None:
    """Why an encoder's section cannot do without `weights`; None: it has them, or needs none."""
    if section.weights is not None:
        return None
    if section.train_blocks is not None:
        return (
            f"{name}.train_blocks {section.train_blocks} keeps the rest of the trunk as it is, and without "
            f"{name}.weights that is random; name the trunk's file (--set {name}.weights=FILE), or train all "
            f"of it (--set {name}.train_blocks=null)"
        )
    if section.sha256 is not None:
        return (
            f"{name}.sha256 is that of a file, and {name}.weights names none; "
            f"name it (--set {name}.weights=FILE), or leave the hash out (--set {name}.sha256=null)"
        )
    return None


class PrototypeSection(Section):
    """The table of learned ground prototypes."""

    level: Annotated[int, Field(ge=4, le=24)] = 15
    interpolate: bool = Field(True, description="Bilinear between the four cells around the camera.")
    soft_labels: bool = Field(
        False,
        description="Of the softmax: over all prototypes, with the bilinear weights as labels, instead of "
        "the interpolated prototype against all but those around.",
    )
    temperature: Positive | None = Field(
        None, description="Of the softmax against the table; none: as between photos and tiles."
    )
    start: Literal["means", "random"] = Field(
        "means", description="First values: mean embedding of the cell's photos, or random."
    )
    warmup_epochs: Annotated[int, Field(ge=0)] = Field(
        1, description="Epochs of ground against aerial alone before the table starts."
    )
    chunk_rows: Unit | None = Field(
        None, description="Rows of the table that are looked at together; left out: by the device."
    )
    sample_above: Unit = Field(1_000_000, description="Larger tables draw their far negatives.")
    sampled: Unit = Field(128_000, description="Far negatives drawn per step.")
    near_km: Positive = Field(50.0, description="Cells this near to the batch are never left out.")


class LossSection(Section):
    """Shape of the loss and weights of its three terms; a weight of 0 leaves the term out."""

    kind: Literal["multi_similarity", "softmax"] = "multi_similarity"
    alpha: Positive = 1.0
    beta: Positive = 50.0
    lam: float = Field(
        0.0, alias="lambda", ge=-1, le=1, description="Similarity at which pull and push turn."
    )
    temperature: Positive = Field(0.05, description="Of the softmax.")
    ground_prototype: Annotated[float, Field(ge=0)] = 1.0
    ground_aerial: Annotated[float, Field(ge=0)] = 1.0
    aerial_prototype: Annotated[float, Field(ge=0)] = Field(
        1.0,
        description="With separate halves: of photos and tiles against a table of proxies of the tiles' own.",
    )
    auxiliary: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="Separate halves only: of ground against aerial in the prototypes' half as well, a "
        "second task that keeps its trunk from learning photos by heart.",
    )

    model_config = ConfigDict(populate_by_name=True)


class TileSection(Section):
    """Aerial tiles around the cameras."""

    side_m: Positive = 154.0
    shift_m: Annotated[float, Field(ge=0)] = Field(
        70.0, description="Largest shift along each axis of the turned tile."
    )
    turn: bool = Field(True, description="Turn tiles by any angle.")

    @model_validator(mode="after")
    def _camera_stays_inside(self) -> Self:
        if self.shift_m > self.side_m / 2:
            raise ValueError(
                f"shift_m {self.shift_m} takes the camera out of a tile of side_m {self.side_m}; "
                "at most half the side"
            )
        return self


class BatchSection(Section):
    """How a batch is drawn."""

    photos: Annotated[int, Field(ge=2)] = 128
    neighbourhood: Share = Field(0.5, description="Share of a batch from one neighbourhood.")
    neighbourhood_km: tuple[float, float] = (2.0, 10.0)
    balance: Share = Field(0.5, description="0: as many as there are; 1: every cell alike.")
    jitter: Share = Field(0.25, description="How far brightness, contrast and saturation vary, both views.")
    crop: Annotated[float, Field(gt=0, le=1)] = Field(0.8, description="Least share of a photo's area kept.")

    @field_validator("neighbourhood_km")
    @classmethod
    def _ascending(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError("radii must be positive and ascending, such as [2, 10]")
        return value


class OptimiserSection(Section):
    """AdamW for the encoders, a row-wise Adam for the table."""

    trunk_lr: Positive = 1e-5
    head_lr: Positive = 1e-4
    prototype_lr: Positive = 3e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup: Share = Field(0.05, description="Share of all steps over which the rates rise.")
    final: Share = Field(0.1, description="Rate at the end, as a share of the highest.")
    clip: Positive = Field(1.0, description="Largest norm of the encoders' gradient.")


class ValidationSection(Section):
    """The search that is run after every epoch."""

    photos: Unit = Field(2_000, description="At most this many photos of the split val.")
    tiles: Unit = Field(20_000, description="At most this many cells in the gallery; true cells are kept.")
    every: Unit = Field(1, description="Epochs between validations; the last is always validated.")
    keep: Literal["best", "last"] = Field("best", description="Which epoch's weights the model gets.")


class TrainingConfig(Section):
    """A training run."""

    dimension: Annotated[int, Field(ge=2)] = 256
    separate: bool = Field(
        False,
        description="Prototypes and tiles are each compared with a half of the ground vector that has a "
        "trunk of its own, so that one does not err wherever the other errs.",
    )
    ground: EncoderSection
    aerial: EncoderSection | None = Field(None, description="None: like the ground encoder, own weights.")
    prototypes: PrototypeSection = PrototypeSection()
    loss: LossSection = LossSection()
    tiles: TileSection = TileSection()
    batch: BatchSection = BatchSection()
    optimiser: OptimiserSection = OptimiserSection()
    validation: ValidationSection = ValidationSection()
    epochs: Unit = 10
    seed: Annotated[int, Field(ge=0, lt=1 << 62)] = 0
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="Share of the training photos that is used, drawn by the seed."
    )
    workers: Annotated[int, Field(ge=0)] = Field(2, description="Processes that decode; 0: none beside.")
    threads: Unit | None = Field(None, description="CPU threads of torch; left out: torch decides.")
    precision: Literal["auto", "native", "float32", "bfloat16"] = Field(
        "auto",
        description="auto: bfloat16 autocast on a GPU, float32 elsewhere; native: bfloat16 on a CPU, too, "
        "that computes in it.",
    )
    compile: bool = Field(False, description="torch.compile the encoders.")
    average: Share = Field(0.0, description="Decay of the running mean of the weights; 0: none is kept.")
    checkpoint_minutes: Positive = 10.0

    @field_validator("average")
    @classmethod
    def _below_one(cls, value: float) -> float:
        if value == 1.0:
            raise ValueError("an average with decay 1 never changes; use 0.999")
        return value

    @model_validator(mode="after")
    def _weights_are_named(self) -> Self:
        for name, section in (("ground", self.ground), ("aerial", self.aerial)):
            if section is not None and (problem := weights_problem(name, section)) is not None:
                raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _terms_fit(self) -> Self:
        if not (self.loss.ground_prototype or self.loss.ground_aerial):
            raise ValueError("loss: ground_prototype and ground_aerial are both 0, nothing trains the ground")
        if self.separate:
            if not (self.loss.ground_prototype and self.loss.ground_aerial):
                raise ValueError("separate halves need both loss.ground_prototype and loss.ground_aerial")
            if self.dimension % 2:
                raise ValueError(f"dimension {self.dimension} has no halves")
        elif self.loss.auxiliary:
            raise ValueError("loss.auxiliary is for separate halves alone, and must be 0 without")
        if self.prototypes.soft_labels and self.loss.kind != "softmax":
            raise ValueError("prototypes.soft_labels are for loss.kind softmax")
        if self.prototypes.temperature is not None and self.loss.kind != "softmax":
            raise ValueError("prototypes.temperature is for loss.kind softmax")
        if self.loss.aerial_prototype and not self.loss.ground_prototype:
            raise ValueError("loss: aerial_prototype needs ground_prototype, which is 0")
        return self


def load_config(path: Path) -> TrainingConfig:
    """Read a training configuration.

    Raises:
        NotFoundError: There is no such file.
        BadInputError: It is no YAML, or a key is unknown or out of range; the message names it.
    """
    return parse_config(load_raw(path), str(path))


def load_raw(path: Path) -> Any:
    """What a configuration file says, unchecked.

    Raises:
        NotFoundError: There is no such file.
        BadInputError: It is no YAML.
    """
    if not path.is_file():
        raise NotFoundError(f"No training configuration at {path}.", hint="There are some in configs/.")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path} is no YAML: {error}.") from error


def with_changes(raw: Any, changes: dict[str, Any]) -> Any:
    """A configuration with dotted keys replaced, such as `loss.ground_aerial`.

    Raises:
        BadInputError: A key lies below one that is no section.
    """
    if not isinstance(raw, dict):
        return raw
    out = {key: dict(value) if isinstance(value, dict) else value for key, value in raw.items()}
    for name, value in changes.items():
        *parents, last = name.split(".")
        section = out
        for parent in parents:
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise BadInputError(
                    f"The change {name!r} cannot be made: {parent} is {section!r}, not a section.",
                    hint=f"Change {parent} as a whole.",
                )
        section[last] = value
    return out


def parse_config(raw: Any, where: str) -> TrainingConfig:
    """Check a configuration that came from `where`.

    Raises:
        BadInputError: A key is unknown or out of range; the message names it.
    """
    return checked(TrainingConfig, raw, where)
