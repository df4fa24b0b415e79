"""Make a model directory from a timm trunk and local weights, without any training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from geofix.errors import UsageError
from geofix.imagery.transforms import Fit
from geofix.models.config import Aggregation, EncoderConfig
from geofix.models.encoder import build_encoder
from geofix.models.manifest import ModelManifest
from geofix.models.registry import Model, save_model


def create_model(
    directory: Path,
    *,
    trunk: str,
    weights: str | None = None,
    sha256: str | None = None,
    size: int | None = None,
    fit: Fit | None = None,
    mean: float | None = None,
    std: float | None = None,
    trunk_options: dict[str, Any] | None = None,
    aggregation: Aggregation = "gem",
    gem_p: float = 3.0,
    salad: dict[str, int] | None = None,
    dimension: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> ModelManifest:
    """One encoder for ground and aerial pictures alike, from local weights or from a seed.

    Args:
        directory: New model directory; its name becomes the model's.
        trunk: timm name.
        weights: Local path or fsspec URI of a state dict; None: random weights of `seed`.
        sha256: Expected hash of the weights.
        size: Input side in pixels.
        fit: `center` crops the middle, `squash` keeps the whole frame; None: the trunk's own.
        mean: Replaces the mean of every channel that timm's configuration names.
        std: Likewise the deviation.
        trunk_options: Further arguments of timm.create_model.
        aggregation: Pooling of the trunk's map; `salad` starts from random layers and wants training.
        gem_p: Exponent of GeM pooling.
        salad: Any of `clusters`, `width`, `token`, `hidden` of SALAD.
        dimension: Length D of the embedding, by a fixed random projection; None: the pooled width.
        seed: Of weights that no file supplies.
        overwrite: Replace an existing directory.

    Raises:
        UsageError: An option is out of range; the message names it.
    """
    try:
        config = EncoderConfig(
            trunk=trunk,
            trunk_kwargs=trunk_options or {},
            weights_uri=weights,
            weights_sha256=sha256,
            aggregation=aggregation,
            gem_p=gem_p,
            **{f"salad_{name}": value for name, value in (salad or {}).items()},
            dimension=dimension,
            projection="random",
            image_size=size,
            seed=seed,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(
            f"{'.'.join(map(str, first['loc']))}: {first['msg']} ({first.get('input')!r})."
        ) from error
    if mean is not None or std is not None or fit is not None:
        resolved = build_encoder(config, load_weights=False).transform
        changed = replace(
            resolved,
            mean=resolved.mean if mean is None else (mean,) * 3,
            std=resolved.std if std is None else (std,) * 3,
            fit=fit or resolved.fit,
        )
        config = config.model_copy(update={"input": changed, "image_size": None})
    encoder = build_encoder(config)
    return save_model(
        Model(directory.name, {"ground": encoder, "aerial": encoder}), directory, overwrite=overwrite
    )
