"""Longitude and latitude to S2 leaf ids: `geofix.spatial.s2.cell_at` against a loop over s2geometry.

`s2geometry`, the official library's own Python binding, is a dependency of geofix (coverings and polygons
come from it). Its loop runs over fewer points and is extrapolated; ids of those points are compared one by
one.

    .venv/bin/python benchmarks/s2_ids.py
    .venv/bin/python benchmarks/s2_ids.py --points 1000000 --repeats 3
"""

from __future__ import annotations

import os
from importlib.metadata import version

import numpy as np
import s2geometry
from _bench import Goal, Times, arguments, finish, in_turns, say, table

from geofix.spatial import s2


def library_loop(lon: list[float], lat: list[float]) -> list[int]:
    """Ids by the library, as unsigned integers."""
    cell, place = s2geometry.S2CellId, s2geometry.S2LatLng.FromDegrees
    return [cell(place(y, x)).id() for x, y in zip(lon, lat, strict=True)]


def main() -> None:
    parser = arguments(__doc__, repeats=5)
    parser.add_argument("--points", type=int, default=10_000_000)
    parser.add_argument("--loop", type=int, default=100_000, help="Points of the library's loop.")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    rng = np.random.default_rng(1)
    lon = rng.uniform(-180, 180, options.points)
    lat = np.degrees(np.arcsin(rng.uniform(-1, 1, options.points)))
    few = min(options.loop, options.points)
    lon_list, lat_list = lon[:few].tolist(), lat[:few].tolist()
    expected = np.array(library_loop(lon_list, lat_list), np.uint64).view(np.int64)
    differ = int((s2.cell_at(lon[:few], lat[:few], threads=2) != expected).sum())
    ways = {
        f"s2geometry {version('s2geometry')}, loop over {few:,}": lambda: library_loop(lon_list, lat_list),
        "cell_at, 1 thread": lambda: s2.cell_at(lon, lat),
        "cell_at, 2 threads": lambda: s2.cell_at(lon, lat, threads=2),
    }
    times = in_turns(ways, options.repeats)
    loop, one, two = times.values()

    def nanoseconds(found: Times, count: int) -> tuple[str, str, str]:
        least = 1e9 * min(found.processor) / count
        return found.spread(), f"{1e9 * found.median / count:,.0f} ns", f"{least:,.0f} ns"

    counts = (few, options.points, options.points)
    rows = [(name, *nanoseconds(found, n)) for (name, found), n in zip(times.items(), counts, strict=True)]
    say(f"{options.points:,} points spread over the sphere; ids of {few:,} compared: {differ} differ")
    table(rows, ("way", "wall, median", "a point", "processor time a point, least"))
    whole = loop.median / few * options.points
    processor = min(loop.processor) / few / (min(one.processor) / options.points)
    say(f"\nloop over all {options.points:,}, extrapolated: {whole:,.1f} s")
    say(f"by processor time alone, one thread is {processor:.1f} x the loop's speed")
    goals = [
        Goal("loop / cell_at on one thread", whole / one.median, 15.0),
        Goal("loop / cell_at on two threads", whole / two.median, 25.0),
        Goal("ids that differ", differ, 0, "ids", False),
    ]
    figures = {"points": options.points, "loop_points": few, "times": times, "processor_ratio": processor}
    finish("s2_ids", goals, options.json.resolve() if options.json else None, load, figures)


if __name__ == "__main__":
    main()
