"""The stage `method`: the whole comparison of a trained method on the pipeline's snapshot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from geofix.pipeline import file as kinds
from geofix.pipeline.context import Context
from geofix.pipeline.reports import files

Result = dict[str, Any]


def method(context: Context, stage: kinds.Method) -> Result:
    """Compare a model with its parts and baselines; the report lies in a folder of its own."""
    from geofix.evaluation.method import MethodRequest, evaluate_method
    from geofix.evaluation.method_build import Wanted

    folder = context.file(stage, "method")
    roles = {
        "untrained": stage.untrained_model,
        "prototype": stage.prototype_model,
        "aerial": stage.aerial_model,
        "second": stage.second_model,
    }
    document = evaluate_method(
        context.conn,
        MethodRequest(
            snapshot=context.snapshot_dir,
            model=stage.model,
            others={role: name for role, name in roles.items() if name is not None},
            splits=tuple(stage.splits),
            level=stage.level,
            datasets=stage.datasets,
            elsewhere=stage.elsewhere,
            frozen=stage.frozen,
            urban=stage.urban,
            name=f"{context.pipeline.name}-{folder.name}",
            wanted=Wanted(radius_m=stage.threshold_m, density=stage.density, ablations=stage.ablations),
            threshold_m=stage.threshold_m,
            kept=stage.kept,
            seed=stage.seed,
            replace=True,
        ),
        folder,
    )
    names = document["evaluations"]
    outputs = [["evaluation", name] for name in names] + files(*map(Path, document["files"]))
    return {**short(document), "outputs": outputs}


def short(document: dict[str, Any]) -> Result:
    """Recall at the threshold by row and split, with what a reader of the run's summary asks for."""
    radius = f"{document['threshold_m']:g}"
    return {
        "main": document["main"],
        "photos": document["photos"],
        "cells": document["cells"],
        "fits": document["fits"],
        "notes": document["notes"],
        "recall": {
            row["key"]: {name: item["recall"]["1"][radius] for name, item in row["splits"].items()}
            for row in document["rows"]
        },
        "differences": {
            split: {item["row"]: item["recall"][radius] for item in found}
            for split, found in document["differences"].items()
        },
    }
