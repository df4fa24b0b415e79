"""An encoder: any timm trunk, pooled, projected and l2-normalised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import timm
import torch
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn
from torch.nn import functional

from geofix.errors import UsageError
from geofix.imagery.transforms import InputTransform
from geofix.models.aggregate import build_aggregation, pooled_width
from geofix.models.config import EncoderConfig
from geofix.models.weights import load_trunk

__all__ = ["Encoder", "EncoderConfig", "JoinedEncoder", "build_encoder"]


class Encoder(nn.Module):
    """Images in, unit vectors out; ground and aerial encoders are two instances of it.

    Use `build_encoder`, which also loads the trunk's weights. `config` is the resolved configuration: its
    input transform and the sha256 of its weights are always filled in. `frozen` are the parts that stay in
    evaluation mode; `geofix.models.groups.freeze_trunk` sets them.
    """

    def __init__(self, config: EncoderConfig, trunk: nn.Module, width: int) -> None:
        super().__init__()
        self.config = config
        self.trunk = trunk
        self.width = width
        self.pooled = pooled_width(config, width)
        self.pool = build_aggregation(config, width)
        self.project = _projection(config, self.pooled)
        self.frozen: tuple[nn.Module, ...] = ()

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        return self.config.dimension or self.pooled

    @property
    def transform(self) -> InputTransform:
        """The input this encoder expects."""
        if self.config.input is None:
            raise UsageError("the encoder has no input transform.", hint="Make encoders by build_encoder.")
        return self.config.input

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def features(self, images: Tensor) -> Tensor:
        """Pooled and projected features (B, D) of (B, 3, H, W) normalised images, before normalisation."""
        features = self.trunk.forward_features(images)  # type: ignore[operator]
        token = class_token(features, self.trunk)
        vectors: Tensor = self.project(self.pool(as_map(features, self.trunk, self.width), token))
        return vectors

    def forward(self, images: Tensor) -> Tensor:
        """Embed (B, 3, H, W) normalised images as (B, D) float32 of unit length."""
        return functional.normalize(self.features(images).float(), dim=1)

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self


class JoinedEncoder(Encoder):
    """Encoders side by side that share no weights: each fills its own stretch of the embedding.

    What lies in different stretches has no similarity: a score is the sum of those of the stretches.
    `members` are the encoders of the stretches that are filled, first to last.
    """

    def __init__(self, config: EncoderConfig, members: Sequence[Encoder]) -> None:
        nn.Module.__init__(self)
        self.config = config
        self.members = nn.ModuleList(members)
        self.frozen = ()

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        return int(self.config.dimension or 0)

    def forward(self, images: Tensor) -> Tensor:
        """Embed (B, 3, H, W) normalised images as (B, D) float32 of unit length."""
        filled = [member(images) for member in self.members]
        if self.config.part is None:
            return torch.cat(filled, dim=1) / math.sqrt(len(filled))
        length = self.dimension // self.config.parts
        before = self.config.part * length
        return functional.pad(filled[0], (before, self.dimension - before - length))


def build_encoder(config: EncoderConfig, *, load_weights: bool = True) -> Encoder:
    """Make an encoder in evaluation mode on the CPU, with the file's weights or seeded random ones.

    The global random state is left as it was: the same configuration gives the same weights everywhere.

    Args:
        config: What to build. Unset parts are resolved and kept in the encoder's own `config`.
        load_weights: False skips `weights_uri`; for a caller that fills the whole encoder itself.

    Raises:
        UsageError: timm does not know the trunk or refuses its arguments.
        BadInputError: The weights do not fit, or their sha256 differs.
    """
    if config.parts > 1:
        return _join(config, load_weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        trunk = _create_trunk(config)
        width = int(trunk.num_features)  # type: ignore[arg-type]
        resolved = config.model_copy(update={"input": _resolve_input(config, trunk), "image_size": None})
        if load_weights and config.weights_uri is not None:
            report = load_trunk(trunk, config.weights_uri, config.weights_sha256)
            resolved = resolved.model_copy(update={"weights_sha256": report.sha256})
        # Channels last: a step on a CPU takes three quarters of the time (benchmarks/encoder_precision.py).
        return Encoder(resolved, trunk, width).eval().to(memory_format=torch.channels_last)


def _join(config: EncoderConfig, load_weights: bool) -> JoinedEncoder:
    """One encoder per stretch that is filled, all of one design; seeds far apart give them other weights."""
    filled = range(config.parts) if config.part is None else (config.part,)
    length = int(config.dimension or 0) // config.parts
    members = [
        build_encoder(
            config.model_copy(
                update={"parts": 1, "part": None, "dimension": length, "seed": config.seed + 7919 * place}
            ),
            load_weights=load_weights,
        )
        for place in filled
    ]
    resolved = members[0].config
    told = {name: getattr(resolved, name) for name in ("input", "image_size", "weights_sha256")}
    return JoinedEncoder(config.model_copy(update=told), members).eval()


def as_map(features: Tensor, trunk: nn.Module, width: int) -> Tensor:
    """Bring a trunk's features to (B, C, H, W): token sequences lose their class tokens, NHWC is permuted."""
    if features.ndim == 3:
        prefix = int(getattr(trunk, "num_prefix_tokens", 0))
        return features[:, prefix:].transpose(1, 2).unsqueeze(-1)
    if features.shape[1] != width and features.shape[-1] == width:
        return features.permute(0, 3, 1, 2)
    return features


def class_token(features: Tensor, trunk: nn.Module) -> Tensor | None:
    """The class token (B, C) of a token sequence, or None where the trunk has none."""
    prefix = int(getattr(trunk, "num_prefix_tokens", 0))
    if features.ndim != 3 or prefix < 1 or getattr(trunk, "cls_token", None) is None:
        return None
    return features[:, 0]


def _create_trunk(config: EncoderConfig) -> nn.Module:
    try:
        trunk: nn.Module = timm.create_model(
            config.trunk, pretrained=False, num_classes=0, **config.trunk_kwargs
        )
    except (RuntimeError, TypeError, ValueError) as error:
        raise UsageError(
            f"timm cannot make trunk {config.trunk!r} with {config.trunk_kwargs}: {error}.",
            hint="List the names by timm.list_models().",
        ) from error
    return trunk


def _resolve_input(config: EncoderConfig, trunk: nn.Module) -> InputTransform:
    transform = config.input or InputTransform.from_timm(resolve_model_data_config(trunk))  # type: ignore[no-untyped-call]
    if config.image_size is None:
        return transform
    side = config.image_size
    return InputTransform.from_dict({**transform.as_dict(), "size": (side, side), "crop": 1.0})


def _projection(config: EncoderConfig, width: int) -> nn.Module:
    """Identity, a linear layer, or a linear layer that is orthonormal and never trained."""
    if config.dimension is None:
        return nn.Identity()
    layer = nn.Linear(width, config.dimension, bias=False)
    nn.init.orthogonal_(layer.weight)
    layer.weight.requires_grad_(config.projection == "learned")
    return layer
