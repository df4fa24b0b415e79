"""The loss of classifiers with scenes: one term per partition, one per count of scenes, and their weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from geofix.losses.cross_entropy import class_terms
from geofix.models.scene_classifier import SceneClassifier
from geofix.models.scene_networks import SceneNetworks
from geofix.training.classify_config import ClassifierConfig
from geofix.training.scene_labels import S3

SCENE = "scene-"
"""Names of the scenes' terms: scene-3, scene-16, scene-365."""


def scene_terms(
    network: SceneClassifier, images: Tensor, labels: Tensor, scenes: Tensor | None, names: Sequence[str]
) -> dict[str, Tensor]:
    """The loss's parts by name.

    Args:
        network: In training mode.
        images: (B, 3 + planes, H, W).
        labels: (B, partitions), -1 for none.
        scenes: (B, counts of scenes), -1 for none; None where no scene is learned.
        names: Of the partitions.
    """
    if isinstance(network, SceneNetworks):
        assert scenes is not None
        return _of_networks(network, images, labels, scenes, names)
    places, found = network.outputs(images)
    terms = dict(zip(names, class_terms(places, labels), strict=True))
    if found and scenes is not None:
        told = class_terms(found, scenes)
        terms |= {f"{SCENE}{count}": term for count, term in zip(network.scenes, told, strict=True)}
    return terms


def _of_networks(
    network: SceneNetworks, images: Tensor, labels: Tensor, scenes: Tensor, names: Sequence[str]
) -> dict[str, Tensor]:
    """Every network on the photos of its scene; one photo alone tells batch normalisation nothing."""
    groups = [torch.nonzero(scenes[:, 0] == scene)[:, 0] for scene in network.own]
    least = min(2, max(len(rows) for rows in groups))
    terms: dict[str, Tensor] = {}
    for place, (scene, rows) in enumerate(zip(network.own, groups, strict=True)):
        if len(rows) >= least:
            found = class_terms(network.expert(place, images[rows]), labels[rows])
            terms |= {f"{S3[scene]}/{name}": term for name, term in zip(names, found, strict=True)}
    if network.router is not None:
        terms[f"{SCENE}{len(S3)}"] = class_terms([network.scene_logits(images)], scenes)[0]
    return terms


def term_weights(config: ClassifierConfig, terms: Iterable[str], names: Sequence[str]) -> list[float]:
    """Weight of each term: of its partition, or of scenes."""
    own = dict(zip(names, config.weights, strict=True))
    return [
        config.scenes.weight if term.startswith(SCENE) else own[term.rpartition("/")[2]] for term in terms
    ]
