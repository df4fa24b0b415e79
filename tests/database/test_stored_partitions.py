"""Partitions in the database: stored and read back, photos assigned by SQL as by NumPy, the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import psycopg
import pytest
import shapely
from small_world import SmallWorld, pointed_at

from geofix.cli import delete as delete_cli
from geofix.cli import partitions as cli
from geofix.database.bulk import copy_rows
from geofix.database.engine import Connection, connect
from geofix.database.queries import partitions as queries
from geofix.database.queries.photos import ensure_dataset
from geofix.errors import NotFoundError, UsageError
from geofix.evaluation.cell_tables import listed_partition
from geofix.partitions.adaptive import nested_partitions
from geofix.partitions.build import Plan, build_partitions, read_photos
from geofix.partitions.combinatorial import combinatorial_partitions
from geofix.partitions.files import load_partition
from geofix.partitions.hierarchy import nest
from geofix.partitions.partition import Partition
from geofix.partitions.store import load_stored, store_partitions
from geofix.partitions.uniform import uniform_partition
from geofix.spatial import s2
from owned import make_world, run
from servers import Database, Servers

COLUMNS = {"dataset_id": "int8", "source_key": "text", "s2_id": "int8", "geom": "geometry"}
LABELS = "SELECT class FROM partition_photos(%s) ORDER BY photo_id"


def add_positions(conn: Connection, name: str, lon: np.ndarray, lat: np.ndarray) -> None:
    """Photos that are positions alone, in the order of the arrays."""
    dataset_id, _ = ensure_dataset(conn, name, licence="CC0", attribution=f"by {name}", source_uri=None)
    points = shapely.to_wkb(shapely.set_srid(shapely.points(lon, lat), 4326), include_srid=True)
    leaves = s2.cell_at(lon, lat).tolist()
    rows = (
        (dataset_id, f"{i:06}", leaf, point)
        for i, (leaf, point) in enumerate(zip(leaves, points, strict=True))
    )
    copy_rows(conn, "geofix.photo_record", COLUMNS, rows)


def positions(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A crowd, a second one across the 180th meridian, and places anywhere."""
    rng = np.random.default_rng(seed)
    crowd, far = n // 2, n // 4
    lon = np.concatenate(
        [rng.normal(8.5, 1, crowd), rng.normal(180, 2, far), rng.uniform(-180, 180, n - crowd - far)]
    )
    lat = np.concatenate(
        [rng.normal(47, 1, crowd), rng.normal(-17, 2, far), rng.uniform(-90, 90, n - crowd - far)]
    )
    return (lon + 180) % 360 - 180, lat


def labels(conn: Any, name: str) -> list[int]:
    return [row[0] for row in conn.execute(LABELS, (name,))]


def called(*arguments: str) -> Any:
    result = run(cli.app, *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.shared
def test_published_labels_are_reproduced_by_sql(db: Database, shared: Path) -> None:
    folder = shared / "eval/translocator_mit"
    photos = pd.read_csv(folder / "yfcc25600_places365.csv")
    told = pd.read_csv(folder / "yfcc25600_cell_labels.csv").set_index("img_id").loc[photos["IMG_ID"]]
    lon, lat = photos["LON"].to_numpy(), photos["LAT"].to_numpy()
    names = ("coarse", "middle", "fine")
    made = nest([listed_partition(name, folder / f"cells_{name}_repaired.csv")[0] for name in names])
    with connect() as conn:
        add_positions(conn, "yfcc", lon, lat)
        store_partitions(conn, made)
    right = by_numpy = 0
    with db.connect("reader") as conn:
        for one in made:
            expected = told[one.name].to_numpy()
            right += int((np.array(labels(conn, one.name)) == expected).sum())
            by_numpy += int((one.assign(lon, lat) == expected).sum())
    assert right == by_numpy == 76_800


def all_kinds(lon: np.ndarray, lat: np.ndarray) -> list[Partition]:
    sets, regions = combinatorial_partitions("c", lon, lat, classes=8, sets=2)
    return [
        uniform_partition("u", lon, lat, level=4, tau_min=1),
        *nested_partitions("w", lon, lat, tau_min=3, tau_max=(100, 50, 20)),
        *sets,
        regions,
    ]


def test_sql_assigns_as_numpy_does_and_rows_are_read_back(db: Database) -> None:
    lon, lat = positions(600)
    made = all_kinds(lon, lat)
    other = positions(400, seed=1)
    x, y = np.concatenate([lon, other[0]]), np.concatenate([lat, other[1]])
    with connect() as conn:
        add_positions(conn, "d", x, y)
    with connect("writer") as conn:
        store_partitions(conn, made)
    with db.connect("reader") as conn:
        for one in made:
            own = one.assign(x, y)
            assert labels(conn, one.name) == own.tolist()
            assert (own == -1).any() and (own >= 0).any()
            for i in (0, 300, 700, 900):
                at = conn.execute(
                    "SELECT partition_class_at(%s, %s)", (one.name, int(s2.cell_at(x[i], y[i])))
                ).fetchone()
                assert at == (own[i],)
            mapped = conn.execute(
                "SELECT count(*), sum(photos), bool_and(ST_IsValid(geom)), bool_and(ST_SRID(geom) = 4326) "
                "FROM partition_map WHERE partition = %s",
                (one.name,),
            ).fetchone()
            assert mapped == (len(one), one.photos.sum(), True, True)
    with connect() as conn:
        for one in made:
            back = load_stored(conn, one.name)
            for name in ("cells", "cell_class", "lon", "lat", "photos", "parent", "members"):
                assert np.array_equal(getattr(back, name), getattr(one, name)), (one.name, name)
            for name in ("name", "kind", "coarser", "sets", "codes"):
                assert getattr(back, name) == getattr(one, name)
            assert back.parameters == one.parameters


def test_a_cell_that_is_coarser_than_the_partition_lies_in_no_class(db: Database) -> None:
    made = uniform_partition("u", [8.5], [47.0], level=10)
    with connect() as conn:
        store_partitions(conn, [made])
        ids = [int(made.cells[0]), int(s2.parent(made.cells[0], 9)), int(s2.children(made.cells[0])[1])]
        found = [conn.execute("SELECT partition_class_at('u', %s)", (i,)).fetchone() for i in ids]
    assert found == [(0,), (-1,), (0,)]


def test_unknown_names_are_told(db: Database) -> None:
    with connect() as conn, pytest.raises(NotFoundError, match="geofix partitions build"):
        load_stored(conn, "nothing")
    for call in ("partition_photos('nothing')", "partition_class_at('nothing', 1)"):
        with (
            db.connect("reader") as conn,
            pytest.raises(psycopg.Error, match="no partition is named 'nothing'"),
        ):
            conn.execute(f"SELECT * FROM {call}")
    with connect() as conn:
        store_partitions(conn, [uniform_partition("u", [8.5], [47.0], level=10)])
    with db.connect("reader") as conn, pytest.raises(psycopg.Error, match="no data set is named 'x'"):
        conn.execute("SELECT * FROM partition_photos('u', 'x')")
    with connect() as conn, pytest.raises(NotFoundError, match="There are: u"):
        load_stored(conn, "v")


def test_administrative_classes_go_by_the_photos_regions(db: Database) -> None:
    world = make_world()
    with connect() as conn:
        # The nearest region counts for a photo outside all: one loses its region altogether.
        conn.execute("DELETE FROM photo_region WHERE photo_id = %s", (world.a[5],))
        photos = read_photos(conn, snapshot_id=None, datasets=["a", "b"])
        (made,) = build_partitions(conn, "adm", Plan("administrative"), photos)
    assert made.codes == ("AA",) and made.photos.tolist() == [79]
    with db.connect("reader") as conn:
        found = labels(conn, "adm")
        assert found.count(0) == 79 and found[5] == -1
        # By position: the polygon decides.
        inside, outside = (int(s2.cell_at(lon, 45.0)) for lon in (10.0, 30.0))
        assert conn.execute("SELECT partition_class_at('adm', %s)", (inside,)).fetchone() == (0,)
        assert conn.execute("SELECT partition_class_at('adm', %s)", (outside,)).fetchone() == (-1,)
    with connect() as conn:
        back = load_stored(conn, "adm")
    assert back.codes == made.codes and back.outlines is not None
    assert back.assign([10.0, 30.0], [45.0, 45.0]).tolist() == [0, -1]


def test_names_are_taken_and_what_others_need_stays(db: Database) -> None:
    lon, lat = positions(300)
    made = nested_partitions("w", lon, lat, tau_min=3, tau_max=(100, 50, 20))
    with connect() as conn:
        store_partitions(conn, made)
    with connect() as conn, pytest.raises(UsageError, match="named 'w-coarse' already"):
        store_partitions(conn, made)
    with connect() as conn, pytest.raises(UsageError, match="'w-middle' is made of one of 'w-coarse'"):
        queries.drop_partitions(conn, ["w-coarse"])
    with connect() as conn, pytest.raises(NotFoundError, match="'gone' is not stored"):
        store_partitions(conn, [Partition(**{**vars(made[1]), "name": "x", "coarser": "gone"})])
    with connect() as conn:
        store_partitions(conn, made, overwrite=True)
        assert conn.execute("SELECT count(*) FROM partition").fetchone() == (3,)
        assert queries.drop_partitions(conn, [p.name for p in made]) == 3
        for table in ("partition", "partition_class", "partition_cell"):
            assert conn.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_deleted_photos_make_a_partition_stale(db: Database) -> None:
    world = make_world()
    with connect() as conn:
        frozen = read_photos(conn, snapshot_id=world.snapshot_id, datasets=[])
        build_partitions(conn, "frozen", Plan("uniform", level=10), frozen)
        build_partitions(
            conn, "all-b", Plan("uniform", level=10), read_photos(conn, snapshot_id=None, datasets=["b"])
        )
    assert len(frozen.ids) == 20
    tested = next(photo for photo in world.a if world.split_of(photo) == "test_seen")
    learned = next(photo for photo in world.a if world.split_of(photo) == "train")
    for photo, stale in ((tested, []), (learned, ["frozen"]), (world.b[1], ["all-b"])):
        result = run(delete_cli.app, "photo", str(photo), "--json")
        assert json.loads(result.stdout)["partitions"] == stale
    with connect() as conn:
        reasons = {row["name"]: row["stale_reason"] for row in queries.summaries(conn)}
    assert reasons == dict.fromkeys(("frozen", "all-b"), "1 photos that it was made from were deleted")


def test_the_command_line_from_a_snapshot_to_a_map(small: SmallWorld, tmp_path: Path) -> None:
    snapshot = str(small.snapshot)
    try:
        built = called(
            *("build", "n", "--rule", "adaptive", "--snapshot", snapshot, "--tau-min", "2"),
            *("--tau-max", "40", "--tau-max", "20", "--tau-max", "8", "--out", str(tmp_path / "p")),
        )
        rows = built["partitions"]
        assert [row["name"] for row in rows] == ["n-coarse", "n-middle", "n-fine"]
        assert all(row["photos"] + row["left_out"] == built["photos"] for row in rows)
        assert len(load_partition(tmp_path / "p" / "n-fine")) == rows[2]["classes"]
        called("build", "adm", "--rule", "administrative", "--snapshot", snapshot)
        called("build", "uni", "--rule", "uniform", "--snapshot", snapshot, "--level", "12")
        sets = called(
            *(
                "build",
                "cp",
                "--rule",
                "combinatorial",
                "--snapshot",
                snapshot,
                "--classes",
                "6",
                "--sets",
                "2",
            ),
            *("--model", MODEL),
        )
        assert [row["name"] for row in sets["partitions"]] == ["cp-1", "cp-2", "cp"]
        listed = called("list")
        assert [row["name"] for row in listed] == [
            *("adm", "cp", "cp-1", "cp-2", "n-coarse", "n-fine", "n-middle", "uni")
        ]
        shown = called("show", "n-fine", "--largest", "2")
        assert (
            shown["coarser"] == "n-middle" and len(shown["largest"]) == 2 and shown["datasets"] == ["streets"]
        )
        assert sum(shown["cells_per_level"].values()) == shown["classes"] == rows[2]["classes"]
        assert shown["largest"][0]["photos"] == shown["photos_per_class"]["max"] == rows[2]["fullest"]
        maps(tmp_path, rows[2]["classes"])
        human = run(cli.app, "show", "cp")
        assert human.exit_code == 0 and "fullest classes" in human.stdout
    finally:
        with connect() as conn:
            conn.execute("DELETE FROM partition")


MODEL = "tiny"


def maps(folder: Path, classes: int) -> None:
    """Both map formats of one partition, read back."""
    for suffix in ("geojson", "gpkg"):
        file = folder / f"fine.{suffix}"
        assert called("export", "n-fine", "--out", str(file))["classes"] == classes
        frame = gpd.read_file(file)
        assert len(frame) == classes and frame.crs.to_epsg() == 4326 and frame.geometry.is_valid.all()
        assert sorted(frame["class"]) == list(range(classes)) and (frame["photos"] > 0).all()
        points = shapely.points(frame["mean_lon"], frame["mean_lat"])
        assert shapely.covers(frame.geometry.to_numpy(), points).all()
    assert json.loads((folder / "fine.geojson").read_text())["attribution"][0]["name"] == "streets"
    assert sorted(p.name for p in folder.iterdir() if p.name.startswith(".")) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["build", "a", "--rule", "magic", "--dataset", "d"], 2, "Unknown rule 'magic'"),
        (["build", "a", "--rule", "uniform", "--dataset", "d"], 2, "needs a level"),
        (["build", "a", "--rule", "uniform", "--level", "31", "--dataset", "d"], 2, "Level 31"),
        (["build", "a", "--rule", "uniform", "--level", "9"], 2, "Give a snapshot or data sets"),
        (["build", "a", "--rule", "uniform", "--level", "9", "--dataset", "no"], 3, "named 'no'"),
        (
            ["build", "a", "--rule", "uniform", "--level", "9", "--dataset", "empty"],
            3,
            "empty.* have no photo",
        ),
        (["build", "a", "--rule", "combinatorial", "--dataset", "d"], 2, "number of classes"),
        (
            ["build", "a", "--rule", "combinatorial", "--classes", "3", "--model", "m", "--dataset", "d"],
            3,
            "'m'",
        ),
        (
            ["build", "a", "--rule", "adaptive", "--tau-max", "50", "--dataset", "d"],
            2,
            "tau_min 50 is not below",
        ),
        (
            ["build", "a", "--rule", "adaptive", "--position", "x", "--dataset", "d"],
            2,
            "Unknown position 'x'",
        ),
        (["build", "a", "--rule", "administrative", "--dataset", "d"], 3, "geofix ingest regions"),
        (["build", "u", "--rule", "uniform", "--level", "9", "--dataset", "d"], 2, "named 'u' already"),
        (["show", "nothing"], 3, "There are: u"),
        (["export", "u", "--out", "u.shp"], 2, "no map format"),
        (["export", "u", "--out", "nowhere/u.gpkg"], 2, "no folder"),
        (["export", "nothing", "--out", "u.gpkg"], 3, "There are: u"),
        (["drop", "nothing", "--yes"], 3, "There are: u"),
        (["load", "l", "nowhere.csv"], 3, "nowhere.csv"),
    ],
)
def test_wrong_calls_say_what_to_do(
    with_u: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(cli.app, *arguments)
    assert result.exit_code == code, result.stderr
    assert pd.Series([" ".join(result.stderr.split())]).str.contains(message).all(), result.stderr


@pytest.fixture(scope="module")
def with_u(cluster: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A database with photos, a partition `u` and an empty data set; wrong calls leave it as it is."""
    with cluster.database() as database, pointed_at(database, tmp_path_factory.mktemp("home")):
        with connect() as conn:
            add_positions(conn, "d", *positions(100))
            ensure_dataset(conn, "empty", licence=None, attribution=None, source_uri=None)
            photos = read_photos(conn, snapshot_id=None, datasets=["d"])
            build_partitions(conn, "u", Plan("uniform", level=5), photos)
        yield


def test_the_queries_of_the_page_run(db: Database) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "partitions.md").read_text()
    (block,) = re.findall(r"^```sql\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    lon, lat = positions(400)
    with connect() as conn:
        add_positions(conn, "d", lon, lat)
        store_partitions(conn, nested_partitions("world", lon, lat, tau_min=3, tau_max=(100, 50, 20)))
    with db.connect("reader") as conn:
        for query in block.split(";")[:-1]:
            assert conn.execute(query).fetchall(), query  # type: ignore[call-overload]


def test_a_published_table_is_loaded_and_dropped(db: Database, tmp_path: Path) -> None:
    tokens = s2.token(s2.parent(s2.cell_at([8.0, 100.0], [47.0, 20.0]), [9, 6]))
    table = pd.DataFrame(
        {"s2_token": tokens, "n": [60, 70], "latitude_mean": [47.0, 20.0], "longitude_mean": [8.0, 100.0]}
    )
    table.to_csv(tmp_path / "cells.csv", index=False)
    loaded = called(
        "load", "pub", str(tmp_path / "cells.csv"), "--photos-column", "n", "--out", str(tmp_path)
    )
    assert loaded["partitions"][0]["classes"] == 2 and loaded["written"] == [str(tmp_path / "pub")]
    with connect() as conn:
        back = load_stored(conn, "pub")
        assert s2.token(back.class_cells()).tolist() == tokens.tolist() and back.photos.tolist() == [60, 70]
        assert conn.execute("SELECT level FROM partition_map ORDER BY class").fetchall() == [(9,), (6,)]
    assert called("drop", "pub", "--yes")["dropped"] == 1
    assert called("list") == []
