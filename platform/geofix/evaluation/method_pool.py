"""Several runs of the method's table (seeds of world and training) as one comparison.

The best part is chosen in each run for itself, on the photos that judge: the strictest choice.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from geofix.errors import BadInputError, NotFoundError, UsageError
from geofix.evaluation.method_hits import difference, mean_percent
from geofix.evaluation.metrics import key


def pool_runs(
    folders: Sequence[Path],
    *,
    split: str = "test_seen",
    threshold_m: float = 200.0,
    replicates: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Main row against its best part and every other row, over the photos of all runs.

    Args:
        folders: With `method.json` and `method.parquet`, as `geofix evaluate method` writes them.
        split: A split of all runs, or `mix`.
        threshold_m: One of the radii.
        replicates: Of the bootstrap; clusters of all runs are resampled together.
        seed: Of the bootstrap.

    Returns:
        `runs` (main and best part of each), `mean_difference`, `pooled` (with interval) and `rows`: recall of
        each row that all runs have, mean and spread over the runs.

    Raises:
        NotFoundError: A folder holds no run.
        BadInputError: A run has no such split, or no part.
        UsageError: No such radius.
    """
    if not folders:
        raise UsageError("No run was named.", hint="Give the folders of `geofix evaluate method`.")
    runs = [_run(folder, split, threshold_m) for folder in folders]
    made, main_shares, part_shares, clusters = [], [], [], []
    for number, (folder, document, table) in enumerate(zip(folders, *zip(*runs, strict=True), strict=True)):
        recalls = _recalls(table)
        parts = [name for name in table["row"].unique() if _role(document, name) == "part"]
        if not parts:
            raise BadInputError(f"{folder} has no part to compare with.", hint="Compare runs of a hybrid.")
        best = max(parts, key=recalls.__getitem__)
        main, part = (table[table["row"] == name] for name in (document["main"], best))
        main_shares.append(main["hit"].to_numpy(np.float64))
        part_shares.append(part["hit"].to_numpy(np.float64))
        clusters.append([(number, *pair) for pair in zip(main["split"], main["cluster"], strict=True)])
        made.append(
            {
                "folder": str(folder),
                "photos": len(main),
                "main": document["main"],
                "main_recall": recalls[document["main"]],
                "best_part": best,
                "best_part_recall": recalls[best],
                "difference": recalls[document["main"]] - recalls[best],
                "rows": recalls,
            }
        )
    labels = pd.factorize(pd.Series([item for group in clusters for item in group]))[0].astype(np.int64)
    pooled = difference(
        np.concatenate(main_shares), np.concatenate(part_shares), labels, replicates=replicates, seed=seed
    )
    common = [name for name in made[0]["rows"] if all(name in run["rows"] for run in made)]
    table_of_rows = {
        name: {
            "mean": float(np.mean([run["rows"][name] for run in made])),
            "least": float(min(run["rows"][name] for run in made)),
            "most": float(max(run["rows"][name] for run in made)),
        }
        for name in common
    }
    return {
        "split": split,
        "threshold_m": threshold_m,
        "runs": made,
        "mean_difference": float(np.mean([run["difference"] for run in made])),
        "least_difference": float(min(run["difference"] for run in made)),
        "pooled": pooled,
        "rows": table_of_rows,
    }


def _run(folder: Path, split: str, threshold_m: float) -> tuple[dict[str, Any], pd.DataFrame]:
    """The document, and row, split, cluster and hit of each photo of the split."""
    from geofix.evaluation.method import ANSWERS, DOCUMENT

    if not (folder / DOCUMENT).is_file() or not (folder / ANSWERS).is_file():
        raise NotFoundError(
            f"{folder} holds no {DOCUMENT} and {ANSWERS}.", hint="Make them with `geofix evaluate method`."
        )
    document = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
    table = pd.read_parquet(folder / ANSWERS)
    column = f"hit_{key(threshold_m)}"
    if column not in table:
        raise UsageError(f"{folder} has no figures for {threshold_m:g} m.", hint="Give one of its radii.")
    if split != "mix":
        table = table[table["split"] == split]
    if table.empty:
        raise BadInputError(f"{folder} has no photo of split {split}.", hint="Name another --split.")
    table = table.rename(columns={column: "hit"})[["row", "split", "cluster", "hit"]]
    return document, table.astype({"row": str, "split": str})


def _recalls(table: pd.DataFrame) -> dict[str, float]:
    return {
        str(name): mean_percent(group["hit"].to_numpy(np.float64)) or 0.0
        for name, group in table.groupby("row", sort=False)
    }


def _role(document: dict[str, Any], name: str) -> str:
    return next(str(row["role"]) for row in document["rows"] if row["key"] == name)
