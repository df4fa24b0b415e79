"""`search_cells` inside regions, covering included: against what a user of pgvector would write by hand.

Regions are circles that hold 30, 3, 0.3 and 0.03 % of the cells, and real countries that hold about as many
(ne_50m_admin_0_countries below GEOFIX_SHARED; without it none). k = 10; queries are photos of cells in the
region. Three ways by hand get the region's ranges of S2 ids ready made, so they pay for no covering: the HNSW
index with a filter, the same with an iterative scan, and every row in scope. Recall is against exact search.

    .venv/bin/python benchmarks/search_regions.py --keep /var/tmp/geofix-bench
    .venv/bin/python benchmarks/search_regions.py --rows 100000 --queries 20 --json regions.json
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _codes
import numpy as np
import shapely
from _bench import Goal, finish, say, server, server_settings, shared_data, table
from _search import OURS_IN, Answers, Stored, ask, in_rounds, options_of, settings, stored
from numpy.typing import NDArray

from geofix.codes.recipes import centres_inside
from geofix.spatial import s2

SHARES = (0.30, 0.03, 0.003, 0.0003)
COUNTRIES = "ne_50m_admin_0_countries.geojson"
COVERING = "SELECT count(*) FROM geofix.code_set_covering(%(id)s, %(region)s)"


@dataclass(frozen=True)
class Region:
    """A polygon and the rows whose cell's centre lies in it."""

    name: str
    ewkb: bytes
    vertices: int
    rows: NDArray[np.intp]


def main() -> None:
    options = options_of(__doc__, repeats=2, queries=40, per="Per region.")
    load, data = os.getloadavg()[0], shared_data()
    codes = _codes.made_codes(options.rows, options.dimension, data)
    say(_codes.describe(codes))
    goals: list[Goal] = []
    figures: dict[str, Any] = {"codes": codes.told, "regions": {}}
    with tempfile.TemporaryDirectory() as temporary, server(options.keep) as conn:
        folder = Path(temporary) if options.keep is None else options.keep
        figures["settings"] = server_settings(conn)
        held = stored(conn, codes, folder, m=options.m, ef=options.ef_construction)
        for region in [*circles(codes), *countries(codes, data)]:
            found, covering, ranges = asked(conn, held, codes, folder, region, options)
            share = 100 * len(region.rows) / len(codes)
            head = f"{region.name}: {len(region.rows):,} cells, {share:.2g} %, {region.vertices:,} vertices"
            table(
                [[name, *answers.told()] for name, answers in found.items()], [head, "recall", "p50", "p95"]
            )
            say(f"covering: {covering:.2f} ms of it, {ranges} ranges")
            goals += judged(found, region.name)
            figures["regions"][region.name] = {
                "cells": len(region.rows),
                "vertices": region.vertices,
                "covering_ms": covering,
                "ways": {
                    name: {"recall": a.recall, "p50_ms": a.percentile(0.5), "p95_ms": a.percentile(0.95)}
                    for name, a in found.items()
                },
            }
    finish("search_regions", goals, options.json, load, figures)


def circles(codes: _codes.Codes) -> list[Region]:
    """Polygons of 64 corners around one dense place that hold each share of the cells."""
    lon, lat = s2.center(codes.ids)
    middle = len(codes) // 3
    apart = np.hypot((lon - lon[middle]) * np.cos(np.radians(lat[middle])), lat - lat[middle])
    made = []
    for share in SHARES:
        radius = float(np.quantile(apart, share))
        ring = shapely.Point(0, 0).buffer(radius, quad_segs=16)
        wide = 1 / np.cos(np.radians(lat[middle]))
        placed = shapely.affinity.affine_transform(ring, [wide, 0, 0, 1, lon[middle], lat[middle]])
        world = shapely.box(-180, -89.9, 180, 89.9)
        made.append(_region(f"circle {100 * share:g} %", placed.intersection(world), codes))
    return made


def countries(codes: _codes.Codes, data: Path) -> list[Region]:
    """The real countries whose number of cells is nearest to each share."""
    file = data / "boundaries" / COUNTRIES
    if not file.exists():
        say(f"no countries: {COUNTRIES} is not below GEOFIX_SHARED")
        return []
    lon, lat = s2.center(codes.ids)
    shapes = []
    for feature in json.loads(file.read_text())["features"]:
        shape = shapely.make_valid(shapely.geometry.shape(feature["geometry"]))
        shapely.prepare(shape)
        names = {key.lower(): value for key, value in feature["properties"].items()}
        shapes.append((names.get("name", "?"), shape, int(shapely.intersects_xy(shape, lon, lat).sum())))
    chosen: dict[str, Region] = {}
    for share in SHARES:
        name, shape, _ = min(shapes, key=lambda item: abs(np.log((item[2] + 1e-9) / (share * len(codes)))))
        chosen.setdefault(name, _region(name, shape, codes))
    return list(chosen.values())


def _region(name: str, shape: Any, codes: _codes.Codes) -> Region:
    ewkb = shapely.to_wkb(shapely.set_srid(shape, 4326), include_srid=True)
    rows = np.flatnonzero(centres_inside(codes.ids, ewkb))
    return Region(name, ewkb, int(shapely.get_num_coordinates(shape)), rows)


def asked(
    conn: Any, held: Stored, codes: _codes.Codes, folder: Path, region: Region, options: Any
) -> tuple[dict[str, Answers], float, int]:
    """Answers of every way inside one region, median ms of the covering alone, and its ranges."""
    rng = np.random.default_rng(3)
    queries = codes.queries(0, rows=np.sort(rng.choice(region.rows, options.queries)))
    matrix = codes.matrix(folder)
    own = codes.ids[region.rows]
    exact, _ = matrix.search(queries, 10, np.stack([own, own], axis=1))
    row = conn.execute("SELECT ST_GeomFromEWKB(%s)", (region.ewkb,)).fetchone()
    condition = _condition(conn, held, region)
    ways = {
        "search_cells": (
            lambda: None,
            ask(conn, OURS_IN, queries, name=held.name, region=row[0]),
        ),
        "HNSW with a filter, ef_search 100": (
            lambda: settings(conn, 100),
            ask(conn, held.by_hand(condition), queries, region=row[0]),
        ),
        "... with an iterative scan": (
            lambda: settings(conn, 100, "strict_order"),
            ask(conn, held.by_hand(condition), queries, region=row[0]),
        ),
        "every row in scope": (
            lambda: settings(conn, 100),
            ask(conn, held.exact(condition), queries, region=row[0]),
        ),
    }
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        ranges = conn.execute(COVERING, {"id": held.code_set_id, "region": row[0]}).fetchone()[0]
        seconds.append(time.perf_counter() - began)
    return in_rounds(conn, ways, exact, options.repeats), 1e3 * float(np.median(seconds[1:])), ranges


def _condition(conn: Any, held: Stored, region: Region) -> str:
    """The region as ranges of S2 ids, border cells checked by their centre: what covering comes to."""
    found = conn.execute(
        "SELECT lo, hi, inside FROM geofix.code_set_covering(%s, ST_GeomFromEWKB(%s))",
        (held.code_set_id, region.ewkb),
    ).fetchall()
    tested = " AND ST_Covers(%(region)s::geometry, geofix.s2_center(s2_id))"
    ranges = [f"(s2_id BETWEEN {lo} AND {hi}{'' if inside else tested})" for lo, hi, inside in found]
    return f"({' OR '.join(ranges) or 'false'})"


def judged(found: dict[str, Answers], name: str) -> list[Goal]:
    """Recall, and p50 against the fastest way by hand that finds 0.99."""
    ours = found["search_cells"]
    others = [a for way, a in found.items() if way != "search_cells" and a.recall >= 0.99]
    fastest = min(others, key=lambda answers: answers.percentile(0.5)).percentile(0.5)
    return [
        Goal(f"{name}: recall", ours.recall, 0.99, ""),
        Goal(
            f"{name}: p50 (2 x + 1 ms of the fastest)",
            ours.percentile(0.5),
            round(2 * fastest + 1, 2),
            "ms",
            at_least=False,
        ),
    ]


if __name__ == "__main__":
    main()
