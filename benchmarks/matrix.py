"""Exact search in the matrix of all codes: against the memory's bandwidth, FAISS flat and FAISS in float16.

Batches of 1 and 64 queries, k = 10. The limit is the time in which this machine reads the matrix's bytes
once, measured in the same rounds. Then several processes search one matrix: each with its own copy, and all
through one memory map. FAISS comes with the extra `bench`; without it its columns stay empty.

On a busy machine compare processor times: they are those of one thread where one was asked for.

    .venv/bin/python benchmarks/matrix.py
    .venv/bin/python benchmarks/matrix.py --rows 100000 --threads 1 2 --repeats 3 --json matrix.json
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _codes
import numpy as np
from _bench import Goal, Times, arguments, finish, in_turns, say, shared_data, table
from _faiss import HOW, faiss_or_none, limited
from numpy.typing import NDArray

from geofix.codes.halves import Widened
from geofix.codes.matrix import CellMatrix

K = 10
ADD = 50_000  # rows given to FAISS at a time
STEP = 16_384  # rows converted at a time


def main() -> None:
    parser = arguments(__doc__, repeats=7)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="Threads of every way, in turn.")
    parser.add_argument("--processes", type=int, default=4, help="That share one matrix.")
    parser.add_argument("--keep", type=Path, help="Folder of the codes, made or used again.")
    options = parser.parse_args()
    options.json = None if options.json is None else options.json.resolve()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = temporary if options.keep is None else options.keep
        codes = _codes.made_codes(options.rows, options.dimension, shared_data())
        say(_codes.describe(codes))
        mapped = codes.matrix(Path(folder))
        shared = processes(mapped, codes.matrix(Path(folder)), Path(folder), options.processes, codes)
        held = CellMatrix(np.array(mapped.ids), np.array(mapped.codes))
        queries = codes.queries(64)
        same_answers(held, queries)
        goals: list[Goal] = []
        figures: dict[str, Any] = {"codes": codes.told, "processes": shared, "threads": {}}
        for threads in options.threads:
            found = search(held, queries, threads, options.repeats)
            figures["threads"][threads] = found
            goals += judged(found, held.codes.nbytes, threads)
    finish("matrix", goals, options.json, load, figures)


def same_answers(matrix: CellMatrix, queries: NDArray[np.float32]) -> None:
    """Batches of 1 and 64 agree with each other and with float64."""
    ids, scores = matrix.search(queries, K)
    for row in range(8):
        alone, own = matrix.search(queries[row : row + 1], K)
        assert (alone[0] == ids[row]).all() and (own[0] == scores[row]).all()
    exact = matrix.codes[:100_000].astype(np.float64) @ queries[0].astype(np.float64)
    assert scores[0, 0] >= np.float32(exact.max())


def search(matrix: CellMatrix, queries: NDArray[np.float32], threads: int, repeats: int) -> dict[str, Times]:
    """Times of every way with some threads, taken in turns."""
    import torch  # as in every process that answers photos

    torch.set_num_threads(threads)
    faiss = faiss_or_none()
    words = torch.from_numpy(matrix.codes).view(torch.int64)
    ways: dict[str, Callable[[], Any]] = {
        "read every byte once": lambda: words.amax(),
        "geofix, 1 query": lambda: matrix.search(queries[:1], K),
        "geofix, 64 queries": lambda: matrix.search(queries, K),
        "... without numkong, 1 query": lambda: by_widening(matrix, queries[:1]),
        "conversion by NumPy, 1 query": lambda: by_astype(matrix, queries[:1]),
    }
    if faiss is not None:
        faiss.omp_set_num_threads(threads)
        for name, index in faiss_indexes(faiss, matrix):
            ways[f"{name}, 1 query"] = lambda index=index: index.search(queries[:1], K)
            ways[f"{name}, 64 queries"] = lambda index=index: index.search(queries, K)
    with limited(threads):
        for way in ways.values():
            way()
        found = in_turns(ways, repeats)
    rows = [
        [name, times.spread("ms", 1e3), f"{1e3 * float(np.median(times.processor)):,.0f} ms"]
        for name, times in found.items()
    ]
    table(rows, [f"{len(matrix):,} x {matrix.dimension}, {threads} thread(s)", "wall", "processor"])
    return found


def by_widening(matrix: CellMatrix, queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a search does where numkong is not installed. Scores alone, without their order."""
    widened = Widened(queries, matrix.codes, STEP)
    return np.concatenate(
        [widened.scores(first, min(first + STEP, len(matrix))) for first in range(0, len(matrix), STEP)],
        axis=1,
    )


def by_astype(matrix: CellMatrix, queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every block converted by NumPy's own loop. Scores alone, without their order."""
    return np.concatenate(
        [
            queries @ matrix.codes[first : first + STEP].astype(np.float32).T
            for first in range(0, len(matrix), STEP)
        ],
        axis=1,
    )


def faiss_indexes(faiss: Any, matrix: CellMatrix) -> list[tuple[str, Any]]:
    """Exact indexes of the same rows: float32, and float16 (which is compared as it is stored)."""
    d = matrix.dimension
    flat = faiss.IndexFlatIP(d)
    half = faiss.IndexScalarQuantizer(d, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    half.train(matrix.codes[:1000].astype(np.float32))
    for first in range(0, len(matrix), ADD):
        rows = matrix.codes[first : first + ADD].astype(np.float32)
        flat.add(rows)
        half.add(rows)
    return [("FAISS flat", flat), ("FAISS fp16", half)]


def judged(found: dict[str, Times], size: int, threads: int) -> list[Goal]:
    """Goals of one number of threads. The limit of a batch of one is the time to read all bytes."""
    limit, one = found["read every byte once"].median, found["geofix, 1 query"].median
    say(f"memory: {size / 1e9 / limit:.1f} GB/s by {threads} thread(s), search: {size / 1e9 / one:.1f} GB/s")
    told = f"{threads} thread(s)"
    goals = [Goal(f"batch 1, share of the bandwidth limit, {told}", 100 * limit / one, 60, "%")]
    busy = {name: float(np.median(times.processor)) for name, times in found.items()}
    if threads == 1:
        share = 100 * busy["read every byte once"] / busy["geofix, 1 query"]
        goals.append(Goal("... by processor time", share, 60, "%"))
    if "FAISS flat, 64 queries" in found:
        ratio = found["FAISS flat, 64 queries"].median / found["geofix, 64 queries"].median
        goals.append(Goal(f"batch 64, speed of FAISS flat, {told}", ratio, 0.8))
        if threads == 1:
            ratio = busy["FAISS flat, 64 queries"] / busy["geofix, 64 queries"]
            goals.append(Goal("... by processor time", ratio, 0.8))
    else:
        say(HOW)
    return goals


def processes(
    mapped: CellMatrix, again: CellMatrix, folder: Path, count: int, codes: _codes.Codes
) -> dict[str, Any]:
    """Memory of processes that search at the same time: own copies, then one map."""
    where = Path(mapped.codes.filename).parent
    found: dict[str, Any] = {"processes": count, "matrix MB": again.codes.nbytes / 1e6}
    rows = []
    for name, share in (("each its own copy", False), ("one memory map", True)):
        context = multiprocessing.get_context("spawn")
        with context.Pool(count) as pool:
            sizes = pool.starmap(_memory, [(str(where), share, codes.dimension)] * count, chunksize=1)
        rss, pss, ms = (sum(item[i] for item in sizes) for i in range(3))
        found[name] = {"rss_mb": rss, "pss_mb": pss, "search_ms": ms / count}
        rows.append([name, f"{rss:,.0f} MB", f"{pss:,.0f} MB", f"{ms / count:,.0f} ms"])
    table(rows, [f"{count} processes", "sum of RSS", "sum of PSS (what they take)", "a search, all at once"])
    return found


def _memory(where: str, share: bool, dimension: int) -> tuple[float, float, float]:
    """RSS and PSS (MB) after searches of this process, and ms of one."""
    matrix = CellMatrix.open(Path(where))
    if not share:
        matrix = CellMatrix(np.array(matrix.ids), np.array(matrix.codes))
    query = np.random.default_rng(os.getpid()).standard_normal((1, dimension)).astype(np.float32)
    with limited(1):
        matrix.search(query, K)
        began = time.perf_counter()
        matrix.search(query, K)
        took = time.perf_counter() - began
    time.sleep(max(2.0, 4 * took))  # until the others have theirs in memory too
    sizes = {"Rss": 0.0, "Pss": 0.0}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in sizes:
            sizes[name] = int(rest.split()[0]) / 1000
    time.sleep(2.0)
    return sizes["Rss"], sizes["Pss"], 1e3 * took


if __name__ == "__main__":
    main()
