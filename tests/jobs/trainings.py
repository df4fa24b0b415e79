"""A training of seconds: its snapshot, its job, and what it comes to when nothing disturbs it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("timm", reason="needs the extra `train`")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))

from training_files import snapshot

from geofix.jobs.specs import Specification, parse
from geofix.models.manifest import read_manifest
from geofix.training.config import load_raw, parse_config
from geofix.training.loop import train

TINY: dict[str, Any] = {
    "dimension": 16,
    "ground": {"trunk": "test_resnet", "size": 32, "fit": "squash", "aggregation": "avg"},
    "prototypes": {"level": 16},
    "batch": {"photos": 4, "neighbourhood_km": [0.2, 1]},
    "optimiser": {"trunk_lr": 1e-3, "head_lr": 1e-3, "prototype_lr": 1e-2},
    "epochs": 3,
    "workers": 0,
    "threads": 1,
}
CLASSIFIER: dict[str, Any] = {
    "encoder": TINY["ground"],
    "partitions": {"tau_min": 0, "tau_max": [12, 6, 3]},
    "batch": {"photos": 4},
    "optimiser": {"kind": "adamw", "trunk_lr": 1e-3, "head_lr": 1e-2},
    "epochs": 3,
    "workers": 0,
    "threads": 1,
}


class Training:
    """A snapshot and a configuration on disk; 5 steps per epoch."""

    def __init__(self, folder: Path, *, epochs: int = 3) -> None:
        self.folder = folder
        self.snapshot = snapshot(folder, aerial=False).path
        self.config = folder / "training.yaml"
        self.config.write_text(yaml.safe_dump(TINY | {"epochs": epochs}))

    def job(self, out: Path, **more: Any) -> Specification:
        given = {"config": str(self.config), "snapshot": str(self.snapshot), "out": str(out), **more}
        return parse("train", given)

    def classifier_job(self, out: Path, **more: Any) -> Specification:
        """Of a classifier on the same photos; 5 steps per epoch."""
        config = self.folder / "classifier.yaml"
        config.write_text(yaml.safe_dump(CLASSIFIER))
        given = {"config": str(config), "snapshot": str(self.snapshot), "out": str(out), **more}
        return parse("train_classifier", given)

    def undisturbed(self) -> str:
        """Hash of the weights."""
        out = self.folder / "undisturbed"
        if not out.exists():
            train(parse_config(load_raw(self.config), "test"), self.snapshot, out)
        return weights(out)


def weights(out: Path) -> str:
    return read_manifest(out / "model").weights_sha256


def snapshot_on_disk(factory: pytest.TempPathFactory, **options: int) -> Training:
    return Training(factory.mktemp("training"), **options)
