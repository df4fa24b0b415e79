"""One function per kind of stage; each can be repeated without harm and says what it made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from geofix.database.queries import cells as cell_queries
from geofix.database.queries import codes as code_queries
from geofix.database.queries import evaluations as evaluation_queries
from geofix.database.queries import models as model_queries
from geofix.database.queries import snapshots as snapshot_queries
from geofix.database.queries.codes import CodeSet
from geofix.database.queries.models import ModelRow
from geofix.database.queries.snapshots import SnapshotRow
from geofix.errors import BadInputError
from geofix.log import get_logger
from geofix.models.manifest import MANIFEST, WEIGHTS
from geofix.pipeline import file as kinds
from geofix.pipeline import reports
from geofix.pipeline.context import Context
from geofix.pipeline.inputs import matching
from geofix.pipeline.method_stage import method
from geofix.pipeline.reports import files
from geofix.pipeline.train_stage import train, train_classifier
from geofix.plain import plain
from geofix.snapshots.build import build_snapshot, stored_snapshot

Result = dict[str, Any]
_log = get_logger(__name__)


def ingest_regions(context: Context, stage: kinds.IngestRegions) -> Result:
    """Load named polygons."""
    from geofix.ingest.regions import ingest_regions as load

    result = load(
        context.conn,
        stage.path,
        level=stage.level,
        code_field=stage.code_field,
        name_field=stage.name_field,
        dataset=stage.dataset,
        layer=stage.layer,
        licence=stage.licence,
        attribution=stage.attribution,
    )
    return {**plain(result), "outputs": [["dataset", stage.dataset]]}


def ingest_photos(context: Context, stage: kinds.IngestPhotos) -> Result:
    """Load photos or positions."""
    from geofix.ingest.photos import ingest_photos as load

    result = load(
        context.conn,
        stage.path,
        dataset=stage.dataset,
        metadata=stage.metadata,
        columns=stage.columns,
        positions_only=stage.positions_only,
        licence=stage.licence,
        attribution=stage.attribution,
    )
    return {**plain(result), "outputs": [["dataset", stage.dataset]]}


def ingest_aerial(context: Context, stage: kinds.IngestAerial) -> Result:
    """Load rasters and register tiles."""
    from geofix.ingest.aerial import ingest_aerial as load
    from geofix.ingest.aerial_tiles import register_tiles

    result = load(
        context.conn,
        stage.paths,
        source=stage.source,
        captured_at=stage.captured_at,
        extents=stage.extents,
        fallback_zooms=stage.fallback_zooms,
        blank_rgb=stage.blank_rgb,
        licence=stage.licence,
        attribution=stage.attribution,
    )
    tiles = register_tiles(
        context.conn,
        source=stage.source,
        level=stage.tiles_level,
        side_m=stage.side_m,
        min_coverage=stage.min_coverage,
    )
    return {**plain(result), "tiles": plain(tiles), "outputs": [["dataset", stage.source]]}


def cells(context: Context, stage: kinds.Cells) -> Result:
    """Count photos and tiles per cell."""
    return {"levels": [plain(cell_queries.refresh_cells(context.conn, level)) for level in stage.levels]}


def snapshot(context: Context, stage: kinds.Snapshot) -> Result:
    """Freeze a training set."""
    result = build_snapshot(
        context.conn,
        stage.datasets,
        context.snapshot_dir,
        aerial=stage.aerial,
        overwrite=True,
        required=None if stage.required is None else tuple(stage.required),
        mode=stage.mode,
        block_level=stage.block_level,
        cell_level=stage.cell_level,
        buffer_m=stage.buffer_m,
        test=stage.test,
        val=stage.val,
        seed=stage.seed,
        train_share=stage.train_share,
    )
    outputs = [["snapshot", result["sha256"]], *files(context.snapshot_dir / "snapshot.json")]
    return {**result, "outputs": outputs}


def make_model(context: Context, stage: kinds.MakeModel) -> Result:
    """Make an encoder directory below GEOFIX_HOME and register it."""
    from geofix.codes.register import register_model
    from geofix.models.create import create_model
    from geofix.models.registry import load_model, save_model

    directory = context.home / "models" / stage.name
    directory.parent.mkdir(parents=True, exist_ok=True)
    # Beside its place first: a name that another model has is refused before anything of that one is touched.
    with TemporaryDirectory(prefix=f".{stage.name}.", dir=directory.parent) as folder:
        made = Path(folder) / stage.name
        create_model(
            made,
            trunk=stage.trunk,
            weights=None if stage.weights is None else str(stage.weights),
            sha256=stage.sha256,
            size=stage.size,
            fit=stage.fit,
            mean=stage.mean,
            std=stage.std,
            trunk_options=stage.trunk_options,
            gem_p=stage.gem_p,
            dimension=stage.dimension,
            seed=stage.seed,
        )
        row = register_model(context.conn, made, stage.name, place=directory)
        save_model(load_model(made), directory, overwrite=True)
    outputs = [["model", stage.name], *files(directory / MANIFEST, directory / WEIGHTS)]
    return {"model": row.name, "dimension": row.dimension, "sha256": row.weights_sha256, "outputs": outputs}


def embed(context: Context, stage: kinds.Embed) -> Result:
    """Embed what is not embedded yet."""
    from geofix.codes.embed_store import embed_all

    model = model_queries.find_model(context.conn, stage.model)
    return {
        **plain(embed_all(context.conn, model, stage.what, datasets=stage.datasets)),
        "outputs": [["model_id", str(model.model_id)]],
    }


def codes(context: Context, stage: kinds.Codes) -> Result:
    """Build a code set per level; one of an earlier run answers until its successor is whole."""
    from geofix.codes.recipes import default_recipe

    model = model_queries.find_model(context.conn, stage.model)
    recipe = stage.recipe or default_recipe(context.conn, model)
    own = any(isinstance(item, kinds.Snapshot) for item in context.pipeline.stages)
    frozen = own or context.pipeline.snapshot is not None
    needed = recipe != "aerial" or (frozen and bool(model.metrics.get("terms")))
    row = stored_snapshot(context.conn, context.snapshot_dir) if needed else None
    chosen = stage.model_copy(update={"recipe": recipe})
    made: Result = {}
    for level in stage.levels:
        name = context.code_set(stage.model, recipe, level)
        made[name] = _code_set(context, chosen, name, level, model, row)
    return {"code_sets": made, "outputs": [["code_set", name] for name in made]}


def _code_set(
    context: Context, stage: kinds.Codes, name: str, level: int, model: ModelRow, row: SnapshotRow | None
) -> Result:
    """Build, calibrate and index under another name; then take the name over, all in one transaction."""
    from geofix.codes.build import build_code_set
    from geofix.codes.index import build_index, recall_with_photos
    from geofix.ingest.region_text import region_ewkb

    conn = context.conn
    temporary = f"{name} (in the making)"
    made = build_code_set(
        conn,
        name=temporary,
        model=model,
        recipe=stage.recipe,
        level=level,
        snapshot_id=None if row is None else row.snapshot_id,
        region_ewkb=None if stage.within is None else region_ewkb(conn, stage.within),
        datasets=stage.datasets,
        upsample=stage.upsample,
        kappa=stage.kappa,
    )
    found = code_queries.find_code_set(conn, temporary)
    if stage.calibrate and row is not None and row.counts.get("val", 0):
        made["calibration"] = _calibrated(context, found, row.snapshot_id)
    if stage.index:
        made["index"] = {**build_index(conn, found), "code_set": name}
        measured = recall_with_photos(conn, code_queries.find_code_set(conn, temporary))
        made["recall"] = None if measured is None else measured.recall
    code_queries.replace_code_set(conn, found.code_set_id, name)
    conn.commit()
    code_queries.drop_replaced(conn, name)
    return made


def _calibrated(context: Context, code_set: CodeSet, snapshot_id: int) -> Result:
    """The fit, or why the validation photos say nothing about the set: it stays without probabilities."""
    from geofix.localize.calibrate import calibrate_code_set

    try:
        return calibrate_code_set(context.conn, code_set, snapshot_id)
    except BadInputError as error:
        _log.warning("not calibrated", code_set=code_set.name, reason=str(error))
        return {"not_calibrated": str(error)}


def evaluate(context: Context, stage: kinds.Evaluate) -> Result:
    """Judge every localizer at every level on every split that holds photos."""
    from geofix.evaluation.service import evaluate as judge
    from geofix.localizers.code_set import NAMES

    row = stored_snapshot(context.conn, context.snapshot_dir)
    rows: Result = {}
    old = set()
    recipes = {localizer: recipe for recipe, localizer in NAMES.items()}
    for localizer in stage.localizers:
        levels = stage.levels if localizer in (*recipes, "most_photographed") else stage.levels[:1]
        for level in levels:
            for split in stage.splits:
                name = context.evaluation(stage, localizer, level, split)
                if not row.counts.get(split, 0):
                    old.add(name)  # of an earlier run, when the split still held photos
                    continue
                code_set = (
                    context.code_set(stage.model, recipes[localizer], level) if localizer in recipes else None
                )
                rows[name] = judge(
                    context.conn,
                    localizer=localizer,
                    snapshot=context.snapshot_dir,
                    split=split,
                    name=name,
                    model=stage.model,
                    code_set=code_set,
                    level=level,
                    within=stage.within,
                    crops=stage.crops,
                    exclude_author=stage.exclude_author,
                    **stage.counting(),
                    replace=True,
                )
    if not rows:
        raise BadInputError(
            f"No split of {', '.join(stage.splits)} holds a photo.", hint=f"The snapshot has {row.counts}."
        )
    for name in sorted(old):
        evaluation_queries.delete_evaluation(context.conn, name)
    return {"evaluations": rows, "outputs": [["evaluation", name] for name in rows]}


def localize(context: Context, stage: kinds.Localize) -> Result:
    """Answer photos, and where their position is known say how far off the answer is."""
    from geofix.localize.service import localize_photos

    photos, truth = _asked(context, stage)
    code_set = context.code_set(stage.model, stage.recipe, stage.level)
    answers = localize_photos(
        context.conn, photos, code_set, within=stage.within, k=stage.k, position=stage.position
    )
    reports.add_errors(answers, truth)
    target = context.file(stage, "localized.json")
    target.write_text(json.dumps(plain(answers), indent=2), encoding="utf-8")
    return {"photos": reports.short_answers(answers), "outputs": files(target)}


def _asked(context: Context, stage: kinds.Localize) -> tuple[list[Path], dict[str, tuple[float, float]]]:
    """Files to answer, and (lon, lat) of those that the snapshot knows."""
    truth: dict[str, tuple[float, float]] = {}
    if stage.split is not None:
        row = stored_snapshot(context.conn, context.snapshot_dir)
        for uri, lon, lat in snapshot_queries.split_files(
            context.conn, row.snapshot_id, stage.split, stage.limit
        ):
            truth[uri.removeprefix("file://")] = (lon, lat)
        if not truth:
            raise BadInputError(
                f"Split {stage.split} holds no photo.", hint=f"The snapshot has {row.counts}."
            )
        return [Path(name) for name in truth], truth
    names = matching(stage.photos)[: stage.limit]
    if not names:
        raise BadInputError(f"No file matches {', '.join(stage.photos)}.")
    return [Path(name) for name in names], truth


# Nothing that a later stage reads is made by these.
REPORTS = (
    kinds.Cells,
    kinds.Localize,
    kinds.MissingTilesReport,
    kinds.Table,
    kinds.Map,
    kinds.Assignment,
    kinds.Dates,
)
STAGES: dict[type, Callable[..., Result]] = {
    kinds.IngestRegions: ingest_regions,
    kinds.IngestPhotos: ingest_photos,
    kinds.IngestAerial: ingest_aerial,
    kinds.Cells: cells,
    kinds.Snapshot: snapshot,
    kinds.MakeModel: make_model,
    kinds.Train: train,
    kinds.TrainClassifier: train_classifier,
    kinds.Embed: embed,
    kinds.Codes: codes,
    kinds.Evaluate: evaluate,
    kinds.Method: method,
    kinds.Localize: localize,
    kinds.MissingTilesReport: reports.missing_tiles,
    kinds.Table: reports.table,
    kinds.Map: reports.draw,
    kinds.Assignment: reports.assignment,
    kinds.Dates: reports.dates,
}
