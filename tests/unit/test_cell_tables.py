"""Spreadsheet damage of S2 tokens: made on purpose, then repaired or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from geofix.errors import BadInputError
from geofix.evaluation.bounds import read_classes
from geofix.evaluation.cell_tables import listed_partition, read_cell_table
from geofix.partitions.containment import assign_cells
from geofix.spatial import s2


def table(tokens: list[str]) -> pd.DataFrame:
    lon, lat = s2.center(s2.from_token(np.array(tokens)))
    return pd.DataFrame({"s2_token": tokens, "latitude_mean": lat, "longitude_mean": lon})


def damaged(tmp_path: Path, tokens: list[str], changes: dict[str, str]) -> Path:
    frame = table(tokens)
    frame["s2_token"] = frame["s2_token"].replace(changes)
    path = tmp_path / "cells.csv"
    frame.to_csv(path, index=False)
    return path


TOKENS = ["8744", "80dcd3", "47e9", "4786419d1", "0c04", "4f84", "3dec", "872e5", "10c1"]


def test_sound_tokens_stay_text(tmp_path: Path) -> None:
    found = read_cell_table(damaged(tmp_path, TOKENS, {}))
    assert found.frame["s2_token"].tolist() == TOKENS and not found.repaired and not found.warnings
    assert (found.s2_id == s2.from_token(np.array(TOKENS))).all()


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        ("47e9", "4.70E+10"),
        ("47e9", "47000000000"),
        ("872e5", "87200000"),
        ("872e5", "8.72E+07"),
        ("8744", "8744.0"),
        ("3dec", "03-Dec"),
        ("3dec", "3-Dec"),
    ],
)
def test_damage_is_repaired_by_the_position_beside_it(tmp_path: Path, token: str, shown: str) -> None:
    found = read_cell_table(damaged(tmp_path, TOKENS, {token: shown}))
    assert found.frame["s2_token"].tolist() == TOKENS
    assert list(found.repaired.values()) == [(shown, token)] and "rebuilt" in found.warnings[0]


def test_lost_leading_zero_is_seen_although_the_rest_is_a_token(tmp_path: Path) -> None:
    tokens = ["8744", "0894", "10c1"]
    found = read_cell_table(damaged(tmp_path, tokens, {"0894": "894"}))
    assert found.frame["s2_token"].tolist() == tokens


def test_beyond_repair_is_refused_with_line_numbers(tmp_path: Path) -> None:
    path = damaged(tmp_path, TOKENS, {"80dcd3": "#NAME?"})
    with pytest.raises(BadInputError, match=r"line 3: '#name\?'.*never open it in a spreadsheet"):
        read_cell_table(path)
    # A spreadsheet leaves text with a letter other than e alone, so this is another fault than its own.
    with pytest.raises(BadInputError, match="line 6"):
        read_cell_table(damaged(tmp_path, TOKENS, {"0c04": "C04"}))
    frame = table(TOKENS).drop(columns=["latitude_mean"])
    frame["s2_token"] = frame["s2_token"].replace({"47e9": "4.7E+10"})
    frame.to_csv(tmp_path / "n.csv", index=False)
    with pytest.raises(BadInputError, match=r"line 4: '4\.7e\+10'"):
        read_cell_table(tmp_path / "n.csv")


def test_ambiguous_rounding_needs_neighbours_that_settle_it(tmp_path: Path) -> None:
    # Zero times any power of ten is shown as zero, so `0e3` may have been `0e34` as well.
    alone = damaged(tmp_path, ["0e3", "8744"], {"0e3": "0.00E+00"})
    with pytest.raises(BadInputError, match="beyond repair"):
        read_cell_table(alone)
    sibling = damaged(tmp_path, ["0e3", "0e5"], {"0e3": "0.00E+00"})
    assert read_cell_table(sibling).frame["s2_token"].tolist() == ["0e3", "0e5"]


def test_repeated_tokens_and_missing_columns(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="line 2 and on line 4"):
        read_cell_table(damaged(tmp_path, ["8744", "10c1", "8744"], {}))
    with pytest.raises(BadInputError, match="no column"):
        read_cell_table(damaged(tmp_path, ["8744"], {}), token_column="token")


def listed_file(tmp_path: Path, changes: dict[str, dict[int, object]]) -> Path:
    """A sound table of nine cells with photos, in which some values are replaced."""
    frame = table(TOKENS).assign(imgs_per_cell=60).astype(object)
    for column, values in changes.items():
        for row, value in values.items():
            frame.loc[row, column] = value
    frame.to_csv(tmp_path / "cells.csv", index=False)
    return tmp_path / "cells.csv"


def swapped(tmp_path: Path, tokens: list[str]) -> Path:
    frame = table(tokens).assign(imgs_per_cell=60)
    frame.columns = ["s2_token", "longitude_mean", "latitude_mean", "imgs_per_cell"]
    frame.to_csv(tmp_path / "swapped.csv", index=False)
    return tmp_path / "swapped.csv"


NEAR = ["478c", "4794", "479c", "47a4"]
DAMAGED_ROWS = [
    (
        {"imgs_per_cell": {2: "many"}},
        r"cells\.csv, line 4: imgs_per_cell 'many' is no number of photos .1 such",
    ),
    ({"imgs_per_cell": {2: 12.5}}, r"line 4: imgs_per_cell '12\.5' is no number of photos"),
    ({"imgs_per_cell": {1: ""}}, "line 3: imgs_per_cell '' is no number of photos"),
    (
        {"imgs_per_cell": {0: 0, 3: 0}},
        r"line 2: imgs_per_cell '0' is a class without photos .2 such.*drop it",
    ),
    ({"imgs_per_cell": {0: -1}}, "line 2: imgs_per_cell '-1' is a class without photos"),
    ({"latitude_mean": {4: "x"}}, r"line 6: latitude_mean 'x' is no number.*Write the mean in degrees"),
    ({"longitude_mean": {4: ""}}, "line 6: longitude_mean '' is no number"),
    (
        {"latitude_mean": {1: 95}},
        r"line 3: latitude_mean '95' is not within -90 to 90.*Exchange latitude_mean",
    ),
    ({"longitude_mean": {1: "inf"}}, "line 3: longitude_mean 'inf' is not within -180 to 180"),
    ({"s2_token": {8: "874"}}, r"cells 872e5 on line 9 and 874 on line 10 overlap .2 such"),
]


@pytest.mark.parametrize(("changes", "message"), DAMAGED_ROWS)
def test_a_row_that_can_be_no_class_is_named(
    tmp_path: Path, changes: dict[str, dict[int, object]], message: str
) -> None:
    if "s2_token" in changes:
        lon, lat = s2.center(s2.from_token(np.array(["874"])))
        changes = {**changes, "longitude_mean": {8: lon[0]}, "latitude_mean": {8: lat[0]}}
    path = listed_file(tmp_path, changes)
    for read in (lambda: listed_partition("l", path), lambda: read_classes(path)):
        with pytest.raises(BadInputError, match=message):
            read()


def test_swapped_positions_of_cells_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        BadInputError, match=r"line 2: latitude_mean '-.*Exchange latitude_mean and longitude"
    ):
        read_classes(swapped(tmp_path, TOKENS))
    with pytest.raises(
        BadInputError, match=r"swapped\.csv: latitude_mean and longitude_mean look swapped: 4 of 4"
    ):
        read_classes(swapped(tmp_path, NEAR))


def test_counts_may_lack_and_names_differ_in_case(tmp_path: Path) -> None:
    frame = table(NEAR)
    frame.columns = ["S2_Token", "Latitude_Mean", "Longitude_Mean"]
    frame.to_csv(tmp_path / "cells.csv", index=False)
    found = read_classes(tmp_path / "cells.csv")
    assert found.count is None and found.cells is not None and found.warnings == ()
    with pytest.raises(BadInputError, match="no column 'imgs_per_cell'"):
        listed_partition("l", tmp_path / "cells.csv")
    frame.assign(Photos=7).to_csv(tmp_path / "cells.csv", index=False)
    counted = read_classes(tmp_path / "cells.csv")
    assert counted.count is not None and counted.count.tolist() == [7] * 4
    made, _ = listed_partition("l", tmp_path / "cells.csv", photos="photos")
    assert made.photos.tolist() == [7] * 4 and np.array_equal(made.class_cells(), counted.cells)


def test_what_was_mended_is_told_with_the_classes(tmp_path: Path) -> None:
    found = read_classes(listed_file(tmp_path, {"s2_token": {2: "4.70E+10"}}))
    assert len(found.warnings) == 1 and "rebuilt" in found.warnings[0]


def test_containment_needs_disjoint_cells() -> None:
    cells = s2.from_token(np.array(["8744", "47e9"]))
    inside = s2.parent(s2.cell_at(*s2.center(cells), 30), 20)
    outside = s2.cell_at(np.array([0.0]), np.array([-80.0]), 30)
    assert assign_cells(np.concatenate([inside[::-1], outside]), cells).tolist() == [1, 0, -1]
    with pytest.raises(BadInputError, match="overlap"):
        assign_cells(inside, np.concatenate([cells, s2.children(cells[:1]).ravel()[:1]]))
    assert assign_cells(inside, np.array([], dtype=np.int64)).tolist() == [-1, -1]


@pytest.mark.shared
def test_published_labels_are_reproduced_by_containment(shared: Path) -> None:
    folder = shared / "eval/translocator_mit"
    photos = pd.read_csv(folder / "yfcc25600_places365.csv")
    labels = pd.read_csv(folder / "yfcc25600_cell_labels.csv").set_index("img_id").loc[photos["IMG_ID"]]
    leaves = s2.cell_at(photos["LON"].to_numpy(), photos["LAT"].to_numpy(), 30)
    right = 0
    for name in ("coarse", "middle", "fine"):
        cells = read_cell_table(folder / f"cells_{name}_repaired.csv")
        found = cells.frame["class_label"].to_numpy()[assign_cells(leaves, cells.s2_id)]
        right += int((found == labels[name].to_numpy()).sum())
    assert right == 76_800


@pytest.mark.shared
@pytest.mark.parametrize("name", ["coarse", "middle", "fine"])
def test_a_published_table_survives_a_spreadsheet(shared: Path, tmp_path: Path, name: str) -> None:
    """Every token that a spreadsheet reads as a number is shown as it would show it."""
    frame = pd.read_csv(shared / f"eval/translocator_mit/cells_{name}_repaired.csv", dtype=str)
    tokens = frame["s2_token"].tolist()

    def shown(token: str) -> str:
        if token.isdigit():
            return str(int(token)) if len(token) <= 11 else f"{float(token):.5E}"
        mantissa, _, exponent = token.partition("e")
        number = mantissa.isdigit() and exponent.isdigit() and np.isfinite(float(token))
        return f"{float(token):.2E}" if number else token

    frame["s2_token"] = [shown(t) for t in tokens]
    frame.to_csv(tmp_path / "c.csv", index=False)
    broken = sum(a != b for a, b in zip(tokens, frame["s2_token"], strict=True))
    found = read_cell_table(tmp_path / "c.csv")
    assert broken > 50 and len(found.repaired) == broken
    assert found.frame["s2_token"].tolist() == tokens
