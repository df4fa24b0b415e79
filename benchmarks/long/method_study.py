"""The method's table on the built-in world, over seeds that vary world and training, pooled.

Per seed: render the world, run examples/study.yaml (four trainings), keep its report; killed, it resumes.
At the end: main row minus its best part, pooled over the seeds with a cluster bootstrap.

    .venv/bin/python benchmarks/long/method_study.py --seeds 1 2 3 --out /data/study
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from geofix.database import cluster
from geofix.database.upkeep import migrate_safely
from geofix.evaluation.method_pool import pool_runs
from geofix.pipeline.run import run_pipeline
from geofix.settings import get_settings
from geofix.world.write import create_world

PIPELINE = Path(__file__).parents[2] / "examples" / "study.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="study", choices=("tiny", "demo", "study", "bench"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, required=True, help="folder of the worlds and of pool.json")
    args = parser.parse_args()
    settings = get_settings()
    cluster.start(settings)
    migrate_safely(cluster.database_url(settings, "owner"), settings, backup_to=args.out / "before.dump")
    folders = []
    for seed in args.seeds:
        began, name = time.monotonic(), f"{args.size}-{seed}"
        world = args.out / "worlds" / name
        create_world(world, size=args.size, seed=seed)
        variables = {"world": str(world.resolve()), "name": name, "seed": str(seed)}
        results = run_pipeline(PIPELINE, variables=variables)
        folders.append(settings.home_dir / "runs" / name / "method")
        for item in results:
            if item.stage.endswith("-train"):
                print(f"{name} {item.stage}: {item.seconds:.0f} s, {item.result['val']}", flush=True)
        print(f"{name}: {time.monotonic() - began:.0f} s, report in {folders[-1]}", flush=True)
    pooled = {split: pool_runs(folders, split=split) for split in ("test_seen", "test_unseen", "mix")}
    (args.out / "pool.json").write_text(json.dumps(pooled, indent=2), encoding="utf-8")
    for split, found in pooled.items():
        runs = ", ".join(f"{run['difference']:+.1f} over {run['best_part']}" for run in found["runs"])
        print(
            f"{split}: {found['mean_difference']:+.2f} points on the mean ({runs}); pooled {found['pooled']}"
        )


if __name__ == "__main__":
    main()
