"""Countries of a million photos, stored: the product against GeoPandas (read, sjoin, write back).

A private PostgreSQL; real countries and positions where GEOFIX_SHARED has them, else made ones. The rule
that photos outside every country take the nearest within 25 km is timed apart and compared with distances
measured by hand.

    .venv/bin/python benchmarks/region_assignment.py
    .venv/bin/python benchmarks/region_assignment.py --photos 50000 --repeats 1
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import shapely
from _bench import (
    Goal,
    Times,
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

LEVEL = "country"
READ_PHOTOS = "SELECT photo_id, geom FROM photo_record"
READ_REGIONS = f"SELECT region_id, code, area_km2, geom FROM region WHERE level = '{LEVEL}'"
READ_STORED = f"SELECT photo_id, region_id, distance_m FROM photo_region WHERE level = '{LEVEL}'"
WRITE = "COPY photo_region (photo_id, level, region_id, distance_m) FROM STDIN (FORMAT BINARY)"
MAX_M = 25_000.0
JOINED = "GeoPandas: read, sjoin, COPY back"
NEAR_BORDER_DEG = 1e-9


def by_geopandas(conn: Any) -> None:
    """What a user would write: read, join, keep the smallest of several, write back to the same table."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pandas asks for SQLAlchemy; a psycopg connection works
        photos = gpd.read_postgis(READ_PHOTOS, conn, geom_col="geom")
        regions = gpd.read_postgis(READ_REGIONS, conn, geom_col="geom")
    joined = gpd.sjoin(photos, regions, predicate="intersects")
    joined = joined.sort_values(["area_km2", "code"]).drop_duplicates("photo_id").sort_values("photo_id")
    pairs = zip(joined["photo_id"].tolist(), joined["region_id"].tolist(), strict=True)
    with conn.cursor() as cursor, cursor.copy(WRITE) as copy:
        copy.set_types(["int8", "text", "int8", "float4"])
        for photo, region in pairs:
            copy.write_row((photo, LEVEL, region, 0.0))
    conn.commit()


def by_product(conn: Any, max_m: float) -> None:
    from geofix.database.queries.photo_regions import assign_regions

    assign_regions(conn, levels=[LEVEL], max_m=max_m)
    conn.commit()


def stored(conn: Any) -> pd.DataFrame:
    """photo_id -> region_id, distance_m as the last way left it."""
    rows = conn.execute(READ_STORED).fetchall()
    return pd.DataFrame(rows, columns=["photo_id", "region_id", "distance_m"]).set_index("photo_id")


def differences(conn: Any, ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, int]:
    """Photos inside that differ, and those among them that lie on no shared border."""
    both = ours.add_suffix("_a").join(theirs.add_suffix("_b"), how="outer")
    differ = both.index[both["region_id_a"].fillna(-1) != both["region_id_b"].fillna(-1)].tolist()
    off_border = 0
    for photo in differ:
        row = conn.execute(
            "SELECT count(*) FROM photo_record p JOIN region r ON r.level = %s"
            " AND r.geom && p.geom AND ST_DWithin(ST_Boundary(r.geom), p.geom, %s) WHERE photo_id = %s",
            (LEVEL, NEAR_BORDER_DEG, photo),
        ).fetchone()
        off_border += row[0] < 2
    return {"compared": len(both), "differ": len(differ), "differ_off_shared_borders": off_border}


def coast(conn: Any, found: pd.DataFrame, sample: int) -> dict[str, float]:
    """Nearest countries measured by hand for some photos outside all: azimuthal projection around each.

    Distances from the centre of that projection are geodesics. Edges are cut at 0.01 degrees (0.03 m).
    """
    outside = conn.execute(
        "SELECT p.photo_id, ST_X(geom), ST_Y(geom) FROM photo_record p WHERE NOT EXISTS"
        " (SELECT FROM photo_region a WHERE a.photo_id = p.photo_id AND a.distance_m = 0) ORDER BY 1"
    ).fetchall()
    step = max(1, len(outside) // max(sample, 1))
    rows = conn.execute(
        "SELECT region_id, ST_AsBinary(geom), code FROM region WHERE level = %s", (LEVEL,)
    ).fetchall()
    shapes = shapely.get_parts(shapely.from_wkb([row[1] for row in rows]), return_index=True)
    owner, tree = np.array([row[0] for row in rows])[shapes[1]], shapely.STRtree(shapes[0])
    code = {row[0]: row[2] for row in rows}
    wrong, farthest, checked, ties = 0, 0.0, 0, 0
    for photo, lon, lat in outside[::step]:
        near = sorted(
            _nearest(lon, lat, shapes[0], owner, tree).items(), key=lambda item: (item[1], code[item[0]])
        )
        expected = near[0] if near and near[0][1] <= MAX_M else None
        got = found.loc[photo] if photo in found.index else None
        checked += 1
        if expected is None or got is None:
            # Within half a metre of the bound both answers are right.
            wrong += (expected is None) != (got is None) and abs((near[0][1] if near else 1e9) - MAX_M) > 0.5
            continue
        other = dict(near).get(int(got["region_id"]), np.inf)
        ties += len(near) > 1 and near[1][1] - near[0][1] < 0.5
        wrong += other - expected[1] > 0.5
        farthest = max(farthest, abs(float(got["distance_m"]) - other))
    return {
        "outside": len(outside),
        "given": int((found["distance_m"] > 0).sum()),
        "checked": checked,
        "another_country": int(wrong),
        "equally_near": int(ties),
        "greatest_difference_m": round(farthest, 3),
    }


def _nearest(lon: float, lat: float, parts: Any, owner: Any, tree: Any) -> dict[int, float]:
    """Metres to every country within the box of 25 km around a position."""
    high = MAX_M / 110_574 * 1.01
    wide = min(180.0, high / max(1e-6, np.cos(np.radians(min(90.0, abs(lat) + high)))))
    plane = pyproj.Proj(proj="aeqd", lon_0=lon, lat_0=lat, ellps="WGS84")
    found: dict[int, float] = {}
    for turn in (0.0, -360.0, 360.0):
        box = (lon + turn - wide, lat - high, lon + turn + wide, lat + high)
        for index in tree.query(shapely.box(*box)):
            piece = shapely.segmentize(shapely.clip_by_rect(parts[index], *box), 0.01)
            if piece.is_empty:
                continue
            flat = shapely.transform(piece, lambda xy: np.column_stack(plane(xy[:, 0], xy[:, 1])))
            metres = float(shapely.distance(flat, shapely.Point(0, 0)))
            found[int(owner[index])] = min(metres, found.get(int(owner[index]), np.inf))
    return found


def main() -> None:
    parser = arguments(__doc__, repeats=3, baseline=1)
    parser.add_argument("--photos", type=int, default=1_000_000)
    parser.add_argument(
        "--coast", type=int, default=400, help="Photos outside all that are measured by hand."
    )
    parser.add_argument("--keep", type=Path, help="Folder of a cluster that is made or used again.")
    options = parser.parse_args()
    json_file = options.json.resolve() if options.json else None
    data, load = shared_data(), os.getloadavg()[0]
    with server(options.keep) as conn:
        import _spatial_data as made

        if not conn.execute("SELECT 1 FROM photo_record LIMIT 1").fetchone():
            say(made.countries(conn, data))
            lon, lat, told = made.positions(data, options.photos)
            made.photo_rows(conn, lon, lat)
            say(f"{told} are stored")
        count = conn.execute("SELECT count(*) FROM photo_record").fetchone()[0]
        settings = server_settings(conn)
        say(f"server: {', '.join(f'{name} {value}' for name, value in settings.items())}")
        ways = {
            "product, inside alone": lambda: by_product(conn, 0.0),
            JOINED: lambda: by_geopandas(conn),
            "product, with the rule of 25 km": lambda: by_product(conn, MAX_M),
        }
        states: dict[str, pd.DataFrame] = {}
        spent: dict[str, list[float]] = {name: [] for name in ways}

        def emptied(_: str) -> None:
            conn.execute("TRUNCATE photo_region")
            conn.commit()

        def kept(name: str, way: Any) -> Any:
            def run() -> None:
                before = server_processor_s(conn)
                way()
                spent[name].append(server_processor_s(conn) - before)

            return run

        times: dict[str, Times] = {name: Times() for name in ways}
        for turn in range(options.repeats):
            for name, way in ways.items():
                if name == JOINED and turn >= options.baseline:
                    continue
                emptied(name)
                one = in_turns({name: kept(name, way)}, 1)[name]
                times[name].wall += one.wall
                times[name].processor += one.processor
                if turn == 0:
                    states[name] = stored(conn)
        inside, joined, full = (states[name] for name in ways)
        rows = [
            (
                name,
                times[name].spread(),
                f"{min(spent[name]):.1f} s",
                f"{min(times[name].processor):.1f} s",
                f"{len(states[name]):,}",
            )
            for name in ways
        ]
        table(
            rows,
            ("way", "wall, median", "server's processor, least", "client's, least", "photos given a country"),
        )
        equal = differences(conn, inside, joined)
        near = coast(conn, full, options.coast)
        conn.rollback()
    say(f"\ninside, product and GeoPandas: {equal}\nwithin 25 km, product and by hand: {near}")
    product, other, whole = (times[name] for name in ways)
    per_million = 1e6 / count
    goals = [
        Goal("GeoPandas' time / product's, inside alone", other.median / product.median, 1.0),
        Goal("product per million photos, inside alone", product.median * per_million, 20.0, "s", False),
        Goal(
            "product per million photos, with the rule of 25 km", whole.median * per_million, 20.0, "s", False
        ),
        Goal("photos that differ off shared borders", equal["differ_off_shared_borders"], 0, "photos", False),
        Goal(
            "photos outside with a country that is not nearest", near["another_country"], 0, "photos", False
        ),
    ]
    figures = {
        "photos": count,
        "server": settings,
        "times": times,
        "server_processor_s": spent,
        "inside": equal,
        "coast": near,
    }
    finish("region_assignment", goals, json_file, load, figures)


if __name__ == "__main__":
    main()
