"""A trained model, codes of it, and photos in a new place: the world of the tests of refreshing."""

from __future__ import annotations

import csv

import pytest
import shapely
from small_world import LEVEL, PHOTOS, SEQUENCES, TOWNS, SmallWorld, photos, pointed_at
from trained import drop_trained, make_trained, photo_means

from geofix.codes import refresh
from geofix.codes.build import build_code_set
from geofix.codes.embed_store import embed_all
from geofix.database.engine import connect
from geofix.database.ownership import delete_dataset
from geofix.database.queries import codes as code_queries
from geofix.database.queries import models as model_queries
from geofix.ingest.photos import ingest_photos

NEW = (7.49, 47.55)  # a place without photos, three kilometres from the nearest town


@pytest.fixture(scope="module")
def joint(small_database: SmallWorld, tmp_path_factory: pytest.TempPathFactory):
    """A trained model named `grown`, without the prototype of one photographed cell; gone afterwards."""
    folder = tmp_path_factory.mktemp("trained")
    with pointed_at(small_database.database, small_database.folder / "home"):
        with connect() as conn:
            ids, _, _ = photo_means(conn, small_database)
            make_trained(conn, small_database, folder / "grown", leave_out=int(ids[0]))
        yield int(ids[0])
        with connect() as conn:
            drop_trained(conn, "grown")


@pytest.fixture
def conn(joint: int, small: SmallWorld):
    """A connection; code sets built in a test are gone after it."""
    with connect() as connection:
        yield connection
        connection.rollback()
        for row in code_queries.list_code_sets(connection):
            if row["model"] == "grown":
                code_queries.drop_code_set(connection, code_queries.find_code_set(connection, row["name"]))
                connection.commit()


@pytest.fixture(params=["in place", "by a successor"])
def in_place(request, monkeypatch):
    """Both ways of writing a refresh; of a world as small as this one any region is too large a share."""
    monkeypatch.setattr(refresh, "MOST_SHARE", 10.0 if request.param == "in place" else -1.0)
    return request.param == "in place"


def around(lon: float, lat: float, size: float = 0.01) -> bytes:
    shape = shapely.box(lon - size, lat - size, lon + size, lat + size)
    return shapely.to_wkb(shapely.set_srid(shape, 4326), include_srid=True)


def build(conn, name="live", **given):
    made = build_code_set(
        conn, name=name, model=model_queries.find_model(conn, "grown"), level=LEVEL, **given
    )
    conn.commit()
    return made


def codes(conn, name="live"):
    found = code_queries.find_code_set(conn, name)
    ids, stored = code_queries.read_codes(conn, found)
    return found, ids, stored


def flags(conn, found, ids):
    rows = conn.execute(
        "SELECT s2_id, has_prototype, has_aerial FROM cell_code WHERE code_set_id = %s", (found.code_set_id,)
    ).fetchall()
    known = {row[0]: row[1:] for row in rows}
    return [known[int(item)] for item in ids]


@pytest.fixture
def new_photos(conn, tmp_path):
    """A street at NEW, ingested and embedded; gone afterwards."""
    root = photos(tmp_path / "new", towns=1, seed=21)
    rows = list(csv.DictReader((root / "metadata.csv").open()))
    for row in rows:
        row["lon"] = str(float(row["lon"]) - TOWNS[0][0] + NEW[0])
        row["lat"] = str(float(row["lat"]) - TOWNS[0][1] + NEW[1])
    with (root / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    ingest_photos(conn, root, dataset="new street", metadata=root / "metadata.csv", workers=1)
    conn.commit()
    embed_all(conn, model_queries.find_model(conn, "grown"), "photos", workers=1)
    conn.commit()
    yield SEQUENCES * PHOTOS
    conn.rollback()
    delete_dataset(conn, "new street")
    conn.commit()
