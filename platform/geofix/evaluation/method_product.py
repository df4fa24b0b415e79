"""The main row of the method's table as what is shipped: the command that builds its codes."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, get_args

from geofix.codes.plan import Upsample
from geofix.evaluation.method_rows import Row

DEFAULT = "bilinear"  # what `codes build` does unless told


def product_of(
    main: Row,
    fits: dict[str, Any],
    model: str,
    snapshot: Path,
    datasets: list[str] | None,
    *,
    frozen: bool,
    refused: bool = False,
) -> dict[str, Any]:
    """Which code set the main row is.

    Args:
        main: The row.
        fits: What was fitted for it: `upsampling` of a hybrid.
        model: Whose codes they are.
        snapshot: The directory that judged.
        datasets: Only aerial tiles of these.
        frozen: The prototypes are not those of the model.
        refused: `codes build` fits nothing on this snapshot, whose photos the model may have learned.

    Returns:
        `command` (None where no option of `codes build` makes the row), `upsample` (None where codes are the
        same either way), `default` (whether the command does the same without that option).
    """
    recipe, upsample = _recipe(main, fits)
    if recipe is None or ((frozen or refused) and recipe in ("prototype", "hybrid")):
        return {"command": None, "upsample": upsample, "default": False}
    words = ["geofix", "codes", "build", "--model", model, "--code-set", f"{model}-l{main.level}"]
    words += ["--recipe", recipe, "--level", str(main.level), "--snapshot", str(snapshot)]
    if upsample is not None:
        words += ["--upsample", upsample]
    for name in datasets or () if recipe in ("aerial", "hybrid") else ():
        words += ["--dataset", name]
    return {
        "command": shlex.join(words),
        "upsample": upsample,
        "default": upsample in (None, DEFAULT),
    }


def product_note(product: dict[str, Any], main: str, *, frozen: bool, refused: bool = False) -> str | None:
    """What a reader must know who builds codes without reading the command; None where there is nothing."""
    if product["command"] is None:
        why = "it is a baseline alone"
        if refused:
            why = "nothing is fitted on photos that the model may have learned"
        if frozen:
            why = "its prototypes are means of the snapshot's photos"
        return f"No option of `codes build` makes the row {main}: {why}."
    if product["default"]:
        return None
    return (
        f"The row {main} is what `codes build --upsample {product['upsample']}` makes. Without the option "
        f"codes are interpolated ({DEFAULT}): that code set is another row, {main}_{DEFAULT}."
    )


def _recipe(main: Row, fits: dict[str, Any]) -> tuple[str | None, str | None]:
    """Recipe and upsampling of a row that can be the main one."""
    if main.key == "hybrid":
        ways = fits.get("fusion", {})
        return "hybrid", fits.get("upsampling") if len(ways) == len(get_args(Upsample)) else None
    name, _, how = main.key.partition("_")
    if name == "prototype" and how in ("centres", DEFAULT):
        return "prototype", None if how == "centres" else how
    return (name, None) if main.key in ("aerial", "cellmean") else (None, None)
