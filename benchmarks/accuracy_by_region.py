"""Accuracy by country over a million predictions, with medians: SQL from rows against pandas and GeoPandas.

A private PostgreSQL with a million photos (real positions and countries where GEOFIX_SHARED has them) and
two evaluations of a million predictions each: one answer to every photo, and ten answers to every tenth.
pandas reads the same rows, joins them with the countries (sjoin) and groups. The summary that an evaluation
writes is measured too, and what the dashboard does with it; and what it does without, as for a distance that
no summary has: an evaluation is read once, and every distance asked after that is counted in memory.

    .venv/bin/python benchmarks/accuracy_by_region.py
    .venv/bin/python benchmarks/accuracy_by_region.py --predictions 50000 --repeats 2
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
from _bench import (
    Goal,
    arguments,
    finish,
    in_turns,
    say,
    server,
    server_processor_s,
    server_settings,
    shared_data,
    table,
)

LEVEL, THRESHOLD_M = "country", 200_000.0
PANDAS = "pandas: read, sjoin, groupby"
ANSWERS_EACH = {"one answer each": 1, "ten answers each": 10}
ANSWERS = """
CREATE TEMP TABLE answer_stage (photo_id int8, s2_id int8, error_m float8, lon float8, lat float8)
ON COMMIT DROP
"""
ASKED = """
INSERT INTO evaluation_photo (evaluation_id, photo_id, nearest_training_m, training_photos_in_cell)
SELECT %(id)s, photo_id, 100, 3 FROM photo_record WHERE photo_id %% %(each)s = 0 ORDER BY photo_id
"""
PREDICTIONS = """
INSERT INTO prediction (evaluation_id, photo_id, rank, s2_id, score, probability, error_m, geom)
SELECT %(id)s, photo_id, rank, s2_id, 0.5, 0.1, rank * error_m, ST_SetSRID(ST_MakePoint(lon, lat), 4326)
FROM answer_stage CROSS JOIN generate_series(1, %(each)s) AS rank WHERE photo_id %% %(each)s = 0
ORDER BY photo_id, rank
"""
READ_PHOTOS = """
SELECT ep.photo_id, p.gps_accuracy_m, p.geom, r.error_m FROM evaluation e
JOIN evaluation_photo ep USING (evaluation_id)
JOIN photo_record p USING (photo_id)
LEFT JOIN prediction r ON r.evaluation_id = ep.evaluation_id AND r.photo_id = ep.photo_id AND r.rank = 1
WHERE e.name = %(name)s
"""
READ_REGIONS = f"SELECT region_id, code, area_km2, geom FROM region WHERE level = '{LEVEL}'"


def fill(conn: Any, data: Path, count: int) -> None:
    """Countries, photos with their country, and evaluations that answered 99 in 100 of them."""
    import _spatial_data as made

    from geofix.database.bulk import copy_rows
    from geofix.database.queries import evaluations
    from geofix.database.queries.photo_regions import assign_regions
    from geofix.evaluation.protocols import EvaluationProtocol
    from geofix.spatial import s2
    from geofix.spatial.distance import great_circle_m

    if not conn.execute("SELECT 1 FROM region LIMIT 1").fetchone():
        say(made.countries(conn, data))
    if not conn.execute("SELECT 1 FROM photo_record LIMIT 1").fetchone():
        lon, lat, told = made.positions(data, count)
        made.photo_rows(conn, lon, lat)
        say(f"{told} are stored")
    assign_regions(conn, levels=[LEVEL])
    conn.commit()
    if conn.execute("SELECT 1 FROM evaluation LIMIT 1").fetchone():
        return
    protocol = EvaluationProtocol()
    values: dict[str, Any] = {
        "localizer": "made",
        "model_id": None,
        "code_set_id": None,
        "snapshot_id": None,
        "split": "test_seen",
        "level": 10,
        "search_method": "exact",
        "region": None,
        "radius_km": protocol.radius_km,
        "comparison": protocol.comparison,
        "missing_policy": protocol.missing,
        "config": {"protocol": protocol.as_record()},
        "software_version": "0",
    }
    rows = conn.execute("SELECT photo_id, ST_X(geom), ST_Y(geom) FROM photo_record ORDER BY 1").fetchall()
    photo, lon, lat = (np.array(column) for column in zip(*rows, strict=True))
    rng = np.random.default_rng(11)
    away = rng.lognormal(0.0, 2.0, len(rows))  # degrees: half within 111 km
    turn = rng.uniform(0, 2 * np.pi, len(rows))
    to_lat = np.clip(lat + away * np.sin(turn), -90, 90)
    to_lon = (lon + away * np.cos(turn) + 180) % 360 - 180
    error_m = great_circle_m(lon, lat, to_lon, to_lat)
    answered = rng.random(len(rows)) >= 0.01
    columns = {"photo_id": "int8", "s2_id": "int8", "error_m": "float8", "lon": "float8", "lat": "float8"}
    arrays = (photo, s2.cell_at(to_lon, to_lat, 10), error_m, to_lon, to_lat)
    conn.execute(ANSWERS)
    copy_rows(
        conn, "answer_stage", columns, zip(*(array[answered].tolist() for array in arrays), strict=True)
    )
    for name, each in ANSWERS_EACH.items():
        named = {**values, "name": name, "n": len(rows) // each}
        key = {"id": evaluations.insert_evaluation(conn, named, replace=False), "each": each}
        conn.execute(ASKED, key)
        conn.execute(PREDICTIONS, key)
    conn.commit()
    conn.execute("ANALYZE evaluation_photo, prediction, photo_record, photo_region")
    conn.commit()


def vacuum(conn: Any) -> None:
    """What autovacuum does some minutes after a load: without it no scan of an index alone is possible."""
    conn.commit()
    conn.autocommit = True
    conn.execute("VACUUM ANALYZE evaluation_photo, prediction, photo_record, photo_region")
    conn.autocommit = False


def by_product(conn: Any, name: str) -> pd.DataFrame:
    from geofix.database.queries import evaluations

    rows = evaluations.by_region(conn, name, LEVEL, THRESHOLD_M)
    conn.commit()
    return pd.DataFrame(rows).set_index("region_code")[["n", "hits", "median_m"]]


def by_pandas(conn: Any, name: str) -> pd.DataFrame:
    """Read rows, join positions with countries, group: photos outside every country are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pandas asks for SQLAlchemy; a psycopg connection works
        photos = gpd.read_postgis(READ_PHOTOS, conn, geom_col="geom", params={"name": name})
        regions = gpd.read_postgis(READ_REGIONS, conn, geom_col="geom")
    photos = photos[photos["gps_accuracy_m"].fillna(0).astype(float) <= THRESHOLD_M]
    joined = gpd.sjoin(photos, regions, predicate="intersects")
    joined = joined.sort_values(["area_km2", "code"]).drop_duplicates("photo_id")
    joined["hit"] = joined["error_m"] <= THRESHOLD_M
    joined["error_m"] = joined["error_m"].fillna(np.inf)
    conn.commit()
    grouped = joined.groupby("code")
    return pd.DataFrame(
        {"n": grouped.size(), "hits": grouped["hit"].sum(), "median_m": grouped["error_m"].median()}
    )


def compared(conn: Any, name: str, theirs: pd.DataFrame) -> dict[str, Any]:
    """Countries whose figures differ between SQL and pandas over the photos inside a country."""
    conn.execute("CREATE TEMP TABLE coast AS SELECT * FROM photo_region WHERE distance_m > 0")
    conn.execute("DELETE FROM photo_region WHERE distance_m > 0")
    rows = conn.execute(
        "SELECT region_code, n, hits, median_m FROM accuracy_by_region(%s, %s, %s) WHERE region_code <> '-'",
        (name, LEVEL, THRESHOLD_M),
    ).fetchall()
    conn.rollback()
    ours = pd.DataFrame(rows, columns=["code", "n", "hits", "median_m"]).set_index("code").sort_index()
    both = ours.join(theirs.sort_index().add_suffix("_pandas"), how="outer")
    same = (both["n"] == both["n_pandas"]) & (both["hits"] == both["hits_pandas"])
    same &= np.isclose(both["median_m"], both["median_m_pandas"], rtol=1e-9)
    return {"countries": len(both), "differ": int((~same).sum())}


def write_summary(conn: Any, name: str) -> None:
    """What the last step of an evaluation does, for all distances and levels of regions."""
    from geofix.database.queries import evaluations, region_summary

    region_summary.write(conn, evaluations.find_evaluation(conn, name)["evaluation_id"])
    conn.commit()


def read_summary(conn: Any, name: str) -> pd.DataFrame:
    """Counts of one distance from the summary, with the names of the regions."""
    from geofix.database.queries import dashboard_accuracy as queries
    from geofix.database.queries import region_summary
    from geofix_dashboard import accuracy_tables as tables

    counts = region_summary.read(conn, name, LEVEL, THRESHOLD_M)
    assert counts is not None, "the summary does not fit"
    rows = tables.summarized(counts, lambda ids, _shapes: queries.places(conn, ids, None))
    conn.commit()
    return rows.set_index("code")[["n", "hits", "median_m"]]


class Dashboard:
    """What the accuracy page does: reads the summary; without one, reads photos once and counts them."""

    def __init__(self, conn: Any, name: str) -> None:
        self.conn, self.name = conn, name
        self.read: tuple[Any, Any, Any] | None = None
        self.shapes: pd.DataFrame | None = None

    def first_summarized(self) -> None:
        """The same when nothing is held."""
        self.shapes = None
        self.summarized()

    def first(self) -> None:
        """Read photos, their countries and the countries' outlines."""
        from geofix.database.queries import dashboard_accuracy as queries

        asked = queries.asked(self.conn, self.name)
        regions = queries.regions_of(self.conn, self.name, LEVEL, asked)
        names = queries.places(self.conn, np.unique(regions[regions > 0]).tolist(), 0.1)
        self.read = (asked, regions, lambda _ids, _shapes: names)
        self.conn.commit()

    def summarized(self) -> None:
        """Head, box and table of places, with the countries' outlines as far as they are not held yet."""
        from geofix.database.queries import dashboard_accuracy as queries
        from geofix.database.queries import region_summary
        from geofix_dashboard import accuracy_tables as tables

        whole = region_summary.read(self.conn, self.name, region_summary.EVERYWHERE, THRESHOLD_M)
        counts = region_summary.read(self.conn, self.name, LEVEL, THRESHOLD_M)
        box = region_summary.read_box(self.conn, self.name)
        assert whole is not None and counts is not None and box is not None
        if self.shapes is None:
            ids = counts["region_id"][counts["region_id"] > 0].tolist()
            self.shapes = queries.places(self.conn, ids, 0.1)
        held = self.shapes
        tables.summed(whole)
        tables.summarized(counts, lambda _ids, _shapes: held)
        self.conn.commit()

    def again(self) -> None:
        """Another distance."""
        from geofix_dashboard import accuracy_tables as tables

        assert self.read is not None
        tables.by_region(*self.read, THRESHOLD_M)


def main() -> None:
    parser = arguments(__doc__, repeats=3, baseline=1)
    parser.add_argument("--predictions", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="Folder of a cluster that is made or used again.")
    options = parser.parse_args()
    json_file = options.json.resolve() if options.json else None
    data, load = shared_data(), os.getloadavg()[0]
    found, goals = {}, []
    with server(options.keep) as conn:
        fill(conn, data, options.predictions)
        vacuum(conn)
        settings = server_settings(conn)
        say(f"server: {', '.join(f'{key} {value}' for key, value in settings.items())}")
        for name in ANSWERS_EACH:
            found[name] = measured(conn, name, options.repeats, options.baseline)
            goals += promises(name, found[name])
    finish("accuracy_by_region", goals, json_file, load, {"server": settings, "evaluations": found})


def measured(conn: Any, name: str, repeats: int, baseline: int) -> dict[str, Any]:
    """Times of all ways on one evaluation, and how the answers compare."""
    row = conn.execute(
        "SELECT count(*), count(DISTINCT photo_id) FROM prediction JOIN evaluation USING (evaluation_id)"
        " WHERE name = %s",
        (name,),
    ).fetchone()
    page, joined = Dashboard(conn, name), list[pd.DataFrame]()
    ways: dict[str, Callable[[], Any]] = {
        "accuracy_by_region, from rows": lambda: by_product(conn, name),
        PANDAS: lambda: joined.append(by_pandas(conn, name)),
        "summary, written": lambda: write_summary(conn, name),
        "summary, read, with names": lambda: read_summary(conn, name),
        "dashboard, first view": page.first_summarized,
        "dashboard, another distance": page.summarized,
        "dashboard without summary, first view": page.first,
        "dashboard without summary, another distance": page.again,
    }
    spent: dict[str, list[float]] = {way: [] for way in ways}

    def counted(way: str) -> Callable[[], None]:
        def run() -> None:
            before = server_processor_s(conn)
            ways[way]()
            spent[way].append(server_processor_s(conn) - before)

        return run

    by_product(conn, name)  # pages in memory for all ways, and modules
    write_summary(conn, name)
    read_summary(conn, name)
    times = in_turns({way: counted(way) for way in ways}, repeats, seldom={PANDAS: baseline})
    say(f"\n{row[0]:,} predictions for {row[1]:,} photos")
    rows = [
        (way, times[way].spread("ms", 1e3), f"{min(spent[way]):.2f} s", f"{min(times[way].processor):.2f} s")
        for way in ways
    ]
    table(rows, ("way", "wall, median", "server's processor (without its workers), least", "client's, least"))
    differ = len(by_product(conn, name).sort_index().compare(read_summary(conn, name).sort_index()))
    say(f"regions in which the summary differs from the rows: {differ}")
    equal = {**compared(conn, name, joined[0]), "summary_differs": differ}
    say(f"SQL and pandas, photos inside a country: {equal}")
    return {"predictions": row[0], "photos": row[1], "times": times, "server_processor_s": spent, **equal}


def promises(name: str, found: dict[str, Any]) -> list[Goal]:
    """What is asked of one evaluation."""
    product, pandas, _, read, _, again, *_ = found["times"].values()
    return [
        Goal(f"{name}: pandas' time / accuracy_by_region's", pandas.median / product.median, 4.0),
        Goal(f"{name}: accuracy_by_region from rows", 1e3 * product.median, 500.0, "ms", False),
        Goal(f"{name}: summary, read", 1e3 * read.median, 50.0, "ms", False),
        Goal(f"{name}: dashboard, another distance", 1e3 * again.median, 50.0, "ms", False),
        Goal(f"{name}: regions in which the summary differs", found["summary_differs"], 0, "regions", False),
        Goal(f"{name}: countries that differ from pandas", found["differ"], 0, "countries", False),
    ]


if __name__ == "__main__":
    main()
