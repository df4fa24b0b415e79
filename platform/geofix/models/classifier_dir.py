"""A trained classifier as a model directory: encoder, layers, and the partitions they speak of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from geofix.errors import BadInputError, NotFoundError
from geofix.models.classifier import Classifier
from geofix.models.encoder import Encoder
from geofix.models.manifest import ModelManifest, model_directory
from geofix.models.mvmf import Mixture
from geofix.models.registry import Model, load_model, save_model
from geofix.models.scene_classifier import SceneClassifier
from geofix.models.scene_networks import SceneNetworks
from geofix.models.translocator import TransLocator, read_design
from geofix.partitions.files import MANIFEST, load_partition, save_partition
from geofix.partitions.partition import Partition
from geofix.spatial.distance import unit_vectors

Kind = Literal["softmax", "mvmf", "cplanet", "vit_mt", "translocator", "isn"]
PARTITIONS = "partitions"
"""Folder of the partitions within a model directory."""
_HEAD = "classifier."


@dataclass(frozen=True, eq=False)
class TrainedClassifier:
    """A classifier with everything that its answers need.

    Attributes:
        name: Of the model.
        kind: softmax: one layer per partition. mvmf: weights of a mixture, one component per class. cplanet:
            one layer per set of classes. The others: with scenes or semantic maps, see
            `geofix.models.scene_classifier`.
        network: In evaluation mode.
        partitions: Coarse to fine; of cplanet its sets, then their regions; of a mixture the one whose
            classes its components began at.
        metadata: As stored: snapshot hash, training configuration, figures on the validation photos.
        sha256: Of the weights file it was read from.
    """

    name: str
    kind: Kind
    network: Classifier | Mixture
    partitions: tuple[Partition, ...]
    metadata: Mapping[str, Any]
    sha256: str | None = None

    @property
    def encoder(self) -> Encoder:
        """The trunk with its input transform."""
        return self.network.encoder


def save_classifier(trained: TrainedClassifier, directory: Path, *, overwrite: bool = False) -> ModelManifest:
    """Write a model directory that `geofix models register` takes: an encoder with more beside it.

    Raises:
        UsageError: As `save_model`.
    """

    def partitions(work: Path) -> None:
        for partition in trained.partitions:
            save_partition(partition, work / PARTITIONS)

    described: dict[str, Any] = {
        "kind": trained.kind,
        "partitions": [
            {"name": item.name, "classes": len(item), "sha256": _digest(item)} for item in trained.partitions
        ],
    }
    if isinstance(trained.network, SceneClassifier):
        described["design"] = trained.network.describe()
    state = trained.network.state_dict()
    tensors = {f"{_HEAD}{key}": value for key, value in state.items() if not key.startswith("encoder.")}
    model = Model(
        trained.name, {"ground": trained.encoder}, tensors, {**trained.metadata, "classifier": described}
    )
    return save_model(model, directory, overwrite=overwrite, beside=partitions)


def load_classifier(directory: Path, device: torch.device | str = "cpu") -> TrainedClassifier:
    """Read a classifier, or the one that a training run left in its directory.

    Raises:
        NotFoundError: No model is there, or one that is no classifier.
        BadInputError: A file is damaged, or weights and partitions do not belong together.
    """
    directory = model_directory(directory)
    model = load_model(directory, device)
    described = model.metadata.get("classifier")
    if not isinstance(described, dict):
        raise NotFoundError(
            f"{directory} holds an encoder and no classifier.",
            hint="Train one with `geofix train-classifier`.",
        )
    partitions = tuple(_partition(directory, item) for item in described["partitions"])
    encoder = model.encoder("ground")
    network = _network(described, encoder, partitions)
    state = {key.removeprefix(_HEAD): v for key, v in model.tensors.items() if key.startswith(_HEAD)}
    try:
        left = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise BadInputError(f"Weights of {directory} do not fit its partitions: {error}.") from error
    lacking = [key for key in left.missing_keys if not key.startswith("encoder.")]
    if lacking or left.unexpected_keys:
        raise BadInputError(f"Weights of {directory} do not fit its partitions: {lacking or left}.")
    return TrainedClassifier(
        model.name, described["kind"], network.to(device).eval(), partitions, model.metadata, model.sha256
    )


def _network(
    described: Mapping[str, Any], encoder: Encoder, partitions: tuple[Partition, ...]
) -> Classifier | Mixture:
    kind, classes = described["kind"], [len(item) for item in partitions]
    if kind == "mvmf":
        return Mixture(encoder, class_points(partitions[-1]))
    if kind in ("vit_mt", "translocator"):
        return TransLocator(encoder, classes, read_design(described["design"]), load_weights=False)
    if kind == "isn":
        design = described["design"]
        return SceneNetworks(encoder, classes, design["scenes"], routed=design["routed"])
    return Classifier(encoder, classes[:-1] if kind == "cplanet" else classes)


def class_points(partition: Partition) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Positions of the classes as unit vectors (n, 3)."""
    return unit_vectors(partition.lon, partition.lat)


def _partition(directory: Path, described: Mapping[str, Any]) -> Partition:
    partition = load_partition(directory / PARTITIONS / str(described["name"]))
    if _digest(partition) != described["sha256"]:
        raise BadInputError(
            f"{directory / PARTITIONS / partition.name / MANIFEST} is not the partition that was trained on.",
            hint="Copy the model directory again.",
        )
    return partition


def _digest(partition: Partition) -> str:
    """Hash of what labels depend on: cells, their classes, and where classes answer."""
    found = sha256(json.dumps([partition.name, partition.kind, partition.coarser]).encode())
    parts = [partition.cells, partition.cell_class, partition.lon, partition.lat]
    for values in [*parts, *(item for item in (partition.parent, partition.members) if item is not None)]:
        found.update(np.ascontiguousarray(values).tobytes())
    return found.hexdigest()


def head_parameters(network: nn.Module) -> list[tuple[str, Tensor]]:
    """Names and parameters that are trained and do not belong to the encoder."""
    return [
        (name, value)
        for name, value in network.named_parameters()
        if not name.startswith("encoder.") and value.requires_grad
    ]
