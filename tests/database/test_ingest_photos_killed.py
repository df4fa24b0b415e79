"""Loads by several processes, and loads that are killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from photo_files import add_region, jpeg, rows, square, tuple_of

from geofix.database.engine import Connection, connect
from geofix.ingest.photos import ingest_photos


@pytest.fixture
def conn(db) -> Iterator[Connection]:
    with connect() as connection:
        yield connection


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
