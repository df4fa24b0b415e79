"""Pictures of a run: errors on the map, tiles on the map, photos by country. No display and no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import shapely
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

matplotlib.use("Agg")

_SCALE = "cividis"  # told apart by colour-blind readers too


def _figure(title: str, bounds: Sequence[float]) -> tuple[Figure, Any]:
    """A figure shaped like its area (west, south, east, north), in true proportion there."""
    west, south, east, north = bounds
    stretch = max(0.05, float(np.cos(np.radians((south + north) / 2))))
    shape = ((east - west) * stretch or 1e-6) / ((north - south) or 1e-6)
    width, height = (8.0, 8.0 / shape) if shape > 1 else (8.0 * shape, 8.0)
    figure = Figure(figsize=(max(5.0, width) + 1.6, max(3.5, height) + 1.2), dpi=120, layout="constrained")
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    axes = figure.add_subplot()
    axes.set_aspect(1 / stretch)
    margin_x, margin_y = 0.04 * (east - west) + 1e-6, 0.04 * (north - south) + 1e-6
    axes.set_xlim(west - margin_x, east + margin_x)
    axes.set_ylim(south - margin_y, north + margin_y)
    axes.set_xlabel("longitude, degrees")
    axes.set_ylabel("latitude, degrees")
    axes.ticklabel_format(useOffset=False)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.grid(alpha=0.25, linewidth=0.5)
    return figure, axes


def _scale_bar(axes: Any, lat: float) -> None:
    """A bar of a round number of metres, lower left; none on a map so wide that its scale is not one."""
    west, east = axes.get_xlim()
    if east - west > 40:
        return
    south, north = axes.get_ylim()
    metres_per_degree = 111_195 * np.cos(np.radians(lat))
    wanted = (east - west) * metres_per_degree / 4
    step = 10 ** np.floor(np.log10(wanted))
    metres = float(max(factor * step for factor in (1, 2, 5) if factor * step <= wanted))
    x, y = west + 0.05 * (east - west), south + 0.05 * (north - south)
    axes.plot([x, x + metres / metres_per_degree], [y, y], color="black", linewidth=3, solid_capstyle="butt")
    label = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
    axes.text(x, y + 0.012 * (north - south), label, fontsize=9)


def draw_errors(
    file: Path, lines: NDArray[np.float64], training: NDArray[np.float64], title: str, credit: str
) -> None:
    """Where photos were taken, where the answers lie, and the line between.

    Args:
        file: PNG to write.
        lines: (n, 5) true lon, lat, answered lon, lat, error in metres; NaN without an answer.
        training: (m, 2) lon, lat of training photos.
        title: Heading.
        credit: Attribution, under the map.
    """
    answered = ~np.isnan(lines[:, 2])
    points = np.concatenate([lines[:, :2], lines[answered, 2:4], training])
    figure, axes = _figure(title, (*points.min(axis=0), *points.max(axis=0)))
    if len(training):
        axes.scatter(
            *training.T, s=5, color="#bbbbbb", label=f"training photos ({len(training):,})", zorder=1
        )
    segments = lines[answered][:, :4].reshape(-1, 2, 2)
    colours = np.log10(np.maximum(lines[answered, 4], 1.0))
    drawn = LineCollection(list(segments), array=colours, cmap=_SCALE, linewidths=0.9, alpha=0.8, zorder=2)
    axes.add_collection(drawn)
    axes.scatter(*lines[:, :2].T, s=14, color="black", label=f"asked photos ({len(lines):,})", zorder=3)
    axes.scatter(*lines[answered, 2:4].T, s=16, marker="x", color="#d55e00", label="answers", zorder=3)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.8)
    ticks = [tick for tick in range(8) if colours.size and colours.min() <= tick <= colours.max()]
    bar.set_ticks(ticks, labels=[f"{10**tick:,} m" for tick in ticks])
    bar.set_label("error")
    _finish(figure, axes, file, float(np.mean(lines[:, 1])), credit)


def draw_cells(
    file: Path, outlines: Sequence[Any], values: NDArray[np.float64], title: str, label: str, credit: str
) -> None:
    """Cells coloured by a value.

    Args:
        file: PNG to write.
        outlines: (n,) shapely polygons in degrees.
        values: (n,) what colours them.
        title: Heading.
        label: Of the colour scale.
        credit: Attribution.
    """
    west, south, east, north = shapely.total_bounds(list(outlines))
    figure, axes = _figure(title, (west, south, east, north))
    rings = [np.asarray(part.exterior.coords) for shape in outlines for part in shapely.get_parts(shape)]
    repeated = np.repeat(values, [shapely.get_num_geometries(shape) for shape in outlines])
    drawn = PolyCollection(rings, array=repeated, cmap=_SCALE, edgecolors="white", linewidths=0.3)
    axes.add_collection(drawn)
    figure.colorbar(drawn, ax=axes, shrink=0.8, label=label)
    _finish(figure, axes, file, (south + north) / 2, credit)


def contact_sheet(
    file: Path, pictures: Sequence[tuple[str, NDArray[np.uint8]]], title: str, credit: str
) -> None:
    """Small pictures in rows with a line of text under each.

    Args:
        file: PNG to write.
        pictures: Text and (h, w, 3) RGB.
        title: Heading.
        credit: Attribution.
    """
    columns = min(6, max(1, len(pictures)))
    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(1.8 * columns, 2.05 * rows + 0.8), dpi=120, layout="constrained")
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    for i, (text, rgb) in enumerate(pictures):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.imshow(rgb)
        axes.set_title(text, fontsize=6)
        axes.set_axis_off()
    figure.supxlabel(credit, fontsize=6)
    figure.savefig(file, bbox_inches="tight")


def _finish(figure: Figure, axes: Any, file: Path, lat: float, credit: str) -> None:
    _scale_bar(axes, lat)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper right", fontsize=8)
    figure.supxlabel(credit, fontsize=6)
    figure.savefig(file, bbox_inches="tight")
