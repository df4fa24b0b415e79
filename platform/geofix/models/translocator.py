"""A vision transformer for positions with one branch (ViT-MT), or two that meet in layers (TransLocator).

Pramanick, Nowara, Gleason, Castillo, Chellappa: *Where in the World is this Image? Transformer-based
Geo-localization in the Wild*, ECCV 2022. Blocks are timm's; what stands here is how two of them are joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from geofix.errors import BadInputError, UsageError
from geofix.models.classifier import linear_head
from geofix.models.config import EncoderConfig
from geofix.models.encoder import Encoder, build_encoder
from geofix.models.scene_classifier import SceneClassifier

Combine = Literal["attention", "concatenation"]
MapInput = Literal["colour", "channels"]


@dataclass(frozen=True)
class Design:
    """Which parts there are; with `semantic` None it is one ViT.

    Attributes:
        semantic: Configuration of the branch that sees the semantic map.
        maps: The map comes in as a colour image, or as one channel per class.
        colours: RGB of the classes.
        least_share: A class's channel is blank where it covers no larger share of the photo.
        fuse: Class tokens meet after every layer (MFF).
        combine: What the layers see of both class tokens at the end.
        width: Length of the common space of the class tokens; None: that of the trunk.
        scenes: Counts of scenes with a layer each.
    """

    semantic: EncoderConfig | None = None
    maps: MapInput = "colour"
    colours: tuple[tuple[int, int, int], ...] = ()
    least_share: float = 0.01
    fuse: bool = True
    combine: Combine = "attention"
    width: int | None = None
    scenes: tuple[int, ...] = ()


class LayerFusion(nn.Module):
    """Class tokens of all branches through f, summed, through g: z = g(sum over b of f_b(CLS_b)).

    Begins as the mean of the tokens (f: orthonormal / branches, g: its transpose), so that pretrained trunks
    are not thrown off at the first step.
    """

    def __init__(self, width: int, common: int, branches: int = 2) -> None:
        super().__init__()
        self.f = nn.ModuleList(nn.Linear(width, common) for _ in range(branches))
        self.g = nn.Linear(common, width)
        turn = nn.init.orthogonal_(torch.empty(common, width))
        with torch.no_grad():
            for layer in self.f:
                assert isinstance(layer, nn.Linear)
                layer.weight.copy_(turn / branches)
                nn.init.zeros_(layer.bias)
            self.g.weight.copy_(turn.T)
            nn.init.zeros_(self.g.bias)

    def forward(self, tokens: Sequence[Tensor]) -> Tensor:
        """One token (B, D) of all branches' (B, D)."""
        common = [layer(token) for layer, token in zip(self.f, tokens, strict=True)]
        fused: Tensor = self.g(torch.stack(common).sum(dim=0))
        return fused


class AttentionFusion(nn.Module):
    """Weights w = softmax(MLP([a; b])) of two vectors, which become [(1 + w_1) a; (1 + w_2) b]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, 2))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """(B, 2 D) of two (B, D)."""
        weights = self.weigh(torch.cat([first, second], dim=1)).float().softmax(dim=1)
        return torch.cat([(1 + weights[:, :1]) * first, (1 + weights[:, 1:]) * second], dim=1)


class TransLocator(SceneClassifier):
    """Photos, with semantic maps where there is a second branch, to logits of partitions and scenes.

    Args:
        encoder: Of the photo: a ViT with a class token, without projection.
        classes: Per partition.
        design: The parts.
        seed: Of all weights beside the trunks'.
        load_weights: False leaves the second branch's weights to the caller.

    Raises:
        UsageError: A trunk is no such ViT, or the branches differ in depth or width.
    """

    palette: Tensor

    def __init__(
        self,
        encoder: Encoder,
        classes: Sequence[int],
        design: Design,
        seed: int = 0,
        *,
        load_weights: bool = True,
    ) -> None:
        super().__init__(encoder)
        self.design = design
        self.scenes = design.scenes
        self.planes = int(design.semantic is not None)
        width = _width(encoder)
        self.semantic: Encoder | None = None
        if design.semantic is not None:
            self.semantic = build_encoder(design.semantic, load_weights=load_weights)
        if self.semantic is not None and _shape(self.semantic) != _shape(encoder):
            raise UsageError(
                f"Both branches need as many layers of one width; here {_shape(encoder)} and "
                f"{_shape(self.semantic)}."
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.fusions = self._fusions(width)
            both = self.semantic is not None
            self.attention = AttentionFusion(width) if both and design.combine == "attention" else None
            out = width * (2 if both else 1)
            self.heads = nn.ModuleList(linear_head(out, count) for count in classes)
            self.scene_heads = nn.ModuleList(linear_head(out, count) for count in design.scenes)
        self.register_buffer("palette", self._palette(encoder), persistent=False)

    @property
    def width(self) -> int:
        """Length of what the layers see."""
        return _width(self.encoder) * (1 if self.semantic is None else 2)

    def features(self, images: Tensor) -> Tensor:
        """What the layers see, (B, width)."""
        branches = [self.encoder] if self.semantic is None else [self.encoder, self.semantic]
        inputs = [images[:, :3]] if self.semantic is None else [images[:, :3], self.map_input(images[:, 3])]
        tokens = [begin(branch.trunk, values) for branch, values in zip(branches, inputs, strict=True)]
        blocks = zip(*(blocks_of(branch.trunk) for branch in branches), strict=True)
        for layer, members in enumerate(blocks):
            tokens = [block(values) for block, values in zip(members, tokens, strict=True)]
            if self.fusions is not None:
                fused = self.fusions[layer]([values[:, 0] for values in tokens]).unsqueeze(1)
                tokens = [torch.cat([fused.to(values.dtype), values[:, 1:]], dim=1) for values in tokens]
        trunks = [vision_transformer(branch.trunk) for branch in branches]
        ends: list[Tensor] = [
            trunk.norm(values)[:, 0].float() for trunk, values in zip(trunks, tokens, strict=True)
        ]
        if len(ends) == 1:
            return ends[0]
        if self.attention is None:
            return torch.cat(ends, dim=1)
        found: Tensor = self.attention(*ends)
        return found

    def outputs(self, images: Tensor, together: int = 1) -> tuple[list[Tensor], list[Tensor]]:
        """Logits per partition and per count of scenes, float32."""
        features = self.features(images)
        return (
            [head(features).float() for head in self.heads],
            [head(features).float() for head in self.scene_heads],
        )

    def map_input(self, classes: Tensor) -> Tensor:
        """The second branch's input (B, 3 or classes, H, W) of class numbers (B, H, W)."""
        numbers = classes.round().long()
        if int(numbers.min()) < 0 or int(numbers.max()) >= len(self.palette):
            raise BadInputError(
                f"A semantic map shows class {int(numbers.max())}; the model knows {len(self.palette)}."
            )
        if self.design.maps == "colour":
            colours: Tensor = self.palette[numbers].permute(0, 3, 1, 2)
            return colours
        planes = functional.one_hot(numbers, len(self.palette)).permute(0, 3, 1, 2).float()
        share = planes.mean(dim=(2, 3), keepdim=True)
        return planes * (share > self.design.least_share)

    def describe(self) -> dict[str, Any]:
        """The design with the second branch's resolved configuration."""
        resolved = None if self.semantic is None else self.semantic.config.model_dump(mode="json")
        return {**asdict(self.design), "semantic": resolved}

    def _fusions(self, width: int) -> nn.ModuleList | None:
        if self.semantic is None or not self.design.fuse:
            return None
        common = self.design.width or width
        return nn.ModuleList(LayerFusion(width, common) for _ in blocks_of(self.encoder.trunk))

    def _palette(self, encoder: Encoder) -> Tensor:
        """Colours of the classes as the branch takes them in, (classes, 3)."""
        transform = encoder.transform
        colours = torch.tensor(self.design.colours, dtype=torch.float32).reshape(-1, 3) / 255.0
        if transform.channels == "bgr":
            colours = colours.flip(1)
        return (colours - torch.tensor(transform.mean)) / torch.tensor(transform.std)


def read_design(content: dict[str, Any]) -> Design:
    """The design that `TransLocator.describe` wrote.

    Raises:
        BadInputError: It is of another version.
    """
    try:
        semantic = content["semantic"]
        return Design(
            **{
                **content,
                "semantic": None if semantic is None else EncoderConfig.model_validate(semantic),
                "colours": tuple((int(r), int(g), int(b)) for r, g, b in content["colours"]),
                "scenes": tuple(content["scenes"]),
            }
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadInputError(f"The design of a TransLocator cannot be read: {error}.") from error


def begin(trunk: nn.Module, images: Tensor) -> Tensor:
    """Tokens (B, N, D) before the first layer: patches, class token and positions, by timm's own steps."""
    vit = vision_transformer(trunk)
    tokens: Tensor = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images))))
    return tokens


def blocks_of(trunk: nn.Module) -> list[nn.Module]:
    """The encoder layers."""
    return list(vision_transformer(trunk).blocks)


def vision_transformer(trunk: nn.Module) -> Any:
    """The trunk, if it is a plain ViT whose first token is a class token.

    Raises:
        UsageError: It is none.
    """
    token = getattr(trunk, "cls_token", None)
    if not isinstance(trunk, VisionTransformer) or token is None or trunk.has_class_token is False:
        raise UsageError(
            f"Trunk {type(trunk).__name__} is no vision transformer with a class token.",
            hint="Use one of timm's vit_*, such as vit_tiny_patch16_224.",
        )
    return trunk


def _width(encoder: Encoder) -> int:
    return int(vision_transformer(encoder.trunk).embed_dim)


def _shape(encoder: Encoder) -> tuple[int, int]:
    return len(blocks_of(encoder.trunk)), _width(encoder)
