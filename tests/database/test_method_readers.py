"""What the method's report says beside its figures: what models learned, towns and land, what is shipped."""

from __future__ import annotations

import json
import shlex

import numpy as np
import pytest
from method_world import LEVEL, TOWNS, fill
from small_world import SmallWorld, pointed_at
from structlog.testing import capture_logs

from geofix.codes.build import build_code_set
from geofix.database.engine import connect
from geofix.database.queries import codes as code_queries
from geofix.database.queries.models import find_model, read_split_embeddings
from geofix.errors import NotFoundError
from geofix.evaluation.method import MethodRequest, evaluate_method
from geofix.evaluation.method_build import Wanted
from geofix.evaluation.method_rows import codes_row
from geofix.evaluation.service import prepare
from geofix.ingest.regions import ingest_regions
from geofix.localize.calibrate import calibrate_code_set
from geofix.localizers.code_set import CodeSetLocalizer
from geofix.snapshots.build import build_snapshot, stored_snapshot

SPLIT = {"aerial": [], "test": 0.4, "val": 0.25}
ELSEWHERE = "UPDATE model SET snapshot_id = NULL, metrics = metrics || %s::jsonb WHERE name = 'joint'"


@pytest.fixture(scope="module")
def world(cluster, tmp_path_factory):
    """The made-up world, and product code pointed at it."""
    pytest.importorskip("timm", reason="needs the extra `train`")
    folder = tmp_path_factory.mktemp("readers")
    with cluster.database() as database, pointed_at(database, folder / "home"):
        fill(folder)
        yield SmallWorld(database, folder)


@pytest.fixture
def conn(world):
    """Everything that a test stores is rolled back."""
    with connect() as connection:
        yield connection
        connection.rollback()


def ask(conn, world, **given):
    given = {"snapshot": world.snapshot, "model": "joint", "replicates": 20, "name": "t", **given}
    given.setdefault("wanted", Wanted(density=False))
    return evaluate_method(conn, MethodRequest(**given), world.folder / "report")


def report(world):
    return (world.folder / "report" / "method.md").read_text()


def split_of(conn, snapshot):
    query = "SELECT photo_id, split FROM snapshot_photo WHERE snapshot_id = %s"
    return dict(conn.execute(query, (snapshot.snapshot_id,)).fetchall())


def test_a_table_on_another_snapshot_counts_what_the_model_learned(conn, world):
    build_snapshot(conn, ["streets"], world.folder / "other", seed=3, **SPLIT)
    ours, other = (stored_snapshot(conn, world.folder / name) for name in ("snapshot", "other"))
    before, after = split_of(conn, ours), split_of(conn, other)
    both = {
        split: sum(before.get(photo) == "train" for photo, now in after.items() if now == split)
        for split in ("test_seen", "test_unseen", "val")
    }
    assert sum(both.values()) > 10
    with capture_logs() as said:
        document = ask(conn, world, snapshot=world.folder / "other")
    assert document["trained_on"]["joint"] == {"snapshot": ours.sha256, "judged": False, "learned": both}
    shown = f"trained on snapshot {ours.sha256[:12]}, not on {other.sha256[:12]}"
    (note,) = [note for note in document["notes"] if shown in note]
    assert f"{both['test_seen']} of test_seen" in note and "too high" in note and note in report(world)
    assert [item["log_level"] for item in said if item["event"] == note] == ["warning"]
    assert document["product"]["command"] is None, "codes build would refuse this snapshot"
    assert any("that the model may have learned" in note for note in document["notes"])


def test_any_evaluation_on_another_snapshot_is_told(conn, world):
    build_snapshot(conn, ["streets"], world.folder / "elsewhere", seed=4, **SPLIT)
    for snapshot, told in (("elsewhere", True), ("snapshot", False)):
        with capture_logs() as said:
            prepare(conn, localizer="knn", model="joint", snapshot=world.folder / snapshot, split="test_seen")
        assert any("trained on another snapshot" in item["event"] for item in said) == told


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"snapshot_sha256": "ab" * 32}, "trained on snapshot abababababab, not on"),
        ({"snapshot_sha256": None}, "does not say which snapshot it was trained on"),
    ],
)
def test_a_model_from_elsewhere_is_judged_with_a_warning(conn, world, metadata, told):
    conn.execute(ELSEWHERE, (json.dumps(metadata),))
    document = ask(conn, world, splits=("test_seen",))
    (note,) = [note for note in document["notes"] if told in note]
    assert "may be among those asked" in note and document["trained_on"]["joint"]["learned"] is None


def test_on_its_own_snapshot_a_model_has_no_such_note(conn, world):
    document = ask(conn, world, splits=("test_seen",))
    assert not any("trained on" in note for note in document["notes"])
    ours = stored_snapshot(conn, world.snapshot)
    assert document["trained_on"]["joint"]["judged"] and document["trained_on"]["joint"]["learned"] == {
        "test_seen": 0,
        "val": 0,
    }
    assert document["snapshot"] == ours.sha256


def test_frozen_encoders_on_a_smaller_share_are_judged_fairly(conn, world):
    build_snapshot(conn, ["streets"], world.folder / "share", seed=2, train_share=0.5, **SPLIT)
    document = ask(conn, world, snapshot=world.folder / "share", frozen=True, splits=("test_seen",))
    assert any("nor of val, is one that it learned from" in note for note in document["notes"])
    assert set(document["trained_on"]["joint"]["learned"].values()) == {0}
    assert document["product"]["command"] is None
    assert any("No option of `codes build`" in note for note in document["notes"])


def test_another_snapshot_of_whose_val_nothing_was_learned_will_do(conn, world):
    build_snapshot(conn, ["streets"], world.folder / "tenth", seed=2, train_share=0.6, **SPLIT)
    tenth = stored_snapshot(conn, world.folder / "tenth")
    model = find_model(conn, "joint")
    build_code_set(conn, name="fair", model=model, level=16, snapshot_id=tenth.snapshot_id)
    said = calibrate_code_set(conn, code_queries.find_code_set(conn, "fair"), tenth.snapshot_id)
    assert said["temperature"] > 0
    document = ask(conn, world, snapshot=world.folder / "tenth", splits=("test_seen",))
    assert "--snapshot" in document["product"]["command"]


def test_without_regions_photos_stand_in_thirds_by_density(conn, world):
    document = ask(conn, world)
    found = document["settlement"]
    assert (found["by"], found["level"]) == ("density", 13) and found["per_km2"][0] < found["per_km2"][1]
    for row in document["rows"]:
        groups = row["by"]["settlement"]
        assert sum(group["n"] for group in groups.values()) == document["photos"]["mix"]
        assert list(groups) == ["thin", "middle", "dense"]
    text = report(world)
    assert "photos of the snapshot per km2 of the surrounding L13 cell" in text and "| dense (n = " in text
    # Photos of held-out blocks have neighbours as well: density is no other word for unseen.
    assert groups["thin"]["n"] < 0.6 * document["photos"]["mix"]


def test_regions_say_what_is_urban(conn, world):
    lon, lat = TOWNS[0]
    square = [[lon - 0.02, lat - 0.01], [lon + 0.02, lat - 0.01], [lon + 0.02, lat + 0.06]]
    square += [[lon - 0.02, lat + 0.06], square[0]]
    shape = {"type": "Polygon", "coordinates": [square]}
    feature = {"type": "Feature", "properties": {"code": "T1", "name": "Town"}, "geometry": shape}
    file = world.folder / "towns.geojson"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    with pytest.raises(NotFoundError, match="no region of level 'towns'"):
        ask(conn, world, urban="towns")
    ingest_regions(conn, file, level="towns", code_field="code", name_field="name", dataset="towns")
    document = ask(conn, world, urban="towns")
    query = (
        "SELECT count(*) FROM snapshot_photo s JOIN photo_record p USING (photo_id) JOIN snapshot USING"
        " (snapshot_id) WHERE snapshot.sha256 = %s AND split IN ('test_seen', 'test_unseen')"
        " AND ST_X(geom) < %s AND ST_Y(geom) < %s"
    )
    (inside,) = conn.execute(query, (document["snapshot"], lon + 0.02, lat + 0.06)).fetchone()
    groups = document["rows"][0]["by"]["settlement"]
    assert {name: group["n"] for name, group in groups.items()} == {
        "rural": document["photos"]["mix"] - inside,
        "urban": inside,
    }
    assert 0 < inside < document["photos"]["mix"] and "regions of level `towns`" in report(world)
    # Photos of a region called rural are that; the level `urban` needs no option.
    conn.execute("UPDATE region SET level = 'urban', code = 'Rural' WHERE level = 'towns'")
    conn.execute("UPDATE photo_region SET level = 'urban' WHERE level = 'towns'")
    assert list(ask(conn, world, replace=True)["rows"][0]["by"]["settlement"]) == ["rural"]


@pytest.mark.parametrize("best", ["copy", "bilinear"])
def test_the_report_says_which_code_set_the_row_is(conn, world, monkeypatch, best):
    """Its command builds the very codes, and the threshold they are stored with is the one in the report."""
    from geofix.evaluation import method_build

    monkeypatch.setattr(
        method_build, "_val_recall", lambda plan, row, wanted: 100.0 if best in row.key else 50.0
    )
    document = ask(conn, world)
    product = document["product"]
    assert document["fits"]["upsampling"] == product["upsample"] == best
    assert document["fits"]["upsampling_recall"] == {
        how: 100.0 if how == best else 50.0 for how in ("copy", "bilinear")
    }
    words = shlex.split(product["command"])
    options = dict(zip(words[3::2], words[4::2], strict=True))
    assert words[:3] == ["geofix", "codes", "build"] and options["--upsample"] == best
    assert product["command"] in report(world)
    told = [note for note in document["notes"] if "--upsample copy" in note]
    assert product["default"] == (best == "bilinear") and len(told) == (best == "copy")
    frozen = stored_snapshot(conn, world.snapshot)
    build_code_set(
        conn,
        name="shipped",
        model=find_model(conn, options["--model"]),
        recipe=options["--recipe"],
        level=int(options["--level"]),
        snapshot_id=frozen.snapshot_id,
        upsample=options["--upsample"],
    )
    found = code_queries.find_code_set(conn, "shipped")
    assert found.level == LEVEL
    assert found.kappa == pytest.approx(document["fits"]["fusion"][best]["kappa"], rel=1e-2)
    ids, vectors = read_split_embeddings(
        conn, find_model(conn, "joint"), frozen.snapshot_id, ["test_seen", "test_unseen"]
    )
    row = codes_row("x", "x", CodeSetLocalizer.load(conn, found), ("joint",), "main")
    first = dict(zip(ids.tolist(), row.codes.localize(vectors, 1).s2_id[:, 0].tolist(), strict=True))
    stored = conn.execute(
        "SELECT photo_id, s2_id FROM prediction JOIN evaluation USING (evaluation_id)"
        " WHERE name LIKE 't-hybrid-test%%' AND rank = 1"
    ).fetchall()
    assert len(stored) == len(first) and np.mean([first[photo] == cell for photo, cell in stored]) > 0.99
    calibrate_code_set(conn, found, frozen.snapshot_id)
    coverage = code_queries.find_code_set(conn, "shipped").calibration["coverage"]
    outside = document["confidence"]["outside"]
    assert outside["shipped"]["threshold"] == pytest.approx(coverage["threshold"] * found.scale, rel=1e-2)
    assert outside["shipped"]["fitted_outside"] == coverage["uncovered"]
    curve = outside["curves"]["held-out blocks"]
    assert 0 <= curve["at_shipped"]["false_positive"] <= 100 and "as shipped" in report(world)
