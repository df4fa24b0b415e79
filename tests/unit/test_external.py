"""Every trap of published prediction files, each in a file of its own."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from geofix.errors import BadInputError, NotFoundError
from geofix.evaluation.checks import find_duplicate_predictions
from geofix.evaluation.external import compare_external, evaluate_external
from geofix.evaluation.protocols import EvaluationProtocol

PLACES = [
    (f"p{i}", lat, lon)
    for i, (lat, lon) in enumerate(
        [
            (46.9, 7.4),
            (48.9, 2.3),
            (52.5, 13.4),
            (41.9, 12.5),
            (40.4, -3.7),
            (59.9, 10.8),
            (50.1, 14.4),
            (47.5, 19.0),
        ]
    )
]


def write(path: Path, rows: Sequence[Sequence[object]], header: Sequence[str] = ("id", "lat", "lon")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([header, *rows])
    return path


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return write(tmp_path / "truth.csv", PLACES)


def test_hand_counted_accuracy(tmp_path: Path, truth: Path) -> None:
    rows = [(i, lat + (0.1 if i == "p0" else 0.0), lon) for i, lat, lon in PLACES[:6]]
    result = evaluate_external(write(tmp_path / "p.csv", rows), truth)
    # p0 is 11.1 km off, five are exact, two are missing.
    assert result["n"] == 8 and result["missing"] == 2 and result["out_of_range"] == 0
    assert result["accuracy_km"] == {"1": 62.5, "25": 75.0, "200": 75.0, "750": 75.0, "2500": 75.0}
    assert result["median_km"] == 0.0 and result["mean_km"] == pytest.approx(11.119 / 6, abs=1e-3)
    assert result["geoscore"] == result["geoscore_missing_as_zero"] < result["geoscore_valid_only"]


def test_dropping_the_missing_is_labelled(tmp_path: Path, truth: Path) -> None:
    result = evaluate_external(write(tmp_path / "p.csv", PLACES[:6]), truth, missing="drop")
    assert result["n"] == 6 and result["accuracy_km"]["1"] == 100.0
    assert result["policy"]["missing"] == "drop" == result["protocol"]["missing"]
    assert result["geoscore"] == result["geoscore_valid_only"] == 5000.0


def test_blank_words_and_impossible_positions_are_counted(tmp_path: Path, truth: Path) -> None:
    rows = [
        *PLACES[:4],
        ("p4", "", ""),
        ("p5", "I cannot tell", ""),
        ("p6", 95.0, 14.4),
        ("p7", "nan", "nan"),
    ]
    rows.insert(0, rows.pop(5))
    result = evaluate_external(write(tmp_path / "p.csv", rows), truth)
    assert (result["n"], result["missing"], result["out_of_range"]) == (8, 3, 1)
    assert any("no number" in w and "I cannot tell" in w for w in result["warnings"])


@pytest.mark.parametrize(
    "footer",
    [
        ("mean", 47.0, 8.0),
        ("", 12.5, 25.0),
        ("# 1 km: 12.5", "", ""),
        ("Accuracy", "12.5%", "25%"),
        ("total", "8", ""),
        ("Accuracy (%)", 12.5, 25.0),
        ("street (1 km)", 12.5, ""),
        ("city 25 km", 12.5, ""),
        ("acc_25km", 25.0, 30.0),
        ("mean_km", 11.1, ""),
        ("acc 12.5/25.0/50.0", "", ""),
        ("--- all ---", 47.0, 8.0),
        ("street/1km", 12.5, ""),
        ("Mean/Median", 47.0, 8.0),
        ("street / city / region", 12.5, ""),
        ("Accuracy (street/city)", 12.5, 25.0),
        ("mean w/o outliers", 47.0, 8.0),
    ],
)
def test_footers_are_left_out_of_predictions_and_truth(
    tmp_path: Path, footer: tuple[object, ...], truth: Path
) -> None:
    result = evaluate_external(write(tmp_path / "p.csv", [*PLACES, footer]), truth)
    assert result["n"] == 8 and result["accuracy_km"]["1"] == 100.0
    assert any("footer" in w for w in result["warnings"])
    both = evaluate_external(truth, write(tmp_path / "t.csv", [*PLACES, footer]))
    assert both["n"] == 8 and any("footer" in w for w in both["warnings"])


@pytest.mark.parametrize(
    "name",
    [
        *("street/{}.jpg", "city/{}.jpg", "all/{}.jpg", "n/{}", "result\\{}.png", "../country/{}"),
        *("city {}.jpg", "all photos/{}", "street ({}).JPEG", "region-{}", "n-{}", "total.{}.webp"),
        *("street/city/{}", "all (new)/{}", "mean/{}", "city/mean{}", "w/{}"),
    ],
)
def test_photos_are_no_footers_whatever_word_they_begin_with(tmp_path: Path, name: str) -> None:
    rows = [*PLACES[:5], *((name.format(i), lat, lon) for i, (_, lat, lon) in enumerate(PLACES[5:]))]
    truth, guess = write(tmp_path / "t.csv", rows), [(i, lat + 1e-3, lon) for i, lat, lon in rows[:7]]
    result = evaluate_external(write(tmp_path / "p.csv", guess), truth)
    assert (result["n"], result["missing"], result["warnings"]) == (8, 1, [])
    assert result["accuracy_km"]["1"] == 87.5


def test_a_footer_with_fewer_or_more_fields(tmp_path: Path, truth: Path) -> None:
    path = write(tmp_path / "p.csv", [*PLACES, ("accuracy", 12.5, 25, 50, 75, 100), ("n=8",)])
    result = evaluate_external(path, truth)
    assert result["accuracy_km"]["1"] == 100.0
    assert sum("footer" in w or "fields" in w for w in result["warnings"]) == 2


def test_swapped_axes_beyond_90_degrees(tmp_path: Path) -> None:
    places = [(f"a{i}", 35.0 + i, 139.0 - i) for i in range(6)]
    truth = write(tmp_path / "t.csv", places)
    swapped = write(tmp_path / "p.csv", [(i, lon, lat) for i, lat, lon in places])
    with pytest.raises(BadInputError, match=r"swapped.*--columns pred_lat=lon,pred_lon=lat"):
        evaluate_external(swapped, truth)
    mended = evaluate_external(swapped, truth, columns={"pred_lat": "lon", "pred_lon": "lat"})
    assert mended["accuracy_km"]["1"] == 100.0
    kept = evaluate_external(swapped, truth, check_axes=False)
    assert kept["out_of_range"] == 6


@pytest.mark.parametrize("guilty", ["pred", "true"])
def test_swapped_axes_within_range(tmp_path: Path, truth: Path, guilty: str) -> None:
    swapped = write(tmp_path / "s.csv", [(i, lon, lat) for i, lat, lon in PLACES])
    files = (swapped, truth) if guilty == "pred" else (truth, swapped)
    with pytest.raises(BadInputError, match="exchanged"):
        evaluate_external(*files)


def test_a_bad_model_is_not_called_swapped(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    t = [(f"r{i}", *rng.uniform((-60, -180), (70, 180))) for i in range(200)]
    p = [(f"r{i}", *rng.uniform((-60, -180), (70, 180))) for i in range(200)]
    result = evaluate_external(write(tmp_path / "p.csv", p), write(tmp_path / "t.csv", t))
    assert result["n"] == 200 and result["warnings"] == []


def test_duplicated_ids(tmp_path: Path, truth: Path) -> None:
    same = evaluate_external(write(tmp_path / "p.csv", [*PLACES, PLACES[0]]), truth)
    assert same["n"] == 8 and any("repeated" in w for w in same["warnings"])
    with pytest.raises(BadInputError, match=r"different positions.*p0"):
        evaluate_external(write(tmp_path / "q.csv", [*PLACES, ("p0", 1.0, 2.0)]), truth)


def test_duplicated_files_are_noticed(tmp_path: Path, truth: Path) -> None:
    a = write(tmp_path / "a.csv", PLACES)
    b = write(tmp_path / "b.csv", [(i, lat + 1e-6, lon) for i, lat, lon in PLACES])
    c = write(tmp_path / "c.csv", [(i, lat + 1, lon) for i, lat, lon in PLACES])
    pairs = find_duplicate_predictions([a, b, c])
    assert [(p.a.name, p.b.name, p.equal_percent) for p in pairs] == [("a.csv", "b.csv", 100.0)]
    result = evaluate_external(a, truth, others=[b, c])
    assert any("practically one file" in w for w in result["warnings"])
    few = write(tmp_path / "few.csv", PLACES[:2])
    assert find_duplicate_predictions([few, write(tmp_path / "other.csv", PLACES[:2])]) == []
    twice = evaluate_external(few, truth, others=[tmp_path / "." / "few.csv"])["warnings"]
    assert sum("few.csv is given twice" in w for w in twice) == 1


def test_placeholders_and_copied_truth_are_warned_of(tmp_path: Path, truth: Path) -> None:
    rows = [(i, 0.0, 0.0) if n < 3 else (i, lat, lon) for n, (i, lat, lon) in enumerate(PLACES)]
    warnings = evaluate_external(write(tmp_path / "p.csv", rows), truth)["warnings"]
    assert any("(0, 0)" in w for w in warnings)
    assert any("equal the truth exactly" in w for w in evaluate_external(truth, truth)["warnings"])


def test_city_centres_as_truth(tmp_path: Path) -> None:
    rows = [(f"c{i}", *PLACES[i % 3][1:], 15_000) for i in range(30)]
    truth = write(tmp_path / "t.csv", rows, ("id", "lat", "lon", "gps_accuracy_m"))
    guess = write(tmp_path / "p.csv", [(i, lat + 0.05, lon) for i, lat, lon, _ in rows])
    result = evaluate_external(guess, truth)
    assert result["accuracy_km"]["1"] is None and result["eligible"]["1"] == 0
    assert result["accuracy_km"]["25"] == 100.0
    assert any("place centres" in w for w in result["warnings"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("3.12137E+14", 1.0, 2.0)], "spreadsheet"),
        ([("p0", "46,9", "7,4")], "decimal comma"),
        ([("other", 1.0, 2.0)], "No id"),
        ([("p0", "", "")], "no position"),
    ],
)
def test_unusable_predictions(tmp_path: Path, truth: Path, rows: list[tuple], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        evaluate_external(write(tmp_path / "p.csv", rows), truth)


def test_unusable_files(tmp_path: Path, truth: Path) -> None:
    with pytest.raises(NotFoundError, match="no file"):
        evaluate_external(tmp_path / "absent.csv", truth)
    with pytest.raises(BadInputError, match="no column"):
        evaluate_external(write(tmp_path / "p.csv", PLACES, ("id", "y", "x")), truth)
    with pytest.raises(BadInputError, match="unknown fields"):
        evaluate_external(truth, truth, columns={"latitude": "lat"})
    with pytest.raises(BadInputError, match="no such column"):
        evaluate_external(truth, truth, columns={"lat": "Latt"})
    with pytest.raises(BadInputError, match="no UTF-8"):
        (tmp_path / "b.csv").write_bytes(b"id,lat,lon\n\xff\xfe,1,2\n")
        evaluate_external(tmp_path / "b.csv", truth)
    with pytest.raises(BadInputError, match="Parquet"):
        (tmp_path / "b.parquet").write_bytes(b"no parquet")
        evaluate_external(tmp_path / "b.parquet", truth)
    with pytest.raises(BadInputError, match="true photo"):
        evaluate_external(truth, write(tmp_path / "t.csv", [*PLACES[:3], ("p9", "", ""), PLACES[4]]))


def test_parquet_and_usual_column_names(tmp_path: Path, truth: Path) -> None:
    frame = pd.DataFrame(PLACES, columns=["IMG_ID", "Latitude", "Longitude"])
    frame.to_parquet(tmp_path / "p.parquet")
    assert evaluate_external(tmp_path / "p.parquet", truth)["accuracy_km"]["1"] == 100.0


def test_protocol_is_honoured(tmp_path: Path) -> None:
    truth = write(tmp_path / "t.csv", [("a", 0.0, 0.0), ("b", 0.0, 10.0)])
    guess = write(tmp_path / "p.csv", [("a", 0.0, 1.0), ("b", 0.0, 11.0)])
    small = evaluate_external(guess, truth, protocol=EvaluationProtocol(radii_km=(111.2,)))
    pigeon = EvaluationProtocol(radii_km=(111.2,), radius_km=6378.137)
    large = evaluate_external(guess, truth, protocol=pigeon)
    assert small["accuracy_km"] == {"111.2": 100.0} and large["accuracy_km"] == {"111.2": 0.0}


def test_two_files_are_compared_on_the_same_photos(tmp_path: Path, truth: Path) -> None:
    off = write(tmp_path / "b.csv", [(i, lat + 3, lon) for i, lat, lon in PLACES])
    result = compare_external(truth, off, truth, replicates=200)
    assert result["recall"]["200000"]["difference"] == 100.0
    assert result["recall"]["2500000"]["difference"] == 0.0
    with pytest.raises(BadInputError, match="no group"):
        compare_external(truth, off, truth, groups={"p0": "x"})


def test_warnings_of_both_files_are_told(tmp_path: Path, truth: Path) -> None:
    header = ("id", "lat", "lon", "distance")
    for folder, shift in (("a", 1.0), ("b", 3.0)):
        (tmp_path / folder).mkdir()
        rows = [(i, lat + shift, lon, 5.0) for i, lat, lon in PLACES]
        write(tmp_path / folder / "p.csv", [*rows, ("mean", shift, 8.0, 5.0)], header)
    told = compare_external(tmp_path / "a/p.csv", tmp_path / "b/p.csv", truth, replicates=10)["warnings"]
    assert len(told) == 4 and len(set(told)) == 4
    assert told[0].startswith("p.csv: 1 footer") and told[1].startswith("p.csv: Shipped column distance")
    second = f"{tmp_path / 'b/p.csv'}: "
    assert told[2].startswith(f"{second}1 footer") and told[3].startswith(f"{second}Shipped column distance")
    same = compare_external(truth, truth, truth, replicates=10)["warnings"]
    assert len(same) == 1 and same[0].startswith("truth.csv: 8 of 8 predictions equal the truth")


@pytest.mark.shared
@pytest.mark.parametrize(("model", "suffix"), [("best", ""), ("base", "_base")])
def test_published_predictions_are_reproduced(shared: Path, model: str, suffix: str) -> None:
    file = shared / "eval/osv5m_mit/select.csv"
    columns = {"pred_lat": f"pred_lat{suffix}", "pred_lon": f"pred_lon{suffix}"}
    columns |= {"true_lat": "true_lat", "true_lon": "true_lon"}
    result = evaluate_external(file, file, columns=columns)
    expected = pd.read_csv(shared / "eval/expected_results.csv").set_index("model").loc[model]
    assert result["n"] == expected["n"]
    assert result["missing"] == expected["missing_predictions"]
    assert result["out_of_range"] == expected["out_of_range_predictions"]
    for radius, value in result["accuracy_km"].items():
        assert value == pytest.approx(expected[f"acc_{radius}km"], abs=1e-3)
    for ours, theirs in (
        ("mean_km", "mean_km_valid"),
        ("median_km", "median_km_valid"),
        ("geoscore_missing_as_zero", "geoscore_missing_as_zero"),
        ("geoscore_valid_only", "geoscore_valid_only"),
    ):
        assert result[ours] == pytest.approx(expected[theirs], abs=1e-3)
    assert result["shipped"]["max_abs_diff_distance"] < 1e-3
    assert any("denominator 49 instead of 50" in w for w in result["warnings"])


@pytest.mark.shared
@pytest.mark.parametrize(
    ("truth", "columns", "expected"),
    [
        ("mever_apache2/im2gps.csv", {}, (1.3, 3.4, 3.4, 13.1, 37.1)),
        ("mever_apache2/yfcc4k.csv", {}, (0.5, 1.5, 1.9, 21.5, 39.6)),
        ("translocator_mit/yfcc25600_places365.csv", {}, (0.3, 1.3, 1.7, 21.6, 39.0)),
    ],
)
def test_always_answering_paris(
    shared: Path, tmp_path: Path, truth: str, columns: dict[str, str], expected: tuple[float, ...]
) -> None:
    cells = pd.read_csv(shared / "eval/translocator_mit/cells_fine_repaired.csv", dtype={"s2_token": str})
    paris = cells.sort_values("imgs_per_cell").iloc[-1]
    ids = pd.read_csv(shared / "eval" / truth, dtype=str).iloc[:, 0]
    guess = pd.DataFrame({"id": ids, "lat": paris["latitude_mean"], "lon": paris["longitude_mean"]})
    guess.to_csv(tmp_path / "p.csv", index=False)
    result = evaluate_external(tmp_path / "p.csv", shared / "eval" / truth, columns=columns)
    assert tuple(round(v, 1) for v in result["accuracy_km"].values()) == expected
    assert any("one and the same place" in w for w in result["warnings"])
