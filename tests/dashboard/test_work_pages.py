"""Jobs, models and embedding space: forms, actions with an audit row, figures of NumPy and SQL."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from page_tests import metric, page, text_of, well

from geofix.database.engine import connect
from geofix.database.queries import codes as code_queries
from geofix.database.queries import dashboard_models, dashboard_space
from geofix.errors import UsageError
from geofix.jobs import service
from geofix.jobs.specs import kinds
from geofix.spatial import s2
from geofix_dashboard import actions, job_data, job_forms, place_data, space
from geofix_dashboard.views import job_detail


def events(job_id) -> list[str]:
    with connect("reader") as conn:
        return [row[0] for row in conn.execute("SELECT message FROM job_event WHERE job_id = %s", (job_id,))]


def audited(action: str) -> list[tuple[str, str]]:
    with connect("owner") as conn:
        return conn.execute(
            "SELECT object_kind, object_id FROM audit WHERE action = %s", (action,)
        ).fetchall()


@pytest.fixture
def unpublished(monkeypatch):
    """Jobs stay in the table: no broker is asked."""
    from geofix.jobs import broker

    monkeypatch.setattr(broker, "publish", lambda ready: [])


# -- forms


def test_every_kind_has_a_form_with_all_its_parameters():
    forms = job_forms.forms()
    assert list(forms) == kinds()
    for by_form in forms.values():
        for model in by_form.values():
            names = {field.name for field in job_forms.fields_of(model)}
            assert names == set(model.model_fields) - {"kind", "what"}


@pytest.mark.parametrize("kind", kinds())
def test_every_form_is_drawn(towns, kind):
    test = well(page("jobs", view="submit", submit=kind))
    assert any(button.label == "Submit" for button in test.button)


def test_types_defaults_and_bounds_decide_the_widget():
    fields = {field.name: field for field in job_forms.fields_of(job_forms.forms()["snapshot"][""])}
    assert fields["datasets"].required and fields["datasets"].shape == "list"
    assert fields["mode"].shape == "choice" and fields["mode"].options == ("blocks", "track")
    assert (fields["block_level"].shape, fields["block_level"].most) == ("integer", 24)
    assert fields["overwrite"].shape == "flag" and fields["buffer_m"].shape == "number"
    train = {field.name: field for field in job_forms.fields_of(job_forms.forms()["train"][""])}
    assert train["changes"].shape == "json"


def test_only_what_differs_from_the_default_is_sent():
    fields = job_forms.fields_of(job_forms.forms()["index"][""])
    sent = job_forms.parameters(fields, {"code_set": "means", "m": 16, "queries": 5})
    assert sent == {"code_set": "means", "queries": 5}
    with pytest.raises(UsageError, match="code_set is missing"):
        job_forms.parameters(fields, {})
    train = job_forms.fields_of(job_forms.forms()["train"][""])
    given = {"config": "a", "snapshot": "b", "out": "c"}
    with pytest.raises(UsageError, match="changes is no JSON"):
        job_forms.parameters(train, {**given, "changes": "{"})
    assert job_forms.parameters(train, {**given, "changes": '{"epochs": 2}'})["changes"] == {"epochs": 2}


def test_a_form_offers_every_localizer(towns):
    from geofix.localizers.code_set import NAMES
    from geofix.localizers.density import MODES
    from geofix.localizers.trained import TRAINED

    offered = job_data.suggestions()["localizer"]
    assert {*NAMES.values(), *TRAINED, "knn", *MODES, "most_photographed"} <= set(offered)
    assert len(offered) == len(set(offered))


def test_a_submitted_form_becomes_a_job(towns, unpublished):
    test = well(page("jobs", view="submit", submit="recall_check"))
    test.selectbox(key="job_recall_check__code_set").set_value("means")
    next(button for button in test.button if button.label == "Submit").click()
    well(test.run())
    asked = test.query_params["id"]
    row = place_data.job(asked[0] if isinstance(asked, list) else asked)
    assert row.kind == "recall_check" and row.specification["code_set"] == "means"
    assert ("job", str(row.job_id)) in audited("submit")
    assert "○ queued" in text_of(well(page("jobs", id=str(row.job_id))))


def test_a_missing_parameter_is_named(towns, unpublished):
    test = well(page("jobs", view="submit", submit="recall_check"))
    next(button for button in test.button if button.label == "Submit").click()
    assert "code_set is missing" in well(test.run()).error[0].value


# -- following


def test_a_job_is_cancelled_and_retried_with_an_audit_row(towns, unpublished):
    row = actions.submit("recall_check", {"code_set": "means"})
    job_id = str(row.job_id)
    test = well(page("jobs", id=job_id))
    well(test.button(key="job_cancel").click().run())
    assert place_data.job(job_id).state == "cancelled" and ("job", job_id) in audited("cancel")
    test = well(page("jobs", id=job_id))
    well(test.button(key="job_retry").click().run())
    assert place_data.job(job_id).state == "queued" and ("job", job_id) in audited("retry")
    test = well(page("jobs", id=job_id))
    well(test.button(key="job_pause").click().run())
    assert place_data.job(job_id).state == "paused"
    test = well(page("jobs", id=job_id))
    well(test.button(key="job_resume").click().run())
    assert place_data.job(job_id).state == "queued"
    service.cancel(job_id)


def test_jobs_are_counted_and_listed(towns, unpublished):
    row = actions.submit("recall_check", {"code_set": "means"}, queue="gpu")
    test = well(page("jobs", state="queued"))
    table = test.dataframe[0].value
    with connect("reader") as conn:
        counts = dict(conn.execute("SELECT state, count(*) FROM job WHERE parent_job_id IS NULL GROUP BY 1"))
    assert metric(test, "Queued") == f"{counts['queued']:,}"
    assert len(table) == counts["queued"] and table["job"].iloc[0] == str(row.job_id)[:8]
    said = text_of(well(page("jobs", view="workers")))
    assert "Nobody serves" in said and "geofix worker --queues" in said and "No worker ever ran." in said
    actions.cancel(str(row.job_id))
    assert "There is no such job." in text_of(well(page("jobs", id="nonsense")))


def test_a_pipeline_is_drawn_with_what_waits_for_what(towns, unpublished):
    one = {"name": 'a "quoted" \\ stage', "kind": "recall_check", "parameters": {"code_set": "means"}}
    two = {
        "name": "second",
        "kind": "recall_check",
        "parameters": {"code_set": "means"},
        "after": [one["name"]],
    }
    row = actions.submit("pipeline", {"stages": [one, two]})
    rows = job_data.parts(row.job_id)
    text = job_detail.graph(rows)
    assert text.count("->") == 1 and "a 'quoted' / stage\\nqueued" in text
    assert text.count('"') % 2 == 0
    test = well(page("jobs", id=str(row.job_id)))
    assert "2 jobs of this job" in text_of(test) and set(test.dataframe[0].value["stage"]) == {
        one["name"],
        "second",
    }
    actions.cancel(str(row.job_id))


def test_losses_and_validation_of_a_training_are_read(towns, unpublished, tmp_path: Path):
    out = tmp_path / "run"
    out.mkdir()
    lines = [
        {"epoch": 1, "step": 4, "main": 1.0, "cellcode.100": 10.0, "cellcode.200": 20.0},
        {"epoch": 2, "step": 8, "main": 2.0, "cellcode.100": 15.0, "cellcode.200": 25.0},
    ]
    (out / "epochs.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"epoch": 3, "ste')
    row = actions.submit("train", {"config": "c.yaml", "snapshot": str(tmp_path), "out": str(out)})
    messages = [
        "epoch 1 of 2: GP 0.9 GA 2.5 40 photos/s",
        "epoch 1 of 2: GP 0.8 GA 2.25 41 photos/s",
        "other",
    ]
    with connect("writer") as conn:
        conn.cursor().executemany(
            "INSERT INTO job_event (job_id, kind, message) VALUES (%s, 'progress', %s)",
            [(row.job_id, message) for message in messages],
        )
    losses = job_data.losses(row.job_id)
    assert set(losses.itertuples(index=False, name=None)) == {(1, "GP", 0.8), (1, "GA", 2.25)}
    measured = job_data.validation({"kind": "train", **row.specification}, None)
    assert list(measured.loc[measured["measure"] == "cellcode.200", "value"]) == [20.0, 25.0]
    said = text_of(well(page("jobs", id=str(row.job_id))))
    assert "Loss by epoch" in said and "Validation by epoch" in said
    actions.cancel(str(row.job_id))
    assert "queued" in events(row.job_id)


# -- models


def test_code_sets_are_compared_with_their_size_and_recall(towns):
    with connect("owner") as conn:
        found = code_queries.find_code_set(conn, "means")
        values = {
            "k": 10,
            "queries": 40,
            "ef_search": 20,
            "scope": "everywhere",
            "cells_in_scope": found.cells,
        }
        code_queries.store_recall(conn, {"code_set_id": found.code_set_id, "recall": 0.975, **values})
    test = well(page("models", code_set="means"))
    table = test.dataframe[0].value.set_index("name")
    assert table.loc["means", "cells"] == found.cells and table.loc["means", "index"] == "none: exact"
    assert table.loc["means", "recall"] == "97.5 % @10 (n = 40)" and table.loc["air", "recall"] == "–"
    said = text_of(test)
    assert "means · ✓ ready" in said and f"{found.calibration['queries']:,} photos" in said
    with connect("reader") as conn:
        rows = dashboard_models.code_set_rows(conn).set_index("name")
        size = conn.execute(
            "SELECT pg_total_relation_size(%s)", (f"geofix_leaf.cell_code_{found.code_set_id}",)
        )
        assert rows.loc["means", "bytes"] == size.fetchone()[0]


def test_models_show_what_was_made_with_them(towns):
    test = well(page("models", part="models"))
    with connect("reader") as conn:
        photos = conn.execute("SELECT count(*) FROM photo_embedding").fetchone()[0]
    assert test.dataframe[0].value.set_index("name").loc["tiny", "photos"] == photos
    assert "Weights" in text_of(test)


def test_a_code_set_is_marked_and_dropped_only_with_its_name(towns):
    with connect("owner") as conn:
        air = code_queries.find_code_set(conn, "air")
        ids, vectors = code_queries.read_codes(conn, air)
        from geofix.codes.build import CellVectors, publish
        from geofix.database.queries.models import find_model

        made = CellVectors.of_tiles(ids, vectors[:, :-2].astype(np.float32))
        publish(conn, "spare", find_model(conn, "tiny"), "aerial", air.level, made, snapshot_id=None)
    test = well(page("models", code_set="spare"))
    well(test.button(key="mark_yes").click().run())
    with connect("reader") as conn:
        assert code_queries.find_code_set(conn, "spare").state == "stale"
    test = well(page("models", code_set="spare"))
    assert test.button(key="drop_yes").disabled
    well(test.text_input(key="drop_name").set_value("spare").run())
    well(test.button(key="drop_yes").click().run())
    with connect("reader") as conn:
        names = [row["name"] for row in code_queries.list_code_sets(conn)]
    assert "spare" not in names and ("code_set", "spare") in audited("drop")


# -- embedding space


@pytest.mark.parametrize("shape", [(60, 8), (8, 60), (8, 8)])
def test_components_equal_the_singular_vectors(shape):
    vectors = np.random.default_rng(2).normal(size=shape) * np.linspace(5, 1, shape[1])
    found = space.components(vectors)
    _, values, axes = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    assert found.share == pytest.approx((values**2 / (values**2).sum())[:3])
    for i, axis in enumerate(axes[:3]):
        scores = (vectors - vectors.mean(axis=0)) @ axis * np.sign(axis[np.argmax(np.abs(axis))])
        low, high = np.percentile(scores, (2, 98))
        assert found.place[:, i] == pytest.approx(np.clip((scores - low) / (high - low), 0, 1))
    assert found.place.min() == 0.0 and found.place.max() == 1.0
    assert (space.components(vectors[:1]).place == 0.5).all()
    assert (space.components(np.ones((4, 8))).share == 0).all()


def test_similarity_is_the_cosine():
    vectors = np.array([[1.0, 0], [0, 2], [3, 3], [0, 0]])
    assert space.cosine_to(vectors, 0) == pytest.approx([1, 0, 2**-0.5, 0])


def test_codes_of_a_coarser_level_are_means_of_the_server(towns):
    with connect("reader") as conn:
        found = code_queries.find_code_set(conn, "means")
        ids, codes = code_queries.read_codes(conn, found)
        own, vectors = dashboard_space.code_means(conn, "means", found.level)
        coarse, means = dashboard_space.code_means(conn, "means", 12)
    assert (own == ids).all() and vectors.shape == (len(ids), found.dimension - 2)
    assert np.allclose(vectors, codes[:, :-2] * found.scale, atol=2e-3)
    parents = s2.parent(ids, 12)
    assert list(coarse) == sorted(set(parents.tolist()))
    for cell, mean in zip(coarse, means, strict=True):
        assert np.allclose(mean, vectors[parents == cell].mean(axis=0), atol=2e-3)


@pytest.mark.parametrize("most", [1, 2, 5, 8, 20, 1000])
def test_the_level_drawn_is_the_finest_with_few_enough_cells(towns, most):
    with connect("reader") as conn:
        found = code_queries.find_code_set(conn, "means")
        ids, _ = code_queries.read_codes(conn, found)
        level = dashboard_space.level_below(conn, "codes", "means", found.level, most)
        at, vectors = dashboard_space.code_means(conn, "means", level)
    left = {n: len(np.unique(s2.parent(ids, n))) for n in range(found.level + 1)}
    assert level == max([n for n, cells in left.items() if cells <= most], default=0)
    assert len(at) == len(vectors) == left[level]


def test_the_cells_most_like_one_are_listed_as_sql_lists_them(towns):
    with connect("reader") as conn:
        cell, token = conn.execute(
            "SELECT s2_id, s2_token(s2_id) FROM cell_code JOIN code_set USING (code_set_id)"
            " WHERE name = 'means' ORDER BY s2_id LIMIT 1 OFFSET 5"
        ).fetchone()
        wanted = conn.execute(
            "SELECT s2_token(s2_id_found) FROM similar_cells(%s, 3, 'means') ORDER BY rank", (cell,)
        ).fetchall()
    test = well(page("space", of="codes:means", cell=token, show="like"))
    listed = [code for (code,) in wanted if code != token]
    assert list(test.dataframe[0].value["cell"])[: len(listed)] == listed
    assert f"Cells most similar to {token}" in text_of(test)


@pytest.mark.parametrize(("shown", "said"), [("colours", "of the variance"), ("3", "Component 3")])
def test_components_are_drawn(towns, shown, said):
    assert said in text_of(well(page("space", show=shown, of="codes:means")))


def test_the_curves_of_a_classifier_are_percentages_alone(tmp_path):
    line = {"epoch": 1, "step": 5, "0.2": 12.5, "25": 60.0, "right/fine": 40.0, "median_km": 3.1, "loss": 2.0}
    (tmp_path / "epochs.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    found = job_data.validation({"kind": "train_classifier", "out": str(tmp_path)}, None)
    assert dict(zip(found["measure"], found["value"], strict=True)) == {
        "within 0.2 km": 12.5,
        "within 25 km": 60.0,
        "right/fine": 40.0,
    }
