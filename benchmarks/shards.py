"""A code set over three servers of this machine beside the same one on one server: latency, and a move.

On one host nothing can be faster than undistributed: what is measured is the price of the three servers.
Both sets are asked the same queries in turns, as the reader.

    .venv/bin/python benchmarks/shards.py
    .venv/bin/python benchmarks/shards.py --codes 1000000 --dimension 256 --queries 300
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]
GOAL = 3.0  # p50 of distributed over undistributed
CONF = (
    "shared_buffers = 512MB\nfsync = on\nsynchronous_commit = on\nfull_page_writes = on\nmax_wal_size = 2GB\n"
)
SEARCH = """
SELECT s2_id, method FROM geofix.search_cells(%s, %s, %s, ST_GeomFromEWKB(%s), %s)
"""


def say(text: str) -> None:
    """One line of the report."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def fill(home, shards, codes) -> None:
    """The same codes under two names, both indexed; one of them spread."""
    from _codes import load

    from geofix.codes.index import build_index
    from geofix.database.engine import connect
    from geofix.database.queries import codes as code_queries
    from geofix.database.shard_moves import distribute
    from geofix.database.shards import add_shard

    with connect() as conn:
        for server in shards:
            add_shard(conn, server.folder.name, server.url(), reader_url=server.url("reader"))
        for name in ("whole", "spread"):
            began = time.perf_counter()
            load(conn, codes, name)
            build_index(conn, code_queries.find_code_set(conn, name), memory_bytes=1 << 30)
            conn.commit()
        say(f"stored and indexed on one server in {time.perf_counter() - began:.1f} s")
        began = time.perf_counter()
        distribute(conn, "spread", [server.folder.name for server in shards], memory_bytes=1 << 30)
        taken = time.perf_counter() - began
    say(
        f"moved, indexed, proved and switched to three shards in {taken:.1f} s, "
        f"{len(codes) / taken:,.0f} codes/s"
    )


def regions(codes) -> dict[str, bytes | None]:
    """Everywhere, and a square around the middle cell that holds about 1 percent."""
    import shapely

    from geofix.spatial import s2

    lon, lat = s2.center(codes.ids)
    made: dict[str, bytes | None] = {"everywhere": None}
    middle = len(lon) // 2
    away = np.maximum(abs(lon - lon[middle]), abs(lat - lat[middle]))
    r = float(np.quantile(away, 0.01))
    box = shapely.box(lon[middle] - r, lat[middle] - r, lon[middle] + r, lat[middle] + r)
    return made | {"1 %": shapely.to_wkb(shapely.set_srid(box, 4326), include_srid=True)}


def compare(codes, count: int, k: int) -> None:
    """Milliseconds of both in turns, and the share of the exact answers that each gives."""
    from pgvector import HalfVector

    from geofix.database.engine import connect

    asked = [HalfVector(query.astype(np.float16)) for query in codes.queries(count)]
    say(
        "| region | way | one server, p50 (p95) ms | three shards, p50 (p95) ms | ratio | recall@10 of both |"
    )
    say("| --- | --- | --- | --- | --- | --- |")
    with connect("reader") as conn:
        for label, region in regions(codes).items():
            took: dict[str, list[float]] = {"whole": [], "spread": []}
            hits = {"whole": 0, "spread": 0}
            wanted = 0
            methods = set()
            for number, query in enumerate(asked if region is None else asked[: max(10, len(asked) // 8)]):
                exact: set[int] = set()
                if number < 20:
                    rows = conn.execute(SEARCH, (query, k, "whole", region, 2**31 - 1)).fetchall()
                    exact = {row[0] for row in rows}
                    wanted += len(exact)
                for name in ("whole", "spread") if number % 2 else ("spread", "whole"):
                    began = time.perf_counter()
                    rows = conn.execute(SEARCH, (query, k, name, region, 10_000)).fetchall()
                    took[name].append(1000 * (time.perf_counter() - began))
                    methods |= {row[1] for row in rows}
                    hits[name] += len(exact & {row[0] for row in rows})
                conn.commit()
            p50 = {name: statistics.median(times[5:]) for name, times in took.items()}
            p95 = {name: float(np.quantile(times[5:], 0.95)) for name, times in took.items()}
            ratio = p50["spread"] / p50["whole"]
            missed = "" if ratio <= GOAL else f" (goal {GOAL:g} missed)"
            say(
                f"| {label} | {', '.join(sorted(methods))} | {p50['whole']:.2f} ({p95['whole']:.2f}) "
                f"| {p50['spread']:.2f} ({p95['spread']:.2f}) | {ratio:.2f}{missed} "
                f"| {hits['whole'] / wanted:.3f}, {hits['spread'] / wanted:.3f} |"
            )


def main() -> None:
    """Start four servers, fill them, measure, remove them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--codes", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=128, help="of a code, with the two of completion")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--k", type=int, default=10)
    given = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]

    from _codes import describe, made_codes

    import shard_servers
    from geofix.database import engine
    from geofix.database.embedded.paths import locate
    from geofix.database.migrate import migrate
    from geofix.log import configure
    from geofix.settings import get_settings
    from servers import new_home, settings_for

    configure("WARNING")
    shard_servers.CONF += CONF  # the last line of a name counts
    folder = new_home()
    family = shard_servers.Family(folder, locate(settings_for(folder)).account)
    data = get_settings().shared_dir / "data"
    try:
        home = family.add("home")
        migrate(home.url())
        for role, variable in (("owner", "DATABASE"), ("writer", "WRITER"), ("reader", "READER")):
            os.environ[f"GEOFIX_{variable}_URL"] = home.url(role)
        get_settings.cache_clear()
        codes = made_codes(given.codes, given.dimension, data)
        say(f"{describe(codes)}; k = {given.k}, {given.queries} queries; load {os.getloadavg()[0]:.1f}")
        fill(home, [family.add(name) for name in "abc"], codes)
        compare(codes, given.queries, given.k)
    finally:
        engine.dispose()
        family.remove()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
