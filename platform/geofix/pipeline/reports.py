"""Stages that report: tables as Markdown and CSV, maps as PNG and GeoJSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from geofix.database.queries import evaluations as evaluation_queries
from geofix.database.queries import models as model_queries
from geofix.database.queries import reports as queries
from geofix.database.queries import snapshots as snapshot_queries
from geofix.errors import BadInputError
from geofix.evaluation.error_pictures import draw_error_pictures
from geofix.evaluation.protocols import EvaluationProtocol
from geofix.ingest import aerial, aerial_tiles
from geofix.pipeline import charts
from geofix.pipeline import file as kinds
from geofix.pipeline.context import Context
from geofix.plain import plain
from geofix.spatial import s2
from geofix.spatial.distance import great_circle_m

Result = dict[str, Any]

# From this level on cells are small enough for metres to tell localizers apart; coarser ones are read in km.
_METRE_LEVEL = 11


def table(context: Context, stage: kinds.Table) -> Result:
    """All evaluations of this pipeline side by side, with oracle and trivial rows; by region where asked."""
    own = _evaluations(context)
    every = evaluation_queries.list_evaluations(context.conn)
    rows = sorted(
        (row for row in every if row["evaluation"] in own),
        key=lambda row: (row["split"], row["localizer"], row["level"]),
    )
    if not rows:
        raise BadInputError("There is no evaluation to show.", hint="Put an `evaluate` stage before `table`.")
    metres = min(row["level"] for row in rows) >= _METRE_LEVEL
    stored = [evaluation_queries.find_evaluation(context.conn, row["evaluation"]) for row in rows]
    shown = [_line(_label(row), row, row["metrics"], metres) for row in stored]
    bounds = _bounds(stored, metres)
    text = [
        f"# {context.pipeline.name}",
        "",
        context.pipeline.about.strip(),
        "",
        *markdown([*shown, *bounds]),
    ]
    by: Result = {}
    for level in stage.by:
        for row in rows:
            found = evaluation_queries.by_region(context.conn, row["evaluation"], level, stage.threshold_m)
            by[f"{row['evaluation']}/{level}"] = plain(found)
            text += [
                "",
                f"## {row['evaluation']} by {level}, within {stage.threshold_m:,.0f} m",
                "",
                *markdown(found),
            ]
    target = context.file(stage, "table.md")
    target.write_text("\n".join(text) + "\n", encoding="utf-8")
    return {"rows": plain([*shown, *bounds]), "by": by, "outputs": files(target)}


def _evaluations(context: Context) -> set[str]:
    """Names of all evaluations that the stages of this pipeline can make."""
    return {
        context.evaluation(stage, localizer, level, split)
        for stage in context.pipeline.stages
        if isinstance(stage, kinds.Evaluate)
        for localizer in stage.localizers
        for level in stage.levels
        for split in stage.splits
    }


def _label(row: dict[str, Any]) -> str:
    """The localizer, and what tells it apart from itself asked or counted as usual."""
    protocol = EvaluationProtocol.from_record(row["config"].get("protocol", {}))
    others = ["other authors"] if protocol.same_author == "excluded" else []
    crops = [protocol.crops] if protocol.crops != EvaluationProtocol.crops else []
    return ", ".join([row["localizer"], *others, *crops, *protocol.marks])


def _line(name: str, row: dict[str, Any], metrics: dict[str, Any], metres: bool) -> Result:
    """One row of the table: share within each radius in percent, median, mean and GeoScore."""
    radii = metrics["recall"]["1"] if metres else metrics["accuracy_km"]
    unit = "m" if metres else "km"
    return {
        "localizer": name,
        "level": row["level"],
        "split": row["split"],
        "n": row["n"],
        **{
            f"{radius} {unit}": share
            for radius, share in sorted(radii.items(), key=lambda item: float(item[0]))
        },
        "median m": metrics["median_m"],
        "mean km": metrics["mean_km"],
        "GeoScore": metrics["geoscore"],
    }


def in_order(columns: Sequence[str]) -> list[str]:
    """Columns of the table as they are read: stored as JSON, rows lose their order."""
    head, tail = ["localizer", "level", "split", "n"], ["median m", "mean km", "GeoScore"]
    radii = sorted(
        (c for c in columns if c not in (*head, *tail)), key=lambda c: (c[-2:] == "km", float(c.split()[0]))
    )
    return [*head, *radii, *tail]


def _bounds(stored: Sequence[dict[str, Any]], metres: bool) -> list[Result]:
    """Oracle and most-photographed-cell rows, one per level and split."""
    found: dict[tuple[str, int, str], Result] = {}
    for row in stored:
        for bound, label in (("oracle", "oracle"), ("trivial", "most photographed cell")):
            metrics = row["metrics"].get(bound)
            if metrics:
                found[label, row["level"], row["split"]] = _line(label, row, metrics, metres)
    return [found[key] for key in sorted(found)]


def markdown(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Rows as a Markdown table."""
    if not rows:
        return ["(no rows)"]
    columns = list(rows[0])

    def cell(value: Any) -> str:
        if value is None:
            return "-"
        return f"{value:,.1f}" if isinstance(value, float) else str(value).replace("|", "\\|")

    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return [*lines, *("| " + " | ".join(cell(row[column]) for column in columns) + " |" for row in rows)]


def missing_tiles(context: Context, stage: kinds.MissingTilesReport) -> Result:
    """CSV of the pyramid tiles that cells need and that do not exist."""
    target = context.file(stage, "missing_tiles.csv")
    cells = missing = 0
    with target.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("s2_token", "zoom", "needed", "missing", "tiles"))
        for item in aerial_tiles.missing_tiles(context.conn, source=stage.source, level=stage.level):
            writer.writerow((item.token, item.zoom, item.needed, len(item.missing), " ".join(item.missing)))
            cells += 1
            missing += len(item.missing)
    return {"cells_with_missing_tiles": cells, "missing": missing, "outputs": files(target)}


def draw(context: Context, stage: kinds.Map) -> Result:
    """One picture: errors of an evaluation, tiles of an aerial source, or photos by country."""
    if stage.show == "errors":
        return _draw_errors(context, stage)
    if stage.show == "photos":
        return _draw_photos(context, stage)
    if stage.show == "tiles":
        return _draw_tiles(context, stage)
    return _draw_countries(context, stage)


def _draw_photos(context: Context, stage: kinds.Map) -> Result:
    name, sheet = _evaluation(context, stage), context.out / f"photos-{stage.evaluation}.png"
    drawn = draw_error_pictures(context.conn, name, sheet, pick="spread")
    return {"sheet": str(sheet), "photos": len(drawn["photos"]), "outputs": files(sheet)}


def _evaluation(context: Context, stage: kinds.Map) -> str:
    if stage.evaluation is None:
        raise BadInputError(f"A map of {stage.show} needs `evaluation`.")
    return f"{context.pipeline.name}-{stage.evaluation}"


def _draw_errors(context: Context, stage: kinds.Map) -> Result:
    name = _evaluation(context, stage)
    row = evaluation_queries.find_evaluation(context.conn, name)
    lines = evaluation_queries.error_lines(context.conn, name)
    train = snapshot_queries.snapshot_photos(context.conn, row["snapshot_id"], ["train"])
    picture = context.out / f"errors-{stage.evaluation}.png"
    if not len(lines):
        raise BadInputError(f"Evaluation {name} asked no photo.")
    median = row["metrics"]["median_m"]
    told = "no answer" if median is None else f"median error {median:,.0f} m"
    title = f"{name}: n = {row['n']:,}, {told}"
    positions = train[["lon", "lat"]].to_numpy(float) if len(train) else np.empty((0, 2))
    charts.draw_errors(picture, lines, positions, title, _credit(context))
    shapes = context.out / f"errors-{stage.evaluation}.geojson"
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "LineString", "coordinates": [line[:2].tolist(), line[2:4].tolist()]},
            "properties": {"error_m": round(float(line[4]), 1)},
        }
        for line in lines
        if not np.isnan(line[2])
    ]
    document = {"type": "FeatureCollection", "attribution": _credit(context), "features": features}
    shapes.write_text(json.dumps(document), encoding="utf-8")
    return {
        "map": str(picture),
        "geojson": str(shapes),
        "outputs": files(picture, shapes),
    }


def _draw_tiles(context: Context, stage: kinds.Map) -> Result:
    """Coverage of tiles on the map, and the tiles themselves as a contact sheet."""
    source = stage.source or ""
    rows = queries.tiles(context.conn, source)
    if not rows:
        raise BadInputError(f"Aerial source {source!r} has no tile.")
    ids = np.array([row[0] for row in rows], np.int64)
    coverage = np.array([row[1] for row in rows])
    picture = context.out / f"tiles-{source}.png"
    title = f"{source}: {len(np.unique(ids)):,} cells with a tile, {len(rows):,} tiles"
    charts.draw_cells(
        picture, list(s2.polygon(ids)), 100 * coverage, title, "covered, percent", _credit(context)
    )
    sheet = context.out / f"sheet-{source}.png"
    charts.contact_sheet(
        sheet, _sample_tiles(context, source, rows), f"{source}: north-up tiles", _credit(context)
    )
    return {
        "map": str(picture),
        "sheet": str(sheet),
        "outputs": files(picture, sheet),
    }


def _sample_tiles(
    context: Context, source: str, rows: Sequence[tuple[int, float, str | None, list[int]]], count: int = 24
) -> list[tuple[str, Any]]:
    """Tiles spread evenly over a source, cut from its rasters."""
    from geofix.imagery.raster import read_square

    sources = aerial.raster_sources(context.conn, source=source)
    chosen = [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, count).astype(int))]
    pictures = []
    for s2_id, coverage, day, rasters in chosen:
        lon, lat = s2.center(np.array([s2_id], np.int64))
        rgb, _ = read_square([sources[i] for i in rasters], float(lon[0]), float(lat[0]), size_px=160)
        token = s2.token(np.array([s2_id], np.int64))[0]
        pictures.append((f"{token} {day or ''} {100 * coverage:.0f} %", rgb))
    return pictures


def _draw_countries(context: Context, stage: kinds.Map) -> Result:
    rows = queries.country_shapes(context.conn, stage.dataset or "")
    if not rows:
        raise BadInputError(
            "No country is loaded.", hint="Put a stage `ingest_regions` of level country before the map."
        )
    shapes = [shapely.from_wkb(row[1]) for row in rows]
    counts = np.array([row[2] for row in rows], float)
    picture = context.out / f"countries-{stage.dataset}.png"
    title = f"{stage.dataset}: {int(counts.sum()):,} positions by country (a count, not a density)"
    charts.draw_cells(picture, shapes, np.log10(1 + counts), title, "log10(1 + positions)", _credit(context))
    return {"map": str(picture), "outputs": files(picture)}


def assignment(context: Context, stage: kinds.Assignment) -> Result:
    """Country that each photo was given, against the country its metadata names."""
    rows = queries.assignment(context.conn, stage.datasets, stage.field)
    top = queries.by_region(context.conn, stage.datasets, "country")
    admin = queries.by_region(context.conn, stage.datasets, "admin1")
    target = context.file(stage, "assignment.md")
    shown = [{**row, "different": ", ".join(row["different"][:12])} for row in rows]
    text = [
        "# Country of each photo",
        "",
        *markdown(shown),
        "",
        "## Countries with most photos",
        "",
        *markdown(top),
    ]
    text += ["", "## Admin-1 regions with most photos", "", *markdown(admin)]
    target.write_text("\n".join(text) + "\n", encoding="utf-8")
    return {"datasets": plain(rows), "top": plain(top[:5]), "outputs": files(target)}


def dates(context: Context, stage: kinds.Dates) -> Result:
    """Cosine between two dates of one cell, and between different cells at those dates."""
    model = model_queries.find_model(context.conn, stage.model)
    rows = queries.tile_dates(context.conn, model.model_id, stage.source)
    ids, vectors = model_queries.read_tile_embeddings(context.conn, model)
    place = np.searchsorted(ids, [row[0] for row in rows])
    days = sorted({row[2] for row in rows if row[2]})
    if len(days) < 2:
        raise BadInputError(f"{stage.source} has {len(days)} date(s), two are needed.")
    by_day = [
        {row[1]: place[i] for i, row in enumerate(rows) if row[2] == day} for day in (days[0], days[-1])
    ]
    common = sorted(set(by_day[0]) & set(by_day[1]))
    if not common:
        raise BadInputError(f"No cell of {stage.source} has a tile of {days[0]} and of {days[-1]}.")
    first = vectors[[by_day[0][cell] for cell in common]].astype(np.float32)
    last = vectors[[by_day[1][cell] for cell in common]].astype(np.float32)
    cosines = first @ last.T
    own = np.diag(cosines)
    other = cosines[~np.eye(len(common), dtype=bool)]
    best = cosines.argmax(axis=1) == np.arange(len(common))
    return {
        "source": stage.source,
        "dates": [days[0], days[-1]],
        "cells": len(common),
        "same_cell_cosine": float(own.mean()),
        "other_cell_cosine": float(other.mean()) if len(other) else None,
        "found_across_dates_percent": float(100 * best.mean()),
        "outputs": [],
    }


def add_errors(answers: list[dict[str, Any]], truth: dict[str, tuple[float, float]]) -> None:
    """Put the distance from the truth beside each answer whose photo's position is known."""
    for answer in answers:
        known = truth.get(answer["photo"])
        if known is not None and "position" in answer:
            position = answer["position"]
            answer["error_m"] = float(great_circle_m(known[0], known[1], position["lon"], position["lat"]))


def short_answers(answers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Photo, position, probability and error of each answer."""
    return [
        {
            "photo": answer["photo"].rsplit("/", 1)[-1],
            **({"error": answer["error"]} if "error" in answer else {}),
            **answer.get("position", {}),
            "probability": answer["candidates"][0]["probability"] if "candidates" in answer else None,
            "error_m": answer.get("error_m"),
            "cells_in_scope": answer.get("search", {}).get("cells_in_scope"),
        }
        for answer in answers
    ]


def files(*paths: Path) -> list[list[str]]:
    """Files as outputs of a stage."""
    return [["file", str(path)] for path in paths]


def _credit(context: Context) -> str:
    """Attribution of every data set that the pipeline loads."""
    names = [
        getattr(stage, field, None) for stage in context.pipeline.stages for field in ("dataset", "source")
    ]
    rows = queries.credits(context.conn, [name for name in names if name])
    parts = [credit or licence for _, licence, credit in rows]
    return "; ".join(dict.fromkeys(part for part in parts if part))[:300]
