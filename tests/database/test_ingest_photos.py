"""Photos from folders and metadata files: every fault is told, the rest is loaded, twice is once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pytest
from photo_files import bomb, jpeg, rejects, rows
from PIL import Image

from geofix.database.engine import Connection, connect
from geofix.errors import BadInputError, NotFoundError, ServiceError, UsageError
from geofix.ingest import photos
from geofix.ingest.photos import ingest_photos
from geofix.spatial.s2 import cell_at


@pytest.fixture
def conn(db) -> Iterator[Connection]:
    with connect() as connection:
        yield connection


def test_a_folder_with_every_fault_loads_the_rest(conn, tmp_path):
    folder = tmp_path / "photos"
    jpeg(folder / "good.jpg", 60.1, 24.9, gps={16: "M", 17: 10.0, 31: 5.0})
    jpeg(folder / "deep/er/good.JPG", -33.5, -70.25)
    jpeg(folder / "no_gps.jpg")
    jpeg(folder / "null.jpg", 0.0, 0.0)
    jpeg(folder / "far.jpg", 95.0, 190.0)
    jpeg(folder / "swapped.jpg", 120.0, 30.0)
    cut = jpeg(folder / "cut.jpg", 1.0, 2.0)
    cut.write_bytes(cut.read_bytes()[:-200])
    bomb(folder / "bomb.png")
    (folder / "text.jpg").write_text("no picture")
    Image.new("RGB", (8, 8)).save(folder / "really.png.jpg", "PNG")
    (folder / "hidden_picture.txt").write_bytes(jpeg(tmp_path / "x.jpg", 3.0, 3.0).read_bytes())
    (folder / "notes.txt").write_text("passed over")
    (folder / "z_copy.jpg").write_bytes((folder / "good.jpg").read_bytes())
    (folder / "outside.jpg").symlink_to(jpeg(tmp_path / "elsewhere.jpg", 4.0, 4.0))
    (folder / "outside_folder").symlink_to(tmp_path)
    (folder / "inside.jpg").symlink_to("deep/er/good.JPG")
    (folder / "loop").symlink_to(folder)
    (folder / "broken.jpg").symlink_to("nothing.jpg")
    os.mkfifo(folder / "pipe.jpg")
    with open(os.fsencode(folder) + b"/caf\xe9.jpg", "wb") as file:
        file.write(jpeg(tmp_path / "y.jpg", 5.0, 5.0).read_bytes())
    (folder / "empty.jpg").touch()

    result = ingest_photos(conn, folder, dataset="d", licence="CC0", attribution="me", workers=1)

    assert (result.loaded, result.updated, result.unchanged) == (2, 0, 0)
    assert rejects(conn) == {
        "no_gps.jpg": "no_gps",
        "null.jpg": "null_island",
        "far.jpg": "out_of_range",
        "swapped.jpg": "swapped",
        "cut.jpg": "truncated",
        "bomb.png": "bomb",
        "text.jpg": "wrong_extension",
        "really.png.jpg": "wrong_extension",
        "hidden_picture.txt": "wrong_extension",
        "z_copy.jpg": "duplicate_file",
        "outside.jpg": "symlink_outside",
        "outside_folder": "symlink_outside",
        "inside.jpg": "duplicate_file",
        "broken.jpg": "missing_file",
        "pipe.jpg": "unreadable",
        "caf\\xe9.jpg": "bad_name",
        "empty.jpg": "truncated",
    }
    assert json.loads(json.dumps(asdict(result)))["reasons"]["wrong_extension"] == 3
    assert result.rejected == 17 == sum(result.reasons.values()) == len(rejects(conn))
    assert result.time_assumed_utc == 2
    stored = rows(
        conn,
        "SELECT source_key, uri, width, height, ST_X(geom), ST_Y(geom), s2_id, heading_deg, gps_accuracy_m,"
        " captured_at, extra, length(sha256), file_bytes FROM photo_record ORDER BY source_key",
    )
    assert [row[0] for row in stored] == ["deep/er/good.JPG", "good.jpg"]
    good = stored[1]
    assert good[1] == str(folder / "good.jpg") and good[2:6] == (32, 24, 24.9, 60.1)
    assert good[6] == int(cell_at(24.9, 60.1)) and good[7:9] == (10, 5)
    assert good[9] == datetime(2020, 5, 6, 7, 8, 9, tzinfo=UTC)
    assert good[10] == {"heading_ref": "M", "time_assumed_utc": True}
    assert good[11:] == (32, (folder / "good.jpg").stat().st_size)
    assert rows(conn, "SELECT kind, licence, attribution FROM dataset WHERE name = 'd'") == [
        ("photos", "CC0", "me")
    ]

    again = ingest_photos(conn, folder, dataset="d", workers=1)
    assert (again.loaded, again.updated, again.unchanged, again.rejected) == (0, 0, 2, 17)
    assert len(rejects(conn)) == 17 and len(rows(conn, "SELECT 1 FROM photo_record")) == 2
    assert rows(conn, "SELECT licence FROM dataset WHERE name = 'd'") == [("CC0",)]

    taken = ingest_photos(conn, folder, dataset="any", any_extension=True, workers=1)
    assert taken.loaded == 3 and rejects(conn)["really.png.jpg"] in ("no_gps", "wrong_extension")


def test_unchanged_files_are_not_opened_again(conn, tmp_path, monkeypatch):
    folder = tmp_path / "p"
    for i in range(3):
        jpeg(folder / f"{i}.jpg", 10.0 + i, 20.0)
    assert ingest_photos(conn, folder, dataset="d").loaded == 3
    opened: list[str] = []
    real = photos.FileChecker.submit
    monkeypatch.setattr(
        photos.FileChecker, "submit", lambda self, paths: (opened.extend(paths), real(self, paths))[1]
    )
    jpeg(folder / "1.jpg", 11.0, 20.0, seed=99)
    os.utime(folder / "2.jpg", ns=(1, 1))
    jpeg(folder / "new.jpg", 1.0, 1.0)
    ids = dict(rows(conn, "SELECT source_key, photo_id FROM photo_record"))
    result = ingest_photos(conn, folder, dataset="d")
    assert sorted(Path(path).name for path in opened) == ["1.jpg", "2.jpg", "new.jpg"]
    now = dict(rows(conn, "SELECT source_key, photo_id FROM photo_record"))
    assert now["0.jpg"] == ids["0.jpg"] and now["2.jpg"] == ids["2.jpg"]
    assert now["1.jpg"] != ids["1.jpg"], "other pixels are another photo"
    assert (result.loaded, result.updated, result.unchanged) == (2, 1, 1)


def test_a_renamed_file_keeps_its_photo(conn, tmp_path):
    path = jpeg(tmp_path / "p/a.jpg", 1.0, 2.0)
    ingest_photos(conn, path.parent, dataset="d")
    ids = rows(conn, "SELECT photo_id FROM photo_record")
    path.rename(path.with_name("b.jpg"))
    result = ingest_photos(conn, path.parent, dataset="d")
    assert (result.loaded, result.updated, result.rejected) == (0, 1, 0)
    stored = rows(conn, "SELECT source_key, uri FROM photo_record")
    assert stored == [("b.jpg", str(path.with_name("b.jpg")))]
    assert rows(conn, "SELECT photo_id FROM photo_record") == ids


def test_a_mended_photo_leaves_the_rejects(conn, tmp_path):
    path = jpeg(tmp_path / "p/a.jpg")
    assert ingest_photos(conn, path.parent, dataset="d").rejected == 1
    jpeg(path, 1.0, 2.0)
    assert ingest_photos(conn, path.parent, dataset="d").loaded == 1
    assert rejects(conn) == {}


def test_metadata_decide_and_exif_fills_the_gaps(conn, tmp_path):
    folder = tmp_path / "p"
    jpeg(folder / "images/a.jpg", 1.0, 2.0, gps={17: 45.0})
    jpeg(folder / "images/b.jpg")
    jpeg(folder / "images/c.jpg")
    jpeg(folder / "unlisted.jpg", 7.0, 8.0)
    jpeg(folder / "nowhere.jpg")
    jpeg(tmp_path / "out.jpg", 1.0, 1.0)
    metadata = folder / "metadata.csv"
    metadata.write_text(
        "image_path,lat,lon,captured_at,sequence_id,licence,author,country\n"
        "images/a.jpg,,,2019-12-29 13:35:13:170,s1,CC BY,ann,FIN\n"
        "b,50.5,8.25,,s1,,,\n"
        "images/b.jpg,51,8,,s1,,,\n"
        "images/c.jpg,,,,,,,\n"
        "images/d.jpg,1,2,,,,,\n"
        "images/c.jpg,1,2,noon,,,,\n"
        "../out.jpg,1,2,,,,,\n"
        ",1,2,,,,,\n"
    )
    result = ingest_photos(conn, folder, dataset="d", metadata=metadata, workers=1)
    assert result.loaded == 3
    assert set(rows(conn, "SELECT source_key, reason FROM reject")) == {
        ("metadata.csv#3", "duplicate_row"),
        ("images/c.jpg", "no_gps"),
        ("images/c.jpg", "bad_time"),
        ("images/d.jpg", "missing_file"),
        ("../out.jpg", "outside_folder"),
        ("metadata.csv#8", "bad_row"),
        ("nowhere.jpg", "not_listed"),
    }
    stored = rows(
        conn,
        "SELECT p.source_key, ST_Y(geom), ST_X(geom), heading_deg, captured_at, s.key, licence, author, extra"
        " FROM photo_record p LEFT JOIN sequence s USING (sequence_id) ORDER BY 1",
    )
    assert stored[0][:4] == ("images/a.jpg", 1, 2, 45)
    assert stored[0][4] == datetime(2019, 12, 29, 13, 35, 13, 170_000, tzinfo=UTC)
    assert stored[0][5:] == ("s1", "CC BY", "ann", {"country": "FIN", "time_assumed_utc": True})
    assert stored[1][:3] == ("images/b.jpg", 50.5, 8.25) and stored[1][5] == "s1"
    assert stored[2][:3] == ("unlisted.jpg", 7, 8)
    assert rows(conn, "SELECT key FROM sequence") == [("s1",)]

    again = ingest_photos(conn, folder, dataset="d", metadata=metadata, workers=1)
    assert (again.loaded, again.updated, again.unchanged, again.rejected) == (0, 0, 3, result.rejected)
    metadata.write_text("image_path,lat,lon\nimages/b.jpg,52,8\n")
    moved = ingest_photos(conn, folder, dataset="d", metadata=metadata, workers=1)
    assert (moved.loaded, moved.updated, moved.unchanged) == (0, 1, 2)
    assert rows(conn, "SELECT ST_Y(geom), s2_id FROM photo_record WHERE source_key = 'images/b.jpg'") == [
        (52, int(cell_at(8, 52)))
    ]


def test_names_that_are_no_utf8_or_hold_nul_are_refused_not_fatal(conn, tmp_path):
    folder = tmp_path / "p"
    folder.mkdir()
    with open(os.fsencode(folder) + b"/caf\xe9.jpg", "wb") as file:
        file.write(jpeg(tmp_path / "y.jpg", 5.0, 5.0).read_bytes())
    metadata = tmp_path / "m.csv"
    metadata.write_bytes(
        b"image_path,lat,lon,author,a_long_header_so_that_one_nul_is_no_binary_file"
        + b"_" * 40
        + b"\ncaf\xe9.jpg,1,2,Ren\xe9\nnul\0.jpg,1,2,x\nnone\xff.jpg,1,2,y\n"
    )
    result = ingest_photos(conn, folder, dataset="d", metadata=metadata)
    assert result.loaded == 0
    assert rejects(conn) == {
        "caf\\xe9.jpg": "bad_name",
        "nul\\x00.jpg": "missing_file",
        "none\\xff.jpg": "missing_file",
    }
    bare = ingest_photos(conn, metadata, dataset="e", positions_only=True)
    assert bare.loaded == 3
    assert rows(conn, "SELECT author FROM photo_record ORDER BY photo_id LIMIT 1") == [("Ren\\xe9",)]


def test_positions_without_files(conn, tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("lat,lon,id\n1,2,a\n1,2,b\n0,0,c\n95,5,d\n5,6,a\n,,e\n")
    result = ingest_photos(conn, path, dataset="d", positions_only=True)
    assert (result.loaded, result.rejected) == (2, 4)
    assert rejects(conn) == {"c": "null_island", "d": "swapped", "m.csv#5": "duplicate_row", "e": "no_gps"}
    assert rows(conn, "SELECT DISTINCT uri, sha256, width FROM photo_record") == [(None, None, None)]
    again = ingest_photos(conn, path, dataset="d", positions_only=True)
    assert (again.loaded, again.unchanged, again.rejected) == (0, 2, 4)


def test_wrong_calls_name_the_fault(conn, tmp_path):
    with pytest.raises(NotFoundError, match="does not exist"):
        ingest_photos(conn, tmp_path / "none", dataset="d")
    conn.execute("INSERT INTO dataset (name, kind) VALUES ('aerial', 'aerial')")
    with pytest.raises(UsageError, match="holds aerial"):
        ingest_photos(conn, tmp_path, dataset="aerial")
    path = tmp_path / "m.csv"
    path.write_text("lat,lon\n1,2\n")
    with pytest.raises(BadInputError, match="no column for image_path; columns found: lat, lon"):
        ingest_photos(conn, tmp_path, dataset="d", metadata=path)


def test_one_run_at_a_time_per_data_set(conn, db, tmp_path, monkeypatch):
    monkeypatch.setattr(photos, "LOCK_WAIT_S", 0.1)
    jpeg(tmp_path / "p/a.jpg", 1.0, 2.0)
    ingest_photos(conn, tmp_path / "p", dataset="d")
    with db.connect(autocommit=True) as other:
        (dataset_id,) = other.execute("SELECT dataset_id FROM dataset WHERE name = 'd'").fetchone()
        assert photos.queries.lock_dataset(other, dataset_id)
        with pytest.raises(ServiceError, match="Another process"):
            ingest_photos(conn, tmp_path / "p", dataset="d")
        photos.queries.unlock_dataset(other, dataset_id)
    assert ingest_photos(conn, tmp_path / "p", dataset="d").unchanged == 1
