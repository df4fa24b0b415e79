"""The method with 100, 30, 10 and 3 % of the training photos: two curves, encoders retrained and kept.

After `method_study.py` for the same seed and folder: its world, photos, imagery and joint model are used.
Killed, it resumes. Writes sparsity.json, sparsity.md and sparsity.svg.

    .venv/bin/python benchmarks/long/sparsity_study.py --seed 1 --out /data/study
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from _rows import PARTS, parts_of

from geofix.database import cluster
from geofix.pipeline.run import run_pipeline
from geofix.settings import get_settings

PIPELINE = Path(__file__).parents[2] / "examples" / "sparsity.yaml"
EPOCHS = {0.3: (36, 72), 0.1: (60, 120), 0.03: (90, 180)}  # joint, prototypes alone
ROWS = ("hybrid", *PARTS)
COLOURS = dict(zip(ROWS, ("#000000", "#0072b2", "#56b4e9", "#009e73", "#e69f00", "#cc79a7"), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", default="study")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.03, 0.1, 0.3])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    settings = get_settings()
    cluster.start(settings)
    base = f"{args.size}-{args.seed}"
    runs = settings.home_dir / "runs"
    points = [point(1.0, "retrained", runs / base / "method")]
    for share in args.shares:
        began, name = time.monotonic(), f"{base}-share{share * 100:g}".replace(".", "_")
        joint, alone = EPOCHS.get(share, (60, 150))
        values = {"base": base, "name": name, "share": str(share), "seed": str(args.seed)}
        values |= {"epochs": str(joint), "epochs_alone": str(alone)}
        run_pipeline(PIPELINE, variables=values)
        points += [
            point(share, kind, runs / name / f) for kind, f in (("retrained", "method"), ("kept", "method-2"))
        ]
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    points.sort(key=lambda item: (item["encoders"], -item["share"]))
    (args.out / "sparsity.json").write_text(json.dumps(points, indent=1), encoding="utf-8")
    text = markdown(points)
    (args.out / "sparsity.md").write_text(text, encoding="utf-8")
    draw(points, args.out / "sparsity.svg")
    print(text)


def point(share: float, encoders: str, folder: Path) -> dict[str, Any]:
    """Recall at the threshold of the rows on test_seen, and hybrid minus its best part with the interval."""
    document = json.loads((folder / "method.json").read_text(encoding="utf-8"))
    radius = f"{document['threshold_m']:g}"
    rows = {row["key"]: row["splits"]["test_seen"]["recall"]["1"][radius] for row in document["rows"]}
    found = [item for item in document["differences"]["test_seen"] if item["best_part"]]
    gain = found[0]["recall"][radius]
    return {
        "share": share,
        "encoders": encoders,
        "photos": document["photos"]["test_seen"],
        "rows": {"hybrid": rows["hybrid"], **parts_of(rows)},
        "best_part": found[0]["row"],
        "gain": [gain["difference"], gain["low"], gain["high"]],
    }


def markdown(points: list[dict[str, Any]]) -> str:
    """A table, one line per share and kind of encoder."""
    head = ["encoders", "photos", *ROWS, "hybrid minus best part"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * 2 + " ---: |" * (len(head) - 3) + " --- |"]
    for item in points:
        values = [f"{item['rows'][key]:.1f}" if key in item["rows"] else "" for key in ROWS]
        gain = f"{item['gain'][0]:+.1f} ({item['gain'][1]:.1f} to {item['gain'][2]:.1f}), {item['best_part']}"
        lines.append("| " + " | ".join([item["encoders"], f"{item['share']:.0%}", *values, gain]) + " |")
    return "\n".join(lines) + "\n"


def draw(points: list[dict[str, Any]], file: Path) -> None:
    """Recall against the share: retrained as lines, kept encoders dashed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for kind, line in (("retrained", "-"), ("kept", "--")):
        for key in ROWS:
            at = [
                (100 * p["share"], p["rows"][key])
                for p in points
                if p["encoders"] == kind and key in p["rows"]
            ]
            label = key.replace("_", " ") if kind == "retrained" else None
            axes.plot(
                *zip(*at, strict=True), line, marker="o", markersize=3, color=COLOURS[key], label=label
            ) if at else None
    axes.set_xscale("log")
    axes.set_xticks([3, 10, 30, 100], labels=["3", "10", "30", "100"])
    axes.set_xlabel("percent of the training photos (dashed: encoders kept from all photos)")
    axes.set_ylabel("percent of test_seen within 200 m")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(file)


if __name__ == "__main__":
    main()
