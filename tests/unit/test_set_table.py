"""The table of a photo set: sections stay apart, every row says how it was counted, no server is needed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from geofix.cli.main import app
from geofix.errors import BadInputError, UsageError
from geofix.evaluation.administrative import administrative_accuracy, labels_at
from geofix.evaluation.external import evaluate_external
from geofix.evaluation.humans import read_humans
from geofix.evaluation.protocols import EvaluationProtocol, protocol_of
from geofix.evaluation.same_author import author_groups
from geofix.evaluation.set_report import share
from geofix.spatial import s2

PLACES = [(f"p{i}", 46.0 + i / 10, 7.0 + i) for i in range(10)]


def write(path: Path, rows, header=("id", "lat", "lon")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([header, *rows])
    return path


@pytest.fixture
def files(tmp_path, clean_environment):
    """Truth, good answers, answers half of which are 100 km off; and no database."""
    truth = write(tmp_path / "truth.csv", PLACES)
    good = write(tmp_path / "good.csv", [(i, lat + 1e-3, lon) for i, lat, lon in PLACES])
    half = [(i, lat + (0.9 if n % 2 else 1e-3), lon) for n, (i, lat, lon) in enumerate(PLACES)]
    return tmp_path, truth, good, write(tmp_path / "half.csv", half)


def run(*words: object):
    return CliRunner().invoke(app, ["evaluate", "table", *map(str, words)])


def test_published_rows_need_no_database(files):
    done = run("--set", "im2gps", "--with-published", "--json")
    assert done.exit_code == 0 and "no evaluation is shown" in done.stderr
    result = json.loads(done.stdout)
    assert result["set"] == "Im2GPS" and result["images"] == 237 and result["own"] == []
    systems = [row["system"] for row in result["published"]]
    assert "TransLocator" in systems and systems[0] == "Human" and len(systems) == 31
    assert {row["source"] for row in result["published"]} == set(result["sources"])


def test_own_rows_and_published_ones_never_mix(files):
    _, truth, good, half = files
    options = ["--set", "YFCC4k", "--with-published", "--truth", truth, "--no-database"]
    done = run(*options, "--predictions", f"best={good}", "--predictions", half, "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    best, worse = result["own"]
    assert (best["system"], best["n"], best["accuracy_km"]) == ("best", 10, [100.0] * 5)
    assert (worse["system"], worse["accuracy_km"]) == ("half", [50.0, 50.0, 100.0, 100.0, 100.0])
    assert best["protocol"] == {
        "earth": "sphere, 6371.0 km",
        "comparison": "<=",
        "missing": "wrong",
        "crops": "single",
        "same_author": "kept",
    }
    assert best["note"] == "10 of the set's 4,536 photos"
    assert [row["system"] for row in result["reruns"]] == ["PLONK"]
    published = {row["system"]: row for row in result["published"]}
    assert "best" not in published and published["PLONK"]["accuracy_km"][0] is None
    assert published["G3"]["protocol"]["comparison"] == "<" and published["G3"]["n"] is None
    shown = run(*options, "--predictions", good, "--markdown").stdout
    own, rest = shown.split("### Published by others, not run by geofix")
    assert "### Measured by geofix" in own and "| good | 10 |" in own and "G3" not in own
    assert "| PLONK | 2024 | – | – | 23.7 |" in rest and "good" not in rest
    assert "### Run again by others, not by geofix" in rest


def test_protocol_options_are_counted_and_shown(files):
    _, truth, _, half = files
    metres = EvaluationProtocol().distance_m([7.0], [46.0], [7.0], [46.9])[0]
    exact = run(
        "--truth", truth, "--predictions", half, "--radius", "ellipsoidal", "--comparison", "<", "--json"
    )
    (row,) = json.loads(exact.stdout)["own"]
    assert row["protocol"]["earth"] == "WGS 84 geodesic" and row["protocol"]["comparison"] == "<"
    plain = json.loads(run("--truth", truth, "--predictions", half, "--crops", "ten", "--json").stdout)[
        "own"
    ][0]
    assert plain["protocol"]["crops"] == "ten" and plain["mean_km"] == pytest.approx(
        (metres + 111.2) / 2000, rel=1e-3
    )
    assert row["mean_km"] != plain["mean_km"]


def test_bounds_and_people_stand_in_sections_of_their_own(files):
    folder, truth, good, _ = files
    spots = np.array([8.0, 13.0]), np.array([46.5, 47.0])
    tokens = s2.token(s2.cell_at(*spots, 6))
    rows = [(token, lat, lon, i + 1) for i, (token, lon, lat) in enumerate(zip(tokens, *spots, strict=True))]
    cells = write(
        folder / "cells.csv", rows, ("s2_token", "latitude_mean", "longitude_mean", "imgs_per_cell")
    )
    people = write(
        folder / "people.csv", [("anna", *PLACES[0]), ("ben", "p0", "", "")], ("person", "id", "lat", "lon")
    )
    options = ["--truth", truth, "--predictions", good, "--cells", f"two={cells}", "--humans", people]
    result = json.loads(run(*options, "--json").stdout)
    names = [row["system"] for row in result["bounds"]]
    assert names == ["true cell, two", "nearest mean, two", "most populated cell, two"]
    assert [(row["system"], row["n"], row["accuracy_km"][0]) for row in result["humans"]] == [
        ("anna", 1, 100.0),
        ("ben", 1, 0.0),
        ("all people", 2, 50.0),
    ]
    shown = run(*options).stdout
    assert shown.index("Measured by geofix") < shown.index("People") < shown.index("Bounds of answering")


def test_keep_axes_reaches_people_and_bounds(files):
    folder, truth, _, _ = files
    rows = [("anna", i, 91.0 + n, 7.0) for n, (i, _, _) in enumerate(PLACES)]
    people = write(folder / "people.csv", rows, ("person", "id", "lat", "lon"))
    refused = run("--truth", truth, "--humans", people)
    assert refused.exit_code == 3 and "If not: --keep-axes" in " ".join(refused.stderr.split())
    kept = json.loads(run("--truth", truth, "--humans", people, "--keep-axes", "--json").stdout)["humans"]
    assert [(row["system"], row["n"], row["accuracy_km"][4]) for row in kept] == [("anna", 10, 0.0)]
    (lon,), (lat,) = s2.center(s2.from_token(np.array(["478c"])))
    cells = write(folder / "c.csv", [("478c", lat, lon)], ("s2_token", "latitude_mean", "longitude_mean"))
    far = write(folder / "far.csv", [(f"q{i}", 120.0, 8.0) for i in range(9)])
    assert "look swapped" in run("--truth", far, "--cells", cells).stderr
    # A truth beyond the pole is none, whoever says that its columns are right.
    kept = run("--truth", far, "--cells", cells, "--keep-axes")
    assert kept.exit_code == 3 and "impossible position" in kept.stderr and "look swapped" not in kept.stderr


def test_what_is_odd_about_truth_and_cells_is_told(files):
    folder, _, _, _ = files
    truth = write(folder / "t.csv", [*PLACES, ("mean", 46.0, 7.0)])
    (lon, _), (lat, _) = s2.center(s2.from_token(np.array(["47e9", "478c"])))
    cells = write(
        folder / "c.csv", [("4.70E+10", lat, lon, 3)], ("s2_token", "latitude_mean", "longitude_mean", "n")
    )
    done = run("--truth", truth, "--cells", cells, "--json")
    told = json.loads(done.stdout)
    assert [row["n"] for row in told["bounds"]] == [10, 10, 10]
    assert len(told["warnings"]) == 2 and "1 footer row" in done.stderr and "rebuilt" in done.stderr


def test_cells_that_are_nowhere(files):
    folder, truth, _, _ = files
    path = run("--truth", truth, "--cells", folder / "gone.csv")
    assert path.exit_code == 3 and "There is no file or folder" in path.stderr
    unasked = run("--truth", truth, "--cells", "world-fine", "--no-database")
    assert unasked.exit_code == 3 and "no file or folder world-fine" in unasked.stderr
    silent = run("--truth", truth, "--cells", "world-fine")
    assert silent.exit_code == 4 and "'world-fine': neither file nor folder" in silent.stderr
    assert "No database answers" in silent.stderr
    twice = run("--truth", truth, "--cells", "world-fine", "--cells", "world-fine")
    assert twice.exit_code == 2 and "Two partitions are called 'world-fine'" in twice.stderr


def test_wrong_calls_say_what_to_do(files):
    _, truth, good, _ = files
    unknown = run("--set", "Im2GSP", "--with-published")
    assert unknown.exit_code == 3 and "There are: Im2GPS, Im2GPS3k, YFCC4k" in unknown.stderr
    assert run().exit_code == 2 and "Which photo set?" in run().stderr
    assert "needs the truth" in run("--set", "Im2GPS", "--predictions", good).stderr
    alone = run("--set", "Im2GPS")
    assert alone.exit_code == 4 and "No database answers" in alone.stderr
    nothing = run("--set", "MP-16", "--with-published")
    assert nothing.exit_code == 2 and "No published result is known for MP-16" in nothing.stderr
    twice = run("--truth", truth, "--predictions", good, "--predictions", good)
    assert twice.exit_code == 2 and "Two files are called 'good'" in twice.stderr
    radius = run("--truth", truth, "--predictions", good, "--radius", "big")
    assert radius.exit_code == 2 and "6371, 6378.137 or ellipsoidal" in radius.stderr


def test_copies_are_noticed(files):
    folder, truth, good, _ = files
    copy = write(folder / "copy.csv", [(i, lat + 1e-3, lon) for i, lat, lon in PLACES])
    assert (
        "practically one file" in run("--truth", truth, "--predictions", good, "--predictions", copy).stderr
    )


def test_external_against_another_file(files):
    _, truth, good, half = files
    command = ["evaluate", "external", str(half), "--truth", str(truth), "--against", str(good)]
    done = CliRunner().invoke(app, [*command, "--json"])
    found = json.loads(done.stdout)["against"]
    assert found["recall"]["25000"]["difference"] == -50.0 and found["recall"]["25000"]["high"] < 0
    assert (found["a"], found["b"], found["n"]) == ("half", "good", 10)
    assert "a - b" in CliRunner().invoke(app, command).stdout


def test_external_tells_of_the_other_file(files):
    folder, truth, good, half = files
    command = ["evaluate", "external", str(good), "--truth", str(truth), "--json", "--against"]
    itself = CliRunner().invoke(app, [*command, str(good)])
    assert itself.exit_code == 0 and itself.stderr.count("good.csv is given twice") == 1
    copy = write(folder / "copy.csv", [(i, lat + 1e-3, lon) for i, lat, lon in PLACES])
    told = CliRunner().invoke(app, [*command, str(copy)])
    assert "good.csv and copy.csv are practically one file" in told.stderr
    footer = write(folder / "footer.csv", [*[*csv.reader(half.open())][1:], ("mean", 46, 8)])
    done = CliRunner().invoke(app, [*command, str(footer)])
    assert "footer.csv: 1 footer row" in done.stderr and "practically" not in done.stderr
    assert any("footer.csv: 1 footer" in text for text in json.loads(done.stdout)["warnings"])


def test_protocol_of_changes_fields_and_says_so():
    assert protocol_of("pigeon") == protocol_of("pigeon", radius="6378.137")
    changed = protocol_of("g3", missing="drop", radius="6371")
    assert (changed.name, changed.earth, changed.radius_km) == ("g3, changed", "sphere", 6371.0)
    with pytest.raises(UsageError, match="comparison is '=<'"):
        protocol_of(comparison="=<")
    with pytest.raises(UsageError, match="same_author"):
        EvaluationProtocol(same_author="some")  # type: ignore[arg-type]
    old = {k: v for k, v in EvaluationProtocol().as_record().items() if k != "same_author"}
    assert EvaluationProtocol.from_record(old) == EvaluationProtocol()


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.05, "0.05"), (5.36, "5.36"), (12.0, "12.0"), (1 / 3, "0.3")]
)
def test_shares_are_shown_as_given(value, text):
    assert share(value) == text


def test_people_from_shares_and_what_is_refused(tmp_path):
    shares = write(
        tmp_path / "s.csv", [("Human", "", "", 3.8, 13.9, 39.3, "")], ("system", *SHARE_COLUMNS, "n")
    )
    (found,) = read_humans(shares)
    assert found.accuracy_km == (None, None, 3.8, 13.9, 39.3) and found.n is None and not found.measured
    truth = write(tmp_path / "t.csv", PLACES)
    header = ("person", "id", "lat", "lon")
    for rows, message in (
        ([("anna", "q9", 46.0, 7.0)], "'q9' .line 2"),
        ([("anna", *PLACES[0]), ("anna", *PLACES[0])], "a second time"),
        ([("anna", "p0", "Bern", "")], "no number"),
        ([("anna", i, 100.0 + lat, 7.0) for i, lat, _ in PLACES], "swapped"),
    ):
        with pytest.raises(BadInputError, match=message):
            read_humans(write(tmp_path / "h.csv", rows, header), truth)
    with pytest.raises(BadInputError, match="growing radii"):
        read_humans(write(tmp_path / "d.csv", [("x", 5, 4, 3, 2, 1)], ("system", *SHARE_COLUMNS)))
    with pytest.raises(BadInputError, match="truth is needed"):
        read_humans(write(tmp_path / "h.csv", [("anna", *PLACES[0])], header))


SHARE_COLUMNS = ("acc_1km", "acc_25km", "acc_200km", "acc_750km", "acc_2500km")


def test_administrative_accuracy_leaves_out_what_has_no_label():
    truth = {"country": ["CH", "FR", "DE", "IT"], "city": ["Bern", "", None, "Roma"], "area": [""] * 4}
    answers = {"country": ["CH", "FR", "FR", ""], "city": ["Bern", "Paris", "", "Milano"], "area": [""] * 4}
    found = administrative_accuracy(answers, truth)
    assert found["country"] == {"n": 4, "hits": 2, "percent": 50.0, "unlabelled": 0}
    assert found["city"] == {"n": 2, "hits": 1, "percent": 50.0, "unlabelled": 2}
    assert found["area"]["percent"] is None and found["area"]["unlabelled"] == 4
    answered = [True, True, True, False]
    dropped = administrative_accuracy(answers, truth, missing="drop", answered=answered)
    assert (
        dropped["country"]["n"] == 3
        and administrative_accuracy(answers, truth, answered=answered)["country"]["n"] == 4
    )
    with pytest.raises(BadInputError, match="labels of answers"):
        administrative_accuracy({"city": ["a"]}, truth)


def test_labels_of_places():
    shapely = pytest.importorskip("shapely")
    areas = [shapely.box(0, 0, 10, 10), shapely.box(4, 4, 6, 6)]
    found = labels_at([1.0, 5.0, 20.0, np.nan], [1.0, 5.0, 5.0, 1.0], areas, ["land", "enclave"])
    assert found.tolist() == ["land", "enclave", "", ""]


def test_author_groups():
    assert author_groups({7: "b", 3: "a", 9: "b", 4: None, 5: ""}) == {7: 1, 3: 0, 9: 1, 4: -5, 5: -6}


@pytest.mark.shared
@pytest.mark.parametrize("suffix", ["", "_base"])
def test_published_administrative_hits(shared: Path, suffix: str):
    file = shared / "eval/osv5m_mit/select.csv"
    columns = {"pred_lat": f"pred_lat{suffix}", "pred_lon": f"pred_lon{suffix}"}
    columns |= {"true_lat": "true_lat", "true_lon": "true_lon"}
    found = evaluate_external(file, file, columns=columns)["administrative"]
    frame = pd.read_csv(file, keep_default_na=False, dtype=str)
    for level in ("country", "region", "area", "city"):
        labelled = frame[level] != ""
        hits = int((frame[f"{level}_hit{suffix}"][labelled] == "True").sum())
        assert (found[level]["n"], found[level]["hits"]) == (int(labelled.sum()), hits), level
