"""Codes of one region made again: what changes and what stays."""

# ruff: noqa: F811 (fixtures of another module)
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely
from psycopg.types.json import Jsonb
from small_world import LEVEL, TOWNS, orthophoto

pytest.importorskip("timm", reason="needs the extra `train`")

from refreshed import NEW, around, build, codes, conn, flags, in_place, joint, new_photos  # noqa: F401
from trained import PROTOTYPE_LEVEL

from geofix.codes.complete import split_codes
from geofix.codes.embed_store import embed_all
from geofix.codes.refresh import refresh_region
from geofix.database.ownership import delete_dataset
from geofix.database.queries import codes as code_queries
from geofix.database.queries import models as model_queries
from geofix.errors import BadInputError, NotFoundError, UsageError
from geofix.ingest.aerial import ingest_aerial
from geofix.ingest.aerial_tiles import register_tiles
from geofix.jobs.specs import parse
from geofix.spatial import s2


@pytest.mark.parametrize("recipe", ["hybrid", "prototype", "aerial", "cellmean"])
def test_nothing_new_changes_nothing_but_the_cell_without_prototype(conn, joint, in_place, recipe):
    build(conn, recipe=recipe)
    found, ids, stored = codes(conn)
    stamp = code_queries.ready_stamp(conn, found)
    lon, lat = TOWNS[0]
    made = refresh_region(conn, "live", around(lon, lat))
    again, new_ids, new = codes(conn)
    lost = s2.center(np.array([joint]))
    inside = abs(lost[0][0] - lon) < 0.009 and abs(lost[1][0] - lat) < 0.009
    learns = recipe in ("hybrid", "prototype") and inside
    assert made["removed"] == 0 and made["mean_prototypes"] == (1 if learns else 0)
    common = np.isin(new_ids, ids)
    assert common.sum() == len(ids) and (made["added"] == len(new_ids) - len(ids) <= 4)
    same = np.abs(new[common].astype(float) - stored.astype(float)).max(axis=1) < 2e-3
    assert made["changed"] == 0 or learns
    assert (~same).sum() <= (8 if learns else 0)
    nothing = made["added"] == made["changed"] == 0  # then nothing is written: the same set, at its time
    assert nothing != learns and nothing == (again == found) == (stamp in code_queries.ready_stamps(conn))
    assert (again.code_set_id == found.code_set_id) == made["in_place"] == (in_place or nothing)
    assert again.scale == found.scale
    for name in ("kappa", "temperature", "snapshot_id", "state", "calibration", "dimension"):
        assert getattr(again, name) == getattr(found, name), name
    blocks = "SELECT sum(cells), count(*) FROM cell_block WHERE code_set_id = %s"
    assert conn.execute(blocks, (again.code_set_id,)).fetchone()[0] == again.cells == len(new_ids)
    assert nothing or again.config["refreshed"][0]["removed"] == 0
    with pytest.raises(NotFoundError):
        code_queries.find_code_set(conn, f"live (replaced {found.code_set_id})")


def test_new_photos_get_codes_where_they_were_taken_and_nowhere_else(conn, joint, new_photos, in_place):
    build(conn)
    _, ids, stored = codes(conn)
    made = refresh_region(conn, "live", around(*NEW))
    again, new_ids, new = codes(conn)
    added = np.setdiff1d(new_ids, ids)
    assert made["added"] == len(added) == made["in_region"] > 4 and made["changed"] == made["removed"] == 0
    elsewhere = np.searchsorted(new_ids, ids)
    assert (new[elsewhere].view(np.uint16) == stored.view(np.uint16)).all()  # copied bit by bit
    assert set(flags(conn, again, added)) == {(True, False)}
    parents = np.unique(s2.parent(added, PROTOTYPE_LEVEL))
    assert sorted(again.config["mean_prototypes"]) == sorted(s2.token(parents).tolist())
    z, bias = split_codes(new[np.searchsorted(new_ids, added)], again.scale)
    assert np.allclose(bias, again.config["fusion"]["bias_no_aerial"], atol=1e-3 * again.scale)
    assert np.allclose(np.linalg.norm(z, axis=1), again.kappa, atol=2e-3 * again.scale)
    # A photo taken there is now found there.
    query, own = conn.execute(
        "SELECT e.embedding, p.s2_id FROM photo_embedding e JOIN photo_record p USING (photo_id)"
        " JOIN dataset USING (dataset_id) JOIN model USING (model_id)"
        " WHERE dataset.name = 'new street' AND model.name = 'grown' ORDER BY photo_id LIMIT 1"
    ).fetchone()
    best = code_queries.search(conn, again, query, 5)[0]
    assert set(best) & set(added.tolist()) and s2.parent(own, LEVEL) in added
    second = refresh_region(conn, "live", around(*NEW))
    assert (second["added"], second["changed"], second["removed"]) == (0, 0, 0)
    assert codes(conn)[0] == again and second["cells"] == len(new_ids)
    none = refresh_region(conn, "live", around(*NEW), datasets=["streets"])  # as if they were not there
    assert none["removed"] == len(added)
    assert not codes(conn)[0].config["mean_prototypes"]


def test_photos_held_back_for_judging_make_no_codes(conn, joint, new_photos, small, tmp_path):
    from geofix.snapshots.build import build_snapshot

    build(conn, recipe="prototype")
    build_snapshot(conn, ["new street"], tmp_path / "test-only", mode="test")
    conn.commit()
    try:
        with pytest.raises(BadInputError, match="lies in this region"):
            refresh_region(conn, "live", around(*NEW))
        conn.rollback()
    finally:
        conn.execute("DELETE FROM snapshot WHERE config ->> 'mode' = 'test'")
        conn.commit()


def test_photos_that_the_split_dropped_stay_dropped(conn, joint, new_photos):
    """As if the snapshot had been drawn from them: they came before it and are in none of its splits."""
    build(conn, recipe="prototype")
    found, _, _ = codes(conn)
    one = "SELECT count(*) FROM snapshot WHERE snapshot_id = %s AND config -> 'datasets' ? 'new street'"
    row = "SELECT created_at, config FROM snapshot WHERE snapshot_id = %s"
    created, config = conn.execute(row, (found.snapshot_id,)).fetchone()
    conn.execute(
        "UPDATE snapshot SET created_at = now() + interval '1 hour',"
        " config = jsonb_set(config, '{datasets}', '[\"streets\", \"new street\"]') WHERE snapshot_id = %s",
        (found.snapshot_id,),
    )
    conn.commit()
    try:
        assert conn.execute(one, (found.snapshot_id,)).fetchone() == (1,)
        with pytest.raises(BadInputError, match="lies in this region"):
            refresh_region(conn, "live", around(*NEW))
        conn.rollback()
    finally:
        conn.execute(
            "UPDATE snapshot SET created_at = %s, config = %s WHERE snapshot_id = %s",
            (created, Jsonb(config), found.snapshot_id),
        )
        conn.commit()


def test_new_tiles_join_the_prototypes_and_lift_the_bias(conn, joint, tmp_path):
    build(conn)
    _, ids, stored = codes(conn)
    town = TOWNS[3]
    ingest_aerial(conn, [orthophoto(tmp_path / "more.tif", 3)], source="more")
    register_tiles(conn, source="more", level=LEVEL)
    conn.commit()
    try:
        embed_all(conn, model_queries.find_model(conn, "grown"), "aerial", workers=1)
        made = refresh_region(conn, "live", around(*town))
        again, new_ids, new = codes(conn)
        assert made["changed"] > 0 and made["added"] > 0 and made["mean_prototypes"] == 0
        lon, lat = s2.center(ids)
        near = (abs(lon - town[0]) < 0.01) & (abs(lat - town[1]) < 0.01)
        assert near.any() and {(True, True)} <= set(flags(conn, again, ids[near]))
        rows = np.searchsorted(new_ids, ids[~near])
        assert (new[rows].view(np.uint16) == stored[~near].view(np.uint16)).all()
        _, bias = split_codes(new, again.scale)
        both = np.array(flags(conn, again, new_ids)).all(axis=1)
        assert np.allclose(bias[both], 0, atol=1e-3 * again.scale)
    finally:
        conn.rollback()
        delete_dataset(conn, "more")
        conn.commit()


def test_a_code_that_is_too_long_asks_for_a_rebuild(conn, joint):
    build(conn)
    conn.execute("UPDATE code_set SET scale = 0.5 * scale WHERE name = 'live'")
    with pytest.raises(UsageError, match="was completed to") as caught:
        refresh_region(conn, "live", around(*TOWNS[0]))
    assert "codes build" in str(caught.value.hint)


def test_a_set_built_for_a_region_does_not_outgrow_it(conn, joint, new_photos):
    build(conn, recipe="prototype", region_ewkb=around(*TOWNS[5], 0.02))
    found, ids, _ = codes(conn)
    whole = refresh_region(conn, "live", around(7.6, 47.55, 0.5))
    assert (whole["added"], whole["removed"]) == (0, 0) and (codes(conn)[1] == ids).all()
    assert codes(conn)[0].config["bounds"] == found.config["bounds"]


def test_a_stale_set_stays_stale(conn, joint):
    build(conn)
    found = code_queries.find_code_set(conn, "live")
    code_queries.set_state(conn, found.code_set_id, "stale", "3 photos of its snapshot were deleted")
    conn.commit()
    refresh_region(conn, "live", around(*TOWNS[0]))
    again = code_queries.find_code_set(conn, "live")
    assert (again.state, again.stale_reason) == ("stale", "3 photos of its snapshot were deleted")


def test_nothing_there_and_no_such_set(conn, joint):
    build(conn)
    with pytest.raises(BadInputError, match="lies in this region"):
        refresh_region(conn, "live", around(100, 10))
    conn.rollback()
    with pytest.raises(NotFoundError, match="No code set is named"):
        refresh_region(conn, "none", around(100, 10))


def test_the_job_refreshes(conn, joint, tmp_path: Path):
    from uuid import uuid4

    from geofix.jobs.specs import Work

    build(conn)
    lon, lat = TOWNS[0]
    wkt = shapely.box(lon - 0.01, lat - 0.01, lon + 0.01, lat + 0.01).wkt
    made = parse("refresh", {"code_set": "live", "region": wkt})
    result = made.run(Work(conn, uuid4(), 1, lambda: None))
    assert result["code_set"] == "live" and result["in_region"] > 0
