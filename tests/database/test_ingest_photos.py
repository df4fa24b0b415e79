from __future__ import annotations

import gzip
import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import shapely
from PIL import Image
from shapely.geometry import shape

from geofix.database.engine import Connection, connect
from geofix.database.queries.photos import RegionCounts, assign_regions
from geofix.errors import BadInputError, NotFoundError, ServiceError, UsageError
from geofix.ingest import photos
from geofix.ingest.photos import ingest_photos
from geofix.spatial.s2 import cell_at


@pytest.fixture
def conn(db) -> Iterator[Connection]:
    with connect() as connection:
        yield connection


def jpeg(
    path: Path,
    lat: float | None = None,
    lon: float | None = None,
    *,
    seed: int | None = None,
    gps: dict[int, object] | None = None,
) -> Path:
    """A small JPEG with pixels of its own unless `seed` is given, and EXIF GPS when a position is."""
    rng = np.random.default_rng(zlib.crc32(str(path).encode()) if seed is None else seed)
    image = Image.fromarray(rng.integers(0, 255, (24, 32, 3), np.uint8))
    exif = Image.Exif()
    if lat is not None and lon is not None:
        place = {
            1: "S" if lat < 0 else "N",
            2: (abs(lat), 0, 0),
            3: "W" if lon < 0 else "E",
            4: (abs(lon), 0, 0),
        }
        exif.get_ifd(0x8825).update({**place, **(gps or {})})
        exif.get_ifd(0x8769)[0x9003] = "2020:05:06 07:08:09"
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "JPEG", exif=exif)
    return path


def rows(conn: Connection, query: str, *params: object) -> list[tuple]:
    return conn.execute(query, params).fetchall()


def rejects(conn: Connection) -> dict[str, str]:
    return dict(rows(conn, "SELECT source_key, reason FROM reject WHERE kind = 'photo'"))


def bomb(path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + chunk(b"IEND", b"")
    )


def square(west: float, south: float, east: float, north: float) -> shapely.MultiPolygon:
    return shapely.MultiPolygon([shapely.box(west, south, east, north)])


def add_region(conn: Connection, level: str, code: str, geom: shapely.Geometry, area_km2: float = 1.0) -> int:
    conn.execute("INSERT INTO dataset (name, kind) VALUES ('regions', 'regions') ON CONFLICT DO NOTHING")
    (region_id,) = conn.execute(
        "INSERT INTO region (dataset_id, level, code, name, area_km2, geom)"
        " SELECT dataset_id, %s, %s, %s, %s,ST_Multi(ST_SetSRID(%s::geometry, 4326))"
        " FROM dataset WHERE name = 'regions' RETURNING region_id",
        (level, code, code, area_km2, shapely.to_wkb(geom)),
    ).fetchone()
    conn.execute(
        "INSERT INTO region_part (region_id, level, geom)"
        " SELECT region_id, level, d.geom"
        " FROM region, ST_Dump(region.geom) s, ST_Subdivide(s.geom, 128) d(geom) WHERE region_id = %s",
        (region_id,),
    )
    return region_id


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


def test_the_writers_rights_suffice(db, tmp_path):
    jpeg(tmp_path / "p/a.jpg", 1.0, 2.0)
    with connect("writer") as conn:
        add_region_as_owner(db)
        result = ingest_photos(conn, tmp_path / "p", dataset="d")
        assert result.loaded == 1 and result.regions == {"country": RegionCounts(1, 0)}


def add_region_as_owner(db) -> None:
    with db.connect() as owner:
        add_region(owner, "country", "A", square(0, 0, 5, 5))


def test_processes_find_the_same_as_one(conn, tmp_path):
    folder = tmp_path / "p"
    for i in range(150):
        jpeg(folder / f"{i:03}.jpg", *((10.0 + i / 100, 20.0) if i % 10 else (None, None)))
    one = ingest_photos(conn, folder, dataset="one", workers=1)
    two = ingest_photos(conn, folder, dataset="two", workers=2)
    assert (one.loaded, one.rejected) == (two.loaded, two.rejected) == (135, 15)
    fields = "source_key, sha256, width, s2_id, captured_at, extra, ST_AsBinary(geom)"
    query = f"SELECT {fields} FROM photo_record JOIN dataset USING (dataset_id) WHERE name = %s ORDER BY 1"
    assert rows(conn, query, "one") == rows(conn, query, "two")


def points(conn: Connection, *places: tuple[float, float], dataset: str = "d", tmp: Path) -> None:
    path = tmp / f"{dataset}.csv"
    path.write_text("id,lon,lat\n" + "".join(f"{i},{lon},{lat}\n" for i, (lon, lat) in enumerate(places)))
    ingest_photos(conn, path, dataset=dataset, positions_only=True, region_levels=[])


def test_regions_inside_nearest_and_none(conn, tmp_path):
    a = add_region(conn, "country", "A", square(0, 0, 10, 10), 100)
    b = add_region(conn, "country", "B", square(2, 2, 4, 4), 4)
    far = add_region(conn, "country", "C", square(178, -1, 180, 1), 4)
    add_region(conn, "country", "N", shapely.segmentize(square(-180, 89.8, 180, 89.9), 1), 4)
    add_region(conn, "admin1", "A1", square(20, 0, 30, 1), 4)
    places = [
        (5, 5),  # in A
        (3, 3),  # in A and B: the smaller one counts
        (10.2, 5),  # 22.2 km east of A
        (10.3, 5),  # 33.3 km
        (-179.9, 0.5),  # 11.1 km east of C, across the 180th meridian
        (45, 89.7),  # 11.2 km south of N
        (170, 89.7),
        (-60, -40),  # nothing near
    ]
    points(conn, *places, tmp=tmp_path)
    assert assign_regions(conn) == {"admin1": RegionCounts(0, 0), "country": RegionCounts(2, 4)}
    found = rows(
        conn,
        "SELECT source_key, code, distance_m FROM photo_region JOIN photo_record USING (photo_id)"
        " JOIN region USING (region_id) ORDER BY source_key",
    )
    assert [row[:2] for row in found] == [
        ("0", "A"),
        ("1", "B"),
        ("2", "A"),
        ("4", "C"),
        ("5", "N"),
        ("6", "N"),
    ]
    assert [row[2] for row in found[:2]] == [0, 0]
    # Geodesic lengths: 0.2 degrees of longitude at 5 N, 0.1 at 0.5 N, 0.1 degrees of latitude at the pole.
    assert [row[2] for row in found[2:5]] == pytest.approx([22_178, 11_131, 11_169], abs=5)
    assert assign_regions(conn) == {"admin1": RegionCounts(0, 0), "country": RegionCounts(0, 0)}

    conn.execute("DELETE FROM region WHERE region_id = %s", (b,))
    assert assign_regions(conn, levels=["country"]) == {"country": RegionCounts(1, 0)}
    conn.execute("DELETE FROM region WHERE region_id = ANY(%s)", ([a, far],))
    add_region(conn, "country", "D", square(10.25, 4, 11, 6))
    assert assign_regions(conn, refresh=True)["country"] == RegionCounts(1, 3)


def test_a_photo_that_moves_gets_another_region(conn, tmp_path):
    add_region(conn, "country", "A", square(0, 0, 1, 1))
    add_region(conn, "country", "B", square(1, 0, 2, 1))
    conn.commit()
    path = tmp_path / "m.csv"
    query = "SELECT code FROM photo_region JOIN region USING (region_id)"
    for lon, code in ((0.5, "A"), (1.5, "B"), (1.6, "B")):
        path.write_text(f"id,lon,lat\na,{lon},0.5\n")
        ingest_photos(conn, path, dataset="d", positions_only=True)
        assert rows(conn, query) == [(code,)]


LOAD = """
import sys
from pathlib import Path
from geofix.database.engine import connect
from geofix.ingest import photos

if __name__ == "__main__":
    photos.BATCH_PHOTOS = 8
    with connect() as conn:
        metadata = Path(sys.argv[1]) / "metadata.csv"
        photos.ingest_photos(conn, Path(sys.argv[1]), dataset="killed", metadata=metadata, workers=2)
    print("done")
"""

EVERYTHING = """
SELECT p.source_key, p.uri, p.sha256, p.file_bytes, p.width, p.height, p.s2_id, p.heading_deg, p.captured_at,
       p.author, p.extra, ST_AsBinary(p.geom), s.key, r.code, a.distance_m
FROM photo_record p JOIN dataset d USING (dataset_id) LEFT JOIN sequence s USING (sequence_id)
LEFT JOIN photo_region a USING (photo_id) LEFT JOIN region r ON r.region_id = a.region_id
WHERE d.name = %s ORDER BY 1
"""
REJECTED = """
SELECT source_key, reason, detail FROM reject JOIN dataset USING (dataset_id) WHERE name = %s ORDER BY 1, 2
"""


def test_a_killed_load_leaves_whole_photos_and_can_be_continued(conn, tmp_path):
    add_region(conn, "country", "A", square(0, 0, 30, 60))
    conn.commit()
    folder = tmp_path / "p"
    lines = ["image_path,lat,lon,sequence_id,author"]
    for i in range(240):
        path = jpeg(folder / f"{i:03}.jpg", *((10.0, 20.0) if i % 3 == 0 else (None, None)))
        if i % 17 == 0:
            path.write_bytes(path.read_bytes()[:-150])
        if i % 5:
            lines.append(
                f"{path.name},{10 + i / 100},{i / 8},seq{i // 20},ann" if i % 7 else f"{path.name},,,,"
            )
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    script = tmp_path / "load.py"
    script.write_text(LOAD)
    random.seed(4)
    kills, done, partial = 0, False, set()
    while not done:
        process = subprocess.Popen(
            [sys.executable, str(script), str(folder)],
            stdout=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        )
        try:
            started = time.monotonic()
            while kills < 4 and process.poll() is None:
                (count,) = rows(conn, "SELECT count(*) FROM photo_record")[0]
                conn.commit()
                if (count > len(partial) and random.random() < 0.5) or time.monotonic() - started > 15:
                    process.send_signal(signal.SIGKILL)
                    kills += 1
                    break
                time.sleep(0.01)
            output = process.communicate(timeout=60)[0]
        finally:
            process.kill()
        done = "done" in output
        assert done or process.returncode == -signal.SIGKILL
        stored = rows(conn, EVERYTHING, "killed")
        conn.commit()
        assert partial <= {row[:13] for row in map(tuple_of, stored)}, "nothing stored is lost or changed"
        partial = {row[:13] for row in map(tuple_of, stored)}
    assert kills >= 2
    whole = ingest_photos(conn, folder, dataset="whole", metadata=folder / "metadata.csv", workers=1)
    assert list(map(tuple_of, rows(conn, EVERYTHING, "killed"))) == list(
        map(tuple_of, rows(conn, EVERYTHING, "whole"))
    )
    assert rows(conn, REJECTED, "killed") == rows(conn, REJECTED, "whole")
    assert whole.loaded == len(partial) > 100 and whole.rejected > 20


def tuple_of(row: tuple) -> tuple:
    return tuple(json.dumps(value) if isinstance(value, dict) else value for value in row)


def test_real_sets(conn, shared):
    ground = shared / "data/ground"
    world = json.loads(
        gzip.decompress((shared / "data/boundaries/ne_10m_admin_0_world.geojson.gz").read_bytes())
    )
    for feature in world["features"]:
        if feature["properties"]["adm0_a3"] in ("CHN", "FIN", "SWE", "DEU", "SGP"):
            geom = shapely.make_valid(shape(feature["geometry"]))
            polygons = [part for part in getattr(geom, "geoms", [geom]) if part.geom_type.endswith("Polygon")]
            flat = [p for part in polygons for p in getattr(part, "geoms", [part])]
            add_region(conn, "country", feature["properties"]["adm0_a3"], shapely.MultiPolygon(flat))
    conn.commit()
    wuhan = ground / "wuhan_cn_walk"
    result = ingest_photos(conn, wuhan, dataset="wuhan", metadata=wuhan / "metadata.csv")
    assert (result.loaded, result.rejected, result.time_assumed_utc) == (576, 0, 576)
    assert result.regions == {"country": RegionCounts(576, 0)}
    summary = rows(
        conn,
        "SELECT count(DISTINCT sequence_id), min(captured_at), bool_and(gps_accuracy_m > 0),"
        " count(heading_deg), bool_and(width = 336 OR height = 336),"
        " count(DISTINCT s2_parent(s2_id, 10)) FROM photo_record",
    )[0]
    assert summary == (
        1,
        datetime(2019, 12, 29, 13, 35, 13, 170_000, tzinfo=UTC),
        True,
        576,
        True,
        summary[5],
    )
    assert summary[5] <= 4
    again = ingest_photos(conn, wuhan, dataset="wuhan", metadata=wuhan / "metadata.csv")
    assert (again.loaded, again.updated, again.unchanged) == (0, 0, 576)
    for name, photo_count in (("helsinki_fi_pairs", 10), ("specs_world_citylevel", 100)):
        loaded = ingest_photos(conn, ground / name, dataset=name, metadata=ground / name / "metadata.csv")
        assert (loaded.loaded, loaded.rejected) == (photo_count, 0)
    wrong = rows(
        conn,
        "SELECT DISTINCT p.extra->>'country', r.code FROM photo_record p JOIN photo_region USING (photo_id)"
        " JOIN region r USING (region_id) WHERE r.code <> p.extra->>'country'",
    )
    assert wrong == []
    without = ingest_photos(conn, wuhan, dataset="bare")
    assert (without.loaded, dict(without.reasons)) == (0, {"no_gps": 576})
