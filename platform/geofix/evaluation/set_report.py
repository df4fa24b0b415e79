"""The table of a photo set as Markdown, and as rows for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from geofix.evaluation.metrics import key
from geofix.evaluation.published import RADII_KM
from geofix.evaluation.set_table import Row, SetTable

MISSING = "–"
_MEASURES = {"median km": "median_km", "mean km": "mean_km", "GeoScore": "geoscore"}
_IN_SHORT = {
    "sphere, 6371.0 km": "R = 6371",
    "sphere, 6378.137 km": "R = 6378.137",
    "WGS 84 geodesic": "WGS 84",
}


def columns(rows: Sequence[Row]) -> list[str]:
    """Headings: of the measures that a section has, and of what it says of itself."""
    measures = [name for name, attribute in _MEASURES.items() if any(getattr(r, attribute) for r in rows)]
    year = ["year"] if any(row.year for row in rows) else []
    note = ["note"] if any(row.note for row in rows) else []
    radii = [f"{key(radius)} km" for radius in RADII_KM]
    return ["system", *year, "n", *radii, *measures, "protocol", "source", *note]


def cells(row: Row, headings: Sequence[str]) -> list[str]:
    """A row under these headings; what is not known is a dash."""
    shares = {f"{key(r)} km": share(value) for r, value in zip(RADII_KM, row.accuracy_km, strict=True)}
    texts = {
        "system": row.system,
        "year": MISSING if row.year is None else str(row.year),
        "n": MISSING if row.n is None else f"{row.n:,}",
        **shares,
        "median km": _number(row.median_km),
        "mean km": _number(row.mean_km),
        "GeoScore": MISSING if row.geoscore is None else f"{row.geoscore:,.0f}",
        "protocol": protocol_text(row.protocol),
        "source": row.source,
        "note": row.note,
    }
    return [texts[name] for name in headings]


def share(value: float | None) -> str:
    """A percentage: two decimals where a source gives two, else one; a dash where none is known."""
    if value is None:
        return MISSING
    return (
        f"{value:.1f}" if abs(value - round(value, 2)) > 1e-9 or value == round(value, 1) else f"{value:.2f}"
    )


def protocol_text(fields: Mapping[str, str | None]) -> str:
    """What is known of radius, comparison, missing policy and crops, in short; a dash where nothing is."""
    earth, missing, crops = (fields.get(name) for name in ("earth", "missing", "crops"))
    parts = [
        None if earth is None else _IN_SHORT.get(earth, earth),
        fields.get("comparison"),
        missing and f"missing {missing}",
        crops and f"crops: {crops}",
        "without the author's other photos" if fields.get("same_author") == "excluded" else None,
    ]
    return "; ".join(part for part in parts if part) or MISSING


def markdown(table: SetTable) -> str:
    """The whole table: a heading, one table per section, the sources of what is published."""
    known = table.photo_set
    facts = [f"{known.images:,} photos" if known.images else "", known.note]
    lines = [f"## {known.name}", ""]
    if shown := "; ".join(text for text in facts if text):
        lines += [f"{shown[0].upper()}{shown[1:]}.", ""]
    lines += ["Percent of photos within each distance; a dash stands for what is not known.", ""]
    for title, rows in table.sections():
        headings = columns(rows)
        lines += [f"### {title}", "", _line(headings), _line(["---"] * len(headings))]
        lines += [_line(cells(row, headings)) for row in rows]
        lines.append("")
    if table.sources:
        lines += ["Sources:", "", *(f"- {tag}: {title}" for tag, title in table.sources.items()), ""]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    if value is None:
        return MISSING
    return f"{value:,.3f}" if value < 10 else f"{value:,.1f}"


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"
