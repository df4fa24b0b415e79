"""Individual scene networks (ISNs): one joint classifier per scene, a photo asks the one of its own scene.

Müller-Budack, Pustu-Iren, Ewerth: *Geolocation Estimation of Photos using a Hierarchical Model and Scene
Classification*, ECCV 2018; from its description alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from geofix.errors import BadInputError, UsageError
from geofix.models.classifier import Classifier, linear_head
from geofix.models.encoder import Encoder, build_encoder
from geofix.models.scene_classifier import S3_SCENES, SceneClassifier


class SceneNetworks(SceneClassifier):
    """A network for each of some of the three scenes, and the one that tells scenes apart.

    Args:
        encoder: Of the first network.
        classes: Per partition.
        scenes: Which of the three have a network, ascending.
        routed: Scenes come by their own network (else as a plane of labels behind the photo).
        seed: Of all weights beside the trunk's.
    """

    def __init__(
        self,
        encoder: Encoder,
        classes: Sequence[int],
        scenes: Sequence[int],
        *,
        routed: bool,
        seed: int = 0,
    ) -> None:
        super().__init__(encoder)
        if not scenes or sorted(set(scenes)) != list(scenes) or not set(scenes) <= set(range(S3_SCENES)):
            raise UsageError(f"Scenes {list(scenes)} are not some of 0, 1, 2 in ascending order.")
        self.own = tuple(scenes)
        self.planes = 0 if routed else 1
        self.scenes = (S3_SCENES,) if routed else ()
        self.others = nn.ModuleList(_copy(encoder) for _ in scenes[1:])
        self.router = _copy(encoder) if routed else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            first = nn.ModuleList(linear_head(encoder.dimension, count) for count in classes)
            self.router_head = linear_head(encoder.dimension, S3_SCENES) if routed else None
        self.scene_heads = nn.ModuleList([first, *(_heads_like(first) for _ in scenes[1:])])

    def begin_at(self, base: Classifier) -> None:
        """Make every network a copy of a joint classifier; the scenes' own begins at its trunk.

        Raises:
            BadInputError: It is of another design.
        """
        try:
            for place in range(len(self.own)):
                self._encoder(place).load_state_dict(base.encoder.state_dict())
                self._heads(place).load_state_dict(base.heads.state_dict())
            if self.router is not None:
                self.router.load_state_dict(base.encoder.state_dict())
        except RuntimeError as error:
            raise BadInputError(
                f"The classifier to begin at is of another design: {str(error).splitlines()[0]}",
                hint="Train it with the same encoder and partitions.",
            ) from error

    def expert(self, place: int, images: Tensor) -> list[Tensor]:
        """Logits per partition by the network of `own[place]`, float32."""
        features = self._encoder(place).features(images[:, :3])
        return [head(features).float() for head in self._heads(place)]

    def scene_logits(self, images: Tensor) -> Tensor:
        """Logits (B, 3) of the scenes, float32."""
        if self.router is None or self.router_head is None:
            raise UsageError("These networks take scenes from labels; they do not tell them apart.")
        found: Tensor = self.router_head(self.router.features(images[:, :3])).float()
        return found

    def outputs(self, images: Tensor, together: int = 1) -> tuple[list[Tensor], list[Tensor]]:
        """Logits per partition by the network of each photo's scene, and of the scenes where they are told.

        A scene without a network is not chosen; from a plane of labels it is an error. Parts of one photo go
        through one network, by the mean of their scenes' logits.

        Raises:
            BadInputError: A label is of a scene without a network.
        """
        scores = self.scene_logits(images) if self.router is not None else None
        if scores is None:
            places = self._places(images[:, 3].amax(dim=(1, 2)).round().long())
        else:
            mean = scores[:, list(self.own)].reshape(-1, together, len(self.own)).mean(dim=1)
            places = mean.argmax(dim=1).repeat_interleave(together)
        found: list[Tensor] | None = None
        for place in torch.unique(places).tolist():
            rows = torch.nonzero(places == place)[:, 0]
            logits = self.expert(place, images[rows])
            if found is None:
                found = [values.new_zeros(len(images), values.shape[1]) for values in logits]
            found = [whole.index_copy(0, rows, part) for whole, part in zip(found, logits, strict=True)]
        assert found is not None
        return found, [] if scores is None else [scores]

    def describe(self) -> dict[str, Any]:
        """Scenes with a network, and whether they are told by one."""
        return {"scenes": list(self.own), "routed": self.router is not None}

    def _places(self, labels: Tensor) -> Tensor:
        table = torch.full((S3_SCENES,), -1, dtype=torch.long, device=labels.device)
        table[list(self.own)] = torch.arange(len(self.own), device=labels.device)
        places = table[labels.clamp(0, S3_SCENES - 1)]
        if int(labels.max()) >= S3_SCENES or int(places.min()) < 0:
            raise BadInputError(f"A photo is of scene {int(labels.max())}; networks: {list(self.own)}.")
        return places

    def _encoder(self, place: int) -> Encoder:
        found = self.encoder if place == 0 else self.others[place - 1]
        assert isinstance(found, Encoder)
        return found

    def _heads(self, place: int) -> nn.ModuleList:
        found = self.scene_heads[place]
        assert isinstance(found, nn.ModuleList)
        return found


def _copy(encoder: Encoder) -> Encoder:
    """An encoder of the same weights."""
    made = build_encoder(encoder.config, load_weights=False)
    made.load_state_dict(encoder.state_dict())
    return made


def _heads_like(heads: nn.ModuleList) -> nn.ModuleList:
    made = nn.ModuleList(nn.Linear(h.in_features, h.out_features) for h in heads if isinstance(h, nn.Linear))
    made.load_state_dict(heads.state_dict())
    return made
