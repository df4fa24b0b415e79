"""Run a benchmark part by part, and write its comparison."""

from __future__ import annotations

import json
from typing import Any

from geofix.database.engine import Connection, connect
from geofix.database.queries import stage_runs
from geofix.evaluation.benchmark import Entry, Trained, compare_localizers
from geofix.evaluation.benchmark_report import markdown_comparison
from geofix.evaluation.method_charts import draw_recall
from geofix.evaluation.metrics import key
from geofix.evaluation.protocols import endings
from geofix.pipeline.benchmark import RECIPES, Part, Plan, Training
from geofix.pipeline.context import code_set_name, evaluation_name
from geofix.pipeline.file import load_pipeline
from geofix.pipeline.run import Lend, StageResult, run_pipeline, stage_names
from geofix.plain import plain


def run_benchmark(plan: Plan, *, force: bool = False, lend: Lend = connect) -> dict[str, list[StageResult]]:
    """Run what is not finished, training after training; stages of finished parts are skipped.

    Returns:
        Stages by pipeline.

    Raises:
        GeofixError: Of the stage that failed; whatever was done before stays done.
    """
    files = [part.file for part in plan.parts]
    if plan.setup is not None:
        files.insert(0, plan.setup)
    return {file.stem: run_pipeline(file, force=force, lend=lend) for file in files}


def write_comparison(conn: Connection, plan: Plan) -> dict[str, Any]:
    """Compare what the parts stored; writes benchmark.md, .svg and .json into the benchmark's folder.

    Raises:
        NotFoundError: A part has not been evaluated.
    """
    asked = plan.benchmark
    document = compare_localizers(
        conn,
        plan.snapshot,
        _entries(conn, plan),
        splits=asked.splits,
        level=asked.level,
        threshold_m=asked.threshold_m,
        rules=asked.rules(),
    )
    document = {
        "name": asked.name,
        "about": asked.about,
        "budget": asked.budget.model_dump(exclude_none=True),
        "seeds": asked.seeds,
        **document,
    }
    plan.out.mkdir(parents=True, exist_ok=True)
    files = [plan.out / f"benchmark{suffix}" for suffix in (".md", ".svg", ".json")]
    document["files"] = [str(file) for file in files]
    files[0].write_text(markdown_comparison(document, [files[1].name]), encoding="utf-8")
    chart = {**document, "rows": [*document["rows"], *document["bounds"]]}
    draw_recall(files[1], chart, key(asked.threshold_m))
    files[2].write_text(json.dumps(plain(document), indent=2), encoding="utf-8")
    return document


def _entries(conn: Connection, plan: Plan) -> list[Entry]:
    asked = plan.benchmark
    entries = []
    for training in asked.trainings:
        parts = [part for part in plan.parts if part.training is training]
        trained = [_trained(conn, part) for part in parts]
        for localizer, others in rows_of(training):
            crops = training.crops_of(localizer)
            ends = endings(asked.rules(), exclude_author=others, crops=crops)
            recipe = RECIPES.get(localizer)
            label = training.labels.get(localizer, f"{localizer} ({training.name})")
            entries.append(
                Entry(
                    key=f"{training.name}/{localizer}" + ("/other-authors" if others else ""),
                    label=f"{label}, other authors' photos" if others else label,
                    localizer=localizer,
                    evaluations={
                        split: [
                            evaluation_name(part.name, localizer, asked.level, split, ends) for part in parts
                        ]
                        for split in asked.splits
                    },
                    models=[part.name for part in parts],
                    code_sets=[code_set_name(part.name, part.name, recipe, asked.level) for part in parts]
                    if recipe
                    else [],
                    trained=trained,
                )
            )
    return entries


def rows_of(training: Training) -> list[tuple[str, bool]]:
    """Localizers of a training; those asked without a photo's own author, too, twice."""
    return [
        (localizer, others)
        for localizer in training.localizers
        for others in (False, True)
        if not others or (training.exclude_author and localizer in training.searching)
    ]


def _trained(conn: Connection, part: Part) -> Trained:
    """What the training cost, as its stage said."""
    pipeline, _ = load_pipeline(part.file)
    found = stage_runs.find(conn, pipeline.name, stage_names(pipeline)[0])
    result = {} if found is None else found.result
    return Trained(
        model=part.name,
        seed=part.seed,
        epochs=result.get("epochs"),
        steps=result.get("steps"),
        photos=result.get("photos_seen"),
        seconds=None if found is None else found.seconds,
        unreadable=len(result.get("unreadable", [])),
    )
