"""Every kind of job once on a small real input, as one pipeline, in this process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
import yaml
from rasterio.transform import from_origin

pytest.importorskip("timm", reason="needs the extra `train`")

from photographed import TOWNS, streets
from trainings import CLASSIFIER, TINY

from geofix.codes.register import register_model
from geofix.database.engine import connect
from geofix.jobs import runner, service
from geofix.jobs.pipeline import Pipeline
from geofix.jobs.specs import kinds, parse
from geofix.models.create import create_model
from servers import Database


def orthophoto(path: Path) -> Path:
    lon, lat = TOWNS[0]
    pixels = np.random.default_rng(1).integers(1, 255, (3, 64, 64), dtype=np.uint8)
    corner = from_origin(lon - 0.0032, lat + 0.0032, 1e-4, 1e-4)
    with rasterio.open(
        path, "w", "GTiff", 64, 64, 3, crs="EPSG:4326", transform=corner, dtype="uint8"
    ) as raster:
        raster.write(pixels)
    return path


def country(path: Path) -> Path:
    shape = shapely.geometry.mapping(shapely.box(7, 47, 8, 48))
    feature = {"type": "Feature", "properties": {"code": "CHE", "name": "Switzerland"}, "geometry": shape}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    return path


def stage(name: str, kind: str, /, *after: str, **parameters: object) -> dict[str, object]:
    given = {key: str(value) if isinstance(value, Path) else value for key, value in parameters.items()}
    return {"name": name, "kind": kind, "parameters": given, "after": list(after)}


def test_every_kind_runs(db: Database, timing: None, tmp_path: Path) -> None:
    root, frozen = streets(tmp_path / "photos"), tmp_path / "snapshot"
    create_model(tmp_path / "tiny", trunk="mobilenetv3_small_050", size=32, seed=3)
    with connect() as conn:
        register_model(conn, tmp_path / "tiny", "tiny")
    on = {"model": "tiny"}
    training = tmp_path / "training.yaml"
    training.write_text(yaml.safe_dump(TINY | {"epochs": 1}))
    classes = tmp_path / "classes.yaml"
    classes.write_text(yaml.safe_dump(CLASSIFIER))
    stages = [
        stage(
            "regions",
            "ingest",
            what="regions",
            path=country(tmp_path / "c.geojson"),
            level="country",
            code_field="code",
            name_field="name",
        ),
        stage(
            "photos",
            "ingest",
            "regions",
            what="photos",
            path=root,
            dataset="streets",
            metadata=root / "metadata.csv",
            workers=1,
        ),
        stage("aerial", "ingest", what="aerial", paths=str(orthophoto(tmp_path / "o.tif")), source="ortho"),
        stage("snapshot", "snapshot", "photos", datasets="streets", out=frozen, test=0.3, val=0.2, seed=1),
        stage("embed", "embed", "photos", what="photos", **on),
        stage("embed-aerial", "embed", "aerial", what="aerial", **on),
        stage("codes", "codes", "snapshot", "embed", code_set="set", snapshot=frozen, calibrate=True, **on),
        stage("codes-aerial", "codes", "embed-aerial", code_set="air", recipe="aerial", **on),
        stage(
            "train",
            "train",
            "snapshot",
            config=training,
            snapshot=frozen,
            out=tmp_path / "out",
            name="learned",
        ),
        stage(
            "learn-classes",
            "train_classifier",
            "snapshot",
            config=classes,
            snapshot=frozen,
            out=tmp_path / "classes",
            name="classes",
            budget={"photos": 8},
        ),
        stage(
            "judge-classes",
            "evaluate",
            "learn-classes",
            localizer="classifier",
            model="classes",
            snapshot=frozen,
            crops="five-max",
            name="crops",
        ),
        stage("tidy", "retention", "train"),
        stage("index", "index", "codes", code_set="set", m=8, ef_construction=32, parallel=0, queries=20),
        stage("evaluate", "evaluate", "index", localizer="cellmean", code_set="set", snapshot=frozen),
        stage("recall", "recall_check", "index", code_set="set", queries=10),
        stage("localize", "localize", "index", photos=[str(root / "0-0" / "0.jpg")], code_set="set"),
        stage(
            "refresh",
            "refresh",
            *("evaluate", "recall", "localize"),
            code_set="set",
            region=shapely.box(7.4, 47.4, 7.5, 47.55).wkt,
        ),
    ]
    # `distribute` needs shards (tests/database/test_shard_moves.py); the others belong to tests.
    assert {item["kind"] for item in stages} | {"pipeline"} >= set(kinds()) - {
        "distribute",
        "probe",
        "split",
        "statement",
        "sleepwalker",
        "run",
        "stage",
    }
    made = parse("pipeline", {"stages": stages})
    assert isinstance(made, Pipeline)
    row = runner.run_inline(service.submit(made, publish=False).job_id)
    assert row.state == "succeeded", row.error
    found = row.result["results"]
    assert found["regions"]["loaded"] == 1
    assert (found["photos"]["loaded"], found["photos"]["regions"]["country"]["inside"]) == (72, 72)
    assert found["aerial"]["rasters"] == 1 and found["aerial"]["tiles"]
    assert sum(found["snapshot"]["photos"].values()) <= 72 and found["snapshot"]["cells"] > 0
    assert (found["embed"]["embedded"], found["embed"]["failed"]) == (72, 0)
    assert found["embed-aerial"]["embedded"] > 0 and found["codes-aerial"]["with_aerial"] > 0
    assert found["codes"]["cells"] > 0 and "calibration" in found["codes"]
    assert found["train"]["registered"] == "learned" and found["train"]["epochs"] == 1
    assert found["learn-classes"]["registered"] == "classes" and found["learn-classes"]["epochs"] == 1
    assert found["judge-classes"]["protocol"]["crops"] == "five-crop maximum"
    assert found["judge-classes"]["answered"] == 100  # though nothing embedded the photos
    assert found["tidy"]["removed"] == 0
    assert found["index"]["recall"] > 0.5 and found["recall"]["recall_queries"] == 10
    assert found["evaluate"]["n"] > 0 and found["localize"]["answers"][0]["position"]["lon"]
    again = runner.run_inline(service.submit(parse("embed", {"what": "photos", **on}), publish=False).job_id)
    assert (again.result["embedded"], again.result["skipped"]) == (0, 72)
    with db.connect("reader") as conn:
        assert conn.execute("SELECT count(*) FROM job_status WHERE state = 'succeeded'").fetchone() == (19,)


def test_a_snapshot_that_a_killed_attempt_left_is_replaced_and_a_registered_one_never(
    db: Database, timing: None, tmp_path: Path
) -> None:
    root, out = streets(tmp_path / "photos"), tmp_path / "snapshot"
    ingest = {"what": "photos", "path": root, "dataset": "streets", "metadata": root / "metadata.csv"}
    service.require_success(runner.run_inline(service.submit(parse("ingest", ingest), publish=False).job_id))
    build = parse("snapshot", {"datasets": "streets", "out": out, "test": 0.3, "val": 0.2})

    def second_attempt() -> str:
        job_id = service.submit(build, publish=False).job_id
        with connect() as conn:
            conn.execute("UPDATE geofix.job SET attempts = 1 WHERE job_id = %s", (job_id,))
        return runner.run_inline(job_id).state

    service.require_success(runner.run_inline(service.submit(build, publish=False).job_id))
    assert second_attempt() == "failed"
    with connect() as conn:
        conn.execute("DELETE FROM geofix.snapshot")
    assert second_attempt() == "succeeded"
