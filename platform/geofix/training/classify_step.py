"""One step of a classifier's training: a batch forward, its terms, the weights moved."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from geofix.losses.cross_entropy import class_terms, weighted_sum
from geofix.losses.mixture import mixture_nll
from geofix.models.classifier import Classifier
from geofix.models.scene_classifier import SceneClassifier
from geofix.training.blame import finite
from geofix.training.classify_config import ClassifierConfig
from geofix.training.classify_run import ClassifierRun, points_of
from geofix.training.config import OptimiserSection
from geofix.training.samples import Batch
from geofix.training.scene_step import scene_terms, term_weights
from geofix.training.state import rate
from geofix.training.step import DivergedError, Outcome, cpu_has_bfloat16

_HINT = "Lower the learning rates or train in float32; the last checkpoint is from before."


def low_precision(config: ClassifierConfig, device: torch.device) -> bool:
    """Whether forward passes run in bfloat16."""
    return config.precision == "bfloat16" or (
        config.precision != "float32"
        and (device.type == "cuda" or (config.precision == "native" and cpu_has_bfloat16()))
    )


def set_rates(run: ClassifierRun) -> float:
    """Set every learning rate for the step to come; returns the share of the highest."""
    rates = run.config.optimiser
    shape = OptimiserSection(warmup=rates.warmup, final=rates.final)
    share = rate(shape, run.clock.step, run.steps_per_epoch * run.config.epochs)
    for group in run.optimiser.param_groups:
        group["lr"] = group["highest_lr"] * share
    return share


def classify_step(run: ClassifierRun, batch: Batch) -> Outcome:
    """Train on one batch.

    Raises:
        DivergedError: A term or the gradient is not finite; the weights are as they were before.
    """
    run.optimiser.zero_grad(set_to_none=True)
    terms = _terms(run, batch)
    where = f"step {run.clock.step + 1} (epoch {run.clock.epoch + 1})"
    values = {name: float(value.detach()) for name, value in terms.items()}
    for name, value in values.items():
        if not math.isfinite(value):
            raise DivergedError(f"The term {name} is {value} at {where}.", hint=_HINT)
    weights = _weights(run, list(terms))
    total = weighted_sum(list(terms.values()), weights)
    total.backward()  # type: ignore[no-untyped-call]
    trained = [p for group in run.optimiser.param_groups for p in group["params"]]
    norm = float(torch.nn.utils.clip_grad_norm_(trained, run.config.optimiser.clip))
    if not math.isfinite(norm):
        again = _terms(run, batch).items()  # the graph of the first pass is gone
        faulty = [name for name, term in again if not finite([term], trained)] or list(terms)
        raise DivergedError(f"The gradient of {', '.join(faulty)} is {norm} at {where}.", hint=_HINT)
    run.optimiser.step()
    return Outcome(values, float(total.detach()), norm)


def _terms(run: ClassifierRun, batch: Batch) -> dict[str, Tensor]:
    """The loss's parts by name: one per partition and count of scenes, or the mixture's."""
    images = _mirrored(run, batch).to(run.device, non_blocking=True)
    network = run.network
    if isinstance(network, SceneClassifier):
        rows = torch.from_numpy(batch.rows)
        labels = run.labels[rows].to(run.device)
        scenes = None if run.scenes is None else run.scenes[rows].to(run.device)
        names = [item.name for item in run.partitions]
        with torch.autocast(run.device.type, torch.bfloat16, enabled=low_precision(run.config, run.device)):
            return scene_terms(network, images, labels, scenes, names)
    with torch.autocast(run.device.type, torch.bfloat16, enabled=low_precision(run.config, run.device)):
        outputs = network(images)
    if isinstance(network, Classifier):
        labels = run.labels[torch.from_numpy(batch.rows)].to(run.device)
        found = class_terms(outputs, labels)
        return {item.name: term for item, term in zip(run.partitions, found, strict=True)}
    points = points_of(run.photos, batch.rows).to(run.device)
    return {"mvmf": mixture_nll(outputs, network.log_densities(points))}


def _weights(run: ClassifierRun, terms: list[str]) -> Sequence[float]:
    """Weight of each term."""
    if isinstance(run.network, SceneClassifier):
        return term_weights(run.config, terms, [item.name for item in run.partitions])
    return run.config.weights if isinstance(run.network, Classifier) else (1.0,)


def _mirrored(run: ClassifierRun, batch: Batch) -> Tensor:
    """The photos, every other one mirrored by chance where the configuration says so."""
    if not run.config.batch.mirror:
        return batch.ground
    rng = np.random.default_rng([run.config.seed, run.clock.step, 0x6D6972])
    chosen = torch.from_numpy(rng.random(len(batch.ground)) < 0.5)[:, None, None, None]
    return torch.where(chosen, batch.ground.flip(-1), batch.ground)
