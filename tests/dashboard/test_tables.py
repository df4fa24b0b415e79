"""Tables and texts: units that can be read, columns that say something, rows that can be set side by side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import streamlit as st

from geofix.database.engine import connect
from geofix.database.queries import dashboard_models
from geofix.database.queries.dashboard_accuracy import Focus
from geofix_dashboard import job_forms
from geofix_dashboard.views import accuracy_places, job_submit, localize_answer
from geofix_dashboard.views.accuracy_choice import Choice

CHOICE = Choice("first", "", None, 200.0, "country", Focus(), None, (0.0, 0.0, 1.0, 1.0), {})


@pytest.fixture
def told(monkeypatch):
    """Tables as they are handed to Streamlit, with the names of their columns."""
    found = []

    def noted(table, *, column_config, **_others):
        rows = getattr(table, "data", table)
        found.append((rows, {name: column_config[name] for name in rows.columns}))

    monkeypatch.setattr(st, "dataframe", noted)
    return found


@pytest.mark.parametrize(
    ("threshold_m", "medians", "label", "shown"),
    [
        (200.0, [150.0, 99_000.0], "Median m", [150.0, 99_000.0]),
        (200.0, [150.0, np.inf], "Median m", [150.0, np.inf]),
        (200.0, [150.0, 10_251_497.0], "Median km", [0.15, 10_251.497]),
        (1000.0, [150.0, 2000.0], "Median km", [0.15, 2.0]),
    ],
)
def test_medians_across_continents_are_told_in_kilometres(told, threshold_m, medians, label, shown):
    rows = pd.DataFrame({"place": ["A", "B"], "code": ["A", "B"], "n": [40, 40], "median_m": medians})
    rows = rows.assign(accuracy=50.0, low=40.0, high=60.0, hits=20, shape=None, places=2)
    accuracy_places._table(rows, replace(CHOICE, threshold_m=threshold_m))
    table, columns = told[0]
    assert columns["median"]["label"] == label and list(table["median"]) == shown


@pytest.mark.parametrize("probability", [[None, None], [0.25, None]])
def test_candidates_without_any_probability_have_no_column_of_them(told, probability):
    rows = pd.DataFrame({"rank": [1, 2], "code": ["a", "b"], "score": [0.5, 0.4], "region": ["FIN", "FIN"]})
    localize_answer._list(rows.assign(lat=60.0, lon=24.0, probability=probability), "a")
    table, _ = told[0]
    assert ("probability" in table) is (probability[0] is not None)
    assert list(table["cell"]) == ["a", "b"] and "score" in table


def test_code_sets_stand_beside_each_other_by_the_same_split(filled):
    with connect("owner") as conn:
        name = conn.execute("SELECT name FROM code_set ORDER BY code_set_id LIMIT 1").fetchone()[0]
        conn.execute("UPDATE evaluation SET code_set_id = NULL")
        splits = [("test_seen", 3), ("test_unseen", 2), ("test_seen", 5), ("test_unseen", 1)]
        ids = [row[0] for row in conn.execute("SELECT evaluation_id FROM evaluation ORDER BY 1").fetchall()]
        assert len(ids) >= 2
        for evaluation_id, (split, days) in zip(ids, splits, strict=False):
            conn.execute(
                "UPDATE evaluation SET split = %s, created_at = now() - %s * interval '1 day',"
                " code_set_id = (SELECT code_set_id FROM code_set WHERE name = %s) WHERE evaluation_id = %s",
                (split, days, name, evaluation_id),
            )
        row = dashboard_models.code_set_rows(conn).set_index("name").loc[name]
        wanted = conn.execute("SELECT name FROM evaluation WHERE evaluation_id = %s", (ids[0],)).fetchone()
        assert row["evaluation"] == wanted[0]  # newer ones judged other photos
        conn.rollback()


@pytest.mark.parametrize(
    ("kind", "form"), [(kind, form) for kind, models in job_forms.forms().items() for form in models]
)
def test_a_kind_of_job_is_told_to_people(kind, form):
    """No marks of code, and no module to look into: the page shows the text as it is."""
    told = job_submit._told(job_forms.forms()[kind][form])
    assert told.endswith(".") and "`" not in told and "geofix." not in told
