"""What a run leaves behind: the model of the kept epoch, and its figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from geofix.models.registry import Model, save_model
from geofix.training.checkpoint import NAME
from geofix.training.halves import among_all
from geofix.training.run import Run
from geofix.training.state import swap_average
from geofix.training.step import autocast
from geofix.training.validate import validate

MODEL = "model"


def judge(run: Run) -> None:
    """Validate the epoch just finished, and keep its weights where they are the best so far."""
    table = run.state.table
    rows = None if table is None else run.team.rows(table.weight, len(table))
    if run.team.leads:
        _judge(run, None if rows is None else among_all(normalize(rows, dim=1), run.config))
    run.team.wait()


def _judge(run: Run, rows: Tensor | None) -> None:
    clock, config = run.state.clock, run.config
    figures: dict[str, float] = {}
    prototypes = rows.numpy() if rows is not None and clock.table_started else None
    swap_average(run.state)
    try:
        if run.chosen is not None:
            with autocast(config, run.state.device):
                figures = validate(run.state, run.chosen, prototypes)
            clock.history.append({"epoch": clock.epoch, "step": clock.step, **figures})
            run.journal.validation(clock.history)
        main = figures.get("main")
        last = clock.epoch == config.epochs
        started = run.state.table is None or clock.table_started
        better = main is not None and started and (clock.best is None or main >= clock.best[0])
        if better and main is not None:
            clock.best = (main, clock.epoch)
        if (config.validation.keep == "best" and better) or (
            last and (config.validation.keep == "last" or clock.best is None)
        ):
            save_model(_model(run, rows, figures), run.out / MODEL, overwrite=True)
    finally:
        swap_average(run.state)


def _model(run: Run, rows: Tensor | None, figures: dict[str, float]) -> Model:
    """The model as it stands."""
    state, config = run.state, run.config
    tensors = {}
    if state.table is not None and rows is not None and run.counts is not None:
        tensors = {
            "prototypes.s2_id": torch.from_numpy(state.table.ids.copy()),
            "prototypes.weight": rows,
            "prototypes.photos": torch.from_numpy(run.counts.astype(np.int32)),
        }
    metadata = {
        "prototype_level": config.prototypes.level if tensors else None,
        "snapshot_sha256": run.snapshot.sha256,
        "training": config.model_dump(mode="json", by_alias=True),
        "epoch": state.clock.epoch,
        "val": figures,
        "terms": _terms(run),
        "tile_side_m": config.tiles.side_m,
    }
    return Model(run.out.resolve().name, dict(state.networks), tensors, metadata)


def _terms(run: Run) -> list[str]:
    """Which terms were trained."""
    names = []
    if run.state.table is not None:
        names.append("ground_prototype")
    if "aerial" in run.state.networks:
        names.append("ground_aerial")
        if run.state.table is not None and run.config.loss.aerial_prototype:
            names.append("aerial_prototype")
        if run.config.loss.auxiliary:
            names.append("auxiliary")
    return names


def result_of(run: Run) -> dict[str, Any]:
    """What `train` returns."""
    clock = run.state.clock
    kept = clock.best[1] if clock.best and run.config.validation.keep == "best" else clock.epoch
    figures = next((item for item in clock.history if item["epoch"] == kept), {})
    return {
        "steps": clock.step,
        "epochs": clock.epoch,
        "kept_epoch": kept,
        "val": {key: value for key, value in figures.items() if key not in ("epoch", "step")},
        "terms": _terms(run),
        "photos": len(run.photos),
        "prototypes": 0 if run.state.table is None else len(run.state.table),
        "unreadable": [list(item) for item in sorted(run.unreadable.items())[:100]],
        "checkpoint": str(run.out / NAME),
        "model": str(run.out / MODEL),
    }
