"""Values of an analyst's answer as text, as JSON and as shapes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geofix.errors import UsageError

WGS84 = 4326


def as_json(value: Any) -> Any:
    """A value as JSON can hold it; what JSON has no kind for becomes text, NaN and infinity null."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return str(value)


def as_text(value: Any) -> str:
    """A value as a field of a text file: null is empty, booleans are true and false, documents are JSON."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | Decimal | float):
        return str(value)
    shown = as_json(value)
    return shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)


def shapes(values: Sequence[str | None], column: str) -> NDArray[np.object_]:
    """Shapes (n,) from hexadecimal EWKB; null stays None.

    Raises:
        UsageError: A shape is of a kind that the file formats do not have, such as a curve.
    """
    packed = np.array([None if value is None else bytes.fromhex(value) for value in values], object)
    try:
        found = np.asarray(shapely.from_wkb(packed), object)
        curved = bool((shapely.get_type_id(found) > shapely.GeometryType.GEOMETRYCOLLECTION).any())
    except (shapely.errors.ShapelyError, NotImplementedError, ValueError):
        curved = True  # this shapely cannot even read curves
    if curved:
        raise UsageError(
            f"Column {column} holds a curve, which the file formats do not have.",
            hint=f"Ask for ST_CurveToLine({column}).",
        )
    return found


def srid(found: NDArray[np.object_], column: str) -> int:
    """The one spatial reference of all shapes of a column; shapes that name none count as EPSG:4326.

    Raises:
        UsageError: They have several.
    """
    present = found[~shapely.is_missing(found)]
    numbers = {int(item) or WGS84 for item in np.unique(shapely.get_srid(present))}
    if len(numbers) > 1:
        raise UsageError(
            f"Column {column} mixes the spatial references {sorted(numbers)}.",
            hint=f"Ask for ST_Transform({column}, {WGS84}).",
        )
    return numbers.pop() if numbers else WGS84


def as_wkt(values: Sequence[str | None], column: str, *, digits: int = 7) -> list[str | None]:
    """Shapes as WKT with `digits` decimals: 7 decimals of a degree are 11 mm."""
    found = shapes(values, column)
    texts = shapely.to_wkt(found, rounding_precision=digits)
    return [None if text is None else str(text) for text in texts]
