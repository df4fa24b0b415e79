"""Refresh of a region that holds 1 % of a code set's cells, against building the whole set again.

A set of recipe `aerial` with its HNSW index, from one tile per cell; then every cell of the region gets a
tile of a newer date, and `refresh_region` runs while another session searches without a pause. The full
rebuild is `build_code_set` and `build_index` on the same tiles. The parts of both are timed, and recall is
measured with photos of the region: rows that were replaced are still in the graph.

    .venv/bin/python benchmarks/refresh.py
    .venv/bin/python benchmarks/refresh.py --rows 100000 --repeats 2 --json refresh.json
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import _codes
import numpy as np
import shapely
from _bench import Goal, arguments, finish, say, server, server_settings, shared_data, table
from _search import OURS, memory
from numpy.typing import NDArray
from pgvector import HalfVector

from geofix.codes import refresh as refreshing
from geofix.codes.build import build_code_set
from geofix.codes.index import build_index
from geofix.codes.matrix import CellMatrix
from geofix.codes.recipes import centres_inside
from geofix.database.bulk import copy_arrays, read_columns
from geofix.database.engine import connect
from geofix.database.queries import codes as code_queries
from geofix.database.queries import leaves, models, photos
from geofix.spatial import s2

NAME, SHARE = "live", 0.01
STAGE = "CREATE TEMP TABLE made_cell (s2_id int8 NOT NULL) ON COMMIT DROP"
TILES = """
INSERT INTO aerial_tile (dataset_id, level, s2_id, captured_at, side_m, coverage, aerial_raster_ids)
SELECT %(dataset)s, 16, s2_id, %(date)s, 154, 1, '{}' FROM made_cell ORDER BY s2_id
"""
TILE_IDS = "SELECT aerial_tile_id FROM aerial_tile WHERE captured_at = %(date)s ORDER BY s2_id"


def main() -> None:
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--m", type=int, default=16)
    parser.add_argument("--ef-construction", type=int, default=64)
    parser.add_argument("--keep", type=Path, help="Folder of a cluster, made or used again.")
    options = parser.parse_args()
    options.json = None if options.json is None else options.json.resolve()
    load, data = os.getloadavg()[0], shared_data()
    codes = _codes.made_codes(options.rows, options.dimension, data)
    say(_codes.describe(codes))
    allowed = memory(options.rows, options.dimension, options.m)
    with server(options.keep) as conn:
        conf = server_settings(conn)
        model = seed(conn, codes)
        rebuild = rebuilt(conn, model, options, allowed)
        region, inside = middle(codes)
        found: list[dict[str, float]] = []
        searches: list[Searches] = []
        recalls: list[float] = []
        for turn in range(options.repeats):
            tiles(conn, model, codes, inside, f"2024-01-{turn + 1:02d}", photo=turn + 1)
            with searching(codes) as watched:
                found.append(refreshed(conn, region, allowed))
            recalls.append(check(conn, codes, inside, turn + 1))
            searches.append(watched)
            told = f"recall@10 in the region {recalls[-1]:.4f}, {watched.told()}"
            say(f"refresh {turn + 1}: {found[-1]['all']:.1f} s, {told}")
    show(rebuild, found)
    ratio = rebuild["all"] / statistics.median(item["all"] for item in found)
    gaps = [max(item.seconds) for item in searches]
    goals = [
        Goal("refresh of 1 %, times as fast as a full rebuild", ratio, 20),
        Goal("recall@10 of photos of the region afterwards", min(recalls), 0.99, ""),
        Goal("searches that failed meanwhile", sum(item.failed for item in searches), 0, "", at_least=False),
    ]
    figures = {"codes": codes.told, "settings": conf, "rebuild": rebuild, "refresh": found}
    figures |= {"longest_search_s": gaps, "recall": recalls}
    finish("refresh", goals, options.json, load, figures)


def seed(conn: Any, codes: _codes.Codes) -> Any:
    """A model and one embedded tile per cell, unless they are there; the model's row."""
    dataset = photos.ensure_dataset(
        conn, "ortho", licence="CC0", attribution="Office", source_uri="made for the benchmark"
    )[0]
    conn.execute("UPDATE dataset SET kind = 'aerial' WHERE dataset_id = %s", (dataset,))
    name = f"refresh-{len(codes)}-{codes.dimension}"
    if conn.execute("SELECT 1 FROM model WHERE name = %s", (name,)).fetchone() is None:
        values: dict[str, Any] = {"kind": "encoder", "dimension": codes.dimension - 2, "name": name}
        values |= {"directory_uri": "nowhere", "config": {}, "weights_sha256": f"{len(codes):064x}"}
        values |= {"input_transform": {}, "metrics": {}, "snapshot_id": None}
        models.insert_model(conn, values)
        model = models.find_model(conn, name)
        tiles(conn, model, codes, np.arange(len(codes)), "2023-07-01", photo=0)
        say("tiles are stored")
    return models.find_model(conn, name)


def tiles(
    conn: Any, model: Any, codes: _codes.Codes, rows: NDArray[np.intp], date: str, *, photo: int
) -> None:
    """A tile of one date for some cells, embedded; commits."""
    conn.execute("DELETE FROM aerial_tile WHERE captured_at = %s", (date,))
    conn.execute(STAGE)
    copy_arrays(conn, "made_cell", {"s2_id": "int8"}, [(codes.ids[rows],)])
    dataset = conn.execute("SELECT dataset_id FROM dataset WHERE name = 'ortho'").fetchone()[0]
    conn.execute(TILES, {"dataset": dataset, "date": date})
    ids = read_columns(conn, TILE_IDS, {"aerial_tile_id": "i8"}, {"date": date})["aerial_tile_id"]
    d = codes.dimension - 2
    leaf = leaves.create_leaf(conn, "aerial_embedding", model.model_id, d)

    def blocks() -> Iterator[tuple[Any, Any, Any]]:
        for first in range(0, len(rows), _codes.STEP):
            part = slice(first, first + _codes.STEP)
            yield np.full(len(ids[part]), model.model_id), ids[part], codes.vectors(rows[part], photo=photo)

    columns = {"model_id": "int8", "aerial_tile_id": "int8", "embedding": "halfvec"}
    copy_arrays(conn, leaf, columns, blocks())
    leaves.index_leaf_keys(conn, "aerial_embedding", model.model_id)
    leaves.attach_leaf(conn, "aerial_embedding", model.model_id)
    conn.execute("ANALYZE aerial_tile")
    conn.commit()


def rebuilt(conn: Any, model: Any, options: Any, allowed: int) -> dict[str, float]:
    """Seconds of a full rebuild: codes, then the index."""
    if conn.execute("SELECT 1 FROM code_set WHERE name = %s", (NAME,)).fetchone() is not None:
        code_queries.drop_code_set(conn, code_queries.find_code_set(conn, NAME))
        conn.commit()
    began = time.perf_counter()
    build_code_set(conn, name=NAME, model=model, recipe="aerial", level=_codes.LEVEL)
    conn.commit()
    built = time.perf_counter()
    say(f"all codes are built in {built - began:.1f} s")
    build_index(
        conn,
        code_queries.find_code_set(conn, NAME),
        m=options.m,
        ef_construction=options.ef_construction,
        memory_bytes=allowed,
    )
    conn.commit()
    done = time.perf_counter()
    say(f"the index is built in {done - built:.1f} s")
    return {"codes": built - began, "index": done - built, "all": done - began}


def middle(codes: _codes.Codes) -> tuple[bytes, NDArray[np.intp]]:
    """A circle around one dense place that holds 1 % of the cells, and their rows."""
    lon, lat = s2.center(codes.ids)
    at = len(codes) // 3
    wide = 1 / np.cos(np.radians(lat[at]))
    apart = np.hypot((lon - lon[at]) / wide, lat - lat[at])
    ring = shapely.Point(0, 0).buffer(float(np.quantile(apart, SHARE)), quad_segs=16)
    placed = shapely.affinity.affine_transform(ring, [wide, 0, 0, 1, lon[at], lat[at]])
    ewkb = shapely.to_wkb(shapely.set_srid(placed, 4326), include_srid=True)
    return ewkb, np.flatnonzero(centres_inside(codes.ids, ewkb))


def refreshed(conn: Any, region: bytes, allowed: int) -> dict[str, float]:
    """Seconds of one refresh and of its parts."""
    parts: dict[str, float] = {}
    names = {
        "codes_of_region": "new codes of the region",
        "_change": "what differs",
        "replace_rows": "rows replaced, in the index too",
        "_indexed": "the index of a successor",
        "write_successor": "the other codes copied to a successor",
        "drop_replaced": "an old set removed",
    }
    owners = (refreshing, refreshing.queries, refreshing.code_queries)
    kept = []
    for owner in owners:
        for name, told in names.items():
            if name in vars(owner):
                kept.append((owner, name, getattr(owner, name)))
                setattr(owner, name, _timed(getattr(owner, name), told, parts))
    began = time.perf_counter()
    try:
        refreshing.refresh_region(conn, NAME, region, memory_bytes=allowed)
    finally:
        for owner, name, function in kept:
            setattr(owner, name, function)
    return {**parts, "all": time.perf_counter() - began}


def _timed(function: Callable[..., Any], name: str, parts: dict[str, float]) -> Callable[..., Any]:
    def wrapped(*args: Any, **given: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*args, **given)
        finally:
            parts[name] = parts.get(name, 0.0) + time.perf_counter() - began

    return wrapped


def check(conn: Any, codes: _codes.Codes, inside: NDArray[np.intp], turn: int) -> float:
    """The region's codes are the means of their tiles now, and one far away is what it was; recall there."""
    found = code_queries.find_code_set(conn, NAME)
    ids, stored = code_queries.read_codes(conn, found)
    assert len(ids) == len(codes) and (ids == codes.ids).all()
    rows = inside[:: max(1, len(inside) // 50)]
    sums = sum(codes.vectors(rows, photo=n).astype(np.float16).astype(np.float64) for n in range(turn + 1))
    means = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    assert np.abs(stored[rows, :-2] - means).max() < 2e-3
    other = np.setdiff1d(np.arange(len(codes)), inside)[:50]
    assert np.abs(stored[other, :-2] - codes.vectors(other)).max() < 2e-3
    queries = codes.queries(100, rows=np.random.default_rng(turn).choice(inside, 100))
    best = CellMatrix.from_rows(ids, stored).search(queries, 10)[0]
    hits = 0
    for query, wanted in zip(queries, best, strict=True):
        values = {"q": HalfVector(query.astype(np.float16)), "k": 10, "name": NAME}
        rows = conn.execute(OURS, values).fetchall()
        hits += len({row[0] for row in rows} & set(wanted.tolist()))
    conn.commit()
    return hits / best.size


class Searches:
    """What another session saw: seconds of each search, and how many failed."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.failed = 0

    def told(self) -> str:
        """For a line of the report."""
        return (
            f"{len(self.seconds):,} searches meanwhile, {self.failed} failed, "
            f"p50 {1e3 * statistics.median(self.seconds):.1f} ms, longest {1e3 * max(self.seconds):.0f} ms"
        )


@contextmanager
def searching(codes: _codes.Codes) -> Iterator[Searches]:
    """Search all the time in another session, every answer of full length."""
    watched, stop = Searches(), threading.Event()
    queries = [HalfVector(query.astype(np.float16)) for query in codes.queries(50)]

    def work() -> None:
        turn = 0
        while not stop.is_set() or not turn:
            began = time.perf_counter()
            try:
                with connect("reader") as conn:
                    query = queries[turn % len(queries)]
                    rows = conn.execute(OURS, {"q": query, "k": 10, "name": NAME}).fetchall()
                    watched.failed += len(rows) != 10
            except Exception as error:
                say(f"a search failed: {error}")
                watched.failed += 1
            watched.seconds.append(time.perf_counter() - began)
            turn += 1
            time.sleep(0.02)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield watched
    finally:
        stop.set()
        thread.join()


def show(rebuild: dict[str, float], found: list[dict[str, float]]) -> None:
    """Parts of both, seconds."""
    rows = [[f"rebuild: {name}", f"{seconds:,.1f} s"] for name, seconds in rebuild.items()]
    for name in found[0]:
        times = [item.get(name, 0.0) for item in found]
        spread = f"{statistics.median(times):,.2f} s ({min(times):,.2f} to {max(times):,.2f})"
        rows.append([f"refresh: {name}", spread])
    table(rows, ["what", "time"])


if __name__ == "__main__":
    main()
