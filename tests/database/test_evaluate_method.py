"""The method's table on made-up vectors: against SQL, against hand-made counts, and in the pipeline."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from method_world import LEVEL, PROTOTYPE_LEVEL, fill
from small_world import SmallWorld, pointed_at

from geofix.database.engine import connect
from geofix.database.queries import evaluations as queries
from geofix.errors import BadInputError, NotFoundError, UsageError
from geofix.evaluation.method import MethodRequest, evaluate_method
from geofix.evaluation.method_build import Wanted
from geofix.evaluation.method_pool import pool_runs
from geofix.spatial import s2

OTHERS = {"untrained": "start", "prototype": "alone-p", "aerial": "alone-a", "second": "second"}
KEYS = {
    "oracle_l16", "oracle_l15", "most_photographed", "knn_untrained", "knn_density_untrained",
    "knn_density_compat_untrained", "cellmean_untrained", "cellmean_bilinear_untrained", "knn",
    "knn_density", "knn_density_compat", "cellmean",
    "cellmean_bilinear",
    "prototype_centres", "prototype_copied", "prototype_bilinear", "aerial", "prototype_alone_centres",
    "prototype_alone_copied", "prototype_alone_bilinear", "aerial_alone", "hybrid_kappa1", "hybrid",
    "hybrid_refined", "hybrid_mass", "hybrid_medoid", "ensemble",
}  # fmt: skip


@pytest.fixture(scope="module")
def world(cluster, tmp_path_factory):
    """The made-up world, and product code pointed at it."""
    pytest.importorskip("timm", reason="needs the extra `train`")
    folder = tmp_path_factory.mktemp("method")
    with cluster.database() as database, pointed_at(database, folder / "home"):
        fill(folder)
        yield SmallWorld(database, folder)


@pytest.fixture(scope="module")
def made(world):
    """The whole table, stored."""
    request = MethodRequest(
        world.snapshot,
        "joint",
        OTHERS,
        elsewhere=["elsewhere"],
        wanted=Wanted(ablations=True),
        replicates=200,
    )
    with connect() as conn:
        return evaluate_method(conn, request, world.folder / "report"), world.folder / "report"


@pytest.fixture
def conn(world):
    """Everything that a test stores is rolled back."""
    with connect() as connection:
        yield connection
        connection.rollback()


def ask(conn, world, **given):
    given = {"snapshot": world.snapshot, "model": "joint", "replicates": 50, "name": "t", **given}
    return evaluate_method(conn, MethodRequest(**given), world.folder / "other")


def rows(document):
    return {row["key"]: row for row in document["rows"]}


def test_every_row_stands_in_the_table_and_parts_add_up(made):
    document, _ = made
    found = rows(document)
    assert set(found) >= KEYS
    assert {key for key in found if key not in KEYS} >= {
        "hybrid_ratio",
        "hybrid_logistic",
        "hybrid_kappa_025",
        "cellmean_mass",
        "ensemble_mass",
    }
    assert found["cellmean_mass"]["label"].endswith("position with most mass within 200 m")
    r = {key: row["splits"]["test_seen"]["recall"]["1"]["200"] for key, row in found.items()}
    assert r["oracle_l16"] == 100
    parts = [r[key] for key, row in found.items() if row["role"] == "part"]
    assert len(parts) == 8 and r["hybrid"] > max(parts)
    assert r["knn"] > r["knn_untrained"] and r["most_photographed"] < 30
    unseen = {key: row["splits"]["test_unseen"]["recall"]["1"]["200"] for key, row in found.items()}
    # There is no prototype where no training photo was taken: only tiles answer there.
    assert unseen["prototype_bilinear"] == 0 < unseen["aerial"] and unseen["hybrid"] > 0
    assert document["fits"]["fusion"]["bilinear"]["kappa"] > 0
    assert document["cells"]["searched"] >= document["cells"]["with_aerial"]
    for row in document["rows"]:
        for split in row["splits"].values():
            for radius, bounds in split["interval"].items():
                value = split["recall"]["1"][radius]
                assert bounds is None or bounds[0] - 1e-9 <= value <= bounds[1] + 1e-9


def test_the_mix_is_all_photos_and_the_harmonic_mean_of_the_two_splits(made):
    document, _ = made
    n = document["photos"]
    assert n["mix"] == n["test_seen"] + n["test_unseen"]
    for row in document["rows"]:
        share = {split: row["splits"][split]["recall"]["1"]["1000"] for split in n}
        both = sum(n[split] * share[split] for split in ("test_seen", "test_unseen")) / n["mix"]
        assert share["mix"] == pytest.approx(both)
        a, b = (row["splits"][split]["recall"]["1"]["200"] for split in ("test_seen", "test_unseen"))
        assert row["harmonic_mean"] == pytest.approx(2 * a * b / (a + b) if a and b else 0)


def test_groups_hold_every_photo_once(made):
    document, _ = made
    for row in document["rows"]:
        for groups in (row["by"]["photos_per_cell"], row["by"]["country"]):
            assert sum(group["n"] for group in groups.values()) == document["photos"]["mix"]
        near = row["by"]["training_distance"]
        assert {split: sum(g["n"] for g in near[split].values()) for split in near} == {
            split: document["photos"][split] for split in ("test_seen", "test_unseen")
        }
    assert set(document["rows"][0]["by"]["country"]) == {"CHE", "DEU"}
    cells = rows(document)["prototype_bilinear"]["by"]["photos_per_cell"]
    assert cells["0"]["recall"] == 0


def test_every_row_and_split_is_an_evaluation_that_sql_reads_alike(made, conn):
    document, _ = made
    stored = {item["evaluation"]: item for item in queries.list_evaluations(conn)}
    assert len(document["evaluations"]) == 2 * len(document["rows"])
    assert set(document["evaluations"]) <= set(stored)
    for row in document["rows"]:
        for split in ("test_seen", "test_unseen"):
            name = f"joint-method-{row['key']}-{split}"
            want = row["splits"][split]
            metrics = queries.find_evaluation(conn, name)["metrics"]
            assert metrics["recall"] == want["recall"] and metrics["answered"] == want["answered"]
            assert stored[name]["n"] == want["n"]
            if not row["key"].endswith("copied"):
                assert metrics["median_m"] == want["median_m"]
                found = queries.by_region(conn, name, "country", 200.0)
                n, hits = (sum(item[key] for item in found) for key in ("n", "hits"))
                assert 100 * hits / n == pytest.approx(want["recall"]["1"]["200"])
    most = conn.execute(
        "SELECT max(rank) FROM prediction JOIN evaluation USING (evaluation_id)"
        " WHERE name = 'joint-method-hybrid-test_seen'"
    ).fetchone()
    assert most == (10,)
    chances = conn.execute(
        "SELECT min(probability), max(sum) FROM (SELECT photo_id, min(probability) AS probability,"
        " sum(probability) FROM prediction JOIN evaluation USING (evaluation_id)"
        " WHERE name = 'joint-method-hybrid-test_seen' GROUP BY 1) AS s"
    ).fetchone()
    assert chances[0] >= 0 and 0.1 < chances[1] <= 1.001


def test_copied_prototypes_count_the_expected_value_over_their_ties(made, conn):
    """The four children of the best cell are equal: R@1 is the share of them within the radius."""
    document, _ = made
    top = conn.execute(
        "SELECT r.photo_id, r.s2_id, ST_X(p.geom), ST_Y(p.geom), p.gps_accuracy_m FROM prediction r"
        " JOIN evaluation USING (evaluation_id) JOIN photo_record p USING (photo_id)"
        " WHERE name = 'joint-method-prototype_centres-test_seen' AND rank = 1"
    ).fetchall()
    shares = []
    for _, cell, lon, lat, accuracy in top:
        if accuracy <= 200:
            x, y = s2.center(s2.children(np.array([cell]))[0])
            metres = np.hypot((x - lon) * 111_195 * np.cos(np.radians(lat)), (y - lat) * 111_195)
            shares.append(np.mean(metres <= 200))
    want = rows(document)["prototype_copied"]["splits"]["test_seen"]["recall"]["1"]["200"]
    assert 100 * np.mean(shares) == pytest.approx(want, abs=0.5)


def test_the_hybrid_is_the_sum_of_its_parts_at_the_fitted_point(made, conn):
    """Scores of stored answers are kappa s_P + s_A + bias of the vectors as they are in the database."""
    from geofix.codes.recipes import aerial_vectors
    from geofix.codes.upsample import upsample
    from geofix.database.queries.models import find_model, read_split_embeddings
    from geofix.database.queries.prototypes import read_prototypes
    from geofix.snapshots.build import stored_snapshot

    document, folder = made
    how = document["fits"]["upsampling"]
    fit = document["fits"]["fusion"][how]
    model = find_model(conn, "joint")
    cells, vectors = upsample(*read_prototypes(conn, model), LEVEL, how)
    prototype = dict(zip(cells.tolist(), vectors.astype(np.float64), strict=True))
    tiles = aerial_vectors(conn, model, LEVEL)
    aerial = dict(zip(tiles.ids.tolist(), tiles.vectors.astype(np.float64), strict=True))
    frozen = stored_snapshot(conn, folder.parent / "snapshot").snapshot_id
    ids, queries_ = read_split_embeddings(conn, model, frozen, ["test_seen"])
    asked = dict(zip(ids.tolist(), queries_.astype(np.float64), strict=True))
    stored = conn.execute(
        "SELECT photo_id, s2_id, score FROM prediction JOIN evaluation USING (evaluation_id)"
        " WHERE name = 'joint-method-hybrid-test_seen' ORDER BY photo_id, rank LIMIT 200"
    ).fetchall()
    for photo, cell, score in stored:
        want = (
            fit["kappa"] * (asked[photo] @ prototype[cell]) if cell in prototype else fit["bias_no_prototype"]
        )
        want += asked[photo] @ aerial[cell] if cell in aerial else fit["bias_no_aerial"]
        assert score == pytest.approx(want, abs=3e-3)


def test_differences_are_paired_and_name_the_best_part(made):
    document, folder = made
    table = pd.read_parquet(folder / "method.parquet")
    for split in ("test_seen", "test_unseen"):
        found = {item["row"]: item for item in document["differences"][split]}
        assert "hybrid" not in found and not any(key.startswith("oracle") for key in found)
        part = (
            table[table["split"] == split].pivot(index="photo_id", columns="row", values="hit_200").dropna()
        )
        parts = {key: part[key].mean() for key, row in rows(document).items() if row["role"] == "part"}
        assert [key for key, item in found.items() if item["best_part"]] == [max(parts, key=parts.get)]
        for key, item in found.items():
            gap = item["recall"]["200"]
            assert gap["difference"] == pytest.approx(100 * (part["hybrid"] - part[key]).mean(), abs=1e-4)
            assert gap["low"] <= gap["difference"] <= gap["high"]


def test_confidence_is_better_after_the_fit_and_elsewhere_is_outside(made):
    document, _ = made
    confidence = document["confidence"]
    assert set(confidence["splits"]) == {"val", "test_seen", "test_unseen", "mix"}
    for found in confidence["splits"].values():
        assert found["after"]["nll"] < found["before"]["nll"]
        assert found["after"]["ece"] < found["before"]["ece"]
        covered = {mass: found["credible"][mass]["coverage"] for mass in ("50", "90")}
        assert covered["50"] <= covered["90"] and covered["90"] > 60
    curves = confidence["outside"]["curves"]
    assert len(curves) == 2
    for curve in curves.values():
        assert curve["auc"] > 0.6
        assert (
            curve["true_positive"][0] == 0
            and curve["true_positive"][-1] == curve["false_positive"][-1] == 100
        )
    assert curves["another place (elsewhere)"]["outside"] == 40


def test_the_report_is_written_whole(made):
    document, folder = made
    assert json.loads((folder / "method.json").read_text())["rows"] == document["rows"]
    text = (folder / "method.md").read_text()
    for row in document["rows"]:
        assert row["label"] in text
    for name in ("method-recall.png", "method-reliability.png", "method-outside.png"):
        assert name in text and (folder / name).stat().st_size > 5000
    assert "nan" not in text.lower().replace("another", "") and "None" not in text


def test_runs_are_pooled_over_their_photos(made):
    document, folder = made
    one = pool_runs([folder], replicates=100)
    two = pool_runs([folder, folder], replicates=100)
    best = next(item for item in document["differences"]["test_seen"] if item["best_part"])
    assert one["mean_difference"] == two["mean_difference"]
    assert one["mean_difference"] == pytest.approx(best["recall"]["200"]["difference"], abs=1e-4)
    assert (
        two["pooled"]["n"] == 2 * one["pooled"]["n"]
        and two["pooled"]["clusters"] == 2 * one["pooled"]["clusters"]
    )
    assert two["pooled"]["high"] - two["pooled"]["low"] < one["pooled"]["high"] - one["pooled"]["low"]
    with pytest.raises(NotFoundError, match=r"holds no method\.json"):
        pool_runs([folder / "nothing"])
    with pytest.raises(BadInputError, match="no photo of split val"):
        pool_runs([folder], split="val")


@pytest.mark.parametrize(
    ("model", "main", "noted"),
    [
        ("alone-p", "prototype_", "no aerial vectors"),
        ("alone-a", "aerial", "no prototypes"),
        ("start", "cellmean", ""),
    ],
)
def test_a_model_with_one_part_or_none_has_a_table_without_hybrid(conn, world, model, main, noted):
    document = ask(conn, world, model=model, splits=("test_seen",), wanted=Wanted(density=False))
    assert document["main"].startswith(main) and noted in " ".join(document["notes"])
    found = rows(document)
    assert not any(key.startswith("hybrid") for key in found) and f"{document['main']}_mass" in found
    assert list(document["photos"]) == ["test_seen"] and found["knn"]["harmonic_mean"] is None
    assert [row["role"] for row in document["rows"]].count("main") == 1


def test_frozen_encoders_have_means_for_prototypes(conn, world, made):
    document = ask(conn, world, frozen=True)
    found, learned = rows(document), rows(made[0])

    def answers(table, key):
        return [table[key]["splits"][split]["recall"] for split in document["splits"]]

    assert answers(found, "prototype_bilinear") == answers(found, "cellmean_bilinear")
    assert answers(found, "prototype_bilinear") != answers(learned, "prototype_bilinear")
    assert any("encoders frozen" in note for note in document["notes"])


def test_photos_without_embedding_count_as_unanswered(conn, world):
    lost = conn.execute(
        "DELETE FROM photo_embedding WHERE photo_id IN"
        " (SELECT photo_id FROM snapshot_photo WHERE split = 'test_seen' ORDER BY photo_id LIMIT 5)"
        " AND model_id = (SELECT model_id FROM model WHERE name = 'joint')"
    ).rowcount
    document = ask(conn, world, splits=("test_seen",), wanted=Wanted(density=False))
    n = document["photos"]["test_seen"]
    assert lost == 5 and rows(document)["hybrid"]["splits"]["test_seen"]["answered"] == pytest.approx(
        100 - 500 / n
    )
    assert "has not embedded 5" in " ".join(document["notes"])


def test_wrong_calls_say_what_is_wrong(conn, world, made):
    for given, error, match in (
        ({"others": {"best": "joint"}}, UsageError, "Unknown roles best"),
        ({"threshold_m": 150.0}, UsageError, "none of the radii"),
        ({"splits": ()}, UsageError, "No split"),
        ({"splits": ("test_seen", "test_seen")}, UsageError, "repeat"),
        ({"model": "nobody"}, NotFoundError, "No model is named"),
        ({"others": {"aerial": "alone-p"}}, UsageError, "has none"),
        ({"others": {"second": "alone-a"}}, UsageError, "needs prototypes in both"),
        ({"level": PROTOTYPE_LEVEL - 1}, UsageError, "Aerial tiles stand at level 16"),
        ({"level": PROTOTYPE_LEVEL - 1, "model": "alone-p"}, UsageError, "coarser"),
        ({"elsewhere": ["streets"]}, UsageError, "one of the snapshot's own"),
        ({"name": "joint-method"}, UsageError, "exists"),  # the table of the fixture
    ):
        with pytest.raises(error, match=match):
            ask(conn, world, **{"wanted": Wanted(density=False), "splits": ("test_seen",), **given})


def test_the_stage_writes_report_and_evaluations(conn, world):
    from geofix.pipeline.context import Context
    from geofix.pipeline.file import Method, Pipeline
    from geofix.pipeline.stages import STAGES

    stage = Method(
        do="method", model="joint", second_model="second", density=False, splits=["test_seen"], kept=1
    )
    context = Context(conn, Pipeline(name="p", stages=[stage]), world.folder)
    result = STAGES[Method](context, stage)
    assert result["main"] == "hybrid" and result["recall"]["hybrid"]["test_seen"] > 0
    names = [name for kind, name in result["outputs"] if kind == "evaluation"]
    assert "p-method-ensemble-test_seen" in names
    assert (world.folder / "method" / "method.md").is_file()
    assert STAGES[Method](context, stage)["recall"] == result["recall"]
