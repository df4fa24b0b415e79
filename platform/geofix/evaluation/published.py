"""Results that others have published, as they stand in their sources: a table shipped with the package.

Nothing here was run by geofix. A number that a source does not give is missing, and so is every part of a
protocol that is not known: two published rows are rarely comparable to the last point.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal, get_args

from geofix.errors import BadInputError
from geofix.evaluation.photo_sets import find_set

Kind = Literal["published", "ablation", "human", "rerun"]
RADII_KM = (1.0, 25.0, 200.0, 750.0, 2500.0)
COLUMNS = (
    *("test_set", "system", "year", "kind"),
    *("acc_1km", "acc_25km", "acc_200km", "acc_750km", "acc_2500km"),
    *("source", "n", "earth", "comparison", "missing", "crops", "note"),
)
_EARTH = {
    "": "",
    "6371": "sphere, 6371.0 km",
    "6378.137": "sphere, 6378.137 km",
    "wgs84": "WGS 84 geodesic",
}


@dataclass(frozen=True)
class PublishedResult:
    """One row of somebody's table.

    Attributes:
        test_set: Name in `photo_sets.SETS`.
        system: As the source calls it.
        year: Of the publication; None where the source does not say.
        kind: `published` by the system's authors or in a survey; `ablation` row of a paper; `human`;
            `rerun` by others, which differs from what the authors published.
        accuracy_km: Percent within 1, 25, 200, 750 and 2500 km; None is not given.
        source: Tag of the source.
        title: What the tag stands for.
        n: Photos counted, where known.
        earth: How distance was measured; "" is not known, as in the three fields after it.
        comparison: `<=` or `<`.
        missing: What happened to photos without an answer.
        crops: How several crops were combined.
        note: What else to know.
    """

    test_set: str
    system: str
    year: int | None
    kind: Kind
    accuracy_km: tuple[float | None, ...]
    source: str
    title: str
    n: int | None = None
    earth: str = ""
    comparison: str = ""
    missing: str = ""
    crops: str = ""
    note: str = ""

    def protocol(self) -> dict[str, str | None]:
        """What is known of how it was counted; None where nothing is."""
        fields = {
            "earth": self.earth,
            "comparison": self.comparison,
            "missing": self.missing,
            "crops": self.crops,
        }
        return {name: value or None for name, value in fields.items()}


def published_results(test_set: str | None = None) -> list[PublishedResult]:
    """Published rows in the order of the registry, of one test set or of all.

    Raises:
        NotFoundError: No such test set; the message lists those there are.
        BadInputError: The shipped table is damaged.
    """
    name = None if test_set is None else find_set(test_set).name
    sources = read_sources()
    rows = [_result(line, record, sources) for line, record in _records("published.csv", COLUMNS)]
    return [row for row in rows if name is None or row.test_set == name]


def read_sources() -> dict[str, str]:
    """Tag to title of every source.

    Raises:
        BadInputError: The shipped table is damaged.
    """
    found = {
        record["tag"]: record["title"] for _, record in _records("published_sources.csv", ("tag", "title"))
    }
    if not all(found) or not all(found.values()):
        raise BadInputError(
            "published_sources.csv has a tag or title that is empty.", hint="Reinstall geofix."
        )
    return found


def _records(name: str, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(io.StringIO((files("geofix.evaluation") / name).read_text("utf-8")))
    if tuple(reader.fieldnames or ()) != columns:
        raise BadInputError(f"{name} has columns {reader.fieldnames}, not {list(columns)}.")
    for record in reader:
        if None in record or None in record.values():
            raise BadInputError(f"{name}, line {reader.line_num}: {len(columns)} fields are needed.")
        yield reader.line_num, record


def _result(line: int, record: Mapping[str, str], sources: Mapping[str, str]) -> PublishedResult:
    accuracy = tuple(_number(line, key, record[key]) for key in COLUMNS[4:9])
    check_accuracy(f"published.csv, line {line} ({record['system']})", accuracy)
    _choice(line, "kind", record["kind"], get_args(Kind))
    _choice(line, "source", record["source"], tuple(sources))
    _choice(line, "earth", record["earth"], tuple(_EARTH))
    _choice(line, "comparison", record["comparison"], ("", "<=", "<"))
    _choice(line, "missing", record["missing"], ("", "wrong", "drop"))
    return PublishedResult(
        test_set=find_set(record["test_set"]).name,
        system=record["system"],
        year=int(record["year"]) if record["year"] else None,
        kind=record["kind"],  # type: ignore[arg-type]
        accuracy_km=accuracy,
        source=record["source"],
        title=sources[record["source"]],
        n=int(record["n"]) if record["n"] else None,
        earth=_EARTH[record["earth"]],
        comparison=record["comparison"],
        missing=record["missing"],
        crops=record["crops"],
        note=record["note"],
    )


def check_accuracy(where: str, accuracy: tuple[float | None, ...]) -> None:
    """Refuse shares that are no percentages, or that fall as the radius grows; None is passed over.

    Raises:
        BadInputError: They are so, or no number is given at all.
    """
    given = [value for value in accuracy if value is not None]
    if not given or any(not 0 <= value <= 100 for value in given) or given != sorted(given):
        raise BadInputError(
            f"{where}: {list(accuracy)} are no shares within growing radii.",
            hint="Give percent within 1, 25, 200, 750 and 2500 km, each at least the one before it.",
        )


def _number(line: int, column: str, text: str) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        raise BadInputError(f"published.csv, line {line}: {column} is {text!r}, no number.") from None


def _choice(line: int, column: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise BadInputError(f"published.csv, line {line}: {column} is {value!r}, not one of {list(allowed)}.")
