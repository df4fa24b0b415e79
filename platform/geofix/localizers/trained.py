"""Localizers that a trained classifier offers, by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geofix.errors import BadInputError, UsageError
from geofix.localizers.base import PhotoLocalizer

if TYPE_CHECKING:
    from geofix.models.classifier_dir import TrainedClassifier

# Name -> what it is; loaded lazily, since these need torch and most localizers do not.
TRAINED = {
    "classifier": "joint model: product over all partitions (f*); single model: its partition",
    "classifier_c": "joint model: coarse partition alone",
    "classifier_m": "joint model: middle partition alone",
    "classifier_f": "joint model: fine partition alone",
    "classifier_fstar": "joint model: product over all partitions",
    "planet": "single model: centre of the most probable cell",
    "vit_mt": "ViT with layers for scenes: product over all partitions",
    "translocator": "ViT of photo and semantic map: product over all partitions",
    "isn_f": "individual scene networks: fine partition alone",
    "isn_fstar": "individual scene networks: product over all partitions",
    "cplanet": "sets of classes: region with the most votes, each divided by the size of its class",
    "cplanet_sum": "sets of classes: region with the most votes, not divided",
    "mvmf": "mixture: direction of the component with the largest weight",
    "mvmf_mode": "mixture: where its density is highest",
}
# Names that answer for models of one kind alone; kinds with layers per partition answer as classifiers too.
_KINDS = {
    "cplanet": "cplanet",
    "cplanet_sum": "cplanet",
    "vit_mt": "vit_mt",
    "translocator": "translocator",
    "isn_f": "isn",
    "isn_fstar": "isn",
}
_PLACES = {"classifier_c": 0, "classifier_m": 1, "classifier_f": 2}


def trained_localizer(
    name: str, directory: Path, device: str = "cpu", *, sha256: str | None = None
) -> PhotoLocalizer:
    """A localizer of a model directory.

    Args:
        name: One of `TRAINED`.
        directory: Of the model, or of the training run that made it.
        device: auto, cpu, cuda or cuda:N.
        sha256: Of the weights that are meant; None: whatever is there.

    Raises:
        UsageError: Unknown name, or one that a model of this kind does not offer.
        NotFoundError: The directory holds no classifier.
        BadInputError: It holds other weights, or cannot be read.
    """
    from geofix.localizers.classifier import Answers, MixtureLocalizer, degrees
    from geofix.models.classifier_dir import load_classifier
    from geofix.models.mvmf import Mixture
    from geofix.models.registry import choose_device

    if name not in TRAINED:
        raise UsageError(f"Localizer {name!r} is none of {', '.join(TRAINED)}.")
    trained = load_classifier(directory, choose_device(device))
    if sha256 is not None and trained.sha256 != sha256:
        raise BadInputError(
            f"{directory} holds weights {str(trained.sha256)[:12]}, {sha256[:12]} were registered.",
            hint="Register it under another name, or put the registered weights back.",
        )
    if name in _KINDS and trained.kind != _KINDS[name]:
        raise UsageError(
            f"Model {trained.name} was trained as {trained.kind}; localizer {name} needs another kind.",
            hint=f"Train with `kind: {_KINDS[name]}`, or use another localizer.",
        )
    if trained.kind == "cplanet" and name not in _KINDS:
        raise UsageError(
            f"Model {trained.name} was trained as cplanet; localizer {name} needs another kind.",
            hint="Use localizer cplanet or cplanet_sum.",
        )
    if isinstance(trained.network, Mixture) != name.startswith("mvmf"):
        raise UsageError(
            f"Model {trained.name} was trained as {trained.kind}; localizer {name} needs another kind.",
            hint="mvmf and mvmf_mode want `kind: mvmf`, the others a kind with layers per partition.",
        )
    if isinstance(trained.network, Mixture):
        points = trained.network.directions().detach().cpu().numpy()
        return MixtureLocalizer(name, trained, Answers.at(*degrees(points)), mode=name == "mvmf_mode")
    return _of_classes(name, trained)


def _of_classes(name: str, trained: TrainedClassifier) -> PhotoLocalizer:
    import torch

    from geofix.localizers.classifier import Answers, ClassifierLocalizer
    from geofix.models.classifier import product_rule
    from geofix.models.geoclasses import region_votes
    from geofix.partitions.hierarchy import ancestors

    parts = trained.partitions
    joint = len(parts) > 1
    wanted = 3 if name in _PLACES else 2 if name in ("classifier_fstar", "isn_fstar") else 1
    if len(parts) < wanted or (name in _PLACES and len(parts) != wanted) or (name == "planet" and joint):
        raise UsageError(
            f"Model {trained.name} has {len(parts)} partitions; localizer {name} is for a {_needs(name)}.",
            hint="Use localizer classifier, or train with another partitions.tau_max.",
        )
    if name in _PLACES:
        place = _PLACES[name]
        part = parts[place]
        return ClassifierLocalizer(name, trained, Answers.at(part.lon, part.lat), lambda found: found[place])
    if trained.kind == "cplanet":
        regions, normalise = parts[-1], name == "cplanet"
        return ClassifierLocalizer(
            name,
            trained,
            Answers.at(regions.lon, regions.lat),
            lambda found: region_votes(found, regions, normalise=normalise),
        )
    if name == "isn_f":
        return ClassifierLocalizer(
            name, trained, Answers.at(parts[-1].lon, parts[-1].lat), lambda found: found[-1]
        )
    if joint:
        held = torch.from_numpy(ancestors(parts)).to(trained.encoder.device)
        finest = Answers.at(parts[-1].lon, parts[-1].lat)
        own = name if name in _KINDS else "classifier_fstar"
        return ClassifierLocalizer(own, trained, finest, lambda found: product_rule(found, held))
    only = parts[0]
    answers = (
        Answers.centres(np.asarray(only.class_cells()))
        if name == "planet"
        else Answers.at(only.lon, only.lat)
    )
    return ClassifierLocalizer(name, trained, answers, lambda found: found[0])


def _needs(name: str) -> str:
    if name == "planet":
        return "model of one partition"
    return "model of three" if name in _PLACES else "model of several"
