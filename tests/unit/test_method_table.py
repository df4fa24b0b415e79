"""Hits, expected values over ties, clusters, groups, and confidence figures, each against plain sums."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from geofix.evaluation import confidence_report as report
from geofix.evaluation.method_data import Photos, _clusters, joined, sampled
from geofix.evaluation.method_hits import Hits, count_hits, difference, expected_hits, interval
from geofix.evaluation.method_report import grid
from geofix.evaluation.method_rows import Row, asking, oracle_row
from geofix.evaluation.method_table import (
    Counting,
    best_part,
    counts_groups,
    differences,
    harmonic_mean,
    table_rows,
)
from geofix.evaluation.protocols import EvaluationProtocol
from geofix.localize.confidence import CoverageFit, posterior
from geofix.localize.credible import credible_regions
from geofix.localizers.copied import CopiedLocalizer
from geofix.localizers.ensemble import localizer_of
from geofix.spatial import s2

PROTOCOL = EvaluationProtocol()


def photos(n=40, seed=0, split="test_seen"):
    """Photos around Genoa with embeddings of a model `m`."""
    rng = np.random.default_rng(seed)
    lon, lat = 8.93 + rng.uniform(-0.01, 0.01, n), 44.41 + rng.uniform(-0.01, 0.01, n)
    vectors = rng.normal(size=(n, 8)).astype(np.float32)
    return Photos(
        split=split,
        photo_id=np.arange(n) + 1000 * seed,
        lon=lon,
        lat=lat,
        leaf=s2.cell_at(lon, lat),
        gps_accuracy_m=np.full(n, np.nan),
        clusters=rng.integers(0, 8, n),
        unseen=np.zeros(n, bool),
        block=s2.cell_at(lon, lat, 13),
        country=np.array(["ITA", ""] * (n // 2), object),
        settlement=np.array(["urban", "rural"] * (n // 2), object),
        nearest_m=rng.uniform(0, 200, n),
        training_photos=rng.integers(0, 30, n),
        vectors={"m": vectors / np.linalg.norm(vectors, axis=1, keepdims=True)},
        known={"m": np.ones(n, bool)},
    )


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 6, 7, 8])
def test_expected_hits_are_the_mean_over_all_orders(k):
    rng = np.random.default_rng(k)
    within = rng.random((30, 8)) < 0.3
    got = expected_hits(within, k, 4)
    for row, value in zip(within, got, strict=True):
        orders = list(itertools.permutations(range(4)))
        means = [
            row[list(first) + [4 + i for i in second]][:k].any()
            for first in orders
            for second in (orders if k > 4 else orders[:1])
        ]
        assert value == pytest.approx(np.mean(means))


def test_hits_without_ties_are_those_of_the_metrics():
    from geofix.evaluation.metrics import recall_at, share_answered

    rng = np.random.default_rng(0)
    errors = rng.exponential(300, (200, 100))
    errors[:10] = np.nan
    accuracy = np.where(rng.random(200) < 0.2, 400.0, 5.0)
    hits = count_hits(errors, PROTOCOL, accuracy)
    for k, want in recall_at(errors, gps_accuracy_m=accuracy).items():
        assert hits.recall(PROTOCOL)[k] == pytest.approx(want)
    assert hits.answered == pytest.approx(share_answered(errors[:, 0])) and hits.answered == pytest.approx(95)
    assert hits.median_m == pytest.approx(np.nanmedian(errors[:, 0]))
    both = Hits.joined([hits, hits.slim()])
    assert len(both.share) == 400 and both.median_m == hits.median_m


def test_copies_answer_with_all_descendants_in_order():
    ids = np.sort(s2.neighbors(s2.cell_at(np.array([8.93]), np.array([44.41]), 14))[0])
    codes = np.eye(8)
    coarse = localizer_of(ids, codes)
    copied = CopiedLocalizer(coarse, 2)
    queries = np.array([[0.1, 0.9, 0.3, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 1.0]], np.float32)
    found = copied.localize(queries, 20)
    assert copied.copies == 16 and found.s2_id.shape == (2, 32) and (s2.level(found.s2_id) == 16).all()
    assert np.array_equal(s2.parent(found.s2_id[:, ::16], 14), coarse.localize(queries, 2).s2_id)
    for row in range(2):
        for start in (0, 16):
            assert len(set(found.s2_id[row, start : start + 16].tolist())) == 16
            assert len(set(found.score[row, start : start + 16].tolist())) == 1
    lon, lat = s2.center(found.s2_id)
    assert np.array_equal(found.lon, lon) and np.array_equal(found.lat, lat)
    few = CopiedLocalizer(coarse, 1).localize(queries, 100)
    assert few.answered.sum() == 2 * 32


def test_photos_without_embedding_get_no_answer():
    asked = photos()
    asked.known["m"][::3] = False
    base = localizer_of(s2.neighbors(s2.cell_at(np.array([8.93]), np.array([44.41]), 16))[0], np.eye(8))
    found = asking(base, "m")(asked, 5)
    assert np.array_equal(found.answered[:, 0], asked.known["m"])
    plain = base.localize(asked.vectors["m"][asked.known["m"]], 5)
    assert np.array_equal(found.s2_id[asked.known["m"]], plain.s2_id)
    asked.known["m"][:] = False
    assert not asking(base, "m")(asked, 5).answered.any()


def test_blocks_are_the_clusters_of_unseen_photos_and_sequences_of_seen_ones():
    ids = np.arange(8)
    sequence = np.array([1, 1, 2, np.nan, np.nan, 3, 3, 4])
    leaf = s2.cell_at(8.9 + 0.001 * ids, np.full(8, 44.4))
    block = np.array([7, 7, 7, 7, 7, 8, 9, 9])
    unseen = np.array([0, 0, 0, 0, 0, 1, 1, 1], bool)
    found = _clusters(ids, sequence, leaf, block, unseen)
    assert [found.tolist().index(value) for value in found] == [0, 0, 2, 3, 4, 5, 6, 6]
    one = _clusters(ids, np.ones(8), leaf, block, np.zeros(8, bool))
    assert np.array_equal(one, s2.parent(leaf, 16))
    alone = _clusters(ids[:2], np.ones(2), leaf[[0, 0]], block[:2], np.zeros(2, bool))
    assert alone is None


def test_a_mix_keeps_clusters_of_splits_apart_and_a_sample_keeps_rows_together():
    a, b = photos(seed=1), photos(seed=2, split="test_unseen")
    both = joined([a, b])
    assert len(both) == 80 and both.vectors == {}
    assert len(np.unique(both.clusters)) == len(np.unique(a.clusters)) + len(np.unique(b.clusters))
    some = sampled(a, 10)
    place = np.searchsorted(a.photo_id, some.photo_id)
    assert len(some) == 10 and np.array_equal(some.lon, a.lon[place])
    assert np.array_equal(some.vectors["m"], a.vectors["m"][place]) and sampled(a, 40) is a


def test_intervals_need_two_clusters_and_are_those_of_a_share():
    rng = np.random.default_rng(0)
    share = (rng.random(400) < 0.5).astype(np.float32)
    share[:5] = np.nan
    mean = 100 * np.nanmean(share)
    few = interval(share, np.arange(400) // 100, replicates=500, seed=0)
    many = interval(share, np.arange(400), replicates=500, seed=0)
    for low, high in (few, many):
        assert low < mean < high
    assert many[0] == pytest.approx(mean - 4.9, abs=0.8) and many[1] == pytest.approx(mean + 4.9, abs=0.8)
    assert interval(share, np.zeros(400, np.int64), replicates=50, seed=0) is None
    assert interval(share, None, replicates=50, seed=0) is None
    gap = difference(share, np.zeros(400), np.arange(400) % 50, replicates=500, seed=0)
    assert gap["difference"] == pytest.approx(100 * np.nanmean(share), abs=1e-4) and gap["clusters"] == 50
    assert gap["n"] == 395 and gap["low"] < gap["difference"] < gap["high"]


def row(key, role, errors):
    return Row(key, key, "cellcode", ("m",), 16, lambda asked, k: errors, role, stored_bytes=1000)


def table(seed=0):
    rng = np.random.default_rng(seed)
    asked = {"test_seen": photos(seed=1), "test_unseen": photos(seed=2, split="test_unseen")}
    rows = [
        row("oracle", "bound", None),
        row("weak", "part", None),
        row("good", "part", None),
        row("hybrid", "main", None),
    ]
    hits = {}
    for item, scale in zip(rows, (30, 600, 300, 150), strict=True):
        parts = {
            split: count_hits(rng.exponential(scale, (40, 100)), PROTOCOL, part.gps_accuracy_m)
            for split, part in asked.items()
        }
        hits[item.key] = {**parts, "mix": Hits.joined(list(parts.values()))}
    asked["mix"] = joined(list(asked.values()))
    return rows, asked, hits, Counting(PROTOCOL, replicates=100)


def test_the_table_is_a_mean_of_hits_and_the_best_part_is_the_best():
    rows, asked, hits, counting = table()
    made = {item["key"]: item for item in table_rows(rows, asked, hits, 2.0, counting)}
    share = hits["good"]["test_seen"].share[:, 0, 2]
    assert made["good"]["splits"]["test_seen"]["recall"]["1"]["200"] == pytest.approx(100 * share.mean())
    assert made["good"]["bytes_per_km2"] == 500
    groups = counts_groups(asked["mix"])
    assert sum(mask.sum() for mask in groups.values()) == 80
    for name, group in made["good"]["by"]["photos_per_cell"].items():
        mask = groups[name]
        assert group["recall"] == pytest.approx(100 * hits["good"]["mix"].share[mask, 0, 2].mean())
    assert set(made["good"]["by"]["country"]) == {"ITA", "unknown"}
    towns = made["good"]["by"]["settlement"]
    assert list(towns) == ["rural", "urban"] and towns["urban"]["n"] == 40
    urban = asked["mix"].settlement == "urban"
    assert towns["urban"]["recall"] == pytest.approx(100 * hits["good"]["mix"].share[urban, 0, 2].mean())
    gaps = differences(rows, "hybrid", asked, hits, counting)
    for split in asked:
        assert [item["row"] for item in gaps[split]] == ["weak", "good"]
        assert [item["row"] for item in gaps[split] if item["best_part"]] == ["good"]
        want = 100 * (hits["hybrid"][split].share - hits["weak"][split].share)[:, 0, 2].mean()
        assert gaps[split][0]["recall"]["200"]["difference"] == pytest.approx(want, abs=1e-4)
    assert best_part(rows[:1], {"oracle": hits["oracle"]["mix"]}, counting) is None


def test_one_split_alone_has_groups_and_no_harmonic_mean():
    rows, asked, hits, counting = table()
    alone = {"test_seen": asked["test_seen"]}
    made = table_rows(rows, alone, hits, 2.0, counting)
    assert made[0]["harmonic_mean"] is None and set(made[0]["splits"]) == {"test_seen"}
    assert sum(group["n"] for group in made[0]["by"]["country"].values()) == 40


@pytest.mark.parametrize(
    ("shares", "mean"),
    [([50.0, 50.0], 50), ([30.0, 60.0], 40), ([0.0, 60.0], 0), ([None, 3.0], None), ([5.0], None)],
)
def test_harmonic_mean(shares, mean):
    assert harmonic_mean(shares) == (None if mean is None else pytest.approx(mean))


def test_the_oracle_answers_with_the_own_cell():
    asked = photos()
    found = oracle_row(15).answer(asked, 100)
    assert np.array_equal(found.s2_id[:, 0], s2.parent(asked.leaf, 15)) and found.s2_id.shape == (40, 1)


def judged(temperature, n=400, seed=0):
    """Photos whose cells are drawn from softmax(score / 0.2), judged at a temperature."""
    rng = np.random.default_rng(seed)
    ids = s2.cell_at(np.array([8.93]), np.array([44.41]), 13)
    for _ in range(3):
        ids = s2.children(ids).reshape(-1)
    codes = rng.normal(size=(len(ids), 16))
    base = localizer_of(ids, codes / np.linalg.norm(codes, axis=1, keepdims=True))
    queries = rng.normal(size=(n, 16)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    found = base.localize(queries, len(ids))
    chances = softmax(found.score / 0.2, axis=1)
    place = (chances.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    lon, lat = s2.center(found.s2_id[np.arange(n), place])
    asked = replace(photos(n), lon=lon, lat=lat, leaf=s2.cell_at(lon, lat))
    return base, queries, asked, report.judge(base, queries, asked, np.ones(n, bool), temperature)


def test_probabilities_at_the_true_temperature_are_calibrated():
    base, queries, asked, right = judged(0.2)
    _, _, _, wrong = judged(0.02)
    made = report.split_report(wrong, right, 0.02)
    assert made["after"]["ece"] < 8 < made["before"]["ece"] and made["after"]["nll"] < made["before"]["nll"]
    for mass in (50, 90):
        assert made["credible"][str(mass)]["coverage_exact"] == pytest.approx(mass, abs=6)
        assert made["credible"][str(mass)]["coverage"] >= made["credible"][str(mass)]["coverage_exact"]
    for i in range(5):
        completed = np.concatenate([queries[i].astype(np.float16), [1, 0]]).astype(np.float32)
        chances = posterior(base.matrix, completed, 0.2 / base.scale)
        own = s2.parent(asked.leaf[i : i + 1], 16)
        assert right.nll[i] == pytest.approx(-np.log(chances.of(own)[0]), abs=1e-3)
        for j, region in enumerate(credible_regions(chances, report.MASSES)):
            assert len(region.ids) == right.cells[i, j]
            assert (own[0] in region.ids) == (right.before_true[i] < region.mass - 1e-12)


def test_a_photo_outside_every_searched_cell_is_never_covered():
    base, queries, asked, _ = judged(0.2, n=20)
    far = replace(asked, lon=asked.lon + 1, leaf=s2.cell_at(asked.lon + 1, asked.lat))
    found = report.judge(base, queries, far, np.ones(20, bool), 0.2)
    assert np.isnan(found.nll).all() and not found.hit.any() and (found.before_true == 1).all()
    made = report.split_report(found, found, 0.02)
    assert made["after"]["nll"] is None and made["credible"]["90"]["coverage_exact"] == 0


def test_calibration_error_by_hand():
    ece, bins = report.calibration_error(np.array([0.9, 0.9, 0.1, 1.0]), np.array([True, False, False, True]))
    assert ece == pytest.approx(100 * (0.5 * 0.4 + 0.25 * 0.1 + 0.25 * 0.0))
    assert [item["n"] for item in bins] == [1, 2, 1]


def test_roc_is_that_of_all_pairs_and_ties_count_half():
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(1, 1, 300).round(1), rng.normal(0, 1, 200).round(1)
    found = report.roc(inside, outside, 0.5)
    gap = inside[:, None] - outside
    assert found["auc"] == pytest.approx(np.mean((gap > 0) + 0.5 * (gap == 0)))
    assert found["at_threshold"]["true_positive"] == pytest.approx(100 * (inside >= 0.5).mean())
    assert found["at_threshold"]["false_positive"] == pytest.approx(100 * (outside >= 0.5).mean())
    assert found["true_positive"] == sorted(found["true_positive"]) and found["false_positive"][-1] == 100


@pytest.mark.parametrize("slope", [None, 4.0, -4.0])
def test_what_a_code_set_is_stored_with_is_judged_on_the_same_photos(slope):
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(1, 1, 300), rng.normal(0, 1, 200)
    shipped = CoverageFit(slope, -0.5, 300, 0)
    found = report.roc(inside, outside, 0.5, shipped)["at_shipped"]
    below = -1 if slope == -4.0 else 1  # a logit may fall
    for name, scores in (("true_positive", inside), ("false_positive", outside)):
        assert found[name] == pytest.approx(100 * np.mean(below * scores >= below * -0.5))
    assert found["threshold"] == -0.5 and "at_shipped" not in report.roc(inside, outside, 0.5)


def test_held_out_blocks_leave_the_search():
    base, queries, asked, _ = judged(0.2, n=60)
    blocks = np.unique(s2.parent(base.matrix.ids, 14))[:1]
    val = replace(asked, vectors={"m": queries}, known={"m": np.ones(60, bool)})
    found = report.fit_outside(base, blocks, val, queries, np.ones(60, bool))
    assert not np.isin(s2.parent(found.codes.matrix.ids, 14), blocks).any()
    assert found.fit.covered + found.fit.uncovered == 60 and found.fit.uncovered > 5
    assert len(found.codes.matrix) + np.isin(s2.parent(base.matrix.ids, 14), blocks).sum() == len(base.matrix)


def test_a_markdown_table_has_a_line_per_row():
    assert grid(["a", "b"], [["1", "2"]]) == ["| a | b |", "| --- | ---: |", "| 1 | 2 |"]
