"""Pictures beside the method's table: recall of every row, reliability, curve of 'outside coverage'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

matplotlib.use("Agg")

_COLOURS = {"test_seen": "#0072b2", "test_unseen": "#d55e00", "mix": "#555555"}  # told apart by everyone


def draw_recall(file: Path, document: dict[str, Any], radius: str) -> None:
    """R@1 of every row with its interval, by split, best readable when printed."""
    rows = document["rows"]
    splits = [name for name in rows[0]["splits"] if name != "mix"]
    figure = Figure(figsize=(9, 0.34 * len(rows) + 1.4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for place, split in enumerate(splits):
        shift = 0.16 * (place - (len(splits) - 1) / 2)
        for i, row in enumerate(rows):
            value, bounds = (
                row["splits"][split]["recall"]["1"][radius],
                row["splits"][split]["interval"][radius],
            )
            if value is None:
                continue
            low, high = bounds or (value, value)
            axes.plot([low, high], [i + shift] * 2, color=_COLOURS.get(split, "#009e73"), linewidth=1.5)
            axes.plot(
                value,
                i + shift,
                "o",
                markersize=5 if row["role"] == "main" else 3.5,
                color=_COLOURS.get(split, "#009e73"),
                label=split if i == 0 else None,
            )
    axes.set_yticks(range(len(rows)), labels=[row["label"] for row in rows], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel(f"percent of photos answered within {radius} m (first answer, 95 % interval)")
    axes.legend(loc="lower right", fontsize=8)
    figure.savefig(file)


def draw_reliability(file: Path, confidence: dict[str, Any]) -> None:
    """Share of hits against confidence, before and after calibration, one panel per split."""
    splits = list(confidence["splits"])
    figure = Figure(figsize=(3.2 * len(splits) + 0.6, 3.6), dpi=120, layout="constrained")
    for i, split in enumerate(splits):
        axes = figure.add_subplot(1, len(splits), i + 1)
        axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
        for name, colour, marker in (("before", "#d55e00", "x"), ("after", "#0072b2", "o")):
            bins = confidence["splits"][split][name]["bins"]
            axes.plot(
                [item["confidence"] for item in bins],
                [item["hits"] for item in bins],
                color=colour,
                marker=marker,
                markersize=4,
                linewidth=1,
                label=f"{name}: ECE {confidence['splits'][split][name]['ece']:.1f} %",
            )
        axes.set_title(f"{split} (n = {confidence['splits'][split]['n']:,})", fontsize=9)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel(f"mass within {confidence['radius_m']:g} m of the answer", fontsize=8)
        axes.set_ylabel(f"truth within {confidence['radius_m']:g} m", fontsize=8)
        axes.legend(fontsize=7, loc="upper left")
    figure.savefig(file)


def draw_roc(file: Path, curves: dict[str, Any]) -> None:
    """Photos inside the coverage kept against photos outside it let through."""
    figure = Figure(figsize=(4.8, 4.4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 100], [0, 100], color="#999999", linewidth=0.8)
    for colour, (name, curve) in zip(
        ("#0072b2", "#d55e00", "#009e73", "#cc79a7"), curves.items(), strict=False
    ):
        label = f"{name}: AUC {curve['auc']:.3f} ({curve['outside']:,} photos)"
        axes.plot(curve["false_positive"], curve["true_positive"], color=colour, linewidth=1.4, label=label)
        point = curve["at_threshold"]
        axes.plot(point["false_positive"], point["true_positive"], "o", color=colour, markersize=5)
        point = curve["at_shipped"]
        axes.plot(point["false_positive"], point["true_positive"], "x", color=colour, markersize=6)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_xlabel("photos outside taken for covered, percent")
    axes.set_ylabel("covered photos kept, percent")
    axes.set_title(
        "'outside my coverage' by the best score; dots: fitted on val for this; crosses: as shipped",
        fontsize=8,
    )
    axes.legend(fontsize=7, loc="lower right")
    figure.savefig(file)
