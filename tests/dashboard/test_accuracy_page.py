"""The accuracy page shows what SQL counts, under every rule an evaluation may have."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from filled_database import COUNTRIES, OUTSIDE
from page_tests import metric, page, text_of, well

from geofix.database.engine import connect
from geofix.database.queries import dashboard_accuracy, evaluations, region_summary
from geofix_dashboard import accuracy_tables, data

TOTAL = sum(n for _, _, n in COUNTRIES.values()) + OUTSIDE
COUNTED = """
SELECT n, hits, w.low, w.high, answered
FROM (SELECT count(*) AS n, count(*) FILTER (WHERE hit) AS hits, count(error_m) AS answered
      FROM evaluation_hits(%s, 200)) AS h
CROSS JOIN LATERAL wilson(h.hits, h.n) AS w
"""
COMPARED = """
SELECT count(*), count(*) FILTER (WHERE a.hit AND NOT b.hit), count(*) FILTER (WHERE b.hit AND NOT a.hit)
FROM evaluation_hits('first', 200) AS a JOIN evaluation_hits('second', 200) AS b USING (photo_id)
"""


def test_accuracy_shows_the_figures_of_sql(filled):
    assert figures_of_sql("first") == TOTAL
    table = well(page("accuracy", evaluation="first", threshold="200", level_by="country")).dataframe[0].value
    assert list(table["n"]) == [60, 40, 10, OUTSIDE] and "<b>Cosse & Co</b>" in set(table["place"])
    test = page("accuracy", evaluation="first", level_by="country")
    assert "photos outside every region are in the table alone" in text_of(test)


@pytest.mark.parametrize("name", ["first", "second"])
def test_accuracy_shows_the_figures_of_sql_under_other_rules(strict, name):
    assert 0 < figures_of_sql(name) < TOTAL


def figures_of_sql(name: str) -> int:
    """Hold the head and the table of the page against SQL; the number of photos that count."""
    with connect("reader") as conn:
        n, hits, low, high, answered = conn.execute(COUNTED, (name,)).fetchone()
        rows = conn.execute(
            "SELECT n, accuracy FROM accuracy_by_region(%s, 'country', 200)", (name,)
        ).fetchall()
    test = well(page("accuracy", evaluation=name, threshold="200", level_by="country"))
    assert metric(test, "Photos") == f"{n}"
    assert next(m for m in test.metric if m.label == "Photos").help == f"{answered} of them answered"
    assert metric(test, "Within 200 m") == f"{100 * hits / n:.1f} %"
    assert metric(test, "95 % interval") == f"{low:.1f}–{high:.1f} %"
    table = test.dataframe[0].value
    assert table[["n", "accuracy"]].to_numpy(float) == pytest.approx(np.array(rows, float))
    return n


def test_head_and_table_of_a_comparison_count_the_same_photos(strict):
    with connect("reader") as conn:
        n, gains, losses = conn.execute(COMPARED).fetchone()
    where = {"evaluation": "first", "with": "second", "threshold": "200", "view": "compare"}
    test = well(page("accuracy", level_by="country", **where))
    said, table = text_of(test), test.dataframe[0].value
    assert f"All {n} common photos that count" in said and f"{TOTAL - n} more common photos" in said
    assert (metric(test, "Gains"), metric(test, "Losses")) == (str(gains), str(losses))
    assert (table["n"].sum(), table["gains"].sum(), table["losses"].sum()) == (n, gains, losses)
    assert metric(test, "Difference within 200 m") == f"{100 * (gains - losses) / n:+.1f} points"
    assert 0 < n < TOTAL


def test_a_distance_at_which_no_photo_counts_is_said(strict):
    with strict.database.connect() as conn:
        conn.execute("UPDATE photo_record SET gps_accuracy_m = 60")
        conn.commit()
    said = text_of(
        well(page("accuracy", evaluation="first", view="compare", threshold="50", **{"with": "second"}))
    )
    assert "counts within 50 m" in said and "Choose a larger distance" in said


@pytest.fixture
def silent(filled) -> Iterator[str]:
    """An evaluation that drops photos without an answer, and has none."""
    with filled.database.connect() as conn:
        conn.execute(
            "INSERT INTO evaluation (name, localizer, model_id, snapshot_id, split, level, search_method,"
            " radius_km, comparison, missing_policy, n, config, metrics, software_version)"
            " SELECT 'silent', localizer, model_id, snapshot_id, split, level, search_method,"
            " radius_km, '<=', 'drop', 0, config, metrics, software_version"
            " FROM evaluation WHERE name = 'first'"
        )
        conn.execute(
            "INSERT INTO evaluation_photo (evaluation_id, photo_id)"
            " SELECT evaluation_id('silent'), photo_id FROM photo_record"
        )
        conn.commit()
        yield "silent"
        conn.execute("DELETE FROM evaluation WHERE name = 'silent'")
        conn.commit()


def test_an_evaluation_without_any_answer_says_so(filled, silent):
    said = text_of(well(page("accuracy", evaluation=silent)))
    assert "No photo was answered" in said and "no photos any more" not in said
    with filled.database.connect() as conn:
        conn.execute("DELETE FROM evaluation_photo WHERE evaluation_id = evaluation_id('silent')")
        conn.commit()
    data.forget()
    assert "has no photos any more" in text_of(well(page("accuracy", evaluation=silent)))


STORE = """
DELETE FROM evaluation WHERE name = 'renewed';
INSERT INTO evaluation (name, localizer, model_id, snapshot_id, split, level, search_method, radius_km,
                        comparison, missing_policy, n, config, metrics, software_version)
SELECT 'renewed', localizer, model_id, snapshot_id, split, level, search_method, radius_km,
       '<=', 'wrong', n, config, metrics, software_version FROM evaluation WHERE name = 'first';
INSERT INTO evaluation_photo (evaluation_id, photo_id)
SELECT evaluation_id('renewed'), photo_id FROM photo_record;
INSERT INTO prediction (evaluation_id, photo_id, rank, s2_id, score, error_m, geom)
SELECT evaluation_id('renewed'), photo_id, 1, 1, 0, {error_m}, 'SRID=4326;POINT(0 0)' FROM photo_record
"""


@pytest.fixture
def renewed(filled) -> Iterator[Callable[[float], None]]:
    """Stores an evaluation anew, every error the same, with its summary."""

    def store(error_m: float) -> None:
        with filled.database.connect() as conn:
            conn.execute(STORE.format(error_m=error_m), prepare=False)
            region_summary.write(conn, evaluations.find_evaluation(conn, "renewed")["evaluation_id"])

    yield store
    with filled.database.connect() as conn:
        conn.execute("DELETE FROM evaluation WHERE name = 'renewed'")


@pytest.mark.parametrize(
    ("view", "threshold"), [("places", "500"), ("places", "200"), ("errors", "200"), ("photos", "200")]
)
def test_numbers_of_a_replaced_evaluation_stand_beside_none_of_the_new_one(renewed, view, threshold):
    """Within the minute for which the page does not ask whether something was written."""
    renewed(1000.0)
    where = {"evaluation": "renewed", "level_by": "country", "view": "places"}
    assert metric(well(page("accuracy", **where, threshold="200")), "Within 200 m") == "0.0 %"
    renewed(50.0)
    test = well(page("accuracy", **{**where, "view": view}, threshold=threshold))
    within = metric(test, f"Within {threshold} m")
    again = metric(well(page("accuracy", **where, threshold="200")), "Within 200 m")
    if (view, threshold) == ("places", "200"):
        assert within == again == "0.0 %"  # all of it is the old one's
    else:
        assert within == again == "100.0 %"


def test_an_error_as_large_as_the_distance_is_right_by_the_comparison(strict):
    photo = str(int(strict.photo_ids[3]))
    where = {"evaluation": "first", "view": "photos", "photo_id": photo, "threshold": "200"}
    table = well(page("accuracy", **where)).dataframe[0].value
    assert table["error"].iloc[0] == "200 m" and table["right"].iloc[0] == ""
    with strict.database.connect() as conn:
        conn.execute("UPDATE evaluation SET comparison = '<='")
        conn.commit()
    data.forget()
    assert well(page("accuracy", **where)).dataframe[0].value["right"].iloc[0] == "✓"


def test_only_regions_that_are_shown_are_read(filled, monkeypatch):
    asked, places = [], dashboard_accuracy.places

    def noted(conn, ids, tolerance):
        asked.append((len(ids), tolerance))
        return places(conn, ids, tolerance)

    monkeypatch.setattr(dashboard_accuracy, "places", noted)
    for view in ("places", "compare"):
        well(page("accuracy", evaluation="first", level_by="country", view=view, **{"with": "second"}))
    assert len(asked) == 1 and asked[0][0] == len(COUNTRIES) and np.log2(asked[0][1]) % 1 == 0
    for count in (accuracy_tables.by_region, accuracy_tables.compare_regions):
        monkeypatch.setitem(count.__kwdefaults__, "limit", 2)
    monkeypatch.setattr(accuracy_tables, "MOST_PLACES", 2)
    for view in ("places", "compare"):
        test = page("accuracy", evaluation="first", level_by="country", view=view, **{"with": "second"})
        assert list(well(test).dataframe[-1].value["n"]) == [60, 40]
    assert asked[1:] == [(2, None)]  # more than a map can hold: it draws cells


def test_a_photo_that_was_dropped_is_not_said_to_be_unasked(strict):
    where = {"view": "photos", "photo_id": str(int(strict.photo_ids[-1]))}
    said = text_of(well(page("accuracy", evaluation="first", **where)))
    assert "did not ask about this photo, or leaves it out because it has no answer" in said
    assert "it counts as wrong" in text_of(well(page("accuracy", evaluation="second", **where)))


def test_two_evaluations_are_compared(filled):
    test = well(
        page("accuracy", evaluation="first", view="compare", level_by="country", **{"with": "second"})
    )
    a, b = (filled.errors[name][:, 0] <= 200 for name in ("first", "second"))
    assert metric(test, "Gains") == str((a & ~b).sum()) and metric(test, "Losses") == str((b & ~a).sum())
    assert metric(test, "Difference within 200 m") == f"{100 * (a.mean() - b.mean()):+.1f} points"
    assert list(test.dataframe[0].value["n"]) == [60, 40, 10, OUTSIDE]


def test_compare_asks_for_a_second_evaluation(filled):
    assert "Compare with which evaluation?" in text_of(
        well(page("accuracy", evaluation="first", view="compare"))
    )
