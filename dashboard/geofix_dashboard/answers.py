"""The answer of a localize job as the page draws it: candidates, fused answers, GeoJSON and CSV."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from geofix.database.queries.dashboard import with_cell_shapes
from geofix.spatial import s2

COLUMNS = ("rank", "s2_token", "lon", "lat", "score", "probability", "region")


def candidates(answer: dict[str, Any]) -> pd.DataFrame:
    """Candidates of an answer with their outline: code (the cell's token), shape, and the answer's fields."""
    rows = pd.DataFrame(answer["candidates"])
    rows["code"] = rows["s2_token"]
    rows["s2_id"] = s2.from_token(rows["s2_token"].to_numpy(str))
    rows["probability"] = pd.to_numeric(rows["probability"])
    return with_cell_shapes(rows)


def fuse(answers: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """One answer for photos taken at one place: probabilities multiplied and scaled to one over listed cells.

    The photos count as independent. A cell missing from a photo's list gets that list's smallest probability,
    which is at least its own, so cells are rather kept than lost. None where probabilities are missing.
    """
    tables = [pd.DataFrame(answer["candidates"]).set_index("s2_token") for answer in answers]
    if any(table["probability"].isna().any() for table in tables):
        return None
    cells = sorted(set().union(*(table.index for table in tables)))
    logs = np.zeros(len(cells))
    for table in tables:
        chance = pd.to_numeric(table["probability"]).clip(lower=1e-12)
        logs += np.log(chance.reindex(cells).fillna(chance.min()).to_numpy())
    weight = np.exp(logs - logs.max())
    weight /= weight.sum()
    known = pd.concat(tables)
    known = known[~known.index.duplicated()]
    made = []
    for rank, i in enumerate(np.lexsort((cells, -weight)), start=1):
        row = known.loc[cells[i]]
        made.append(
            {
                "rank": rank,
                "s2_token": cells[i],
                "lon": float(row["lon"]),
                "lat": float(row["lat"]),
                "score": None,
                "probability": float(weight[i]),
                "region": row["region"],
            }
        )
    covered = [answer["in_coverage"] for answer in answers]
    return {
        **answers[0],
        "photo": "fused",
        "candidates": made,
        "position": {"lon": made[0]["lon"], "lat": made[0]["lat"]},
        "position_kind": "centre",
        "position_note": None,
        "confidence_200m": None,
        "credible": {},
        "in_coverage": None if None in covered else all(covered),
    }


def as_geojson(answers: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    """Candidates as cells with their fields, positions and credible regions of all answers, as one."""
    features: list[dict[str, Any]] = []
    for name, answer in zip(names, answers, strict=True):
        if "error" in answer:
            continue
        for row in candidates(answer).to_dict("records"):
            values = {key: _plain(row[key]) for key in COLUMNS}
            features.append(_feature(row["shape"], {"photo": name, "what": "candidate", **values}))
        place = answer["position"]
        point = json.dumps({"type": "Point", "coordinates": [place["lon"], place["lat"]]})
        told = {key: _plain(answer.get(key)) for key in ("position_kind", "confidence_200m")}
        features.append(_feature(point, {"photo": name, "what": "position", **told}))
        for mass, region in answer["credible"].items():
            values = {"mass_percent": float(mass), "km2": region["km2"], "cells": region["cells"]}
            features.append(
                {
                    "type": "Feature",
                    "geometry": region["geojson"],
                    "properties": {"photo": name, "what": "credible region", **values},
                }
            )
    return json.dumps({"type": "FeatureCollection", "features": features}, allow_nan=False)


def as_csv(answers: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    """One line per photo and candidate."""
    parts = [
        pd.DataFrame(answer["candidates"])[list(COLUMNS)].assign(
            photo=name, in_coverage=answer["in_coverage"], code_set=answer["code_set"]
        )
        for name, answer in zip(names, answers, strict=True)
        if "error" not in answer
    ]
    return pd.concat(parts).to_csv(index=False) if parts else ""


def _feature(shape: str, properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Feature", "geometry": json.loads(shape), "properties": properties}


def _plain(value: Any) -> Any:
    return None if value is None or (isinstance(value, float) and not np.isfinite(value)) else value
