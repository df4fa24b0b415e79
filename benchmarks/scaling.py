"""How search, index, size and memory grow with the number of codes, for D = 128, 256 and 512.

Every point is a private PostgreSQL's code set of made codes (benchmarks/_codes.py): loaded, indexed,
searched, measured and removed. Points that are in the folder's `points.json` are not measured again, so a
stopped run goes on where it was. What this machine cannot carry is left out, with the reason.

    .venv/bin/python benchmarks/scaling.py --keep /var/tmp/geofix-scale
    .venv/bin/python benchmarks/scaling.py --keep /var/tmp/geofix-scale --max-rows 10000000
    .venv/bin/python benchmarks/scaling.py --rows 10000 --dimensions 128 --no-docs

docs/scaling.md and docs/images/scaling.svg are written from the points; the text around the tables is that of
benchmarks/_scaling_page.py.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import _codes
import _scaling_page
from _bench import ROOT, arguments, say, server, shared_data, table
from _search import OURS, ask, memory, stored

from geofix.database.queries import codes as code_queries

M, EF = 16, 64
KEEP_FREE = 5_000_000_000  # bytes of disk that are left alone


def main() -> None:
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--rows", type=int, nargs="+", help="Sizes; default: 10^4 and every power of ten.")
    parser.add_argument("--max-rows", type=int, default=1_000_000, help="Largest size of the default.")
    parser.add_argument("--dimensions", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument(
        "--max-hours", type=float, default=6.0, help="A point expected to take longer is left."
    )
    parser.add_argument("--keep", type=Path, help="Folder of cluster and points, made or used again.")
    parser.add_argument("--docs", action=argparse_bool(), default=True, help="Write docs/scaling.md.")
    options = parser.parse_args()
    options.json = None if options.json is None else options.json.resolve()
    options.keep = None if options.keep is None else options.keep.resolve()
    data = shared_data()
    points = measure(options, data)
    show(points["points"])
    for item in points["stopped"]:
        say(f"not measured: {item['rows']:,} x {item['dimension']}: {item['reason']}")
    if options.docs:
        photos = _scaling_page.photo_densities(data)
        _scaling_page.write(points, photos, ROOT / "docs" / "scaling.md", ROOT / "docs/images/scaling.svg")
        say("docs/scaling.md and docs/images/scaling.svg are written")
    if options.json is not None:
        options.json.write_text(f"{json.dumps(points, indent=1)}\n")


def argparse_bool() -> Any:
    """`--docs` and `--no-docs`."""
    import argparse

    return argparse.BooleanOptionalAction


def measure(options: Any, data: Path) -> dict[str, Any]:
    """All points, old and new; new ones are written down one by one."""
    sizes = options.rows or [10**n for n in range(4, 9) if 10**n <= options.max_rows]
    with server(options.keep) as conn:
        folder = Path.cwd()
        file = folder / "points.json"
        known: dict[str, Any] = {"points": []}
        if file.exists():
            known = json.loads(file.read_text())
        known["stopped"] = []
        for rows in sizes:
            for dimension in options.dimensions:
                if find(known["points"], rows, dimension) is not None:
                    continue
                reason = too_large(rows, dimension, known["points"], folder, options.max_hours)
                if reason:
                    known["stopped"].append({"rows": rows, "dimension": dimension, "reason": reason})
                    continue
                known["points"].append(point(conn, rows, dimension, data, folder, options))
                file.write_text(f"{json.dumps(known, indent=1)}\n")
                show(known["points"][-1:])
        known["points"].sort(key=lambda item: (item["dimension"], item["rows"]))
        file.write_text(f"{json.dumps(known, indent=1)}\n")
    return known


def find(points: list[dict[str, Any]], rows: int, dimension: int) -> dict[str, Any] | None:
    """The point of a size."""
    same = [item for item in points if (item["rows"], item["dimension"]) == (rows, dimension)]
    return same[0] if same else None


def too_large(
    rows: int, dimension: int, points: list[dict[str, Any]], folder: Path, hours: float
) -> str | None:
    """Why this machine cannot carry a point, or None."""
    free = shutil.disk_usage(folder).free - KEEP_FREE
    disk = rows * dimension * 2 * 4 + 3_000_000_000  # matrix, table, index and the log of writing them
    if disk > free:
        return f"needs about {disk / 1e9:.0f} GB of disk, {free / 1e9:.0f} GB may be used"
    graph = memory(rows, dimension, M) + (1 << 30)
    held = int(next(x for x in Path("/proc/meminfo").read_text().splitlines() if "MemAvail" in x).split()[1])
    if graph > 0.9 * held * 1000:
        return f"the graph needs about {graph / 1e9:.0f} GB of memory, {held / 1e6:.0f} GB are free"
    smaller = [item for item in points if item["dimension"] == dimension and item["rows"] < rows]
    if smaller:
        last = max(smaller, key=lambda item: item["rows"])
        expected = 1.25 * (last["index_s"] + last["load_s"]) * rows / last["rows"] / 3600
        if expected > hours:
            return f"would take about {expected:.1f} h, {hours:g} h are allowed"
    return None


def point(conn: Any, rows: int, dimension: int, data: Path, folder: Path, options: Any) -> dict[str, Any]:
    """Load, index, search, remove."""
    load = os.getloadavg()[0]
    codes = _codes.made_codes(rows, dimension, data)
    matrix = codes.matrix(folder)
    queries = codes.queries(options.queries)
    exact, _ = matrix.search(queries, 10)
    with peak_memory(conn) as peak:
        held = stored(conn, codes, folder, m=M, ef=EF)
    sizes = conn.execute(
        "SELECT pg_total_relation_size(%s::regclass)", (_codes.leaf(held.code_set_id),)
    ).fetchone()
    ours = ask(conn, OURS, queries, name=held.name)
    ours()
    rounds = [ours() for _ in range(options.repeats)]
    times = sorted(second for seconds, _ in rounds for second in seconds)
    made = {
        "rows": rows,
        "dimension": dimension,
        **held.made,
        "total_bytes": int(sizes[0]),
        "matrix_bytes": int(matrix.codes.nbytes + matrix.ids.nbytes),
        "peak_bytes": peak[0],
        "recall": _codes.recall(rounds[-1][1], exact),
        "search_p50_ms": 1e3 * statistics.median(times),
        "search_p95_ms": 1e3 * times[int(0.95 * (len(times) - 1))],
        "matrix_1_ms": quick(lambda: matrix.search(queries[:1], 10), options.repeats),
        "matrix_64_ms": quick(lambda: matrix.search(queries[:64], 10), options.repeats),
        "load": [load, os.getloadavg()[0]],
        "machine": machine(),
        "date": date.today().isoformat(),
    }
    code_queries.drop_code_set(conn, code_queries.find_code_set(conn, held.name))
    conn.commit()
    (folder / f"{held.name}.json").unlink()
    shutil.rmtree(Path(matrix.codes.filename).parent)
    return made


def quick(search: Callable[[], Any], repeats: int) -> float:
    """Median milliseconds after one call that warms up."""
    search()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        search()
        seconds.append(time.perf_counter() - began)
    return 1e3 * statistics.median(seconds)


def machine() -> str:
    """Processor, cores and memory of this machine."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{model}, {os.cpu_count()} cores, {memory_gb:.0f} GB"


@contextmanager
def peak_memory(conn: Any) -> Iterator[list[int]]:
    """Largest sum of the proportional memory of the server's processes meanwhile, shared buffers included."""
    row = conn.execute("SELECT pg_backend_pid()").fetchone()
    postmaster = _parent(int(row[0]))
    conn.commit()
    peak, stop = [0], threading.Event()

    def look() -> None:
        while not stop.wait(0.5):
            pids = [int(item.name) for item in Path("/proc").iterdir() if item.name.isdigit()]
            peak[0] = max(peak[0], sum(_pss(pid) for pid in pids if _parent(pid) == postmaster))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return -1


def _pss(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1000
    except OSError:
        pass
    return 0


def show(points: list[dict[str, Any]]) -> None:
    """Points as a table."""
    table(_scaling_page.rows(points), _scaling_page.HEAD)


if __name__ == "__main__":
    main()
