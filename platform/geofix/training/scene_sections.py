"""What the training of classifiers with scenes and semantic maps may be told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from geofix.imagery.transforms import InputTransform
from geofix.training.sections import Section, Share, Unit

SCENE_KINDS = ("vit_mt", "translocator", "isn")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Triple = tuple[float, float, float]


class SemanticSection(Section):
    """Where semantic maps come from, and what the second branch sees of them."""

    maps: Path | None = None
    classes: Path | None = None
    network: Path | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")] | None = None
    size: tuple[Unit, Unit] = (512, 683)
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    input: Literal["colour", "channels"] = "colour"
    least_share: Share = 0.01
    missing: Literal["refuse", "leave_out"] = "refuse"

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.maps is not None and self.network is not None:
            raise ValueError("maps and network are both given; one of them makes the maps")
        if self.network is not None and (self.sha256 is None or self.classes is None):
            raise ValueError("network is a program: it needs its sha256, and classes that name its output")
        return self

    @property
    def given(self) -> bool:
        """Whether there are maps."""
        return self.maps is not None or self.network is not None

    @property
    def transform(self) -> InputTransform:
        """The segmentation network's input."""
        return InputTransform(self.size, 1.0, "bilinear", self.mean, self.std, fit="squash")


class SceneSection(Section):
    """Labels of scenes, and what is learned of them."""

    labels: Path | None = None
    heads: tuple[Literal[3, 16, 365], ...] = (3,)
    weight: Annotated[float, Field(ge=0)] = 1.0

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.heads)) != len(self.heads):
            raise ValueError(f"heads {list(self.heads)} names a count of scenes twice")
        return self


class FusionSection(Section):
    """How the two branches of a TransLocator meet."""

    layers: bool = True
    combine: Literal["attention", "concatenation"] = "attention"
    width: Unit | None = None


class NetworksSection(Section):
    """Individual scene networks."""

    start: Path | None = None
    route: Literal["trained", "labels"] = "trained"
    least: Unit = 2


def scene_problem(
    kind: str, semantics: SemanticSection, scenes: SceneSection, dimension: int | None
) -> str | None:
    """What does not go together, in words; None where all does."""
    if semantics.given != (kind == "translocator"):
        if kind == "translocator":
            return "kind translocator needs semantics.maps, or semantics.network with sha256 and classes"
        return f"kind {kind} sees no semantic maps; leave semantics out, or use kind translocator"
    if kind not in SCENE_KINDS and scenes.labels is not None:
        return f"kind {kind} learns no scenes; leave scenes out, or use vit_mt, translocator or isn"
    if kind in SCENE_KINDS and scenes.labels is None and (kind == "isn" or scenes.heads):
        return f"kind {kind} needs scenes.labels" + ("" if kind == "isn" else ", or scenes.heads: []")
    if kind in ("vit_mt", "translocator") and dimension is not None:
        return f"kind {kind} has no projection; leave dimension out"
    return None
