"""Validation photos after an epoch, and the weights that are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from geofix.losses.cross_entropy import class_terms
from geofix.losses.mixture import mixture_nll
from geofix.models.classifier import Classifier, log_probabilities
from geofix.models.classifier_dir import TrainedClassifier, save_classifier
from geofix.models.mvmf import Mixture
from geofix.models.scene_classifier import SceneClassifier
from geofix.spatial.distance import great_circle_m
from geofix.training.classify_checkpoint import NAME
from geofix.training.classify_run import Checked, ClassifierRun, points_of
from geofix.training.classify_step import low_precision
from geofix.training.scene_step import SCENE

MODEL = "model"
RADII_KM = (0.2, 1.0, 25.0, 200.0, 750.0, 2500.0)


def judge(run: ClassifierRun) -> None:
    """Look at the epoch just finished, and keep its weights where they are the best so far."""
    clock, config = run.clock, run.config
    figures: dict[str, float] = {}
    if run.checked is not None:
        figures = validate(run, run.checked)
        clock.history.append({"epoch": clock.epoch, "step": clock.step, **figures})
        run.journal.validation(clock.history)
    main = figures.get("typical_km")
    better = main is not None and (clock.best is None or main <= clock.best[0])
    if better and main is not None:
        clock.best = (main, clock.epoch)
    last = clock.epoch == config.epochs
    if (config.validation.keep == "best" and better) or (
        last and (config.validation.keep == "last" or clock.best is None)
    ):
        save_classifier(_trained(run, figures), run.out / MODEL, overwrite=True)


def validate(run: ClassifierRun, checked: Checked) -> dict[str, float]:
    """Figures on photos of `val`: share of right classes, percent within radii, median error, loss.

    The answer is that of the finest partition, by the product over all where there are several.
    """
    network = run.network
    network.eval()
    answers = np.full(len(checked.photos), -1, np.int64)
    right: dict[str, list[float]] = {item.name: [] for item in run.partitions}
    losses: list[float] = []
    low = low_precision(run.config, run.device)
    try:
        for numbers, pixels in checked.pictures.batches():
            images = torch.from_numpy(pixels).to(run.device)
            labels = torch.from_numpy(checked.labels[numbers]).to(run.device)
            with torch.inference_mode(), torch.autocast(run.device.type, torch.bfloat16, enabled=low):
                outputs, told = _asked(network, images)
            if isinstance(network, Classifier):
                probabilities = log_probabilities(outputs)
                scores = run.class_scores(probabilities)
                terms = class_terms(outputs, labels)
                losses.append(sum(w * float(t) for w, t in zip(run.config.weights, terms, strict=True)))
                for item, values, own in zip(run.partitions, probabilities, labels.T, strict=True):
                    known = own >= 0
                    right[item.name] += (values.argmax(dim=1) == own)[known].float().tolist()
                if told and checked.scenes is not None:
                    _right_scenes(right, told, torch.from_numpy(checked.scenes[numbers]).to(run.device))
            else:
                scores = outputs
                with torch.inference_mode():
                    densities = network.log_densities(points_of(checked.photos, numbers).to(run.device))
                    losses.append(float(mixture_nll(outputs, densities)))
            answers[numbers] = scores.argmax(dim=1).cpu().numpy()
    finally:
        network.train()
    return {
        **_errors(run, checked, answers),
        **{f"right/{name}": 100.0 * float(np.mean(values)) for name, values in right.items() if values},
        **({"loss": float(np.mean(losses))} if losses else {}),
    }


def _asked(network: Classifier | Mixture, images: Tensor) -> tuple[Any, list[Tensor]]:
    """A network's outputs, and logits of scenes where it tells them."""
    return network.outputs(images) if isinstance(network, SceneClassifier) else (network(images), [])


def _right_scenes(right: dict[str, list[float]], told: list[Tensor], scenes: Tensor) -> None:
    for values, own in zip(told, scenes.T, strict=True):
        hits = (values.argmax(dim=1) == own)[own >= 0].float().tolist()
        right.setdefault(f"{SCENE}{values.shape[1]}", []).extend(hits)


def _errors(run: ClassifierRun, checked: Checked, answers: np.ndarray[Any, Any]) -> dict[str, float]:
    """Percent within radii (km), median and geometric mean of the error; what cannot be read is wrong.

    Errors have two humps, right place and anywhere, between which a median jumps: the geometric mean, errors
    below a metre counted as one, tells epochs apart.
    """
    seen = answers >= 0
    if not seen.any():
        return {}
    lon, lat = _positions(run)
    photos = checked.photos
    metres = np.full(len(answers), np.inf)
    metres[seen] = great_circle_m(photos.lon[seen], photos.lat[seen], lon[answers[seen]], lat[answers[seen]])
    figures = {f"{radius:g}": 100.0 * float((metres <= 1000 * radius).mean()) for radius in RADII_KM}
    known = metres[seen]
    return {
        **figures,
        "median_km": float(np.median(known) / 1000),
        "typical_km": float(np.exp(np.log(np.maximum(known, 1.0)).mean()) / 1000),
    }


def _positions(run: ClassifierRun) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Where each finest class or component answers, degrees."""
    if isinstance(run.network, Classifier):
        return run.stored[-1].lon, run.stored[-1].lat
    x, y, z = run.network.directions().detach().cpu().numpy().T
    return np.rad2deg(np.arctan2(y, x)), np.rad2deg(np.arctan2(z, np.hypot(x, y)))


def _trained(run: ClassifierRun, figures: dict[str, float]) -> TrainedClassifier:
    metadata = {
        "snapshot_sha256": run.snapshot.sha256,
        "training": run.config.model_dump(mode="json"),
        "epoch": run.clock.epoch,
        "val": figures,
        "terms": ["mvmf"] if run.config.kind == "mvmf" else [item.name for item in run.partitions],
        **({} if run.planes is None else {"planes": run.planes.describe()}),
    }
    return TrainedClassifier(run.out.resolve().name, run.config.kind, run.network, run.stored, metadata)


def result_of(run: ClassifierRun) -> dict[str, Any]:
    """What `train_classifier` returns."""
    clock = run.clock
    kept = clock.best[1] if clock.best and run.config.validation.keep == "best" else clock.epoch
    figures = next((item for item in clock.history if item["epoch"] == kept), {})
    return {
        "kind": run.config.kind,
        "steps": clock.step,
        "epochs": clock.epoch,
        "kept_epoch": kept,
        "val": {key: value for key, value in figures.items() if key not in ("epoch", "step")},
        "photos": len(run.photos),
        "classes": {item.name: len(item) for item in run.stored},
        "outside": {
            item.name: int((own < 0).sum()) for item, own in zip(run.partitions, run.labels.T, strict=True)
        },
        "unreadable": [list(item) for item in sorted(run.unreadable.items())[:100]],
        "checkpoint": str(run.out / NAME),
        "model": str(run.out / MODEL),
    }
