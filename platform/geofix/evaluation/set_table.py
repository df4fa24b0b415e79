"""One table per photo set: our own rows, people, bounds, published rows; never mixed, never sorted together.

Sections stay apart because their numbers do not compare to the point: a published row was counted by somebody
else, on other copies of the photos, often under a protocol that nobody wrote down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from geofix.database.engine import Connection
from geofix.database.queries import evaluations as queries
from geofix.errors import BadInputError, UsageError
from geofix.evaluation import checks
from geofix.evaluation.bounds import ClassPositions, bounds_of
from geofix.evaluation.external import evaluate_external
from geofix.evaluation.humans import HumanResult
from geofix.evaluation.metrics import key
from geofix.evaluation.photo_sets import PhotoSet, find_set, known_set, same_name
from geofix.evaluation.photo_tables import read_photo_table
from geofix.evaluation.protocols import EvaluationProtocol
from geofix.evaluation.published import RADII_KM, PublishedResult, published_results

# Section to its heading, in the order in which they are shown.
SECTIONS = {
    "own": "Measured by geofix",
    "humans": "People",
    "bounds": "Bounds of answering with positions of cells",
    "published": "Published by others, not run by geofix",
    "reruns": "Run again by others, not by geofix",
}
_BOUNDS = {
    "true_cell": "true cell",
    "nearest_mean": "nearest mean",
    "most_populated": "most populated cell",
}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        system: Name.
        n: Photos counted; None where a source does not say.
        accuracy_km: Percent within 1, 25, 200, 750, 2500 km, None where it is not known.
        protocol: earth, comparison, missing, crops, same_author; None where not known.
        source: An evaluation, a file, or the tag of a publication.
        median_km: Over answered photos.
        mean_km: Over answered photos.
        geoscore: 0 to 5000.
        year: Of a publication.
        note: What else to know.
    """

    system: str
    n: int | None
    accuracy_km: tuple[float | None, ...]
    protocol: dict[str, str | None]
    source: str
    median_km: float | None = None
    mean_km: float | None = None
    geoscore: float | None = None
    year: int | None = None
    note: str = ""


@dataclass
class SetTable:
    """The rows of one photo set, by section."""

    photo_set: PhotoSet
    own: list[Row] = field(default_factory=list)
    humans: list[Row] = field(default_factory=list)
    bounds: list[Row] = field(default_factory=list)
    published: list[Row] = field(default_factory=list)
    reruns: list[Row] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def sections(self) -> list[tuple[str, list[Row]]]:
        """Heading and rows of every section that has any."""
        return [(title, rows) for name, title in SECTIONS.items() if (rows := getattr(self, name))]

    def as_record(self) -> dict[str, Any]:
        """The table as JSON values."""
        record = {name: [asdict(row) for row in getattr(self, name)] for name in SECTIONS}
        return {
            "set": self.photo_set.name,
            "images": self.photo_set.images,
            "note": self.photo_set.note or None,
            "radii_km": list(RADII_KM),
            **record,
            "sources": self.sources,
            "warnings": self.warnings,
        }


def find_table(name: str, stored: Sequence[Mapping[str, Any]]) -> SetTable:
    """An empty table for a known set, or for a data set whose photos a stored evaluation asked.

    Raises:
        NotFoundError: Neither is so; the message lists those there are.
    """
    return SetTable(find_set(name, also=tuple(dict.fromkeys(s for row in stored for s in row["datasets"]))))


def add_stored(
    table: SetTable, stored: Sequence[Mapping[str, Any]], conn: Connection | None = None
) -> tuple[list[float], list[float]]:
    """Rows of the evaluations that asked photos of this set alone.

    Returns:
        Longitudes and latitudes of all photos asked, each once; empty without a connection.
    """
    places: dict[int, tuple[float, float]] = {}
    for row in stored:
        if not all(_is_of(table.photo_set, name) for name in row["datasets"]):
            continue
        table.own.append(_stored_row(table.photo_set, row))
        if conn is not None:
            truth = queries.read_truth(conn, row["evaluation_id"])
            places |= dict(zip(truth["photo_id"], zip(truth["lon"], truth["lat"], strict=True), strict=True))
    return [p[0] for p in places.values()], [p[1] for p in places.values()]


def add_predictions(
    table: SetTable,
    predictions: Mapping[str, Path],
    truth: Path,
    *,
    protocol: EvaluationProtocol,
    columns: Mapping[str, str] | None = None,
    check_axes: bool = True,
) -> None:
    """One row per file of predictions.

    Raises:
        BadInputError: A file cannot be used; see `evaluate_external`.
    """
    for name, path in predictions.items():
        found = evaluate_external(path, truth, columns=columns, protocol=protocol, check_axes=check_axes)
        table.warnings += [f"{name}: {text}" for text in found["warnings"]]
        table.own.append(
            Row(
                name,
                found["n"],
                _accuracy(found["accuracy_km"]),
                protocol_fields(protocol),
                path.name,
                found["median_km"],
                found["mean_km"],
                found["geoscore"],
                note=_short_of(table.photo_set, found["n"]),
            )
        )
    table.warnings += checks.copy_warnings(list(predictions.values()), columns)


def add_humans(table: SetTable, results: Sequence[HumanResult], protocol: EvaluationProtocol) -> None:
    """Rows of people: measured from their answers, or entered as shares."""
    for found in results:
        fields = protocol_fields(protocol) if found.measured else dict.fromkeys(protocol_fields(protocol))
        table.humans.append(
            Row(
                found.name,
                found.n,
                found.accuracy_km,
                fields,
                found.source,
                found.median_km,
                found.mean_km,
                found.geoscore,
                note=found.note,
            )
        )


def add_bounds(
    table: SetTable,
    lon: Sequence[float],
    lat: Sequence[float],
    partitions: Mapping[str, ClassPositions],
    protocol: EvaluationProtocol,
) -> None:
    """Rows of what answering with positions of cells can reach on photos at lon, lat in degrees.

    Raises:
        BadInputError: There is no photo.
    """
    if not len(lon):
        raise BadInputError(
            "Bounds need the positions of the photos.",
            hint="Give --truth, or a set whose evaluations are in the database.",
        )
    for classes in partitions.values():
        table.warnings += [text for text in classes.warnings if text not in table.warnings]
    rules = protocol_fields(protocol.with_missing("wrong")) | {"crops": None, "same_author": None}
    for name, bounds in bounds_of(lon, lat, partitions, protocol=protocol).items():
        for bound, found in bounds.items():
            outside = 100.0 - found["answered"]
            table.bounds.append(
                Row(
                    f"{_BOUNDS[bound]}, {name}",
                    found["n"],
                    _accuracy(found["accuracy_km"]),
                    rules,
                    name,
                    found["median_km"],
                    found["mean_km"],
                    found["geoscore"],
                    note=f"{outside:.2f} % of the photos lie outside every cell" if outside else "",
                )
            )


def add_published(table: SetTable) -> None:
    """Rows of the registry, in its order; reruns by others stand apart.

    Raises:
        UsageError: Nothing is published for this set.
    """
    found = published_results(table.photo_set.name) if known_set(table.photo_set.name) else []
    if not found:
        have = dict.fromkeys(row.test_set for row in published_results())
        raise UsageError(
            f"No published result is known for {table.photo_set.name}.",
            hint=f"There are some for: {', '.join(have)}.",
        )
    for result in found:
        (table.reruns if result.kind == "rerun" else table.published).append(_published_row(result))
        table.sources[result.source] = result.title


def positions_of(
    table: SetTable, truth: Path, columns: Mapping[str, str] | None = None, *, check_axes: bool = True
) -> tuple[list[float], list[float]]:
    """Longitudes and latitudes of a truth file; what is odd about it goes into the table's warnings.

    Raises:
        BadInputError: As `read_photo_table`.
    """
    known = {name: column for name, column in (columns or {}).items() if not name.startswith("pred_")}
    found = read_photo_table(truth, columns=known, check_axes=check_axes)
    table.warnings += [text for text in found.warnings if not any(t.endswith(text) for t in table.warnings)]
    return found.positions.lon.tolist(), found.positions.lat.tolist()


def protocol_fields(protocol: EvaluationProtocol) -> dict[str, str | None]:
    """What is shown of a protocol beside a row."""
    return {
        "earth": protocol.distance,
        "comparison": protocol.comparison,
        "missing": protocol.missing,
        "crops": protocol.crops,
        "same_author": protocol.same_author,
    }


def _stored_row(photo_set: PhotoSet, row: Mapping[str, Any]) -> Row:
    metrics = row["metrics"]
    median = metrics.get("median_m")
    return Row(
        row["evaluation"],
        metrics["n"],
        _accuracy(metrics["accuracy_km"]),
        protocol_fields(EvaluationProtocol.from_record(metrics["protocol"])),
        f"evaluation of {row['localizer']} on {row['split']}" + (f", {row['model']}" if row["model"] else ""),
        None if median is None else median / 1000.0,
        metrics.get("mean_km"),
        metrics.get("geoscore"),
        note=_short_of(photo_set, metrics["n"]),
    )


def _published_row(found: PublishedResult) -> Row:
    note = found.note or ("people" if found.kind == "human" else "")
    protocol = {**found.protocol(), "same_author": None}
    return Row(found.system, found.n, found.accuracy_km, protocol, found.source, year=found.year, note=note)


def _is_of(photo_set: PhotoSet, dataset: str) -> bool:
    return any(same_name(dataset, name) for name in (photo_set.name, *photo_set.aliases))


def _short_of(photo_set: PhotoSet, n: int) -> str:
    if photo_set.images is None or photo_set.images == n:
        return ""
    return f"{n:,} of the set's {photo_set.images:,} photos"


def _accuracy(by_radius: Mapping[str, float | None]) -> tuple[float | None, ...]:
    values = (by_radius.get(key(radius)) for radius in RADII_KM)
    return tuple(None if value is None or np.isnan(value) else float(value) for value in values)
