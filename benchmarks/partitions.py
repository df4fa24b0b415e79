"""Partitions at real skew: time of a million points, a table of what each rule allows, and maps.

The table takes the real photo positions below GEOFIX_SHARED (default ../shared): classes of partitions made
from all of them, with bounds on the same photos; and bounds on three test sets of those made from the rest.

    .venv/bin/python benchmarks/partitions.py --million
    .venv/bin/python benchmarks/partitions.py --table
    .venv/bin/python benchmarks/partitions.py --means
    .venv/bin/python benchmarks/partitions.py --map docs/images/partitions.jpg
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from geofix.evaluation.bounds import ClassPositions, cell_bounds
from geofix.partitions.adaptive import nested_partitions
from geofix.partitions.administrative import administrative_partition
from geofix.partitions.combinatorial import combinatorial_partitions
from geofix.partitions.outlines import class_outlines
from geofix.partitions.overlay import intersect
from geofix.partitions.partition import Partition
from geofix.partitions.uniform import uniform_partition
from geofix.settings import Settings
from geofix.spatial import s2
from geofix.spatial.distance import great_circle_m

Floats = NDArray[np.float64]
TEST_SETS = ("im2gps", "im2gps3k", "yfcc25600")
COUNTRIES = "ne_50m_admin_0_countries.geojson"
RADII = (1.0, 25.0, 200.0, 750.0, 2500.0)


def data() -> Path:
    folder = Settings().shared
    return (folder if folder.is_absolute() else Path(__file__).resolve().parents[1] / folder) / "data"


def points(file: str) -> tuple[Floats, Floats, pd.DataFrame]:
    frame = pd.read_parquet(data() / "points" / file)
    return frame["lon_e6"].to_numpy() / 1e6, frame["lat_e6"].to_numpy() / 1e6, frame


def timed(what: str, make: Callable[[], Any]) -> Any:
    wall, cpu = time.perf_counter(), time.process_time()
    made = make()
    print(f"| {what} | {time.perf_counter() - wall:.1f} s | {time.process_time() - cpu:.1f} s |", flush=True)
    return made


def million() -> None:
    lon, lat, _ = points("places_1M.parquet")
    print(f"{lon.size:,} real places\n\n| what | wall | processor |\n| --- | --- | --- |")
    timed("uniform, level 10", lambda: uniform_partition("u", lon, lat, level=10))
    fine = timed("adaptive, three nested (50; 5000, 2000, 1000)", lambda: nested_partitions("a", lon, lat))[
        -1
    ]
    sets, regions = timed(
        "combinatorial, 5 sets of about 1,000 classes and their intersection",
        lambda: combinatorial_partitions("c", lon, lat, classes=1000),
    )
    timed(
        f"... intersected with the {len(fine):,} adaptive cells too",
        lambda: intersect("c6", [*sets, fine], lon, lat),
    )
    timed(f"class of every place: {len(fine):,} adaptive cells", lambda: fine.assign(lon, lat))
    timed(f"... {len(regions):,} regions of {len(regions.cells):,} cells", lambda: regions.assign(lon, lat))
    timed("polygons of the adaptive cells", lambda: class_outlines(fine))


def country_areas() -> dict[str, shapely.Geometry]:
    """Polygon of each country."""
    frame = gpd.read_file(data() / "boundaries" / COUNTRIES)
    column = next(name for name in ("ADM0_A3", "adm0_a3", "iso_a3", "name") if name in frame)
    return dict(zip(frame[column], shapely.make_valid(frame.geometry.to_numpy()), strict=True))


def country_codes(lon: Floats, lat: Floats) -> NDArray[np.object_]:
    """Country of each position by polygon, None outside all."""
    areas = country_areas()
    area, point = shapely.STRtree(shapely.points(lon, lat)).query(
        np.array(list(areas.values())), predicate="intersects"
    )
    out = np.full(len(lon), None, dtype=object)
    out[point] = np.array(list(areas), dtype=object)[area]
    return out


def rules(lon: Floats, lat: Floats) -> list[tuple[str, Partition]]:
    nested = nested_partitions("a", lon, lat)
    small = nested_partitions("s", lon, lat, tau_min=5, tau_max=(100,))[0]
    sets, regions = combinatorial_partitions("c", lon, lat, classes=500)
    codes = country_codes(lon, lat)
    return [
        *((f"uniform, level {n}", uniform_partition("u", lon, lat, level=n)) for n in (4, 6, 8, 10)),
        *((f"adaptive 50 / {p.parameters['tau_max']}", p) for p in nested),
        ("adaptive 5 / 100", small),
        ("combinatorial, one set of five", sets[0]),
        ("combinatorial, intersection of five", regions),
        ("... and of adaptive 5 / 100", intersect("c6", [*sets, small], lon, lat)),
        ("administrative: country", administrative_partition("n", codes, lon, lat, level="country")),
    ]


def share(row: dict[str, Any]) -> str:
    return " / ".join(f"{row['accuracy_km'][f'{radius:g}']:.1f}" for radius in RADII)


def bounds(made: Partition, lon: Floats, lat: Floats) -> list[str]:
    """Percent inside; cell centre, class mean and nearest mean, each within 1 / 25 / 200 / 750 / 2,500 km."""
    own = made.assign_codes(country_codes(lon, lat)) if made.codes is not None else made.assign(lon, lat)
    found = cell_bounds(lon, lat, ClassPositions(made.lon, made.lat, made.photos), own=own)
    center = "-"
    if made.one_cell_each:
        places = ClassPositions(*s2.center(made.class_cells()))
        center = share(cell_bounds(lon, lat, places, own=own)["true_cell"])
    return [f"{100 * (own >= 0).mean():.1f}", center, share(found["true_cell"]), share(found["nearest_mean"])]


def table() -> None:
    lon, lat, frame = points("photo_points.parquet")
    tested = frame["set"].isin(TEST_SETS).to_numpy()
    whole = np.ones(len(lon), bool)
    for train, judged, title in (
        (whole, whole, f"made from all {len(lon):,}, judged on the same"),
        (
            ~tested,
            tested,
            f"made from {(~tested).sum():,}, judged on {tested.sum():,}: {', '.join(TEST_SETS)}",
        ),
    ):
        head = "rule | classes | levels | fullest | inside | cell centre | class mean | nearest mean"
        print(f"\n{title}\n\n| {head} |\n|" + " --- |" * 8)
        for name, made in rules(lon[train], lat[train]):
            levels = s2.level(made.cells) if len(made.cells) else None
            span = "-" if levels is None else f"{levels.min()} to {levels.max()}"
            figures = bounds(made, lon[judged], lat[judged])
            row = [name, f"{len(made):,}", span, f"{made.photos.max():,}", *figures]
            print(f"| {' | '.join(row)} |", flush=True)


def means() -> None:
    """How far the mean latitude and longitude of a class, as published, lies from its mean on the sphere."""
    lon, lat, _ = points("photo_points.parquet")
    both = [nested_partitions("a", lon, lat, position=kind) for kind in ("sphere", "degrees")]
    for sphere, degrees in zip(*both, strict=True):
        km = great_circle_m(sphere.lon, sphere.lat, degrees.lon, degrees.lat) / 1000
        photos = sphere.parameters["tau_max"]
        print(f"tau_max {photos}: median {np.median(km):.2f} km, most {km.max():,.0f} km")


def drawn_rules(lon: Floats, lat: Floats) -> list[tuple[str, Partition, NDArray[np.object_]]]:
    """One partition of each kind, and its classes as polygons."""
    uniform = uniform_partition("u", lon, lat, level=6)
    small = nested_partitions("s", lon, lat, tau_min=5, tau_max=(100,))[0]
    _, regions = combinatorial_partitions("c", lon, lat, classes=500)
    countries = administrative_partition("n", country_codes(lon, lat), lon, lat, level="country")
    areas = country_areas()
    return [
        ("uniform, level 6", uniform, class_outlines(uniform)),
        ("adaptive, 5 to 100 photos", small, class_outlines(small)),
        ("combinatorial, intersection of five sets", regions, class_outlines(regions)),
        ("administrative: country", countries, np.array([areas[code] for code in countries.codes or ()])),
    ]


def draw(file: Path) -> None:
    """A partition of each kind of the real positions by photos per km2: the world, and Europe."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    lon, lat, _ = points("photo_points.parquet")
    coasts = gpd.read_file(data() / "boundaries" / "ne_110m_admin_0_countries.geojson")
    made = drawn_rules(lon, lat)
    figure = Figure(figsize=(13, 3.7 * len(made)), layout="constrained")
    boxes = ((-180, 180, -60, 80), (-12, 30, 35, 60))
    grid = figure.subplots(len(made), 2, width_ratios=(1.7, 1))
    for row, (name, partition, outlines) in zip(grid, made, strict=True):
        shapes, owner = shapely.get_parts(outlines, return_index=True)
        rings = [shapely.get_coordinates(shapely.get_exterior_ring(shape)) for shape in shapes]
        km2 = gpd.GeoSeries(outlines, crs=4326).to_crs(6933).area.to_numpy() / 1e6  # equal-area
        density = partition.photos / np.maximum(km2, 1e-6)
        for axes, box in zip(row, boxes, strict=True):
            coasts.boundary.plot(ax=axes, color="#b0b0b0", linewidth=0.5)
            cells = PolyCollection(
                rings,
                array=density[owner],
                norm=LogNorm(1e-5, 1e2),
                cmap="viridis",
                edgecolor="#303030",
                linewidth=0.25,
                alpha=0.85,
            )
            axes.add_collection(cells)
            axes.set(xlim=box[:2], ylim=box[2:], aspect=1 / np.cos(np.deg2rad((box[2] + box[3]) / 2)))
            axes.set(xlabel="longitude, degrees", ylabel="latitude, degrees")
        row[0].set_title(f"{name}: {len(partition):,} classes", loc="left")
    figure.colorbar(cells, ax=grid, label="photos per km²", shrink=0.4)
    figure.suptitle(f"Partitions of {len(lon):,} real photo positions")
    figure.savefig(file, dpi=80, pil_kwargs={"quality": 72, "optimize": True})
    print(f"{file}: {file.stat().st_size / 1000:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--million", action="store_true", help="time partitions of 1,000,000 places")
    parser.add_argument("--table", action="store_true", help="classes and bounds per rule")
    parser.add_argument("--means", action="store_true", help="mean on the sphere against mean of degrees")
    parser.add_argument("--map", type=Path, help="file to draw a partition of each kind to")
    asked = parser.parse_args()
    if asked.million:
        million()
    if asked.table:
        table()
    if asked.means:
        means()
    if asked.map is not None:
        draw(asked.map)
    if not (asked.million or asked.table or asked.means or asked.map):
        parser.error("give --million, --table, --means or --map FILE")


if __name__ == "__main__":
    main()
