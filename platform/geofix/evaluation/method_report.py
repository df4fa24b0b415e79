"""The method's table as Markdown: rows by split and group, differences, fits, confidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from geofix.evaluation.metrics import key

Document = dict[str, Any]


def markdown_report(document: Document, pictures: Sequence[str]) -> str:
    """The whole report.

    Args:
        document: As `geofix.evaluation.method.evaluate_method` returns it.
        pictures: File names of charts that lie beside the report.
    """
    lines = [f"# Method table: {document['name']}", "", *_head(document), *_overview(document)]
    for split in document["splits"]:
        lines += _split(document, split)
    lines += _differences(document)
    lines += _by(document)
    lines += _fits(document["fits"], document["main"], document["product"])
    if document["confidence"]:
        lines += _confidence(document["confidence"])
    for picture in pictures:
        lines += ["", f"![{picture}]({picture})"]
    return "\n".join(lines) + "\n"


def _head(document: Document) -> list[str]:
    cells = document["cells"]
    models = "; ".join(f"{role}: {name}" for role, name in document["models"].items())
    said = (
        f"Snapshot {document['snapshot'][:12]}; models {models}; {cells['searched']:,} searched cells of "
        f"level {document['level']} ({cells['km2']:,.1f} km2), {cells['with_prototype']:,} with a prototype, "
        f"{cells['with_aerial']:,} with a tile."
    )
    notes = [f"- {note}" for note in document["notes"]]
    return [
        said,
        "",
        "R@K within X m: percent of photos with one of the first K answers within X metres of where they "
        "were taken. All splits are searched over the same cells at one operating point fitted on `val`. "
        f"Intervals: 95 % cluster bootstrap, {document['replicates']:,} replicates, sequences (photos of "
        "held-out blocks: whole blocks) resampled.",
        *(["", *notes] if notes else []),
    ]


def _overview(document: Document) -> list[str]:
    radius = key(document["threshold_m"])
    names = document["splits"]
    head = ["row"]
    for name in names:
        head += [f"{name} R@1 {radius} m", "95 %"]
    head += ["harmonic mean", "kB per km2"]
    rows = []
    for row in document["rows"]:
        cells = [_named(row)]
        for name in names:
            split = row["splits"][name]
            cells += [number(split["recall"]["1"][radius]), range_text(split["interval"][radius])]
        size = row["bytes_per_km2"]
        rows.append([*cells, number(row["harmonic_mean"]), "" if size is None else f"{size / 1000:,.1f}"])
    counts = ", ".join(f"{name} {document['photos'][name]:,}" for name in names)
    title = f"R@1 within {radius} m (photos: {counts}; mix: all of them, as they come)"
    return ["", f"## {title}", "", *grid(head, rows)]


def _split(document: Document, split: str) -> list[str]:
    first = document["rows"][0]["splits"][split]["recall"]
    radii, ks = list(next(iter(first.values()))), list(first)
    head = ["row", *(f"R@{k} {radius} m" for k in ks for radius in radii), "median m", "answered"]
    rows = [
        [
            _named(row),
            *(number(row["splits"][split]["recall"][k][radius]) for k in ks for radius in radii),
            number(row["splits"][split]["median_m"], 0),
            number(row["splits"][split]["answered"]),
        ]
        for row in document["rows"]
    ]
    clusters = document["rows"][0]["splits"][split]["clusters"]
    title = f"## {split}: {document['photos'][split]:,} photos, {clusters:,} clusters"
    return ["", title, "", *grid(head, rows)]


def _differences(document: Document) -> list[str]:
    lines = [
        "",
        f"## {document['main']} minus the other rows, R@1, points",
        "",
        "Bold: the best part of that very split, chosen on the photos that judge, which favours the part.",
    ]
    for split, found in document["differences"].items():
        if not found:
            continue
        radii = list(found[0]["recall"])
        rows = [
            [
                f"**{item['row']}**" if item["best_part"] else item["row"],
                *(_difference(item["recall"][radius]) for radius in radii),
            ]
            for item in found
        ]
        lines += ["", f"### {split}", "", *grid(["minus", *(f"{radius} m" for radius in radii)], rows)]
    return lines


def _settlement(found: dict[str, Any]) -> str:
    if found["by"] == "regions":
        return f"regions of level `{found['level']}` (inside: urban)"
    low, high = found["per_km2"]
    return (
        f"photos of the snapshot per km2 of the surrounding L{found['level']} cell (thirds of the photos: "
        f"thin up to {low:,.1f}, dense above {high:,.1f}; a stand-in for rural and urban, which no region "
        "says)"
    )


def _by(document: Document) -> list[str]:
    radius = key(document["threshold_m"])
    lines = []
    groups = {
        f"photos of the cell (L{document['prototype_level']}) in the training set": "photos_per_cell",
        "country": "country",
        _settlement(document["settlement"]): "settlement",
    }
    for title, name in groups.items():
        lines += _grouped(
            document, f"R@1 within {radius} m by {title}, all photos", lambda row, n=name: row["by"][n]
        )
    for split in document["splits"]:
        if split == "mix":
            continue
        lines += _grouped(
            document,
            f"R@1 within {radius} m by metres to the nearest training photo, {split}",
            lambda row, s=split: row["by"]["training_distance"][s],
        )
    return lines


def _grouped(document: Document, title: str, pick: Any) -> list[str]:
    found = pick(document["rows"][0])
    if not found:
        return []
    head = ["row", *(f"{name} (n = {group['n']:,})" for name, group in found.items())]
    rows = [
        [
            _named(row),
            *(
                f"{number(group['recall'])} {range_text(group['interval'])}".strip()
                for group in pick(row).values()
            ),
        ]
        for row in document["rows"]
    ]
    return ["", f"## {title}", "", *grid(head, rows)]


def _fits(fits: dict[str, Any], main: str, product: dict[str, Any]) -> list[str]:
    lines = ["", "## Fitted on val"]
    recipes = [
        *((f"hybrid, {how}", fit) for how, fit in fits.get("fusion", {}).items()),
        *((item["recipe"], item) for item in fits.get("ablations", [])),
        *((("ensemble", fits["ensemble"]),) if "ensemble" in fits else ()),
    ]
    if recipes:
        head = ["fit", "kappa", "T", "bias without prototype", "bias without tile", "NLL", "photos"]
        names = ("kappa", "temperature", "bias_no_prototype", "bias_no_aerial", "nll")
        rows = [[name, *(f"{fit[n]:.4g}" for n in names), f"{fit['queries']:,}"] for name, fit in recipes]
        lines += ["", *grid(head, rows)]
    if "upsampling" in fits:
        shares = ", ".join(f"{how} {number(share)} %" for how, share in fits["upsampling_recall"].items())
        lines += ["", f"Prototypes by {fits['upsampling']}, by the photos of val that are found: {shares}."]
    if product["command"] is not None:
        lines += ["", f"The row {main} as a code set: `{product['command']}`"]
    if "refinement" in fits:
        found = fits["refinement"]
        tried = ", ".join(f"{t}: {metres:.1f} m" for t, metres in found["mean_capped_error_m"].items())
        lines += [
            "",
            f"Refinement at T = {found['temperature']:.4g}, the least mean capped error ({tried}).",
        ]
    return lines


def _confidence(confidence: dict[str, Any]) -> list[str]:
    radius = f"{confidence['radius_m']:g} m"
    head = ["split", "photos", "ECE before", "ECE after", "NLL before", "NLL after"]
    head += ["50 % region covers", "exact", "90 % region covers", "exact", "50 % km2", "90 % km2"]
    rows = []
    for split, found in confidence["splits"].items():
        regions = found["credible"]
        rows.append(
            [
                split,
                f"{found['n']:,}",
                *(number(found[name]["ece"], 2) for name in ("before", "after")),
                *(number(found[name]["nll"], 3) for name in ("before", "after")),
                *(
                    number(regions[mass][name])
                    for mass in ("50", "90")
                    for name in ("coverage", "coverage_exact")
                ),
                *(number(regions[mass]["median_km2"], 3) for mass in ("50", "90")),
            ]
        )
    lines = [
        "",
        f"## Confidence of {confidence['row']}",
        "",
        f"Event: the truth lies within {radius} of the answer; confidence: the mass within {radius} of it. "
        f"Before: T = {confidence['temperature_before']:g}; after: T = {confidence['temperature']:.4g}, "
        "fitted on val. NLL in nats over photos whose cell is searched; ECE and coverage in percent; areas "
        "are medians. A region takes whole cells until it holds its mass, so it covers more often than that; "
        "'exact' counts its last cell by the part that is needed, and should equal the mass.",
        "",
        *grid(head, rows),
    ]
    curves = confidence.get("outside", {}).get("curves")
    if curves:
        rows = [
            [
                name,
                f"{curve['inside']:,}",
                f"{curve['outside']:,}",
                number(curve["auc"], 3),
                number(curve["at_threshold"]["true_positive"]),
                number(curve["at_threshold"]["false_positive"]),
                number(curve["at_shipped"]["true_positive"]),
                number(curve["at_shipped"]["false_positive"]),
            ]
            for name, curve in curves.items()
        ]
        names = ["outside photos", "inside", "outside", "AUC", "inside kept", "outside let through"]
        names += ["as shipped: inside kept", "outside let through"]
        text = (
            "Outside my coverage: held-out blocks are taken out of the search, so that their photos lie "
            "outside; the best score tells, its threshold is fitted on val. As shipped: by the threshold "
            "that a code set is stored with and `geofix localize` uses, fitted on val with these blocks "
            f"searched ({_fitted(confidence['outside']['shipped'])})."
        )
        lines += ["", text, "", *grid(names, rows)]
    for note in confidence.get("notes", []):
        lines += ["", f"- {note}"]
    return lines


def _fitted(shipped: dict[str, Any]) -> str:
    if shipped["slope"] is None:
        return (
            f"all {shipped['fitted_inside']:,} lie in searched cells: the score that 5 % of them stay below"
        )
    return f"{shipped['fitted_inside']:,} in searched cells, {shipped['fitted_outside']:,} not"


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, numbers to the right."""
    line = ["---", *("---:" for _ in head[1:])]
    return ["| " + " | ".join(cells) + " |" for cells in [head, line, *rows]]


def number(value: float | None, digits: int = 1) -> str:
    """A figure, or nothing where there is none."""
    return "" if value is None else f"{value:,.{digits}f}"


def _named(row: Document) -> str:
    return f"**{row['label']}**" if row["role"] == "main" else str(row["label"])


def range_text(bounds: Sequence[float] | None) -> str:
    """An interval, or nothing where there is none."""
    return "" if bounds is None else f"({bounds[0]:.1f}–{bounds[1]:.1f})"


def _difference(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    return f"{found['difference']:+.1f} ({found['low']:+.1f} to {found['high']:+.1f})"
