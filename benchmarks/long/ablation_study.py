"""The method trained again with one choice changed at a time, each beside the same reference.

After `method_study.py` for the same seed and folder: its world, photos and imagery are used. Every training,
the reference too, makes the same number of epochs. Killed, it resumes. Writes ablations.json, ablations.md.

    .venv/bin/python benchmarks/long/ablation_study.py --seed 1 --out /data/study
    .venv/bin/python benchmarks/long/ablation_study.py --seed 1 --out /data/study --only level_14 level_15
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from _rows import parts_of

from geofix.database import cluster
from geofix.evaluation.method_hits import difference, mean_percent
from geofix.pipeline.run import run_pipeline
from geofix.settings import get_settings

REFERENCE = "reference"
BOOTSTRAP = {"replicates": 2000, "seed": 0}
PARTS = ("prototypes", "aerial", "cellmean", "knn")


@dataclass(frozen=True)
class Ablation:
    """One choice changed.

    Attributes:
        label: For people.
        changes: Dotted keys of configs/cpu.yaml.
        tile_m: Side of the tiles, where it is not that of the study.
    """

    label: str
    changes: dict[str, Any] = field(default_factory=dict)
    tile_m: float | None = None


ONE_VECTOR = {"separate": False}
HARD = {"prototypes.soft_labels": False}
SIMILARITY = {**HARD, "prototypes.temperature": None, "loss.kind": "multi_similarity"}
ABLATIONS = {
    REFERENCE: Ablation("as in configs/cpu.yaml"),
    "no_proxies": Ablation("without proxies in the tiles' half", {"loss.aerial_prototype": 0}),
    "auxiliary": Ablation("tiles as second task of the prototypes' half", {"loss.auxiliary": 1}),
    "one_vector": Ablation("one ground vector for both, no AP", {**ONE_VECTOR, "loss.aerial_prototype": 0}),
    "one_vector_ap": Ablation("one ground vector, AP 1", ONE_VECTOR),
    "hard_labels": Ablation("interpolated positive instead of soft labels", HARD),
    "no_interpolation": Ablation("no border interpolation", {"prototypes.interpolate": False}),
    "level_15": Ablation("prototypes of level 15", {"prototypes.level": 15}),
    "level_14": Ablation("prototypes of level 14", {"prototypes.level": 14}),
    "dimension_128": Ablation("128 dimensions", {"dimension": 128}),
    "dimension_512": Ablation("512 dimensions", {"dimension": 512}),
    "neighbourhoods": Ablation(
        "half of a batch from one neighbourhood",
        {"batch.neighbourhood": 0.5, "batch.neighbourhood_km": [0.5, 3]},
    ),
    "balanced": Ablation("cells drawn by the root of their photos", {"batch.balance": 0.5}),
    "slow_rows": Ablation("rows a quarter as fast", {"optimiser.prototype_lr": 2e-3}),
    "multi_similarity": Ablation("multi-similarity, lambda 0", {**SIMILARITY, "loss.lambda": 0.0}),
    "multi_similarity_03": Ablation("multi-similarity, lambda 0.3", {**SIMILARITY, "loss.lambda": 0.3}),
    "multi_similarity_05": Ablation("multi-similarity, lambda 0.5", {**SIMILARITY, "loss.lambda": 0.5}),
    "tile_308": Ablation("tiles of 308 m", {"tiles.side_m": 308.0}, 308.0),
    "average": Ablation("running mean of the weights, 0.995", {"average": 0.995}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", default="study")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--only", nargs="+", choices=sorted(ABLATIONS), help="These and the reference.")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    settings = get_settings()
    cluster.start(settings)
    base = f"{args.size}-{args.seed}"
    names = [name for name in ABLATIONS if args.only is None or name in {REFERENCE, *args.only}]
    folders = {}
    for name in names:
        began, run = time.monotonic(), f"{base}-e{args.epochs}-{name.replace('.', '')}"
        file = args.out / "pipelines" / f"{run}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        world = (args.out / "worlds" / base).resolve()
        pipeline = pipeline_of(run, base, ABLATIONS[name], seed=args.seed, epochs=args.epochs, world=world)
        file.write_text(yaml.safe_dump(pipeline, sort_keys=False), encoding="utf-8")
        run_pipeline(file)
        folders[name] = settings.home_dir / "runs" / run / "method"
        print(f"{run}: {time.monotonic() - began:.0f} s", flush=True)
        points = [point(key, folder, folders[REFERENCE]) for key, folder in folders.items()]
        (args.out / "ablations.json").write_text(json.dumps(points, indent=1), encoding="utf-8")
        (args.out / "ablations.md").write_text(markdown(points), encoding="utf-8")
    print(markdown(points))


def pipeline_of(
    name: str, base: str, ablation: Ablation, *, seed: int, epochs: int, world: Path
) -> dict[str, Any]:
    """A pipeline on the photos and tiles of the run `base`, or on larger tiles of the same rasters."""
    config = Path(__file__).parents[2] / "configs" / "cpu.yaml"
    changes = {"seed": seed, "epochs": epochs, "validation.every": epochs, **ablation.changes}
    photos, aerial, model = [f"{base}-photos"], [f"{base}-aerial"], f"{name}-joint"
    stages: list[dict[str, Any]] = []
    if ablation.tile_m is not None:
        aerial = [f"{base}-aerial-{ablation.tile_m:g}m"]
        ingest = {"do": "ingest_aerial", "paths": [str(world / "aerial")], "source": aerial[0]}
        credit = {"licence": "CC0-1.0", "attribution": "geofix built-in world"}
        stages.append({**ingest, "side_m": ablation.tile_m, **credit})
    stages += [
        {"do": "snapshot", "datasets": photos, "aerial": aerial, "test": 0.3},
        {"do": "train", "name": model, "config": str(config), "changes": changes},
        {"do": "embed", "what": "photos", "model": model, "datasets": photos},
        {"do": "embed", "what": "aerial", "model": model, "datasets": aerial},
        {"do": "method", "model": model, "datasets": aerial, "density": False},
    ]
    return {"name": name, "about": f"{ablation.label}, beside a training as it is.", "stages": stages}


def point(name: str, folder: Path, reference: Path) -> dict[str, Any]:
    """Recall of the rows at the threshold on test_seen, and the hybrid against the reference's."""
    document = json.loads((folder / "method.json").read_text(encoding="utf-8"))
    radius = f"{document['threshold_m']:g}"
    rows = {row["key"]: row["splits"]["test_seen"]["recall"]["1"][radius] for row in document["rows"]}
    unseen = {row["key"]: row["splits"]["test_unseen"]["recall"]["1"][radius] for row in document["rows"]}
    ours, theirs = hits(folder, radius), hits(reference, radius)
    if not ours["photo_id"].equals(theirs["photo_id"]):
        raise SystemExit(f"{folder} and {reference} judge different photos: give each study its own --out.")
    clusters = pd.factorize(ours["cluster"])[0].astype(np.int64)
    against = difference(ours["hit"].to_numpy(float), theirs["hit"].to_numpy(float), clusters, **BOOTSTRAP)
    return {
        "name": name,
        "label": ABLATIONS[name].label,
        "photos": document["photos"]["test_seen"],
        "hybrid": mean_percent(ours["hit"].to_numpy(float)),
        "hybrid_unseen": unseen["hybrid"],
        "parts": parts_of(rows),
        "against_reference": against,
    }


def hits(folder: Path, radius: str) -> pd.DataFrame:
    """Photos of test_seen with the hybrid's hit at the radius, by photo."""
    table = pd.read_parquet(folder / "method.parquet")
    table = table[(table["row"] == "hybrid") & (table["split"] == "test_seen")]
    return table.rename(columns={f"hit_{radius}": "hit"}).sort_values("photo_id", ignore_index=True)


def markdown(points: list[dict[str, Any]]) -> str:
    """A table, one line per training."""
    head = [
        "changed",
        "hybrid",
        *PARTS,
        "test_unseen",
        "hybrid against the first line",
    ]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 2) + " --- |"]
    for item in points:
        parts = [f"{item['parts'][key]:.1f}" if key in item["parts"] else "" for key in PARTS]
        found = item["against_reference"]
        gain = f"{found['difference']:+.1f} ({found['low']:.1f} to {found['high']:.1f})"
        cells = [item["label"], f"{item['hybrid']:.1f}", *parts, f"{item['hybrid_unseen']:.1f}"]
        lines.append("| " + " | ".join([*cells, "" if item["name"] == REFERENCE else gain]) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
