"""What benchmarks/dashboard.py looks at: pages with what must be on them, and controls it changes there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MAP = '[data-testid="stDeckGlJsonChart"] canvas'
TABLE = '[data-testid="stDataFrame"] canvas'
CHART = '[data-testid="stVegaLiteChart"] svg, [data-testid="stVegaLiteChart"] canvas'
METRIC = '[data-testid="stMetric"]'
IMAGE = '[data-testid="stImage"] img'
TEXT = '[data-testid="stTextArea"] textarea'
BUTTON = '[data-testid="stButton"]'
POPOVER = '[data-testid="stPopover"]'


@dataclass(frozen=True)
class Change:
    """One control of a page.

    Attributes:
        value: What is chosen, as it is written there, or the name of a button.
        label: Of a select box.
        kind: What it is.
        says: What stands in the address, or as text on the page, once the change is there.
        shown: CSS selectors that are on the page then.
    """

    value: str
    label: str = ""
    kind: Literal["select", "segment", "button"] = "segment"
    says: str = ""
    shown: tuple[str, ...] = ()


@dataclass(frozen=True)
class View:
    """A page, or a state of one: its address, what must be seen, and changes made one after the other."""

    name: str
    path: str
    shown: tuple[str, ...]
    changes: tuple[Change, ...] = ()


def select(label: str, value: str, says: str, *shown: str) -> Change:
    """A choice of a select box."""
    return Change(value, label, "select", says, shown)


def segment(value: str, says: str, *shown: str) -> Change:
    """A choice of a row of segments."""
    return Change(value, "", "segment", says, shown)


def within(value: str, metres: int, *shown: str) -> Change:
    """A distance of the accuracy page."""
    return select("Within", value, f"threshold={metres}", *shown)


def by(value: str, code: str) -> Change:
    """How the accuracy page cuts places, in a map and a table."""
    return select("By", value, f"level_by={code}", MAP, TABLE)


VIEWS = (
    View("Overview", "", (METRIC, MAP, TABLE)),
    View(
        "Localize",
        "localize",
        ('[data-testid="stFileUploader"]', BUTTON),
        (
            segment("Region", "Inside"),
            segment("Draw", "Nothing is drawn"),
            segment("Cells", "Nothing is marked", MAP),
            select("Code set", "street-cellmean", "set=street-cellmean", MAP),
        ),
    ),
    View(
        "Accuracy: map and table",
        "accuracy",
        (METRIC, MAP, TABLE),
        (
            within("500 m", 500, MAP, TABLE),
            by("admin1", "admin1"),
            by("S2 level 8", "s2-8"),
            by("S2 level 12", "s2-12"),
            select("Evaluation", "knn-test_seen", "evaluation=knn-test_seen", MAP, TABLE),
            within("25 km", 25000, MAP, TABLE),
        ),
    ),
    View(
        "Accuracy: inside a country",
        "accuracy?in=country:CB&level_by=s2-10",
        (METRIC, MAP, TABLE),
        (
            within("100 m", 100, MAP, TABLE),
            segment("Errors", "view=errors", CHART),
            segment("Worst photos", "view=photos", IMAGE),
        ),
    ),
    View(
        "Accuracy: errors",
        "accuracy?view=errors",
        (METRIC, CHART, MAP, TABLE),
        (
            within("100 m", 100, CHART, MAP),
            select("Evaluation", "cellcode-test_unseen", "evaluation=cellcode-test_unseen", CHART, MAP),
        ),
    ),
    View(
        "Accuracy: worst photos",
        "accuracy?view=photos",
        (METRIC, IMAGE, BUTTON),
        (Change("Smaller errors", kind="button", says="page=1", shown=(IMAGE,)),),
    ),
    View(
        "Accuracy: compare",
        "accuracy?view=compare&evaluation=cellcode-test_seen&with=knn-test_seen",
        (METRIC, MAP, TABLE),
        (
            by("S2 level 9", "s2-9"),
            within("500 m", 500, MAP, TABLE),
        ),
    ),
    View(
        "Coverage",
        "coverage",
        (METRIC, MAP, TABLE),
        (
            segment("Kind of code", "show=codes", MAP),
            segment("Need", "show=need", MAP),
            select("S2 level", "12 ·", "level=12", MAP, TABLE),
            select("S2 level", "16 ·", "level=16", MAP, TABLE),
            select("Region", "Land CB", "region=country", MAP, TABLE),
        ),
    ),
    View(
        "Embedding space",
        "space",
        (MAP, TABLE, IMAGE),
        (
            segment("First", "show=1", MAP),
            segment("Similarity to a cell", "show=like", MAP),
            segment("Around", "zoom=near", MAP),
            select("Vectors", "prototypes", "of=prototypes", MAP, TABLE),
        ),
    ),
    View(
        "Jobs",
        "jobs",
        (METRIC, TABLE),
        (
            select("State", "failed", "state=failed", TABLE),
            select("Kind", "embed", "kind=embed", METRIC),
            segment("Workers and queues", "view=workers", TABLE),
            segment("Submit", "view=submit", '[data-testid="stForm"]'),
            select("Kind", "train", "submit=train", '[data-testid="stForm"]'),
        ),
    ),
    View("Jobs: a pipeline", "jobs?id={pipeline}", (METRIC, '[data-testid="stGraphVizChart"] svg', TABLE)),
    View("Jobs: a training", "jobs?id={train}", (METRIC, CHART)),
    View(
        "Models",
        "models",
        (TABLE, CHART, POPOVER),
        (segment("Models", "part=models", TABLE), segment("Code sets", "Recall of the index", CHART)),
    ),
    View(
        "SQL",
        "sql",
        (TEXT, BUTTON),
        (
            select("Example", "Evaluations side by side", "example=Evaluations"),
            Change("Run", kind="button", says="4 rows", shown=(TABLE,)),
            Change("Explain", kind="button", says="How the server would run it"),
        ),
    ),
    View(
        "Data",
        "data",
        (METRIC,),
        (
            segment("Rejects", "part=rejects", TABLE),
            select("Reason", "no_gps", "reason=no_gps", TABLE),
            segment("Snapshots", "part=snapshots", CHART, TABLE),
            segment("Regions", "part=regions", TABLE),
            segment("admin1", "regions=admin1", TABLE),
        ),
    ),
)
