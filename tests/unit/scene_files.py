"""Semantic maps and scene labels for the photos of `training_files`, and tiny configurations."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from geofix.training.classify_config import ClassifierConfig, parse_classifier_config

COLOURS = [[0, 0, 0], [200, 30, 30], [30, 200, 30], [30, 30, 200], [250, 250, 250]]
VIT: dict[str, Any] = {
    "encoder": {
        "trunk": "vit_tiny_patch16_224",
        "trunk_options": {"patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2},
        "size": 16,
        "fit": "squash",
    },
    "partitions": {"tau_min": 0, "tau_max": [12, 6, 3]},
    "batch": {"photos": 6, "crop": 0.9},
    "optimiser": {"kind": "adamw", "trunk_lr": 1e-3, "head_lr": 1e-2},
    "epochs": 2,
    "workers": 0,
    "threads": 1,
}
RESNET = {"trunk": "test_resnet", "size": 32, "fit": "squash", "aggregation": "avg"}


def write_classes(folder: Path, colours: list[list[int]] | None = None) -> Path:
    """A list of classes in a folder of maps."""
    folder.mkdir(parents=True, exist_ok=True)
    classes = [{"name": f"c{i}", "rgb": rgb} for i, rgb in enumerate(colours or COLOURS)]
    path = folder / "semantics.json"
    path.write_text(json.dumps({"source": "made for a test", "classes": classes}))
    return path


def write_maps(folder: Path, photos: Path, *, coloured: bool = False) -> Path:
    """A map for every photo: upper half one class, lower half another, by the photo's number."""
    write_classes(folder)
    for path in sorted(photos.glob("*.png")):
        number = int(path.stem)
        with Image.open(path) as photo:
            width, height = photo.size
        values = np.full((height, width), number % 5, np.uint8)
        values[height // 2 :] = (number + 1) % 5
        made = np.asarray(COLOURS, np.uint8)[values] if coloured else values
        Image.fromarray(made).save(folder / path.name)
    return folder


def write_scenes(path: Path, photos: Path, *, without: tuple[int, ...] = ()) -> Path:
    """Scenes by the photo's number: natural and urban, none indoor; 16 scenes likewise."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["photo", "s3", "s16"])
        for photo in sorted(photos.glob("*.png")):
            number = int(photo.stem)
            if number not in without:
                writer.writerow([f"photos/{photo.name}", ("natural", "2")[number % 2], number % 16])
    return path


def vit_config(**changes: Any) -> ClassifierConfig:
    """A tiny run with a ViT."""
    return parse_classifier_config({**VIT, **changes}, "test")
