"""Code sets and models: built all or nothing, replaced only by a whole successor, never left in pieces."""

from __future__ import annotations

import numpy as np
import psycopg
import pytest
import shapely
from pgvector import HalfVector
from small_world import DIMENSION, LEVEL, SmallWorld

from geofix.codes.build import aerial_vectors, build_code_set, cellmean_vectors
from geofix.codes.means import cell_means
from geofix.codes.register import register_model
from geofix.database.engine import connect
from geofix.database.queries import codes as queries
from geofix.database.queries import models as model_queries
from geofix.errors import BadInputError, NotFoundError, UsageError
from geofix.models.create import create_model
from geofix.snapshots.build import build_snapshot, stored_snapshot
from geofix.spatial import s2

HOSTILE = "x'); DROP TABLE geofix.code_set; --\" %s {0} \\ ü"


@pytest.fixture
def conn(small: SmallWorld):
    with connect() as connection:
        yield connection
        connection.rollback()


@pytest.fixture
def model(conn):
    return model_queries.find_model(conn, "tiny")


def build(conn, small, model, name="new", **given):
    frozen = stored_snapshot(conn, small.snapshot).snapshot_id
    given = {"recipe": "cellmean", "level": LEVEL, "snapshot_id": frozen, **given}
    return build_code_set(conn, name=name, model=model, **given)


def test_cell_means_are_those_of_the_training_photos(conn, small, model):
    rows = conn.execute(
        "SELECT p.s2_id, e.embedding FROM photo_embedding e JOIN photo_record p USING (photo_id)"
        " JOIN snapshot_photo s USING (photo_id) WHERE split = 'train'"
    ).fetchall()
    cells = s2.parent(np.array([row[0] for row in rows]), 14)
    vectors = np.stack([row[1].to_numpy() for row in rows]).astype(np.float64)
    made = cellmean_vectors(conn, model, stored_snapshot(conn, small.snapshot).snapshot_id, 14)
    assert made.ids.tolist() == sorted(set(cells.tolist())) and made.has_prototype.all()
    for cell, vector in zip(made.ids, made.vectors, strict=True):
        mean = vectors[cells == cell].mean(axis=0)
        assert np.allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)


def test_means_do_not_depend_on_the_order_of_the_photos():
    rng = np.random.default_rng(0)
    leaves = s2.cell_at(rng.uniform(7, 7.02, 500), rng.uniform(47, 47.02, 500))
    vectors = rng.normal(size=(500, 8)).astype(np.float16)
    ids, means, counts = cell_means(vectors, leaves, 15)
    order = rng.permutation(500)
    again = cell_means(vectors[order], leaves[order], 15)
    assert (ids == again[0]).all() and np.allclose(means, again[1], atol=1e-6) and counts.sum() == 500


def test_codes_of_a_region_and_of_a_data_set(conn, small, model):
    shape = shapely.box(7.4, 47.4, 7.6, 47.55)
    region = shapely.to_wkb(shapely.set_srid(shape, 4326), include_srid=True)
    whole, part = build(conn, small, model, "whole"), build(conn, small, model, "part", region_ewkb=region)
    assert 0 < part["cells"] < whole["cells"] and part["with_prototype"] == part["cells"]
    ids, codes = queries.read_codes(conn, queries.find_code_set(conn, "part"))
    lon, lat = s2.center(ids)
    assert shapely.contains_xy(shape, lon, lat).all() and (np.diff(ids) > 0).all()
    assert codes.shape == (part["cells"], DIMENSION + 2)
    assert np.allclose(np.linalg.norm(codes.astype(np.float64), axis=1), 1, atol=1e-3)
    air = aerial_vectors(conn, model, LEVEL, datasets=["ortho"])
    assert air.has_aerial.all() and not air.has_prototype.any()
    far = shapely.to_wkb(shapely.set_srid(shapely.box(1, 1, 2, 2), 4326), include_srid=True)
    with pytest.raises(BadInputError, match="would be empty"):
        build(conn, small, model, "far", region_ewkb=far)
    with pytest.raises(BadInputError, match="embedded no aerial tile"):
        build(conn, small, model, "far", recipe="aerial", datasets=["streets"])
    with pytest.raises(UsageError, match=f"stand at level {LEVEL}"):
        build(conn, small, model, "far", recipe="aerial", level=12)
    with pytest.raises(UsageError, match="needs a snapshot"):
        build(conn, small, model, "far", snapshot_id=None)


def test_a_successor_takes_the_name_at_once_or_not_at_all(small):
    """Other sessions search the old set until the commit, and the new one after it."""
    with connect() as conn:
        model = model_queries.find_model(conn, "tiny")
        build(conn, small, model, "live", level=15)
    query = HalfVector(np.ones(DIMENSION) / DIMENSION**0.5)
    levels = "SELECT DISTINCT s2_level(s2_id) FROM search_cells(%s, 100, 'live')"
    with connect() as conn, connect("reader") as other:
        build(conn, small, model, "live (in the making)", level=14)
        made = queries.find_code_set(conn, "live (in the making)")
        old = queries.replace_code_set(conn, made.code_set_id, "live")
        assert other.execute(levels, (query,)).fetchall() == [(15,)]
        other.rollback()
        conn.rollback()  # as after any fault: nothing has happened
        assert other.execute(levels, (query,)).fetchall() == [(15,)]
        other.rollback()
        build(conn, small, model, "live (in the making)", level=14)
        made = queries.find_code_set(conn, "live (in the making)")
        old = queries.replace_code_set(conn, made.code_set_id, "live")
        conn.commit()
        assert other.execute(levels, (query,)).fetchall() == [(14,)]
        other.rollback()
        assert old is not None and queries.find_code_set(conn, old).state == "dropping"
        assert queries.drop_replaced(conn, "live") == 1 and queries.drop_replaced(conn, "live") == 0
        queries.drop_code_set(conn, queries.find_code_set(conn, "live"))
        conn.commit()
        left = "SELECT count(*) FROM pg_tables WHERE schemaname = 'geofix_leaf' AND tablename ~ '^cell_code'"
        assert conn.execute(left).fetchone() == (2,)  # means and air


def test_a_first_build_takes_nobodys_name(conn, small, model):
    build(conn, small, model, "fresh (in the making)")
    made = queries.find_code_set(conn, "fresh (in the making)")
    assert queries.replace_code_set(conn, made.code_set_id, "fresh") is None
    assert queries.find_ready(conn, "fresh").code_set_id == made.code_set_id


def test_two_builders_of_one_name_the_second_is_told(small):
    with connect() as conn, connect() as other:
        model = model_queries.find_model(conn, "tiny")
        other.execute("SET lock_timeout = '50ms'")
        other.commit()
        build(conn, small, model, "race")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            build(other, small, model, "race")  # waits for the first
        other.rollback()
        other.execute("RESET lock_timeout")
        with pytest.raises(UsageError, match="exists"):
            build(conn, small, model, "race")
        conn.rollback()


@pytest.mark.parametrize("name", [HOSTILE, "'", '"; SELECT 1; "', "a.b"])
def test_a_name_is_only_a_name(conn, small, model, name):
    made = build(conn, small, model, name)
    found = queries.find_code_set(conn, name)
    assert (found.name, found.cells, found.state) == (name, made["cells"], "ready")
    query = HalfVector(np.ones(DIMENSION) / DIMENSION**0.5)
    ids, method = queries.search(conn, found, query, found.cells + 5)  # more than there are
    assert len(ids) == found.cells and method == "exact"
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="no ready code set is named"):
        conn.execute("SELECT * FROM search_cells(%s, 1, %s)", (query, name + "'"))


def test_a_model_that_codes_were_built_with_is_not_deleted(small):
    with pytest.raises(UsageError, match=r"used by code sets air, means"), connect() as conn:
        model_queries.delete_model(conn, model_queries.find_model(conn, "tiny"))
    with connect("reader") as conn:
        assert conn.execute("SELECT count(*) > 0 FROM photo_embedding").fetchone() == (True,)


def test_a_model_without_codes_is_deleted_with_its_leaves(small):
    from helpers import add_model

    with connect() as conn:
        add_model(conn, "short-lived", 4)
        model_queries.delete_model(conn, model_queries.find_model(conn, "short-lived"))
        leaves = "SELECT count(*) FROM pg_class WHERE relname LIKE 'photo_embedding%' AND relkind = 'r'"
        assert conn.execute(leaves).fetchone() == (1,)


def test_a_model_may_move_and_its_weights_may_come_from_elsewhere(conn, small, tmp_path):
    first = register_model(conn, small.folder / "tiny", "moved")
    copy = tmp_path / "tiny"
    create_model(copy, trunk="mobilenetv3_small_050", size=64, dimension=DIMENSION, seed=3)
    again = register_model(conn, copy, "moved")
    assert again.model_id == first.model_id and again.directory_uri == str(copy)
    other = tmp_path / "other"
    create_model(other, trunk="mobilenetv3_small_050", size=64, dimension=DIMENSION, seed=4)
    with pytest.raises(UsageError, match="other weights or configuration"):
        register_model(conn, other, "moved")
    assert model_queries._without_places({"ground": {"weights_uri": "/a", "seed": 1}}) == {
        "ground": {"seed": 1}
    }


def test_a_snapshot_of_test_photos_alone_needs_no_other_split(conn, tmp_path):
    made = build_snapshot(conn, ["streets"], tmp_path / "alone", mode="test")
    assert made["photos"]["test_unseen"] == sum(made["photos"].values()) > 0
    with pytest.raises(BadInputError, match="train"):
        build_snapshot(conn, ["streets"], tmp_path / "none", mode="test", required=("train",))


def test_states_that_cannot_be_searched(conn):
    for state in ("building", "dropping"):
        conn.execute("UPDATE code_set SET state = %s WHERE name = 'air'", (state,))
        with pytest.raises(NotFoundError, match=f"air is {state}"):
            queries.find_ready(conn, "air")
    conn.execute("UPDATE code_set SET state = 'stale' WHERE name = 'air'")
    assert queries.find_ready(conn, "air").state == "stale"
    with pytest.raises(NotFoundError, match="There are: means, air"):
        queries.find_ready(conn, "none")
