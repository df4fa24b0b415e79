"""Published metadata of photo sets: every layout, every kind of damage, images beside them, leaks."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from geofix.cli.main import app
from geofix.errors import BadInputError, NotFoundError
from geofix.evaluation.leakage import PhotoList, author_of, find_leaks, photo_key, photo_list
from geofix.evaluation.photo_tables import describe, match_images, read_photo_table

GEOESTIMATION = (
    *("IMG_ID", "AUTHOR", "LAT", "LON", "S3_Label", "S16_Label", "S365_Label"),
    *("Prob_indoor", "Prob_natural", "Prob_urban"),
)
OSV = (
    *("id", "latitude", "longitude", "thumb_original_url", "country", "sequence", "captured_at", "region"),
    *("sub-region", "city", "unique_region", "unique_sub-region", "unique_city", "unique_country"),
    *("creator_username", "creator_id"),
)
ROWS = [
    ["45/77/3228511372.jpg", "41894195278@N01", 48.858, 2.294, 2, 14, 330, 0.1, 0.2, 0.7],
    ["ab/cd/10201275523.jpg", "16266776@N00", -33.857, 151.215, 1, 8, 26, 0.05, 0.9, 0.05],
    ["00/01/5000000001.jpg", "16266776@N00", 60.0, -170.5, 0, 5, 364, 1.0, 0.0, 0.0],
]


def write(path: Path, rows: Sequence[Sequence[object]], header: Sequence[str] = GEOESTIMATION) -> Path:
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([header, *rows])
    return path


def test_geoestimation_mp16_layout(tmp_path):
    found = read_photo_table(write(tmp_path / "mp16_places365.csv", ROWS), photo_set="MP-16")
    assert found.ids.tolist() == [row[0] for row in ROWS]
    assert found.positions.lat.tolist() == [48.858, -33.857, 60.0]
    assert found.scenes["s3_label"].tolist() == [2, 1, 0]
    assert found.scenes["s365_label"].tolist() == [330, 26, 364]
    assert found.scene_probability.shape == (3, 3) and found.authors.tolist()[1] == "16266776@N00"
    assert any("3 photos, MP-16 has 4,723,695" in text for text in found.warnings)
    assert describe(found)["authors"] == 2


@pytest.mark.parametrize("header", [("id", "lat", "lon"), ("img_id", "latitude", "longitude")])
def test_plain_layouts(tmp_path, header):
    found = read_photo_table(write(tmp_path / "p.csv", [row[:1] + row[2:4] for row in ROWS], header))
    assert found.positions.lon.tolist() == [2.294, 151.215, -170.5]
    assert found.authors is None and found.scenes == {} and found.scene_probability is None


def test_osv5m_layout(tmp_path):
    lines = (
        "3859149887465501,-43.8,-176.6,u,NZ,s1,1,Chatham,,Waitangi,Chatham_NZ,,Waitangi_NaN_Chatham_NZ,NZ,r,11.0",
        "297765091851450,46.9,7.4,u,CH,s2,2,Bern,Mittelland,,Bern_CH,Mittelland_Bern_CH,,CH,,",
    )
    rows = [line.split(",") for line in lines]
    found = read_photo_table(write(tmp_path / "test.csv", rows, OSV), photo_set="osv5m")
    assert found.places["country"].tolist() == ["NZ", "CH"]
    assert found.places["region"].tolist() == ["Chatham_NZ", "Bern_CH"]
    assert found.places["area"].tolist() == ["", "Mittelland_Bern_CH"]
    assert found.places["city"].tolist() == ["Waitangi_NaN_Chatham_NZ", ""]
    assert found.authors.tolist() == ["11.0", ""]
    assert describe(found)["without_city"] == 1 and found.warnings == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({4: 3}, r"line 3: S3_Label is '3', an unknown scene; 1 row"),
        ({5: -1}, "S16_Label is '-1'"),
        ({6: "beach"}, "S365_Label is 'beach'"),
        ({6: 1.5}, "S365_Label is '1.5'"),
        ({7: 7.0}, "no probabilities of indoor"),
        ({0: "3.22851E+09"}, "spreadsheet"),
        ({2: ""}, "no position"),
        ({3: 190.0}, "impossible position"),
        ({2: "48,858"}, "decimal comma"),
        ({0: ROWS[0][0]}, "different positions"),
    ],
)
def test_damaged_rows_are_refused(tmp_path, change, message):
    row = [change.get(i, value) for i, value in enumerate(ROWS[1])]
    with pytest.raises(BadInputError, match=message):
        read_photo_table(write(tmp_path / "p.csv", [ROWS[0], row, ROWS[2]]))


def test_swapped_columns_are_refused_and_footers_left_out(tmp_path):
    swapped = [[*row[:2], row[3], row[2], *row[4:]] for row in ROWS]
    with pytest.raises(BadInputError, match="swapped"):
        read_photo_table(write(tmp_path / "s.csv", swapped))
    columns = {"lat": "LON", "lon": "LAT"}
    assert read_photo_table(tmp_path / "s.csv", columns=columns).positions.lat[0] == 48.858
    footer = read_photo_table(write(tmp_path / "f.csv", [*ROWS, ["accuracy", "", "12.5%", "25%"]]))
    assert len(footer) == 3 and any("footer" in text for text in footer.warnings)


def test_equal_duplicates_are_merged_and_counts_are_compared(tmp_path):
    found = read_photo_table(write(tmp_path / "p.csv", [*ROWS, ROWS[0]]))
    assert len(found) == 3 and any("repeated" in text for text in found.warnings)
    rows = [[f"p{i}", 10 + i / 1000, 20.0] for i in range(2998)]
    table = write(tmp_path / "q.csv", rows, ("id", "lat", "lon"))
    assert (
        "2,998 photos, Im2GPS3k has 2,997: a footer"
        in read_photo_table(table, photo_set="im2gps3k").warnings[0]
    )
    with pytest.raises(NotFoundError, match="No photo set"):
        read_photo_table(table, photo_set="Im2GPS9k")


def picture(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), shade, dtype=np.uint8)).save(path)


def test_images_are_found_beside_the_table(tmp_path):
    table = read_photo_table(write(tmp_path / "p.csv", ROWS))
    picture(tmp_path / "images/45_77_3228511372.jpg", 10)  # as MP-16 is usually unpacked
    picture(tmp_path / "images/sub/10201275523.jpg", 20)
    picture(tmp_path / "images/9999.jpg", 30)
    found = match_images(table, tmp_path / "images")
    assert [p and p.name for p in found.paths] == ["45_77_3228511372.jpg", "10201275523.jpg", None]
    assert list(found.refused) == ["00/01/5000000001.jpg"] and "missing_file" in found.refused[ROWS[2][0]]
    assert found.unlisted == ["9999.jpg"]
    with pytest.raises(NotFoundError, match="no folder"):
        match_images(table, tmp_path / "nowhere")


def test_keys_name_the_photo_whatever_stands_around_it():
    assert photo_key("45/77/3228511372.jpg") == photo_key("3228511372") == "3228511372"
    assert photo_key("104123223_7410c654ba_19_19355699@N00.jpg") == "104123223"
    assert author_of("104123223_7410c654ba_19_19355699@N00.jpg") == "19355699@N00"
    assert photo_key("a.b.c") == "a.b.c" and author_of("45/77/3228511372.jpg") == ""


def test_leaks_by_id_bytes_and_author(tmp_path):
    train = read_photo_table(write(tmp_path / "train.csv", ROWS))
    test_rows = [
        ["3228511372.jpg", "someone@N01", *ROWS[0][2:]],
        ["77.jpg", "16266776@N00", *ROWS[1][2:]],
        ["78.jpg", "", *ROWS[2][2:]],
    ]
    test = read_photo_table(write(tmp_path / "test.csv", test_rows))
    for name, shade in (("a/10201275523.jpg", 7), ("b/78.jpg", 7), ("b/77.jpg", 9)):
        picture(tmp_path / name, shade)
    lists = (
        photo_list(train, match_images(train, tmp_path / "a")),
        photo_list(test, match_images(test, tmp_path / "b")),
    )
    leaks = find_leaks(*lists)["leaks"]
    assert (leaks["id"]["photos"], leaks["id"]["examples"]) == (1, ["3228511372"])
    assert (leaks["author"]["photos"], leaks["author"]["examples"]) == (1, ["16266776@N00"])
    assert leaks["sha256"]["photos"] == 1
    bare = PhotoList("x", np.array(["1"], dtype=object))
    assert find_leaks(bare, lists[1])["leaks"]["author"] is None


def test_command(tmp_path):
    picture(tmp_path / "images/77.jpg", 1)
    test = write(tmp_path / "test.csv", [["77.jpg", "16266776@N00", *ROWS[1][2:]]])
    train = write(tmp_path / "train.csv", ROWS)
    command = ["evaluate", "testset", str(test), "--set", "Im2GPS", "--images", str(tmp_path / "images")]
    done = CliRunner().invoke(app, [*command, "--train", str(train), "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert (result["n"], result["images"], result["published_n"]) == (1, 1, 237)
    assert result["leakage"]["leaks"]["author"]["photos"] == 1
    shown = CliRunner().invoke(app, [*command, "--train", str(train)])
    assert "16266776@N00" in shown.stdout and "holds 1 photos, Im2GPS has 237" in shown.stderr
    bad = CliRunner().invoke(app, ["evaluate", "testset", str(test), "--set", "Im3GPS"])
    assert bad.exit_code == 3 and "There are: Im2GPS" in bad.stderr


@pytest.mark.shared
@pytest.mark.parametrize(
    ("file", "name", "n", "authors", "most", "scenes"),
    [
        ("translocator_mit/im2gps_places365.csv", "Im2GPS", 237, 233, 2, [19, 80, 138]),
        ("translocator_mit/im2gps3k_places365.csv", "Im2GPS3k", 2997, 198, 235, [545, 845, 1607]),
        ("translocator_mit/yfcc25600_places365.csv", "YFCC26k", 25_600, 13_018, 103, [9307, 5390, 10_903]),
        ("mever_apache2/yfcc4k.csv", "YFCC4k", 4536, None, None, None),
        ("mever_apache2/im2gps.csv", "Im2GPS", 237, None, None, None),
    ],
)
def test_published_files(shared: Path, file, name, n, authors, most, scenes):
    table = read_photo_table(shared / "eval" / file, photo_set=name)
    found = describe(table)
    assert len(table) == n and table.warnings == []
    assert (found.get("authors"), found.get("most_photos_of_one_author")) == (authors, most)
    assert found.get("s3_label") == scenes


@pytest.mark.shared
def test_the_subset_of_yfcc26k_is_told(shared: Path):
    (warning,) = read_photo_table(shared / "eval/mever_apache2/yfcc25k.csv", photo_set="YFCC26k").warnings
    assert "23,035 photos, YFCC26k has 25,600: the subset of the MEVER team" in warning
