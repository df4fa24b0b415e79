"""Metrics on errors small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from geofix.errors import UsageError
from geofix.evaluation import metrics
from geofix.evaluation.protocols import PROTOCOLS, EvaluationProtocol, get_protocol

NAN = float("nan")


def test_recall_counts_the_best_of_the_top_k_and_missing_as_wrong() -> None:
    errors = [[300.0, 50.0, 10.0], [90.0, 500.0, NAN], [NAN, NAN, NAN], [5000.0, NAN, 20.0]]
    table = metrics.recall_at(errors, (1, 2, 10), (50, 100))
    assert table == {
        "1": {"50": 0.0, "100": 25.0},
        "2": {"50": 25.0, "100": 50.0},
        "10": {"50": 50.0, "100": 75.0},
    }


def test_strict_comparison_and_dropped_missing() -> None:
    errors = [50.0, 10.0, NAN]
    osv = EvaluationProtocol(comparison="<", missing="drop")
    assert metrics.recall_at(errors, (1,), (50,), protocol=osv) == {"1": {"50": 50.0}}
    assert metrics.recall_at(errors, (1,), (50,))["1"]["50"] == pytest.approx(200 / 3)


def test_a_photo_is_left_out_of_radii_finer_than_its_own_accuracy() -> None:
    errors, accuracy = [10.0, 10.0, 900.0], [5.0, 15_000.0, NAN]
    assert metrics.recall_at(errors, (1,), (100,), gps_accuracy_m=accuracy)["1"]["100"] == 50.0
    assert metrics.eligible(accuracy, 3, (100, 20_000)) == {"100": 2, "20000": 3}
    only_cities = metrics.accuracy_km(errors, (1, 25), gps_accuracy_m=[15_000.0] * 3)
    assert only_cities == {"1": None, "25": 100.0}


def test_accuracy_geoscore_and_averages() -> None:
    error = [0.0, 1_000.0, 30_000.0, NAN]
    assert metrics.accuracy_km(error, (1, 25)) == {"1": 50.0, "25": 50.0}
    assert metrics.geoscore([0.0, 1_492_700.0]) == pytest.approx(2500 * (1 + np.exp(-1)))
    assert metrics.geoscore([0.0, NAN]) == 2500.0
    assert metrics.geoscore([0.0, NAN], missing="drop") == 5000.0
    assert metrics.median_m(error) == 1_000.0
    assert metrics.mean_km(error) == pytest.approx(31 / 3)
    assert metrics.share_answered(error) == 75.0
    assert metrics.median_m([NAN]) is None and metrics.mean_km([]) is None and metrics.geoscore([]) is None


@given(n=st.integers(1, 400), data=st.data())
def test_wilson_equals_scipy(n: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, n))
    low, high = metrics.wilson(hits, n)
    expected = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert float(low) == pytest.approx(100 * expected.low, abs=1e-9)
    assert float(high) == pytest.approx(100 * expected.high, abs=1e-9)


def test_wilson_on_arrays_and_without_trials() -> None:
    low, high = metrics.wilson([0, 0, 10], [0, 10, 10])
    assert low[0] == 0 and high[0] == 100 and low[1] == 0 and high[2] == 100
    with pytest.raises(UsageError, match="hits"):
        metrics.wilson(3, 2)


def test_oracle_of_level_16_matches_the_size_of_its_cells() -> None:
    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(-4, 20, 5000), rng.uniform(40, 55, 5000)
    error = metrics.oracle_errors(lon, lat, 16)
    # An L16 cell of Western Europe is about 128 m wide, its corners at most 109 m from its centre.
    assert error.max() < 120
    share = metrics.recall_at(error, (1,), (50, 100))["1"]
    assert 42 < share["50"] < 56 and share["100"] > 99


def test_most_photographed_cell_is_the_answer_to_everything() -> None:
    lon, lat = np.array([8.0, 8.0, 8.0, 20.0]), np.array([47.0, 47.0, 47.0, 50.0])
    answer = metrics.most_photographed_cell(lon, lat, 15)
    error = metrics.constant_errors(answer, lon, lat)
    assert (error[:3] < 250).all() and error[3] > 800_000
    with pytest.raises(UsageError):
        metrics.most_photographed_cell([], [], 15)


def test_groups_by_distance_to_training_are_a_partition() -> None:
    distance = np.array([0.0, 24.9, 25.0, 100.0, 100.1, np.inf])
    groups = metrics.nearest_distance_groups(distance)
    assert {k: v.tolist().count(True) for k, v in groups.items()} == {"<25": 2, "25-100": 2, ">100": 2}
    assert (np.sum(list(groups.values()), axis=0) == 1).all()


def test_summary_has_the_promised_keys() -> None:
    result = metrics.summary(
        [[20.0, 500.0], [150.0, 30.0], [NAN, NAN]], oracle_m=[10.0, 60.0, 20.0], trivial_m=[1e6, 1e6, 10.0]
    )
    promised = {"n", "recall", "accuracy_km", "median_m", "mean_km", "geoscore", "oracle"}
    assert promised <= set(result)
    assert result["n"] == 3 and set(result["recall"]) == {"1", "5", "10", "100"}
    assert set(result["recall"]["1"]) == {"50", "100", "200", "1000"}
    assert set(result["accuracy_km"]) == {"1", "25", "200", "750", "2500"}
    assert result["recall"]["5"]["50"] == pytest.approx(200 / 3)
    assert result["oracle"]["recall"]["1"]["100"] == 100.0
    assert result["trivial"]["recall"]["1"]["50"] == pytest.approx(100 / 3)
    dropped = metrics.summary(
        [20.0, NAN], protocol=EvaluationProtocol(missing="drop"), oracle_m=[10.0, 900.0]
    )
    assert dropped["n"] == 1 and dropped["oracle"]["recall"]["1"]["50"] == 100.0


@given(st.lists(st.lists(st.floats(0, 2e7), min_size=3, max_size=3), min_size=1, max_size=30))
def test_recall_grows_with_k_and_radius(errors: list[list[float]]) -> None:
    table = metrics.recall_at(errors, (1, 2, 3), (50, 1000, 1e6))
    values = np.array([[cell for cell in row.values()] for row in table.values()], dtype=float)
    assert (np.diff(values, axis=0) >= 0).all() and (np.diff(values, axis=1) >= 0).all()


def test_protocols_travel_as_records_and_differ() -> None:
    for protocol in PROTOCOLS.values():
        assert EvaluationProtocol.from_record(protocol.as_record()) == protocol
    assert get_protocol("pigeon").radius_km == 6378.137
    # A degree of the equator: 111.19 km on the sphere, 111.32 km on the ellipsoid.
    assert float(get_protocol("geofix").distance_m(0, 0, 1, 0)) == pytest.approx(111_194.9, abs=0.1)
    assert float(get_protocol("geoclip").distance_m(0, 0, 1, 0)) == pytest.approx(111_319.5, abs=0.1)
    assert np.isnan(get_protocol("geofix").distance_m([NAN], [0], [1], [0])).all()


@pytest.mark.parametrize(
    "bad", [{"comparison": "=="}, {"missing": "zero"}, {"ks": (0,)}, {"radii_m": (-5.0,)}, {"radius_km": 0.0}]
)
def test_impossible_protocols_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        EvaluationProtocol(**bad)  # type: ignore[arg-type]


def test_shapes_are_checked() -> None:
    with pytest.raises(UsageError, match="shape"):
        metrics.recall_at(np.zeros((2, 0)))
    with pytest.raises(UsageError, match="gps_accuracy_m"):
        metrics.recall_at([1.0, 2.0], gps_accuracy_m=[1.0])
    with pytest.raises(UsageError, match="Unknown protocol"):
        get_protocol("none")
    with pytest.raises(UsageError, match="Unknown protocol fields"):
        EvaluationProtocol.from_record({"radius": 1})
