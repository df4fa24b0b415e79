"""What a pipeline file may say: a name, and stages with typed parameters."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from geofix.evaluation.protocol_options import AskedOptions, refuse_own_author
from geofix.localize.kinds import Position
from geofix.pipeline.read import checked_file, read_filled
from geofix.training.budget import Budget


class _Stage(BaseModel):
    """A step; paths may hold ${shared}, ${home}, ${out}, ${here} and ${configs}."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Credited(_Stage):
    licence: str | None = None
    attribution: str | None = None


class IngestRegions(_Credited):
    """Load named polygons."""

    do: Literal["ingest_regions"]
    path: Path
    level: str
    code_field: str
    name_field: str
    dataset: str
    layer: str | None = None


class IngestPhotos(_Credited):
    """Load photos, or positions alone."""

    do: Literal["ingest_photos"]
    path: Path
    dataset: str
    metadata: Path | None = None
    columns: dict[str, str] | None = None
    positions_only: bool = False


class IngestAerial(_Credited):
    """Load aerial rasters and give every covered cell a tile."""

    do: Literal["ingest_aerial"]
    paths: list[Path]
    source: str
    captured_at: date | None = None
    extents: Path | None = None
    fallback_zooms: int = 0
    blank_rgb: tuple[int, int, int] | None = None
    tiles_level: int = 16
    side_m: float = 154.0
    min_coverage: float = 0.5


class MissingTilesReport(_Stage):
    """Write which tiles of an XYZ pyramid are missing, cell by cell."""

    do: Literal["missing_tiles"]
    source: str
    level: int = 16


class Cells(_Stage):
    """Count photos and tiles per cell."""

    do: Literal["cells"]
    levels: list[int] = [13, 15, 16]


class Snapshot(_Stage):
    """Freeze a training set."""

    do: Literal["snapshot"]
    datasets: list[str]
    mode: Literal["blocks", "track", "test"] = "blocks"
    block_level: int = 13
    cell_level: int = 15
    buffer_m: float = 200.0
    test: float = 0.15
    val: float = 0.1
    seed: int = 0
    train_share: float = Field(1.0, description="Of the training photos; the other splits stay as they are.")
    aerial: list[str] | None = Field(
        None, description="Aerial sources to take in; every one near the photos if left out, [none] for none."
    )
    required: list[str] | None = Field(
        None, description="Splits that may not come out empty; all where it is left out, unless mode is test."
    )


class MakeModel(_Stage):
    """Make and register an encoder from a timm trunk and local weights (or a seed)."""

    do: Literal["model"]
    name: str
    trunk: str
    weights: Path | None = None
    sha256: str | None = None
    size: int | None = None
    fit: Literal["center", "squash"] | None = None
    mean: float | None = None
    std: float | None = None
    trunk_options: dict[str, Any] = {}
    gem_p: float = 3.0
    dimension: int | None = None
    seed: int = 0


class _Training(_Stage):
    name: str = Field(description="Of the model.")
    config: Path = Field(description="Training configuration; ${configs} has some.")
    changes: dict[str, Any] = Field(
        default_factory=dict, description="Replaces keys of the configuration: {loss.ground_aerial: 0}."
    )
    budget: Budget | None = Field(None, description="{photos: N} or {minutes: N} in place of `epochs`.")


class Train(_Training):
    """Train encoders and prototypes on the pipeline's snapshot, and register the model."""

    do: Literal["train"]


class TrainClassifier(_Training):
    """Train a classifier of positions on the pipeline's snapshot, and register the model."""

    do: Literal["train_classifier"]


class Embed(_Stage):
    """Embed photos or aerial tiles."""

    do: Literal["embed"]
    what: Literal["photos", "aerial"]
    model: str
    datasets: list[str] | None = None


class Codes(_Stage):
    """Build one code set per level, calibrate it where there are validation photos, index it where asked."""

    do: Literal["codes"]
    model: str
    recipe: Literal["cellmean", "aerial", "prototype", "hybrid"] | None = Field(
        None, description="Left out: hybrid, prototype or aerial by what a trained model has, else cellmean."
    )
    levels: list[int]
    within: str | None = None
    datasets: list[str] | None = Field(
        None, description="Only aerial tiles of these; all where it is left out."
    )
    upsample: Literal["copy", "bilinear"] = Field("bilinear", description="Prototypes to finer cells.")
    kappa: Literal["fit"] | Annotated[float, Field(ge=0)] = "fit"
    calibrate: bool = True
    index: bool = False


class Evaluate(AskedOptions, _Stage):
    """Judge localizers on splits."""

    do: Literal["evaluate"]
    model: str
    localizers: list[str]
    levels: list[int] = [16]
    splits: list[str] = ["test_seen", "test_unseen"]
    within: str | None = None
    crops: Literal["single", "five-max", "ten-mean"] | None = Field(
        None, description="Parts of a photo that a trained classifier is shown."
    )

    @model_validator(mode="after")
    def _searches(self) -> Self:
        if self.exclude_author:
            refuse_own_author(self.localizers)
        return self


class Method(_Stage):
    """Compare a trained model with its parts and baselines, everything fitted on val."""

    do: Literal["method"]
    model: str
    prototype_model: str | None = None
    aerial_model: str | None = None
    second_model: str | None = None
    untrained_model: str | None = None
    splits: list[str] = ["test_seen", "test_unseen"]
    level: int = 16
    datasets: list[str] | None = Field(None, description="Only aerial tiles of these; all without it.")
    elsewhere: list[str] | None = Field(None, description="Photo data sets of another place.")
    frozen: bool = Field(False, description="Means of photos in place of the model's prototypes.")
    urban: str | None = Field(None, description="Level of regions that are urban.")
    density: bool = True
    ablations: bool = False
    threshold_m: float = 200.0
    kept: Annotated[int, Field(ge=1, le=100)] = 10
    seed: int = 0


class Localize(_Stage):
    """Answer photos and write the answers."""

    do: Literal["localize"]
    recipe: Literal["cellmean", "aerial", "prototype", "hybrid"] = "cellmean"
    level: int
    model: str
    photos: list[str] = Field(default_factory=list, description="Files or glob patterns.")
    split: str | None = Field(None, description="The photos of this split instead.")
    limit: int = 10
    within: str | None = None
    k: int = 10
    position: Position = "centre"


class Table(_Stage):
    """Write the table of all evaluations of this pipeline."""

    do: Literal["table"]
    by: list[str] = []
    threshold_m: float = 200.0


class Map(_Stage):
    """Draw an evaluation's errors, on the map or as photos, or the coverage of a data set."""

    do: Literal["map"]
    show: Literal["errors", "photos", "tiles", "countries"] = "errors"
    evaluation: str | None = None
    source: str | None = None
    dataset: str | None = None


class Assignment(_Stage):
    """Compare the country assigned to each photo with the country its metadata names."""

    do: Literal["assignment"]
    datasets: list[str]
    field: str = "country"


class Dates(_Stage):
    """Compare embeddings of the same cells at two dates with those of different cells."""

    do: Literal["dates"]
    model: str
    source: str


Stage = Annotated[
    IngestRegions
    | IngestPhotos
    | IngestAerial
    | MissingTilesReport
    | Cells
    | Snapshot
    | MakeModel
    | Train
    | TrainClassifier
    | Embed
    | Codes
    | Evaluate
    | Method
    | Localize
    | Table
    | Map
    | Assignment
    | Dates,
    Field(discriminator="do"),
]


class Pipeline(BaseModel):
    """The whole way of one data set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    about: str = ""
    snapshot: Path | None = Field(None, description="A registered snapshot that no stage makes.")
    stages: Annotated[list[Stage], Field(min_length=1)]


def load_pipeline(
    path: Path, variables: Mapping[str, str] | None = None, home: Path | None = None
) -> tuple[Pipeline, Path]:
    """Read a pipeline file and fill in its variables.

    Args:
        path: YAML file.
        variables: Further ${variables}; `shared`, `home`, `here`, `configs` and `out` are always there.
        home: In place of GEOFIX_HOME.

    Returns:
        The pipeline, and its output folder below the home.

    Raises:
        NotFoundError: There is no such file.
        BadInputError: It is no YAML, or a stage says something unknown; the message names stage and field.
    """
    raw, out = read_filled(path, variables, home)
    return checked_file(Pipeline, raw, path), out
