"""The whole comparison of one trained method with its parts and baselines, on one snapshot, by one call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from geofix.codes.trained_on import learned_from_val
from geofix.database.engine import Connection
from geofix.database.queries import models as model_queries
from geofix.database.queries.models import ModelRow
from geofix.database.queries.snapshots import SnapshotRow
from geofix.errors import BadInputError, UsageError
from geofix.evaluation.method_build import Source, Wanted, build_rows
from geofix.evaluation.method_charts import draw_recall, draw_reliability, draw_roc
from geofix.evaluation.method_confidence import confidence_of
from geofix.evaluation.method_data import (
    Photos,
    aerial_of,
    joined,
    mean_prototypes,
    prototypes_of,
    read_photos,
    sampled,
    training_vectors,
)
from geofix.evaluation.method_hits import Hits, count_hits
from geofix.evaluation.method_learned import learned
from geofix.evaluation.method_product import product_note, product_of
from geofix.evaluation.method_report import markdown_report
from geofix.evaluation.method_rows import Plan, Row
from geofix.evaluation.method_settlement import settled
from geofix.evaluation.method_store import Store
from geofix.evaluation.method_table import MIX, Counting, differences, table_rows
from geofix.evaluation.metrics import key, most_photographed_cell
from geofix.evaluation.protocols import EvaluationProtocol
from geofix.localize.credible import cell_km2
from geofix.log import progress
from geofix.plain import plain
from geofix.snapshots.build import stored_snapshot

ROLES = ("untrained", "prototype", "aerial", "second")
REPORT, DOCUMENT, ANSWERS = "method.md", "method.json", "method.parquet"


@dataclass(frozen=True)
class MethodRequest:
    """What is compared.

    Attributes:
        snapshot: Snapshot directory; the models are embedded on its photos.
        model: The jointly trained model.
        others: Further models by role: `untrained` encoder, `prototype` and `aerial` trained alone, `second`
            (prototypes of another seed, for the ensemble).
        splits: Which photos are asked; an empty split is left out and noted.
        level: S2 level of the cell codes.
        datasets: Only aerial tiles of these data sets; None takes all.
        elsewhere: Photo data sets of another place, embedded by the model, for 'outside coverage'.
        frozen: Take the means of the snapshot's training photos for the joint model's prototypes: what its
            encoders give where they were trained on other photos than those of the snapshot.
        urban: Level of regions inside which a photo is urban; None: see `method_settlement.settled`.
        name: First part of the evaluations' names; None: MODEL-method.
        wanted: Which rows.
        threshold_m: Radius of groups and differences, one of the protocol's.
        kept: Candidates stored per photo in the database.
        fit_photos: At most so many val photos take part in fits.
        replicates: Of the bootstrap.
        seed: Of the bootstrap and of the choice of val photos.
        replace: Replace evaluations of the same names.
    """

    snapshot: Path
    model: str
    others: Mapping[str, str] = field(default_factory=dict)
    splits: tuple[str, ...] = ("test_seen", "test_unseen")
    level: int = 16
    datasets: list[str] | None = None
    elsewhere: list[str] | None = None
    frozen: bool = False
    urban: str | None = None
    name: str | None = None
    wanted: Wanted = field(default_factory=Wanted)
    threshold_m: float = 200.0
    kept: int = 10
    fit_photos: int = 2000
    replicates: int = 2000
    seed: int = 0
    replace: bool = False


def evaluate_method(conn: Connection, request: MethodRequest, out: Path) -> dict[str, Any]:
    """Build all rows, ask every split, store, measure, write the report; the caller commits.

    Embeddings are read once per model; all answers are computed from them in memory.

    Args:
        conn: Open connection of the writer or owner.
        request: What is compared.
        out: Folder for `method.md`, `method.json`, `method.parquet` (one line per row and photo, for pooling
            several runs) and pictures.

    Returns:
        The document in `method.json`, with `evaluations` and `files`.

    Raises:
        UsageError: An unknown role or a threshold that is no radius of the protocol.
        BadInputError: No split holds a photo, or nothing is embedded.
    """
    protocol = EvaluationProtocol()
    _check(request, protocol)
    snapshot = stored_snapshot(conn, request.snapshot)
    found = _read(conn, request, snapshot)
    rows, main = build_rows(found.plan, found.joint, found.others, request.wanted)
    refused = learned_from_val(conn, found.models["joint"], snapshot.snapshot_id) is not None
    product = product_of(
        next(row for row in rows if row.key == main),
        found.plan.fits,
        request.model,
        request.snapshot,
        request.datasets,
        frozen=request.frozen,
        refused=refused,
    )
    note = product_note(product, main, frozen=request.frozen, refused=refused)
    found.plan.notes.extend([] if note is None else [note])
    counting = Counting(protocol, request.threshold_m, request.replicates, request.seed)
    store = Store(
        conn,
        snapshot,
        {row.name: row.model_id for row in found.models.values()},
        request.name or f"{request.model}-method",
        protocol,
        request.kept,
        found.popular,
        request.replace,
    )
    hits, evaluations = _ask(rows, found.photos, store)
    photos = {**found.photos, MIX: joined(list(found.photos.values()))}
    if len(found.photos) == 1:
        photos.pop(MIX)
    document = _document(request, snapshot, found, rows, main, photos, hits, counting, store.name)
    document["confidence"] = confidence_of(
        conn, next(row for row in rows if row.key == main), found, snapshot, request.elsewhere
    )
    document["product"] = product
    document["evaluations"] = evaluations
    document = dict(plain(document))
    document["files"] = [str(path) for path in _write(document, rows, photos, hits, counting, out)]
    return document


@dataclass(frozen=True, eq=False)
class Found:
    """All that was read.

    Attributes:
        models: By role, `joint` first.
        photos: By split, those that hold any.
        plan: Level, val photos, and what the fits leave there.
        joint: The model that is judged.
        others: The other models.
        popular: Centre (lon, lat) of the most photographed cell.
        settlement: What told urban from rural photos.
        trained_on: Which snapshot each model learned from, and how many of the photos asked.
    """

    models: dict[str, ModelRow]
    photos: dict[str, Photos]
    plan: Plan
    joint: Source
    others: dict[str, Source]
    popular: tuple[float, float] | None
    settlement: dict[str, Any]
    trained_on: dict[str, Any]


def _check(request: MethodRequest, protocol: EvaluationProtocol) -> None:
    if unknown := sorted(set(request.others) - set(ROLES)):
        raise UsageError(f"Unknown roles {', '.join(unknown)}.", hint=f"Known: {', '.join(ROLES)}.")
    if request.threshold_m not in protocol.radii_m:
        radii = ", ".join(f"{radius:g}" for radius in protocol.radii_m)
        raise UsageError(
            f"Threshold {request.threshold_m:g} m is none of the radii.", hint=f"Give one of {radii}."
        )
    if not request.splits:
        raise UsageError("No split was named.", hint="Give --split test_seen.")
    if len(set(request.splits)) < len(request.splits) or "mix" in request.splits:
        raise UsageError(f"Splits {', '.join(request.splits)} repeat or hold `mix`.")


def _read(conn: Connection, request: MethodRequest, snapshot: SnapshotRow) -> Found:
    models = {"joint": model_queries.find_model(conn, request.model)}
    models |= {role: model_queries.find_model(conn, request.others[role]) for role in request.others}
    rows = list({row.model_id: row for row in models.values()}.values())
    prototypes = {row.name: prototypes_of(conn, row) for row in rows}
    own = prototypes[request.model]
    level = request.level if own is None else min(own.level, request.level)
    plan_notes: list[str] = []
    photos = {}
    for split in request.splits:
        part = read_photos(conn, snapshot, request.snapshot, split, rows, level=level)
        if len(part):
            photos[split] = part
        else:
            plan_notes.append(f"Split {split} holds no photo.")
    if not photos:
        raise BadInputError(
            f"No split of {', '.join(request.splits)} holds a photo.",
            hint=f"The snapshot has {snapshot.counts}.",
        )
    photos, settlement = settled(conn, snapshot, photos, request.urban)
    with_prototypes = [name for name, cells in prototypes.items() if cells is not None]
    trained_on, notes = learned(conn, rows, snapshot, list(photos), with_prototypes)
    plan_notes += notes
    for row in rows:
        missing = sum(int((~part.known[row.name]).sum()) for part in photos.values())
        if missing:
            plan_notes.append(f"Model {row.name} has not embedded {missing:,} asked photos: no answer.")
    val = read_photos(conn, snapshot, request.snapshot, "val", rows, level=level)
    if len(val) > request.fit_photos:
        plan_notes.append(f"Fits take {request.fit_photos:,} of {len(val):,} val photos, drawn by the seed.")
    plan = Plan(request.level, sampled(val, request.fit_photos, seed=request.seed), notes=plan_notes)

    def source(role: str) -> Source:
        row = models[role]
        given: dict[str, Any] = {}
        if role in ("joint", "untrained") and snapshot.counts.get("train", 0):
            given["train"], given["train_vectors"] = training_vectors(conn, snapshot, row)
        if role in ("joint", "aerial"):
            given["aerial"] = aerial_of(conn, row, request.level, datasets=request.datasets)
        learned = prototypes[row.name] if role in ("joint", "prototype", "second") else None
        if request.frozen and role == "joint" and learned is not None and "train" in given:
            learned = mean_prototypes(given["train"], given["train_vectors"], learned)
            plan_notes.append(
                f"Prototypes of {row.name} are means of the snapshot's photos: encoders frozen."
            )
        return Source.of(row.name, request.level, learned, **given)

    joint = source("joint")
    others = {role: source(role) for role in models if role != "joint"}
    popular = None
    if joint.train is not None:
        popular = most_photographed_cell(joint.train.lon, joint.train.lat, request.level)
    return Found(models, photos, plan, joint, others, popular, settlement, trained_on)


def _ask(
    rows: list[Row], photos: dict[str, Photos], store: Store
) -> tuple[dict[str, dict[str, Hits]], list[str]]:
    """Every row on every split: hits by row and split (and `mix`), and the names of the evaluations."""
    hits: dict[str, dict[str, Hits]] = {}
    names = []
    total = len(rows) * sum(len(part) for part in photos.values())
    with progress("method table", total, "answers") as advance:
        for row in rows:
            made = {}
            for split, part in photos.items():
                found = row.answer(part, max(store.protocol.ks))
                metres = store.protocol.distance_m(part.lon[:, None], part.lat[:, None], found.lon, found.lat)
                made[split] = count_hits(metres, store.protocol, part.gps_accuracy_m, copies=row.copies)
                names.append(store.put(row, part, found, made[split]))
                made[split] = made[split].slim()
                advance(len(part))
            hits[row.key] = {**made, MIX: Hits.joined(list(made.values()))}
    return hits, names


def _document(
    request: MethodRequest,
    snapshot: SnapshotRow,
    found: Found,
    rows: list[Row],
    main: str,
    photos: dict[str, Photos],
    hits: dict[str, dict[str, Hits]],
    counting: Counting,
    name: str,
) -> dict[str, Any]:
    joint = found.joint
    aerial = np.zeros(0, np.int64) if joint.aerial is None else joint.aerial.ids
    below = joint.up["copy"].ids if joint.up else np.zeros(0, np.int64)
    cells = np.union1d(aerial, below)
    codes = next(row.codes for row in rows if row.key == main)
    assert codes is not None
    searched = cells if len(cells) else codes.matrix.ids
    km2 = float(cell_km2(searched).sum())
    return {
        "name": name,
        "snapshot": snapshot.sha256,
        "trained_on": found.trained_on,
        "models": {role: row.name for role, row in found.models.items()},
        "level": request.level,
        "prototype_level": request.level if joint.prototypes is None else joint.prototypes.level,
        "main": main,
        "threshold_m": request.threshold_m,
        "replicates": request.replicates,
        "seed": request.seed,
        "splits": list(photos),
        "photos": {split: len(part) for split, part in photos.items()},
        "val_photos": len(found.plan.val),
        "cells": {
            "searched": len(searched),
            "km2": km2,
            "with_prototype": len(below),
            "with_aerial": len(aerial),
        },
        "settlement": found.settlement,
        "protocol": counting.protocol.as_record(),
        "fits": found.plan.fits,
        "notes": found.plan.notes,
        "rows": table_rows(rows, photos, hits, km2, counting),
        "differences": differences(rows, main, photos, hits, counting),
    }


def _write(
    document: dict[str, Any],
    rows: list[Row],
    photos: dict[str, Photos],
    hits: dict[str, dict[str, Hits]],
    counting: Counting,
    out: Path,
) -> list[Path]:
    out.mkdir(parents=True, exist_ok=True)
    pictures = ["method-recall.png"]
    draw_recall(out / pictures[0], document, key(counting.threshold_m))
    if document["confidence"]:
        pictures.append("method-reliability.png")
        draw_reliability(out / pictures[-1], document["confidence"])
        if curves := document["confidence"].get("outside", {}).get("curves"):
            pictures.append("method-outside.png")
            draw_roc(out / pictures[-1], curves)
    (out / DOCUMENT).write_text(json.dumps(document, indent=1), encoding="utf-8")
    (out / REPORT).write_text(markdown_report(document, pictures), encoding="utf-8")
    _photo_table(rows, photos, hits, counting).to_parquet(out / ANSWERS, index=False)
    return [out / name for name in (REPORT, DOCUMENT, ANSWERS, *pictures)]


def _photo_table(
    rows: list[Row], photos: dict[str, Photos], hits: dict[str, dict[str, Hits]], counting: Counting
) -> pd.DataFrame:
    """One line per row and photo: cluster, error of the first answer, chance of a hit at K = 1 by radius."""
    parts = []
    for row in rows:
        for split, part in photos.items():
            if split == MIX:
                continue
            found = hits[row.key][split]
            clusters = np.zeros(len(part), np.int64) if part.clusters is None else part.clusters
            columns: dict[str, Any] = {
                "row": row.key,
                "role": row.role,
                "split": split,
                "photo_id": part.photo_id,
                "cluster": clusters,
                "error_m": found.first_m[:, 0].astype(np.float32),
            }
            for j, radius in enumerate(counting.protocol.radii_m):
                columns[f"hit_{key(radius)}"] = found.share[:, 0, j]
            parts.append(pd.DataFrame(columns))
    table = pd.concat(parts, ignore_index=True)
    return table.astype({"row": "category", "role": "category", "split": "category"})
