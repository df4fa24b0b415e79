"""docs/scaling.md and its chart from the points that benchmarks/scaling.py has measured."""

# ruff: noqa: E501 -- a page of prose and tables

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from geofix.spatial import s2

HEAD = (
    "codes",
    "D",
    "load",
    "index",
    "peak memory",
    "table",
    "HNSW",
    "recall@10",
    "`search_cells` p50 / p95",
    "matrix, 1 / 64 queries",
)
CELL_KM2 = 510_065_622 / (6 * 4**16)  # mean of a level-16 cell on a sphere of 6,371.0 km
LAND_KM2 = 148_940_000
PAPER_CELLS = 25_000_000
STYLE = {128: ("#1b9e77", "o"), 256: ("#7570b3", "s"), 512: ("#d95f02", "^")}


@dataclass(frozen=True)
class Density:
    """Photos of a data set, and the level-16 cells that they stand in."""

    name: str
    photos: int
    cells: int


def rows(points: list[dict[str, Any]]) -> list[list[str]]:
    """Table rows of points."""
    return [
        [
            f"{item['rows']:,}",
            str(item["dimension"]),
            _time(item["load_s"]),
            _time(item["index_s"]),
            _size(item["peak_bytes"]),
            _size(item["table_bytes"]),
            _size(item["index_bytes"]),
            f"{item['recall']:.3f}",
            f"{item['search_p50_ms']:.1f} / {item['search_p95_ms']:.1f} ms",
            f"{item['matrix_1_ms']:,.1f} / {item['matrix_64_ms']:,.0f} ms",
        ]
        for item in points
    ]


def photo_densities(data: Path) -> list[Density]:
    """Real photo positions below GEOFIX_SHARED, by set; empty without them."""
    file = data / "points" / "photo_points.parquet"
    if not file.exists():
        return []
    frame = pd.read_parquet(file)
    lon, lat = frame["lon_e6"].to_numpy() / 1e6, frame["lat_e6"].to_numpy() / 1e6
    cells = s2.cell_at(lon, lat, 16)
    found = [Density("all real photo positions", len(cells), len(np.unique(cells)))]
    walk = data / "ground" / "wuhan_cn_walk" / "metadata.csv"
    if walk.exists():
        table = pd.read_csv(walk)
        names = {name.lower(): name for name in table.columns}
        if {"lon", "lat"} <= set(names):
            here = s2.cell_at(table[names["lon"]].to_numpy(), table[names["lat"]].to_numpy(), 16)
            found.append(Density("one phone walk, a frame a second", len(here), len(np.unique(here))))
    return found


def write(known: dict[str, Any], photos: list[Density], page: Path, chart: Path) -> None:
    """The page and the chart."""
    draw(known["points"], chart)
    page.write_text(text(known, photos))


def text(known: dict[str, Any], photos: list[Density]) -> str:
    """The page: what was measured, then what follows on paper."""
    points = known["points"]
    dates = sorted({item["date"] for item in points})
    machines = sorted({item["machine"] for item in points})
    loads = [value for item in points for value in item["load"]]
    stopped = [f"- {item['rows']:,} x {item['dimension']}: {item['reason']}" for item in known["stopped"]]
    left = "\n".join(["\nNot measured on this machine:\n", *stopped, ""]) if stopped else ""
    largest = max(item["rows"] for item in points)
    return f"""# Scaling

How search, index, size and memory grow with the number of codes. This page is written by `make bench-scale`
(`benchmarks/scaling.py`) from what it measured; the text is that of `benchmarks/_scaling_page.py`.

Measured {" to ".join(dict.fromkeys((dates[0], dates[-1])))} on {"; ".join(machines)}, load {
        min(loads):.1f} to {max(loads):.1f}
(the machine is shared: times are upper bounds, sizes are exact). Codes are made ones with the shape of real ones
(`benchmarks/_codes.py`: cells of level 16 at real places, intrinsic dimension about 15), D includes the two
numbers of the completion. HNSW with m = 16, ef_construction = 64 and one parallel worker; `search_cells` with its own ef_search of
100, k = 10, one client; the matrix is `geofix/codes/matrix.py`. Peak memory is that of the server's processes while they load and
build, its shared buffers included.

## Measured

{_table(HEAD, rows(points))}

![Search latency, index build time, index size and peak memory over the number of codes](images/scaling.svg)

Sizes, build times and exact search grow in proportion to the number of codes and nearly to D; the latency of `search_cells` hardly
grows. The largest size measured here is {largest:,}; `make bench-scale ROWS=10000000` goes on from there.
{
        f'''
Not measured on this machine:

{left}
'''
        if left
        else ""
    }
## Bytes per square kilometre, beside image retrieval

A level-16 cell has {CELL_KM2:.4f} km2 on the mean, so a code set that fills the land has {
        1 / CELL_KM2:.1f} codes per km2, however many
photos it was made of. Image retrieval keeps one vector of the same kind per photo, with the same index.

{
        _table(
            (
                "D",
                "bytes per vector",
                "code set, per km2",
                "retrieval, 100 photos per km2",
                "1,000 per km2",
                "3,000 per km2",
            ),
            _per_km2(points),
        )
    }

The ratio of the two is that of photos to cells, {
        1 / CELL_KM2:.1f} photos per km2 being the point where both are equal:
{_photo_text(photos)}
The 30 to 60 times that the paper on cell codes reports (its figures, not ours) need {30 / CELL_KM2:,.0f} to {
        60 / CELL_KM2:,.0f} photos per km2 at equal
dimension: city streets photographed every few metres. Where cells have codes from imagery alone and no photo at all, a code set is larger
than retrieval, and covers land that retrieval does not.

## On paper: 25,000,000 codes, and the world's land

From the largest point of each dimension, in proportion to the number of codes (a graph of HNSW costs a little more per code as it grows:
add a tenth per power of ten). 25,000,000 level-16 cells are 495,000 km2; the world's land is {
        LAND_KM2 / CELL_KM2 / 1e9:.1f} billion cells.

{
        _table(
            (
                "codes",
                "D",
                "table + keys",
                "HNSW",
                "memory to build in one piece",
                "build, this machine",
                "matrix of the workers",
            ),
            _on_paper(points),
        )
    }

What machines that takes, with PostgreSQL alone:

{_machines(points)}

A search everywhere asks every shard at once and waits for the slowest; a search inside a region asks those that its ranges touch. The
latency of a shard is that of its own size, measured above. On one host shards bring no speed: see [operations.md](operations.md) for
when to add what.
"""


def draw(points: list[dict[str, Any]], file: Path) -> None:
    """Four panels, both axes logarithmic, one line per dimension."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "geofix"
    import matplotlib.pyplot as plt

    panels: list[tuple[str, list[tuple[str, str]]]] = [
        ("search, p50 in ms", [("search_p50_ms", "-"), ("matrix_1_ms", ":")]),
        ("build of the index, s", [("index_s", "-")]),
        ("HNSW index, MB", [("index_bytes", "-")]),
        ("peak memory of the server, MB", [("peak_bytes", "-")]),
    ]
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.4), constrained_layout=True)
    for axis, (title, lines) in zip(axes.flat, panels, strict=True):
        for dimension in sorted({item["dimension"] for item in points}):
            own = [item for item in points if item["dimension"] == dimension]
            color, marker = STYLE.get(dimension, ("#666666", "d"))
            for name, style in lines:
                scale = 1e-6 if name.endswith("bytes") else 1.0
                label = f"D = {dimension}" + (", exact matrix" if name == "matrix_1_ms" else "")
                axis.plot(
                    [item["rows"] for item in own],
                    [scale * item[name] for item in own],
                    style,
                    color=color,
                    marker=marker,
                    label=label,
                )
        axis.set(xscale="log", yscale="log", xlabel="codes")
        axis.set_title(title, loc="left", fontsize=11)
        axis.grid(color="#dddddd", which="major")
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(fontsize=8, frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def _largest(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The largest point of each dimension."""
    dimensions = sorted({item["dimension"] for item in points})
    return [max((x for x in points if x["dimension"] == d), key=lambda x: x["rows"]) for d in dimensions]


def _per_km2(points: list[dict[str, Any]]) -> list[list[str]]:
    made = []
    for item in _largest(points):
        each = item["total_bytes"] / item["rows"]
        densities = [_size(each * photos) for photos in (100, 1_000, 3_000)]
        made.append([str(item["dimension"]), f"{each:,.0f}", _size(each / CELL_KM2), *densities])
    return made


def _photo_text(photos: list[Density]) -> str:
    lines = [
        f"- {item.name}: {item.photos:,} photos in {item.cells:,} cells, retrieval takes {item.photos / item.cells:.1f} x "
        "the bytes of codes for the same cells;"
        for item in photos
    ]
    lines.append(
        "- the built-in world of size `study`: 20,000 photos in 885 cells, 22.6 x; with a code for all 1,152 cells of imagery 17.4 x."
    )
    return "\n".join(["", *lines, ""])


def _on_paper(points: list[dict[str, Any]]) -> list[list[str]]:
    made = []
    for cells in (PAPER_CELLS, round(LAND_KM2 / CELL_KM2)):
        for item in _largest(points):
            times = cells / item["rows"]
            graph = 1.3 * cells * (2 * item["dimension"] + 8 * 32 * 1.1 + 64)
            made.append(
                [
                    f"{cells:,}",
                    str(item["dimension"]),
                    _size((item["total_bytes"] - item["index_bytes"]) * times),
                    _size(item["index_bytes"] * times),
                    _size(graph),
                    _time(item["index_s"] * times),
                    _size(item["matrix_bytes"] * times),
                ]
            )
    return made


def _machines(points: list[dict[str, Any]]) -> str:
    """Hosts for both sizes at D = 256 (or the nearest measured)."""
    item = min(_largest(points), key=lambda x: abs(x["dimension"] - 256))
    lines = []
    for cells, name in ((PAPER_CELLS, "25,000,000 codes"), (round(LAND_KM2 / CELL_KM2), "the world's land")):
        graph = 1.3 * cells * (2 * item["dimension"] + 8 * 32 * 1.1 + 64)
        index = item["index_bytes"] * cells / item["rows"]
        hosts = math.ceil(graph / 200e9)
        hours = item["index_s"] * cells / item["rows"] / 3600 / hosts
        lines.append(
            f"- **{name}**, D = {item['dimension']}: the index is {_size(index)} and wants to be in memory while it is built "
            f"({_size(graph)}) and searched. Hosts of 256 GB, 200 GB of it for the graph: **{hosts:,}**; each builds its part in about "
            f"{hours:,.0f} h at the speed of this machine's two cores, in proportion less with more. Workers that search exactly map "
            f"{_size(item['matrix_bytes'] * cells / item['rows'])} in all."
        )
    lines.append(
        "- Coarser is cheaper by four per level: the world's land at level 14 is a sixteenth of it. Land with neither photo nor tile has "
        "no code, and costs nothing."
    )
    return "\n".join(lines)


def _table(head: Any, body: list[list[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in body)])


def _size(count: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:,.0f} {unit}" if count >= 10 * size else f"{count / size:,.1f} {unit}"
    return f"{count:.0f} B"


def _time(seconds: float) -> str:
    if seconds >= 2 * 86400:
        return f"{seconds / 86400:,.0f} d"
    if seconds >= 2 * 3600:
        return f"{seconds / 3600:,.1f} h"
    return f"{seconds / 60:,.1f} min" if seconds >= 120 else f"{seconds:,.1f} s"
