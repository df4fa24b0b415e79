"""The registry of published results: complete, ascending, with sources, and nothing that nobody confirmed."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from geofix.errors import BadInputError, NotFoundError
from geofix.evaluation import published
from geofix.evaluation.photo_sets import SETS, find_set
from geofix.evaluation.published import check_accuracy, published_results, read_sources

ROWS = published_results()
NUMBER = r"(?:\d+(?:\.\d+)?|[–-])"
FIVE = re.compile(r"(?<![\d./])" + r"\s*/\s*".join([f"({NUMBER})"] * 5) + r"(?!\d|/|\.\d)")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.test_set}: {row.system}")
def test_shares_grow_with_the_radius_and_have_a_source(row):
    given = [value for value in row.accuracy_km if value is not None]
    assert len(row.accuracy_km) == 5 and len(given) >= 3
    assert all(0 <= a <= b <= 100 for a, b in itertools.pairwise(given))
    assert row.title == read_sources()[row.source] and len(row.title) > 20
    assert row.test_set in SETS
    assert row.year is None or 2008 <= row.year <= 2026
    assert row.n in (None, SETS[row.test_set].images)


def test_every_source_is_used_and_no_row_stands_twice():
    assert {row.source for row in ROWS} == set(read_sources())
    names = [(row.test_set, row.system, row.kind) for row in ROWS]
    assert len(set(names)) == len(names) == 140
    assert {row.kind for row in ROWS} == {"published", "ablation", "human", "rerun"}


def test_what_was_recomputed_says_how_it_was_counted():
    files = [row for row in ROWS if row.source == "FILE"]
    assert len(files) == 12
    for row in files:
        known = row.protocol()
        assert (known["earth"], known["comparison"], known["missing"]) == ("sphere, 6371.0 km", "<=", "wrong")
        assert row.n == SETS[row.test_set].images


def test_known_rows_are_as_printed():
    (row,) = [r for r in published_results("im2gps3k") if r.system == "TransLocator"]
    assert row.accuracy_km == (11.8, 31.1, 46.7, 58.9, 80.1) and row.year == 2022
    (row,) = [r for r in published_results("Im2GPS") if r.kind == "human"]
    assert row.accuracy_km == (None, None, 3.8, 13.9, 39.3)


def test_the_unconfirmed_row_did_not_enter():
    assert {row.system for row in published_results("YFCC26k")} == {"PlaNet", "TransLocator"}
    assert (5.3, 12.3, 19.0, 31.9, 50.7) not in {row.accuracy_km for row in ROWS}


@pytest.mark.shared
def test_registry_and_page_agree(shared: Path):
    """Every row stands on the page, every five numbers of the page stand here, but for those it doubts."""
    page = shared / "design" / "baselines.md"
    if not page.is_file():
        pytest.skip(f"no page {page}")
    text = page.read_text().replace("46.4 (46.6 in one copy)", "46.4")
    text = text[text.index("### B.5") : text.index("## C. ")]

    def numbers(found: re.Match[str]) -> tuple[float | None, ...]:
        return tuple(None if part in "–-" else float(part) for part in found.groups())

    doubted = {numbers(m) for m in FIVE.finditer(text) if "UNVERIFIED" in text[m.end() : m.end() + 20]}
    # A rerun of which the page does not say the set, and the heading of the column.
    nowhere = {(3.2, 9.6, 14.3, 25.1, 43.9), (7.6, 20.3, 27.1, 40.7, 63.3), (1.0, 25.0, 200.0, 750.0, 2500.0)}
    listed = {row.accuracy_km for row in ROWS}
    assert len(doubted) == 1 and not doubted & listed
    assert {numbers(m) for m in FIVE.finditer(text)} - doubted - nowhere == listed


def test_sets_are_found_by_any_of_their_names():
    for name in ("im2gps3k", "IM2GPS-3k", "Im2GPS 3k"):
        assert find_set(name).name == "Im2GPS3k"
    assert find_set("yfcc25600").name == find_set("YFCC-Val26k").name == "YFCC26k"
    assert find_set("my_town", also=("my-town",)).name == "my-town"
    with pytest.raises(NotFoundError, match=r"'Im2GSP'.*Im2GPS, Im2GPS3k, YFCC4k.*my-town"):
        find_set("Im2GSP", also=("my-town", "yfcc4k"))


@pytest.mark.parametrize(
    "accuracy", [(10.0, 9.0, 20.0, 30.0, 40.0), (None,) * 5, (1.0, 2.0, 3.0, 4.0, 101.0)]
)
def test_damaged_rows_are_refused(accuracy):
    with pytest.raises(BadInputError, match="growing radii"):
        check_accuracy("here", accuracy)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("source", "XYZ", "source is 'XYZ'"),
        ("acc_1km", "ten", "no number"),
        ("kind", "ours", "kind is 'ours'"),
    ],
)
def test_a_damaged_file_is_refused(column, value, message):
    (record, *_) = [r for _, r in published._records("published.csv", published.COLUMNS)][10:]
    with pytest.raises(BadInputError, match=message):
        published._result(11, {**record, column: value}, read_sources())
