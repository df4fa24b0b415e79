"""What is settled about a code set before the first of its codes is made: plain values, sent with jobs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Recipe = Literal["cellmean", "aerial", "prototype", "hybrid"]
Upsample = Literal["copy", "bilinear"]


@dataclass(frozen=True)
class Plan:
    """All that the code of a cell depends on beside the vectors stored for it.

    Attributes:
        model_id: Whose vectors; by its key, for a name may pass to another model.
        recipe: See `geofix.codes.build`.
        level: S2 level of the cells.
        snapshot_id: Whose training photos; kept with the code set.
        upsample: How prototypes come down to finer cells.
        datasets: Only aerial tiles of these; None takes all.
        newest_tile: The last tile that takes part; what is registered later does not.
        cells: How many there are.
        pictures: Photos and tiles that they are made of.
        dimension: D + 2.
        norm: M.
        kappa: Weight of the prototype, of a hybrid.
        bias_no_prototype: Added to the score of a cell without prototype.
        bias_no_aerial: Likewise without a tile.
        temperature: T, where it was fitted.
        config: Kept with the code set.
    """

    model_id: int
    recipe: Recipe
    level: int
    snapshot_id: int | None
    upsample: Upsample
    datasets: list[str] | None
    newest_tile: int | None
    cells: int
    pictures: int
    dimension: int
    norm: float = 1.0
    kappa: float | None = None
    bias_no_prototype: float = 0.0
    bias_no_aerial: float = 0.0
    temperature: float | None = None
    config: dict[str, Any] = field(default_factory=dict)
