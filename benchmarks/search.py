"""`search_cells` without a region: against a hand-written pgvector query of the same recall, and FAISS HNSW.

One indexed code set, k = 10, one client. The hand-written query gets the smallest ef_search at which it finds
as much as `search_cells`; FAISS the smallest efSearch at which it finds 0.99, on one thread, in this process.
Recall is the share of the exact ten best (geofix/codes/matrix.py) that an answer holds.

    .venv/bin/python benchmarks/search.py --keep /var/tmp/geofix-bench
    .venv/bin/python benchmarks/search.py --rows 100000 --queries 100 --json search.json
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import _codes
import numpy as np
from _bench import Goal, finish, say, server, server_settings, shared_data, table
from _faiss import HOW, faiss_or_none
from _search import OURS, Answers, Stored, ask, in_rounds, options_of, settings, stored

from geofix.codes.matrix import CellMatrix

EFS = (10, 20, 40, 60, 80, 100, 120, 150, 200, 300, 400, 600, 1000)


def main() -> None:
    options = options_of(__doc__, repeats=3, queries=200)
    load, data = os.getloadavg()[0], shared_data()
    codes = _codes.made_codes(options.rows, options.dimension, data)
    say(_codes.describe(codes))
    with tempfile.TemporaryDirectory() as temporary, server(options.keep) as conn:
        folder = Path(temporary) if options.keep is None else options.keep
        conf = server_settings(conn)
        held = stored(conn, codes, folder, m=options.m, ef=options.ef_construction)
        matrix = codes.matrix(folder)
        queries = codes.queries(options.queries)
        exact, _ = matrix.search(queries, 10)
        ef = same_recall(conn, held, queries, exact)
        ways: dict[str, Any] = {
            "search_cells": (lambda: None, ask(conn, OURS, queries, name=held.name)),
            "search_cells, exact below 0": (
                lambda: None,
                ask(conn, f"{OURS[:-1]}, NULL, 0)", queries, name=held.name),
            ),
            f"pgvector by hand, ef_search {ef}": (
                lambda: settings(conn, ef),
                ask(conn, held.by_hand(), queries),
            ),
            "pgvector by hand, every row": (lambda: None, ask(conn, held.exact(), queries[:5])),
        }
        faiss_way(matrix, queries, exact, folder, options, ways)
        found = in_rounds(conn, ways, exact, options.repeats)
        found["pgvector by hand, every row"].recall = 1.0
    show(found, codes)
    goals = judged(found, ef)
    figures = {"codes": codes.told, "made": held.made, "settings": conf, "ef_search": ef}
    figures["ways"] = {
        name: {"recall": a.recall, "p50_ms": a.percentile(0.5), "p95_ms": a.percentile(0.95)}
        for name, a in found.items()
    }
    finish("search", goals, options.json, load, figures)


def same_recall(conn: Any, held: Stored, queries: Any, exact: Any) -> int:
    """The smallest ef_search at which the hand-written query finds as much as `search_cells`."""
    _, found = ask(conn, OURS, queries, name=held.name)()
    wanted = _codes.recall(found, exact)
    for ef in EFS:
        settings(conn, ef)
        _, found = ask(conn, held.by_hand(), queries)()
        if _codes.recall(found, exact) >= wanted:
            return ef
    return EFS[-1]


def faiss_way(
    matrix: CellMatrix, queries: Any, exact: Any, folder: Path, options: Any, ways: dict[str, Any]
) -> None:
    """FAISS HNSW over the same rows in float32, with the same m and ef_construction, on one thread."""
    faiss = faiss_or_none()
    if faiss is None:
        say(HOW)
        return
    file = folder / f"hnsw-{len(matrix)}-{matrix.dimension}-{options.m}-{options.ef_construction}.faiss"
    if file.exists():
        index = faiss.read_index(str(file))
    else:
        began = time.perf_counter()
        index = faiss.IndexHNSWFlat(matrix.dimension, options.m, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = options.ef_construction
        for first in range(0, len(matrix), 50_000):
            index.add(matrix.codes[first : first + 50_000].astype(np.float32))
        say(f"FAISS built its graph in {time.perf_counter() - began:.0f} s on {os.cpu_count()} threads")
        faiss.write_index(index, str(file))
    faiss.omp_set_num_threads(1)

    def search() -> tuple[list[float], list[list[int]]]:
        seconds, rows = [], []
        for query in queries:
            began = time.perf_counter()
            _, near = index.search(query[None], 10)
            seconds.append(time.perf_counter() - began)
            rows.append(near[0])
        return seconds, [matrix.ids[row[row >= 0]].tolist() for row in rows]

    for ef in EFS:
        index.hnsw.efSearch = ef
        if _codes.recall(search()[1], exact) >= 0.99:
            break
    ways[f"FAISS HNSW in process, efSearch {ef}, 1 thread"] = (lambda: None, search)


def show(found: dict[str, Answers], codes: _codes.Codes) -> None:
    head = [f"{len(codes):,} codes of {codes.dimension}, k = 10", "recall@10", "p50", "p95"]
    table([[name, *answers.told()] for name, answers in found.items()], head)


def judged(found: dict[str, Answers], ef: int) -> list[Goal]:
    """Recall, and p50 against both others."""
    ours, hand = found["search_cells"], found[f"pgvector by hand, ef_search {ef}"]
    p50 = hand.percentile(0.5)
    goals = [
        Goal("search_cells, recall@10", ours.recall, 0.99, ""),
        Goal(
            "search_cells, p50 (1.5 x or + 0.5 ms)",
            ours.percentile(0.5),
            round(max(1.5 * p50, p50 + 0.5), 3),
            "ms",
            at_least=False,
        ),
    ]
    for name, answers in found.items():
        if name.startswith("FAISS"):
            times = ours.percentile(0.5) / answers.percentile(0.5)
            goals.append(Goal("search_cells, p50 against FAISS HNSW", times, 10, at_least=False))
    return goals


if __name__ == "__main__":
    main()
