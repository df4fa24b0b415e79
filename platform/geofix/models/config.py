"""What defines an encoder: plain data, read without importing torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_serializer, field_validator, model_validator

from geofix.imagery.transforms import InputTransform

Aggregation = Literal["gem", "avg", "salad", "token"]


class EncoderConfig(BaseModel):
    """One encoder: trunk, pooling, projection, weights and input.

    Trunk weights are never fetched by timm: they come from `weights_uri`, or the trunk starts from a seed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    trunk: str = Field(
        pattern=r"^[\w.]+$",  # not hf-hub:NAME, whose description timm would fetch
        description="A timm model name, such as mobilenetv2_100.",
    )
    trunk_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="More arguments of timm.create_model, such as pad_type: same."
    )
    weights_uri: str | None = Field(None, description="fsspec URI or path of the trunk's state dict.")
    weights_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        None, description="Checked before the file is opened; filled in when it was left out."
    )
    train_blocks: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Last blocks of the trunk that are trained; unset: all of it; 0: none of it."
    )
    aggregation: Aggregation = "gem"
    gem_p: Annotated[float, Field(ge=1.0, le=64.0)] = 3.0
    salad_clusters: Annotated[int, Field(ge=1)] = Field(16, description="Clusters beside the dust-bin.")
    salad_width: Annotated[int, Field(ge=1)] = Field(31, description="Values of every cluster.")
    salad_token: Annotated[int, Field(ge=0)] = Field(16, description="Values of the global token; 0: none.")
    salad_hidden: Annotated[int, Field(ge=1)] = Field(512, description="Width between SALAD's two layers.")
    dimension: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Length of the embedding; unset: that of the pooled vector, without projection."
    )
    parts: Annotated[int, Field(ge=1, le=8)] = Field(
        1,
        description="Stretches of equal length that the embedding is made of, each by a trunk of its own.",
    )
    part: Annotated[int, Field(ge=0)] | None = Field(
        None, description="The only stretch that is filled, the others are zero; unset: all are."
    )
    projection: Literal["random", "learned"] = Field(
        "learned", description="How `dimension` is reached: a fixed orthonormal projection or a linear layer."
    )
    input: InputTransform | None = Field(None, description="Unset: resolved from timm's data configuration.")
    image_size: Annotated[int, Field(ge=16)] | None = Field(
        None, description="Replaces the side of the resolved input; the crop share is then 1."
    )
    seed: int = Field(0, description="Of every weight that no file supplies.")

    @field_validator("trunk_kwargs")
    @classmethod
    def _no_download(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in ("pretrained", "num_classes", "checkpoint_path", "pretrained_cfg"):
            if name in value:
                raise ValueError(f"trunk_kwargs may not set {name}; weights come from weights_uri alone")
        return value

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.parts > 1 and (self.dimension is None or self.dimension % self.parts):
            raise ValueError(f"dimension {self.dimension} is not made of {self.parts} parts of equal length")
        if self.part is not None and not self.part < self.parts:
            raise ValueError(f"part {self.part} is not one of {self.parts}, counted from 0")
        return self

    @field_serializer("input")
    def _write_input(self, value: InputTransform | None) -> dict[str, Any] | None:
        return None if value is None else value.as_dict()
