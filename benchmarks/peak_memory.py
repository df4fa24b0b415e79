"""Peak memory of ingest and of embedding by number of photos: flat, or does it grow with the rows?

Every figure is the peak resident memory of a process of its own that does one thing. Ingest of positions
reads a CSV of so many rows; ingest of files reads a folder of tiny JPEGs with their metadata, checked in
worker processes; embedding takes photo rows that share a few tiny JPEGs through a small network. A private
PostgreSQL holds them.

    .venv/bin/python benchmarks/peak_memory.py
    .venv/bin/python benchmarks/peak_memory.py --rows 2000,20000 --files 200,800 --embed 500,2000
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from _bench import Goal, arguments, finish, say, server, shared_data, table

GROWTH_PERCENT = 5.0  # of the peak, from the second largest number to the largest
TRUNK, SIDE = "mobilenetv3_small_050", 32
PER_FOLDER = 1_000


def peak_mb(pid: int | str = "self") -> float:
    """Peak resident memory of a process; getrusage would count that of the parent it was forked from."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM:")), 0.0)


class Workers(threading.Thread):
    """Looks at this process's children until told to stop; keeps the largest peak."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.largest_mb, self.done = 0.0, threading.Event()

    def run(self) -> None:
        """Look ten times a second."""
        while not self.done.wait(0.1):
            for listed in Path("/proc/self/task").glob("*/children"):
                try:
                    pids = listed.read_text().split()
                except OSError:
                    continue
                self.largest_mb = max([self.largest_mb, *(peak_mb(pid) for pid in pids)])


def write_positions(path: Path, data: Path, count: int) -> None:
    import _spatial_data as made

    lon, lat, _ = made.positions(data, count)
    with path.open("w") as file:
        file.write("id,lon,lat\n")
        file.writelines(f"{i},{x:.6f},{y:.6f}\n" for i, (x, y) in enumerate(zip(lon, lat, strict=True)))


def write_files(folder: Path, count: int) -> None:
    """Tiny JPEGs, no two alike, a thousand to a folder, and a metadata file that names them."""
    from PIL import Image

    rng = np.random.default_rng(3)
    with (folder.parent / f"{folder.name}.csv").open("w") as table_file:
        table_file.write("image,lon,lat\n")
        for i in range(count):
            path = folder / f"{i // PER_FOLDER:04d}" / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8)).save(path)
            table_file.write(f"{path.relative_to(folder)},{i * 1e-4:.4f},50\n")


def ingest_positions(folder: Path, count: int) -> int:
    from geofix.database.engine import connect
    from geofix.ingest.photos import ingest_photos

    with connect() as conn:
        path = folder / f"{count}.csv"
        return ingest_photos(conn, path, dataset=f"positions {count}", positions_only=True).loaded


def ingest_files(folder: Path, count: int) -> int:
    from geofix.database.engine import connect
    from geofix.ingest.photos import ingest_photos

    with connect() as conn:
        root, metadata = folder / f"files{count}", folder / f"files{count}.csv"
        found = ingest_photos(conn, root, dataset=f"files {count}", metadata=metadata, workers=2)
        return found.loaded


def embed(folder: Path, count: int) -> int:
    """Rows are made by the server, so that this process holds what embedding holds."""
    from embedding import make_model

    from geofix.codes.embed_store import embed_all
    from geofix.database.engine import connect
    from geofix.models.encoder import EncoderConfig, build_encoder

    encoder = build_encoder(EncoderConfig(trunk=TRUNK, image_size=SIDE, dimension=64))
    with connect() as conn:
        model = make_model(conn, f"small {count}", encoder.dimension)
        found = embed_all(conn, model, "photos", datasets=[f"embed {count}"], batch_size=64, encoder=encoder)
        return found.embedded


TASKS = {
    "ingest of positions": ingest_positions,
    "ingest of files": ingest_files,
    "embedding": embed,
}
EMBED_ROWS = """
INSERT INTO photo_record (dataset_id, source_key, uri, s2_id, geom)
SELECT %(dataset)s, 'photo ' || i, %(folder)s || '/0000/' || i %% 50 || '.jpg', 2 * i + 1,
       ST_SetSRID(ST_MakePoint(i * 1e-5, 50), 4326)
FROM generate_series(1, %(count)s) AS i
"""


def prepare(conn: Any, folder: Path, task: str, count: int, data: Path) -> None:
    """Input of one figure, made outside the process that is measured."""
    from geofix.database.queries import photos

    if task == "ingest of positions":
        write_positions(folder / f"{count}.csv", data, count)
    elif task == "ingest of files":
        write_files(folder / f"files{count}", count)
    else:
        pictures = folder / "pictures"
        if not pictures.exists():
            write_files(pictures, 50)
        dataset = photos.ensure_dataset(
            conn, f"embed {count}", licence=None, attribution=None, source_uri=None
        )[0]
        conn.execute(EMBED_ROWS, {"dataset": dataset, "folder": str(pictures), "count": count})
        conn.execute("ANALYZE photo_record")
        conn.commit()


def child(task: str, folder: Path, count: int) -> None:
    """Do one thing; prints what it came to as JSON."""
    from geofix.log import configure

    configure("ERROR")
    workers = Workers()
    workers.start()
    began = time.perf_counter()
    done = TASKS[task](folder, count)
    seconds = time.perf_counter() - began
    workers.done.set()
    peaks = {"peak_mb": peak_mb(), "largest_worker_mb": workers.largest_mb}
    print(json.dumps({"count": count, "done": done, "seconds": seconds, **peaks}))


def figure(task: str, folder: Path, count: int, turn: int) -> dict[str, Any]:
    """The figures of a process of its own."""
    line = [sys.executable, str(Path(__file__).resolve()), "--child", task, "--folder", str(folder)]
    done = subprocess.run([*line, "--count", str(count)], check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if turn == 0 and found["done"] != count:  # a second ingest reads and compares all, and loads nothing
        sys.exit(f"{task}: {found['done']} of {count} were done\n{done.stderr}")
    return found


def numbers(text: str) -> list[int]:
    return sorted(int(part) for part in text.split(",") if part)


def main() -> None:
    parser = arguments(__doc__, repeats=1)
    parser.add_argument("--rows", type=numbers, default=[20_000, 100_000, 1_000_000], help="Of positions.")
    parser.add_argument("--files", type=numbers, default=[500, 2_000, 8_000], help="Of the folder.")
    parser.add_argument("--embed", type=numbers, default=[2_000, 10_000, 40_000], help="Photos embedded.")
    parser.add_argument("--child", choices=TASKS, help="Used by the script itself.")
    parser.add_argument("--folder", type=Path, help="Used by the script itself.")
    parser.add_argument("--count", type=int, help="Used by the script itself.")
    options = parser.parse_args()
    if options.child:
        child(options.child, options.folder, options.count)
        return
    json_file = options.json.resolve() if options.json else None
    data, load = shared_data(), os.getloadavg()[0]
    sizes = dict(zip(TASKS, (options.rows, options.files, options.embed), strict=True))
    found: dict[str, list[dict[str, Any]]] = {task: [] for task in TASKS}
    with tempfile.TemporaryDirectory(prefix="geofix-memory-") as name, server() as conn:
        folder = Path(name)
        for task, counts in sizes.items():
            for count in counts:
                prepare(conn, folder, task, count, data)
                runs = []
                for turn in range(options.repeats):
                    runs.append(figure(task, folder, count, turn))
                found[task].append(max(runs, key=lambda run: run["peak_mb"]))
                say(f"{task}, {count:,}: {found[task][-1]['peak_mb']:.0f} MB")
    report(found, json_file, load)


def report(found: dict[str, list[dict[str, Any]]], json_file: Path | None, load: float) -> None:
    """Table, goals and the file."""
    rows, goals = [], []
    for task, runs in found.items():
        for run in runs:
            worker = f"{run['largest_worker_mb']:.0f} MB" if run["largest_worker_mb"] > 1 else "-"
            took = f"{run['seconds']:.0f} s"
            rows.append((task, f"{run['count']:,}", f"{run['peak_mb']:.1f} MB", worker, took))
        if len(runs) > 1:
            before, last = runs[-2:]
            grown = last["peak_mb"] - before["peak_mb"]
            each = 1e6 * grown / (last["count"] - before["count"])
            what = f"{task}: growth from {before['count']:,} to {last['count']:,} ({each:,.0f} bytes a photo)"
            goals.append(Goal(what, 100 * grown / before["peak_mb"], GROWTH_PERCENT, "%", False))
    table(rows, ("what", "photos", "peak of the process", "peak of a worker", "wall"))
    finish("peak_memory", goals, json_file, load, {"runs": found})


if __name__ == "__main__":
    main()
