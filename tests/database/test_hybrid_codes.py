"""Codes of a trained model: what is registered, how the recipes are built, and that every search agrees."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import shapely
from pgvector import HalfVector
from small_world import DIMENSION, LEVEL, TOWNS, SmallWorld, orthophoto
from structlog.testing import capture_logs
from typer.testing import CliRunner

pytest.importorskip("timm", reason="needs the extra `train`")

from trained import (
    PROTOTYPE_LEVEL,
    drop_trained,
    encoder,
    make_trained,
    metadata,
    photo_means,
    tensors,
)

from geofix.codes import fuse
from geofix.codes.build import build_code_set, default_recipe
from geofix.codes.complete import split_codes
from geofix.codes.embed_store import load_size
from geofix.codes.index import build_index
from geofix.codes.register import register_model
from geofix.database.engine import connect
from geofix.database.ownership import delete_dataset
from geofix.database.queries import codes as code_queries
from geofix.database.queries import models as model_queries
from geofix.database.queries import prototypes as prototype_queries
from geofix.errors import BadInputError, NotFoundError, UsageError
from geofix.ingest.aerial import ingest_aerial
from geofix.ingest.aerial_tiles import register_tiles
from geofix.localize import calibrate
from geofix.localize.calibrate import calibrate_code_set
from geofix.localize.confidence import fit_confidence
from geofix.localizers.code_set import CodeSetLocalizer
from geofix.models.registry import Model, load_model, save_model
from geofix.snapshots.build import build_snapshot, stored_snapshot
from geofix.spatial import s2


@pytest.fixture(scope="module")
def joint(small_database: SmallWorld, tmp_path_factory: pytest.TempPathFactory):
    """A trained model named `joint` in the small world, with tiles around six towns; gone afterwards."""
    from small_world import pointed_at

    folder = tmp_path_factory.mktemp("trained")
    with pointed_at(small_database.database, small_database.folder / "home"):
        with connect() as conn:
            rasters = [orthophoto(folder / f"{town}.tif", town) for town in range(1, 6)]
            ingest_aerial(conn, rasters, source="more towns")
            register_tiles(conn, source="more towns", level=LEVEL)
            make_trained(conn, small_database, folder / "joint")
        yield folder / "joint"
        with connect() as conn:
            drop_trained(conn, "joint")
            delete_dataset(conn, "more towns")


@pytest.fixture
def conn(joint: Path, small: SmallWorld):
    with connect() as connection:
        yield connection
        connection.rollback()


@pytest.fixture
def model(conn):
    return model_queries.find_model(conn, "joint")


def codes(conn, name):
    """Cells, codes without completion, biases."""
    found = code_queries.find_code_set(conn, name)
    ids, stored = code_queries.read_codes(conn, found)
    return found, ids, *split_codes(stored, found.scale)


def test_registration_brings_prototypes_and_the_snapshot(conn, small, joint, model):
    wanted = load_model(joint).tensors
    ids, photos = prototype_queries.prototype_cells(conn, model)
    assert (ids == wanted["prototypes.s2_id"].numpy()).all() and photos.sum() > 0
    assert (photos == wanted["prototypes.photos"].numpy()).all()
    assert prototype_queries.prototype_level(conn, model.model_id) == PROTOTYPE_LEVEL
    some, vectors = prototype_queries.read_prototypes(conn, model, ids[2:5])
    assert (some == ids[2:5]).all()
    assert np.allclose(vectors, wanted["prototypes.weight"].numpy()[2:5], atol=1e-3)
    assert model.snapshot_id == stored_snapshot(conn, small.snapshot).snapshot_id
    assert register_model(conn, joint, "joint").model_id == model.model_id  # twice is once
    assert len(prototype_queries.prototype_cells(conn, model)[0]) == len(ids)


def test_the_size_of_a_tile_is_that_of_the_aerial_encoder(conn, model):
    assert (load_size(model), model.input_transform["size"]) == (48, [64, 64])
    assert load_size(model_queries.find_model(conn, "tiny")) == 64  # one encoder for both


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": lambda t: t[:, :-1]}, rf"dimension {DIMENSION} were expected"),
        ({"s2_id": lambda t: t.flip(0)}, "ascending order"),
        ({"weight": lambda t: t * float("nan")}, "not finite or zero"),
        ({"photos": lambda t: t[:-1]}, "photos"),
        ({"s2_id": None}, "not all of prototypes.s2_id"),
    ],
)
def test_prototypes_that_do_not_fit_are_refused(conn, small, tmp_path, change, message):
    held = tensors(*photo_means(conn, small))
    for name, what in change.items():
        key = f"prototypes.{name}"
        held[key] = held[key] if what is None else what(held[key]).contiguous()
        if what is None:
            del held[key]
    described = metadata(conn, small, "ground_prototype")
    save_model(Model("bad", {"ground": encoder(3)}, held, described), tmp_path / "bad")
    with pytest.raises(BadInputError, match=message):
        register_model(conn, tmp_path / "bad", "bad")
    with pytest.raises(NotFoundError):
        model_queries.find_model(conn, "bad")


def test_weights_of_another_model_are_refused(conn, joint, tmp_path):
    shutil.copytree(joint, tmp_path / "copy")
    text = (joint / "model.json").read_text().replace(load_model(joint).sha256, "0" * 64)
    (tmp_path / "copy" / "model.json").write_text(text)
    with pytest.raises(BadInputError, match="its description says 000000000000"):
        register_model(conn, tmp_path / "copy", "copy")


def test_what_a_model_is_built_into_by_default(conn, small, tmp_path, model):
    assert default_recipe(conn, model) == "hybrid"
    assert default_recipe(conn, model_queries.find_model(conn, "tiny")) == "cellmean"
    kinds = {"prototype": {"aerial": False}, "aerial": {"prototypes": False}}
    for recipe, options in kinds.items():
        row = make_trained(conn, small, tmp_path / recipe, **options)
        assert default_recipe(conn, row) == recipe
        made = build_code_set(conn, name=f"by default {recipe}", model=row, level=LEVEL)
        assert made["recipe"] == recipe and made["cells"] > 0
        conn.commit()
        drop_trained(conn, recipe)


def test_a_model_without_an_aerial_encoder_says_so(conn, small, tmp_path):
    row = make_trained(conn, small, tmp_path / "ground-only", aerial=False)
    from geofix.codes.embed_store import embed_all

    with pytest.raises(NotFoundError, match="has no aerial encoder"):
        embed_all(conn, row, "aerial", workers=1)
    with pytest.raises(BadInputError, match="embedded no aerial tile"):
        build_code_set(conn, name="h", model=row, recipe="hybrid", level=LEVEL)
    conn.rollback()
    drop_trained(conn, "ground-only")


def test_prototypes_become_codes_at_three_levels(conn, model):
    options = {"model": model, "recipe": "prototype"}
    build_code_set(conn, name="own", level=PROTOTYPE_LEVEL, **options)
    build_code_set(conn, name="copied", level=LEVEL, upsample="copy", **options)
    build_code_set(conn, name="between", level=LEVEL, upsample="bilinear", **options)
    _, ids, own, bias = codes(conn, "own")
    _, cells, copied, _ = codes(conn, "copied")
    found, same, between, _ = codes(conn, "between")
    assert (cells == same).all() and len(cells) == 4 * len(ids) == found.with_prototype
    parents = np.searchsorted(ids, s2.parent(cells, PROTOTYPE_LEVEL))
    assert np.allclose(copied, own[parents], atol=1e-3) and not bias.any()
    assert np.abs(between - copied).max() > 0.02  # streets cross cells
    assert found.config == {"upsample": "bilinear"} and found.snapshot_id == model.snapshot_id
    with pytest.raises(UsageError, match="would be coarser"):
        build_code_set(conn, name="coarse", level=14, **options)


def test_a_hybrid_is_the_sum_with_a_bias_where_a_part_is_missing(conn, model):
    made = build_code_set(conn, name="h", model=model, level=LEVEL)
    build_code_set(conn, name="p", model=model, recipe="prototype", level=LEVEL)
    build_code_set(conn, name="a", model=model, recipe="aerial", level=LEVEL)
    found, ids, sums, bias = codes(conn, "h")
    fusion = found.config["fusion"]
    assert made["kappa"] == found.kappa == fusion["kappa"] and 0.1 < found.kappa < 10  # both parts count
    assert found.temperature == fusion["temperature"] and fusion["queries"] == fusion["queries_available"] > 5
    assert 0 < found.with_prototype < found.cells > found.with_aerial > 0
    wanted, flags = np.zeros((len(ids), DIMENSION)), {}
    for name, weight in (("p", found.kappa), ("a", 1.0)):
        _, part, vectors, _ = codes(conn, name)
        rows = np.searchsorted(ids, part)
        assert (ids[rows] == part).all()
        wanted[rows] += weight * vectors
        flags[name] = np.isin(ids, part)
    assert np.allclose(sums, wanted, atol=2e-3 * found.scale)
    expected = fusion["bias_no_prototype"] * ~flags["p"] + fusion["bias_no_aerial"] * ~flags["a"]
    assert np.allclose(bias, expected, atol=2e-3 * found.scale) and (expected != 0).any()
    stored = conn.execute(
        "SELECT s2_id, has_prototype, has_aerial FROM cell_code WHERE code_set_id = %s ORDER BY 1",
        (found.code_set_id,),
    ).fetchall()
    assert [row[1:] for row in stored] == list(zip(flags["p"].tolist(), flags["a"].tolist(), strict=True))


def test_every_search_agrees_in_score_and_rank(conn, model):
    build_code_set(conn, name="h", model=model, level=LEVEL)
    found = code_queries.find_code_set(conn, "h")
    build_index(conn, found, m=16, ef_construction=128)
    found = code_queries.find_code_set(conn, "h")
    _, ids, sums, bias = codes(conn, "h")
    _, queries = model_queries.read_split_embeddings(conn, model, model.snapshot_id, ["test_seen", "val"])
    localizer = CodeSetLocalizer.load(conn, found)
    answers = localizer.localize(queries, 10)
    for row, query in enumerate(queries[:20]):
        plain = query.astype(np.float64) @ sums.T.astype(np.float64) + bias
        by_way = {}
        for below in (10_000, 0):
            rows = conn.execute(
                "SELECT s2_id, score, method FROM search_cells(%s, 10, 'h', NULL, %s)",
                (HalfVector(query), below),
            ).fetchall()
            by_way[rows[0][2]] = rows
        assert set(by_way) == {"exact", "hnsw"}
        for rows in by_way.values():
            assert np.allclose([r[1] for r in rows], answers.score[row], atol=1e-3)
            assert np.allclose(
                [r[1] for r in rows], plain[np.searchsorted(ids, [r[0] for r in rows])], atol=1e-3
            )
            # The same cell at every rank, but for cells whose scores a float32 sum cannot tell apart.
            place = np.searchsorted(ids, [r[0] for r in rows]), np.searchsorted(ids, answers.s2_id[row])
            assert np.allclose(plain[place[0]], plain[place[1]], atol=2e-6 * found.scale)
            assert (place[0] == place[1]).mean() >= 0.8
        assert np.allclose(answers.score[row], np.sort(plain)[::-1][:10], atol=1e-3)


def test_a_given_kappa_needs_no_validation_photos(conn, model):
    made = build_code_set(conn, name="one", model=model, recipe="hybrid", level=LEVEL, kappa=1.0)
    found, _, _, bias = codes(conn, "one")
    assert made["kappa"] == 1.0 and found.temperature is None and not np.abs(bias).max() > 1e-3
    with pytest.raises(UsageError, match="kappa is -1"):
        build_code_set(conn, name="less", model=model, recipe="hybrid", level=LEVEL, kappa=-1.0)


def test_what_a_fit_cannot_do_without(conn, small, model, tmp_path):
    build_snapshot(conn, ["streets"], tmp_path / "other", test=0.3, val=0.2, seed=2)
    other = stored_snapshot(conn, tmp_path / "other").snapshot_id
    with pytest.raises(
        UsageError, match=r"was trained on snapshot [0-9a-f]{12}, not on snapshot [0-9a-f]{12}"
    ):
        build_code_set(conn, name="h", model=model, level=LEVEL, snapshot_id=other)
    shape = shapely.box(TOWNS[7][0] - 0.02, TOWNS[7][1] - 0.02, TOWNS[7][0] + 0.02, TOWNS[7][1] + 0.02)
    region = shapely.to_wkb(shapely.set_srid(shape, 4326), include_srid=True)
    with pytest.raises(BadInputError, match="embedded no aerial tile here"):
        build_code_set(conn, name="h", model=model, level=LEVEL, region_ewkb=region)
    conn.execute("DELETE FROM photo_embedding WHERE model_id = %s", (model.model_id,))
    with pytest.raises(BadInputError, match="none embedded by model joint"):
        build_code_set(conn, name="h", model=model, level=LEVEL)
    with pytest.raises(BadInputError, match="has no prototypes"):
        tiny = model_queries.find_model(conn, "tiny")
        build_code_set(conn, name="h", model=tiny, recipe="hybrid", level=LEVEL)


def test_a_model_of_no_known_snapshot_needs_a_kappa(conn, model):
    conn.execute("UPDATE model SET snapshot_id = NULL WHERE name = 'joint'")
    unknown = model_queries.find_model(conn, "joint")
    with pytest.raises(UsageError, match="no snapshot is named"):
        build_code_set(conn, name="h", model=unknown, level=LEVEL)
    assert build_code_set(conn, name="h", model=unknown, level=LEVEL, kappa=2.0)["kappa"] == 2.0


def test_a_model_of_an_unknown_snapshot_is_not_fitted_on_another(conn, small, model):
    """Trained elsewhere: its metadata say on what, and this database never saw that snapshot."""
    ours, theirs = stored_snapshot(conn, small.snapshot), "ab" * 32
    change = (
        "UPDATE model SET snapshot_id = NULL,"
        " metrics = metrics || jsonb_build_object('snapshot_sha256', %s::text) WHERE name = 'joint'"
    )
    conn.execute(change, (theirs,))
    unknown = model_queries.find_model(conn, "joint")
    told = f"trained on snapshot {theirs[:12]}, not on snapshot {ours.sha256[:12]}"
    for recipe in ("hybrid", "prototype"):
        with pytest.raises(UsageError, match=told) as refused:
            build_code_set(
                conn, name="h", model=unknown, recipe=recipe, level=LEVEL, snapshot_id=ours.snapshot_id
            )
        assert "--kappa" in refused.value.hint and "train on this one" in refused.value.hint
    build_code_set(conn, name="given", model=unknown, level=LEVEL, kappa=2.0)
    with pytest.raises(UsageError, match=told):
        calibrate_code_set(conn, code_queries.find_code_set(conn, "given"), ours.snapshot_id)
    build_code_set(conn, name="a", model=unknown, recipe="aerial", level=LEVEL)
    with capture_logs() as said:
        calibrate_code_set(conn, code_queries.find_code_set(conn, "a"), ours.snapshot_id)
    assert [item["log_level"] for item in said if told in item["event"]] == ["warning"]
    conn.execute(change, (ours.sha256,))  # the same snapshot, which was built here after the model came
    known = model_queries.find_model(conn, "joint")
    assert known.snapshot_id is None
    assert build_code_set(conn, name="h", model=known, level=LEVEL, snapshot_id=ours.snapshot_id)["kappa"] > 0


def test_calibration_takes_part_of_many_photos_and_says_so(conn, model, monkeypatch):
    build_code_set(conn, name="h", model=model, level=LEVEL)
    found = code_queries.find_code_set(conn, "h")
    whole = calibrate_code_set(conn, found, model.snapshot_id)
    assert whole["photos_used"] == whole["photos_available"] > 10
    outside = whole["photos_available"] - whole["queries"]
    monkeypatch.setattr(calibrate, "fit_confidence", partial(fit_confidence, most=9))
    some = calibrate_code_set(conn, found, model.snapshot_id)
    used = 9 + min(outside, 9)
    assert (some["photos_used"], some["photos_available"]) == (used, whole["photos_available"])
    stored = code_queries.find_code_set(conn, "h").calibration
    assert (stored["photos_used"], stored["photos_available"]) == (used, whole["photos_available"])
    assert (stored["queries"], stored["coverage"]["uncovered"]) == (9, used - 9)
    assert calibrate_code_set(conn, found, model.snapshot_id) == some, "the same photos again"


def test_many_queries_are_thinned_out_and_said_so(conn, model, monkeypatch):
    from geofix.codes.recipes import aerial_vectors, prototype_vectors

    parts = fuse.Parts.of(prototype_vectors(conn, model, LEVEL), aerial_vectors(conn, model, LEVEL))
    whole = fuse.weigh(conn, model, parts.ids, lambda: [parts], "fit", model.snapshot_id)
    assert whole.fusion.queries == whole.known["queries_available"] > 10
    monkeypatch.setattr(fuse, "thinned", lambda rows, most: rows[:8])
    some = fuse.weigh(conn, model, parts.ids, lambda: [parts], "fit", model.snapshot_id)
    assert some.fusion.queries == 8
    assert some.known["queries_available"] == whole.known["queries_available"]


def test_the_command_builds_and_calibrates(joint, small):
    from geofix.cli.codes import app

    base = ["build", "--model", "joint", "--snapshot", str(small.snapshot), "--json"]
    done = CliRunner().invoke(app, [*base, "--code-set", "cli"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout[done.stdout.index("{") :])  # after the log, which `geofix` sends elsewhere
    assert said["recipe"] == "hybrid" and said["kappa"] > 0 and said["calibration"]["temperature"] > 0
    with connect() as conn:
        found = code_queries.find_code_set(conn, "cli")
        assert found.temperature == pytest.approx(said["calibration"]["temperature"])
        assert found.calibration["queries"] == found.config["fusion"]["queries"]
        # Calibration looks for the same temperature by another way; both fits are of the same likelihood.
        assert found.temperature == pytest.approx(found.config["fusion"]["temperature"], rel=0.1)
    alone = CliRunner().invoke(app, ["build", "--model", "joint", "--json", "--code-set", "alone"])
    assert alone.exit_code == 0 and '"temperature"' in alone.stdout, "on the model's own snapshot"
    with connect() as conn:
        assert code_queries.find_code_set(conn, "alone").calibration == found.calibration
    for option in (("--recipe", "magic"), ("--upsample", "cubic"), ("--kappa", "much")):
        bad = CliRunner().invoke(app, [*base, "--code-set", "x", *option])
        assert bad.exit_code == 2 and option[1] in bad.output


def test_a_pipeline_builds_what_the_model_can_and_names_it_so(joint, small):
    from geofix.pipeline.context import Context
    from geofix.pipeline.file import Codes, Pipeline
    from geofix.pipeline.stages import codes as run

    stages = [
        {"do": "snapshot", "datasets": ["streets"]},
        {"do": "codes", "model": "joint", "levels": [LEVEL], "index": True},
        {"do": "codes", "model": "joint", "recipe": "prototype", "levels": [PROTOTYPE_LEVEL]},
        {
            "do": "codes",
            "model": "joint",
            "recipe": "hybrid",
            "levels": [LEVEL],
            "kappa": 1,
            "upsample": "copy",
        },
    ]
    pipeline = Pipeline.model_validate({"name": "walk", "stages": stages})
    with connect() as conn:
        context = Context(conn, pipeline, small.folder)
        made = [run(context, item) for item in pipeline.stages if isinstance(item, Codes)]
        names = [next(iter(item["code_sets"])) for item in made]
        assert names == ["walk-joint-hybrid-l16", "walk-joint-prototype-l15", "walk-joint-hybrid-l16"]
        first, own, last = (item["code_sets"][name] for item, name in zip(made, names, strict=True))
        assert first["kappa"] != 1 and first["recall"] > 0.9 and own["calibration"]["temperature"] > 0
        found = code_queries.find_code_set(conn, names[2])  # the successor has taken the name
        assert last["kappa"] == found.kappa == 1 and found.config["upsample"] == "copy"
        assert found.temperature is not None  # calibrated on the snapshot's val
