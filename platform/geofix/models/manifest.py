"""`model.json`: what a model directory holds, readable without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from geofix.errors import BadInputError, NotFoundError
from geofix.models.config import EncoderConfig

MANIFEST = "model.json"
WEIGHTS = "weights.safetensors"


class ModelManifest(BaseModel):
    """The description that is stored beside the weights and in the `model` row."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    name: Annotated[str, Field(min_length=1)]
    encoders: dict[str, EncoderConfig] = Field(description="Resolved configuration by role.")
    shares: dict[str, str] = Field(default_factory=dict, description="Roles that use another role's encoder.")
    dimensions: dict[str, int] = Field(description="Length of the embedding by role.")
    weights_sha256: str
    metadata: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.encoders:
            raise ValueError("a model needs at least one encoder")
        if any("." in role for role in self.encoders):
            raise ValueError("a role may hold no dot")
        if not set(self.shares.values()) <= set(self.encoders):
            raise ValueError("a role shares an encoder that is not there")
        return self


def model_directory(directory: Path) -> Path:
    """The model's own directory where the directory of a training run is given, else what is given."""
    inner = directory / "model"
    return inner if not (directory / MANIFEST).exists() and (inner / MANIFEST).exists() else directory


def read_manifest(directory: Path) -> ModelManifest:
    """Read `model.json` of a model directory.

    Raises:
        NotFoundError: There is none.
        BadInputError: It is not a description this version reads.
    """
    path = directory / MANIFEST
    try:
        return ModelManifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{directory} is no model directory: {MANIFEST} is missing.",
            hint="Give a directory that `geofix train` or `geofix models create` wrote.",
        ) from error
    except ValidationError as error:
        raise BadInputError(
            f"{path} cannot be read: {error.errors()[0]['msg']} at {error.errors()[0]['loc']}.",
            hint="Write the model again with this version.",
        ) from error
