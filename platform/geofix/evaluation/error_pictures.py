"""Errors as people see them: each photo beside what the answered place and its own place look like."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

from geofix.database.engine import Connection
from geofix.database.queries import error_pictures as queries
from geofix.database.queries.evaluations import find_evaluation
from geofix.errors import BadInputError, GeofixError, UsageError
from geofix.imagery.photo import decode_photo_at
from geofix.log import progress

Pick = Literal["worst", "best", "spread"]
_MOST = 60
_HEIGHT_IN = 2.2


def draw_error_pictures(
    conn: Connection, evaluation: str, file: Path, *, pick: str = "worst", photos: int = 12
) -> dict[str, Any]:
    """Draw a sheet with one line per photo: the photo, the answer's neighbourhood, the truth's neighbourhood.

    Args:
        conn: Open connection.
        evaluation: Name of a stored evaluation.
        file: PNG, SVG or PDF; replaced.
        pick: `worst`, `best`, or `spread` over all errors in equal steps.
        photos: At most 60 lines.

    Returns:
        `file`, `evaluation`, `pick`, `photos`: per line the keys, error and distances in metres.

    Raises:
        NotFoundError: There is no such evaluation.
        UsageError: `pick` or `photos` is out of range.
        BadInputError: None of its photos has pixels.
    """
    if pick not in get_args(Pick):
        raise UsageError(f"pick is {pick!r}.", hint=f"Give one of {', '.join(get_args(Pick))}.")
    if not 1 <= photos <= _MOST:
        raise UsageError(f"{photos} photos on one sheet.", hint=f"Give 1 to {_MOST}.")
    found = find_evaluation(conn, evaluation)
    rows = queries.pictures(conn, evaluation, pick=pick, photos=photos)
    if not rows:
        raise BadInputError(
            f"No photo of evaluation {evaluation} has pixels.", hint="Only its map can be drawn."
        )
    median = found["metrics"].get("median_m")
    told = "" if median is None else f", median error {_metres(median)}"
    title = f"{evaluation}: {pick} {len(rows):,} of {rows[0]['photos']:,} photos{told}"
    _draw(rows, title, file)
    keys = (
        "photo_id",
        "source_key",
        "error_m",
        "probability",
        "answer_key",
        "answer_m",
        "truth_key",
        "truth_m",
    )
    lines = [{key: row[key] for key in keys} for row in rows]
    return {"file": str(file), "evaluation": evaluation, "pick": pick, "photos": lines}


def _draw(rows: list[dict[str, Any]], title: str, file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, _HEIGHT_IN * len(rows) + 0.9), dpi=100, layout="constrained")
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    grid = figure.subplots(len(rows), 3, squeeze=False)
    with progress("error pictures", total=len(rows), unit="photos") as advance:
        for axes, row in zip(grid, rows, strict=True):
            chance = "" if row["probability"] is None else f", probability {100 * row['probability']:.0f} %"
            wrong = "no answer" if row["error_m"] is None else f"error {_metres(row['error_m'])}"
            _picture(axes[0], row["uri"], f"the photo {row['source_key']}", wrong + chance)
            _picture(axes[1], row["answer_uri"], "nearest to the answer", _away(row["answer_m"]))
            _picture(axes[2], row["truth_uri"], "nearest to the truth", _away(row["truth_m"]))
            advance(1)
    credits = {f"{row['attribution'] or 'unknown'} ({row['licence'] or 'no licence stated'})" for row in rows}
    figure.supxlabel("Photos: " + "; ".join(sorted(credits)), fontsize=7, x=0.01, ha="left")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)


def _picture(axes: Any, uri: str | None, what: str, told: str) -> None:
    """One photo, or why there is none."""
    axes.set_axis_off()
    axes.set_title(f"{what}\n{told}", fontsize=8, loc="left")
    if uri is None:
        axes.text(0.5, 0.5, "none", ha="center", va="center", transform=axes.transAxes)
        return
    try:
        axes.imshow(decode_photo_at(uri, max_side=320))
    except GeofixError as error:
        axes.text(
            0.5, 0.5, error.message, ha="center", va="center", fontsize=6, wrap=True, transform=axes.transAxes
        )


def _metres(value: float) -> str:
    return f"{value / 1000:,.1f} km" if value >= 10_000 else f"{value:,.0f} m"


def _away(value: float | None) -> str:
    return "" if value is None else f"{_metres(value)} from it"
