"""The comparison of localizers as Markdown: overview, figures by split, bounds, differences, trainings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from geofix.evaluation.method_report import grid, number, range_text
from geofix.evaluation.metrics import key
from geofix.evaluation.protocols import EvaluationProtocol

Document = dict[str, Any]


def markdown_comparison(document: Document, pictures: Sequence[str]) -> str:
    """The whole report; pictures lie beside it."""
    lines = [f"# {document['name']}", "", *_head(document), *overview(document)]
    for split in document["splits"]:
        lines += _split(document, split)
    lines += _differences(document)
    lines += _trainings(document)
    for picture in pictures:
        lines += ["", f"![{picture}]({picture})"]
    return "\n".join(lines) + "\n"


def _head(document: Document) -> list[str]:
    budget = document["budget"]
    each = (
        f"{budget['photos']:,} photos seen"
        if "photos" in budget
        else f"{budget['minutes']:g} minutes of steps"
    )
    seeds = len(document["seeds"])
    said = (
        f"Snapshot {document['snapshot'][:12]}: {document['training_photos']:,} training photos. Every "
        f"training gets {each}, in whole epochs"
        + (f", with {seeds} seeds; figures are means over the seeds." if seeds > 1 else ".")
    )
    how = (
        "R@1 within X m: percent of photos whose first answer lies within X metres"
        f"{_counted(document.get('protocol'))}. Intervals: 95 % cluster "
        f"bootstrap, {document['replicates']:,} replicates, sequences (photos of held-out blocks: whole "
        "blocks) resampled. Area: what is stored of the place beside the encoder (codes, embeddings of "
        "photos, or layers and positions of classes)."
    )
    return [*([document["about"], ""] if document["about"] else []), said, "", how]


def _counted(protocol: dict[str, str] | None) -> str:
    """By which protocol, unless it is geofix's own."""
    if protocol is None or protocol["name"] == EvaluationProtocol.name:
        return ""
    return f" (protocol {protocol['name']}: {protocol['distance']}, {protocol['comparison']})"


def overview(document: Document) -> list[str]:
    """The table at the threshold."""
    radius = key(document["threshold_m"])
    head = ["localizer"]
    for name in document["splits"]:
        head += [f"{name} R@1 {radius} m", "95 %"]
    head += ["harmonic mean", "crops", "area kB", "encoder kB"]
    rows = [[*_recall(row, document, radius), *_sizes(row)] for row in document["rows"]]
    rows += [[*_recall(row, document, radius), "", "", ""] for row in document["bounds"]]
    counts = ", ".join(f"{name} {n:,}" for name, n in document["photos"].items())
    return ["", f"## R@1 within {radius} m (photos: {counts})", "", *grid(head, rows)]


def _recall(row: Document, document: Document, radius: str) -> list[str]:
    cells = [f"*{row['label']}*" if row["role"] == "bound" else _named(row, document)]
    for name in document["splits"]:
        split = row["splits"][name]
        cells += [number(split["recall"]["1"][radius]), range_text(split["interval"][radius])]
    return [*cells, number(row.get("harmonic_mean"))]


def _named(row: Document, document: Document) -> str:
    return f"**{row['label']}**" if row["key"] == document["best"] else str(row["label"])


def _sizes(row: Document) -> list[str]:
    return [
        str(row["crops"]),
        *(number(None if size is None else size / 1000) for size in (row["bytes"], row["encoder_bytes"])),
    ]


def _split(document: Document, split: str) -> list[str]:
    first = document["rows"][0]["splits"][split]
    metres, kilometres = list(first["recall"]["1"]), list(first["accuracy_km"])
    head = ["localizer", *(f"{radius} m" for radius in metres), *(f"{radius} km" for radius in kilometres)]
    head += ["R@10 " + f"{key(document['threshold_m'])} m", "median m", "mean km", "GeoScore", "answered"]
    rows = []
    for row in [*document["rows"], *document["bounds"]]:
        found = row["splits"][split]
        rows.append(
            [
                f"*{row['label']}*" if row["role"] == "bound" else _named(row, document),
                *(number(found["recall"]["1"][radius]) for radius in metres),
                *(number(found["accuracy_km"][radius]) for radius in kilometres),
                "" if row["role"] == "bound" else number(found["recall"]["10"][key(document["threshold_m"])]),
                number(found["median_m"], 0),
                number(found["mean_km"]),
                number(found["geoscore"], 0),
                number(found["answered"]),
            ]
        )
    title = f"## {split}: {document['photos'][split]:,} photos, {first['clusters']:,} clusters"
    return ["", title, "", "First answer; italics: bounds, not localizers.", "", *grid(head, rows)]


def _differences(document: Document) -> list[str]:
    labels = {row["key"]: row["label"] for row in document["rows"]}
    radius = key(document["threshold_m"])
    title = f"## {labels[document['best']]} minus the others, R@1 within {radius} m, points"
    note = "It is the best of the table on these very photos, which favours it."
    rows = [
        [
            labels[other],
            *(_points(document["differences"][split][other]) for split in document["splits"]),
        ]
        for other in labels
        if other != document["best"]
    ]
    return ["", title, "", note, "", *grid(["minus", *document["splits"]], rows)] if rows else []


def _points(found: Document | None) -> str:
    if found is None:
        return ""
    return f"{found['difference']:+.1f} ({found['low']:+.1f} to {found['high']:+.1f})"


def _trainings(document: Document) -> list[str]:
    head = ["model", "seed", "epochs", "steps", "photos seen", "seconds", "unreadable"]
    rows = [
        [
            item["model"],
            str(item["seed"]),
            *(number(item[name], 0) for name in ("epochs", "steps", "photos", "seconds")),
            str(item["unreadable"]),
        ]
        for item in document["trainings"]
    ]
    return ["", "## Trainings", "", *grid(head, rows)]
