"""Rows with probabilities, and their answers at other positions of the same codes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from geofix.errors import BadInputError
from geofix.evaluation.method_rows import Plan, Row, asked_with, asking, calibrated
from geofix.localize.kinds import Position
from geofix.localize.positions import moving, refinement_fit
from geofix.localizers.base import Localizer

_MASS = "position with most mass within {:g} m"


def with_temperature(plan: Plan, main: Row) -> tuple[Row, bool]:
    """The row with its temperature fitted on val, and whether it could be."""
    assert main.codes is not None
    try:
        temperature, fit = calibrated(plan, main.codes, main.models)
    except BadInputError as error:
        plan.notes.append(f"No probabilities: {error}")
        return main, False
    plan.fits["confidence"] = {**fit.as_dict(), "temperature": temperature, "scale": main.codes.scale}
    return replace(main, temperature=temperature), True


def estimates(plan: Plan, main: Row, *, radius_m: float, cap_m: float) -> list[Row]:
    """The main row's answers moved: within the cell, to most mass, to the medoid."""
    assert main.codes is not None and main.temperature is not None
    known = np.all([plan.val.known[name] for name in main.models], axis=0)
    queries, _ = asked_with(plan.val, main.models)
    start = main.temperature
    fit = refinement_fit(
        main.codes, queries, plan.val.lon[known], plan.val.lat[known], start, radius_m=radius_m
    )
    plan.fits["refinement"] = fit
    labels: dict[Position, str] = {
        "refined": "moved within the neighbouring cells",
        "mass": _MASS.format(radius_m),
        "medoid": f"medoid, distances capped at {cap_m:g} m",
    }
    return [
        _moved(
            main,
            f"{main.key}_{kind}",
            f"{main.key}, {label}",
            moving(kind, main.codes, start, fit["temperature"], radius_m=radius_m, cap_m=cap_m),
            "variant",
        )
        for kind, label in labels.items()
    ]


def likewise(plan: Plan, row: Row, *, radius_m: float, cap_m: float) -> list[Row]:
    """A row that the main one is held against, calibrated and moved to most mass as that one is."""
    assert row.codes is not None
    try:
        t, _ = calibrated(plan, row.codes, row.models)
    except BadInputError as error:
        plan.notes.append(f"No probabilities of {row.key}: {error}")
        return []
    localizer = moving("mass", row.codes, t, t, radius_m=radius_m, cap_m=cap_m)
    return [_moved(row, f"{row.key}_mass", f"{row.label}, {_MASS.format(radius_m)}", localizer, "ablation")]


def _moved(row: Row, key: str, label: str, localizer: Localizer, role: str) -> Row:
    """A row whose codes are asked for another position."""
    answer = asking(localizer, *row.models)
    return Row(key, label, localizer.name, row.models, row.level, answer, role, row.stored_bytes)
