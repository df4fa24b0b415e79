"""Rows of the method's table that stand for the parts of a hybrid, whatever the level of its prototypes."""

from __future__ import annotations

from collections.abc import Mapping

PARTS = {
    "prototypes": ("prototype_bilinear", "prototype_centres"),  # bilinear where they are coarser than codes
    "prototypes alone": ("prototype_alone_bilinear", "prototype_alone_centres"),
    "aerial": ("aerial",),
    "cellmean": ("cellmean",),
    "knn": ("knn",),
}


def parts_of(rows: Mapping[str, float]) -> dict[str, float]:
    """By name of a part the figure of the first row that there is."""
    found = {name: next((rows[key] for key in keys if key in rows), None) for name, keys in PARTS.items()}
    return {name: value for name, value in found.items() if value is not None}
