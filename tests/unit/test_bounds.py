"""Bounds of answering with positions of cells: by hand, and against the published tables of cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from geofix.errors import BadInputError
from geofix.evaluation.bounds import ClassPositions, bounds_of, cell_bounds, read_classes
from geofix.evaluation.photo_tables import read_photo_table
from geofix.evaluation.protocols import EvaluationProtocol
from geofix.partitions.files import save_partition
from geofix.partitions.uniform import uniform_partition
from geofix.spatial import s2

LON = np.array([7.45, 7.46, 2.35, 100.0])
LAT = np.array([46.95, 46.95, 48.85, 0.0])


def two_cells() -> ClassPositions:
    cells = s2.parent(s2.cell_at(LON[[0, 2]], LAT[[0, 2]], 30), 8)
    return ClassPositions(np.array([7.45, 2.35]), np.array([46.95, 48.85]), np.array([3, 9]), cells)


def test_by_hand():
    found = cell_bounds(LON, LAT, two_cells())
    assert found["true_cell"]["answered"] == 75.0
    # Two photos lie on their class's position, one 760 m from it, one outside every cell.
    assert found["true_cell"]["accuracy_km"] == {
        "1": 75.0,
        "25": 75.0,
        "200": 75.0,
        "750": 75.0,
        "2500": 75.0,
    }
    assert found["true_cell"]["median_km"] == 0.0
    assert found["nearest_mean"]["accuracy_km"]["1"] == 75.0 and found["nearest_mean"]["answered"] == 100.0
    assert found["most_populated"]["position"] == {"lon": 2.35, "lat": 48.85}
    assert found["most_populated"]["accuracy_km"] == {
        **dict.fromkeys(("1", "25", "200"), 25.0),
        **dict.fromkeys(("750", "2500"), 75.0),
    }


def test_a_photo_outside_is_wrong_under_every_policy():
    found = cell_bounds(LON, LAT, two_cells(), protocol=EvaluationProtocol(missing="drop"))
    assert found["true_cell"]["n"] == 4 and found["true_cell"]["accuracy_km"]["2500"] == 75.0


def test_classes_of_several_cells_and_of_none():
    base = two_cells()
    assert base.cells is not None
    parts = np.concatenate([s2.children(base.cells[:1]).ravel(), base.cells[1:]])
    several = ClassPositions(base.lon, base.lat, None, parts, np.array([0, 0, 0, 0, 1]))
    assert several.labels(LON, LAT).tolist() == [0, 0, 1, -1]
    found = cell_bounds(LON, LAT, several)
    assert found["true_cell"] == cell_bounds(LON, LAT, base)["true_cell"] and "most_populated" not in found
    bare = ClassPositions(base.lon, base.lat)
    assert list(cell_bounds(LON, LAT, bare)) == ["nearest_mean"]
    own = cell_bounds(LON, LAT, bare, own=[0, 0, 1, -1])
    assert own["true_cell"] == found["true_cell"]


def test_what_is_no_partition_is_refused():
    base = two_cells()
    with pytest.raises(BadInputError, match="per class"):
        ClassPositions(base.lon, base.lat[:1])
    with pytest.raises(BadInputError, match="no position on earth"):
        ClassPositions(np.array([np.nan, 1.0]), base.lat)
    with pytest.raises(BadInputError, match="belong to a class"):
        ClassPositions(base.lon, base.lat, None, base.cells, np.array([0, 2]))
    with pytest.raises(BadInputError, match="no photo"):
        cell_bounds([], [], base)


def test_a_partition_folder_is_read(tmp_path):
    made = uniform_partition("l8", LON, LAT, level=8)
    folder = save_partition(made, tmp_path)
    found = bounds_of(LON, LAT, {"l8": read_classes(folder)})["l8"]
    assert found["true_cell"]["answered"] == 100.0 and found["true_cell"]["accuracy_km"]["25"] == 100.0


def test_a_table_without_positions_is_refused(tmp_path):
    (tmp_path / "c.csv").write_text("s2_token,latitude_mean\n8744,39.0\n")
    with pytest.raises(BadInputError, match="longitude_mean"):
        read_classes(tmp_path / "c.csv")


# As printed beside the cell tables: true cell, nearest mean, percent inside a cell.
PUBLISHED = """
Im2GPS    coarse 100    18.6/56.5/88.2/98.3/100  19.8/57.4/89.5/98.7/100
Im2GPS    middle 99.58  31.2/68.4/94.1/98.7/99.6 32.1/69.2/94.5/99.6/100
Im2GPS    fine   97.47  34.6/77.6/94.5/97.0/97.5 35.4/81.9/96.6/100/100
Im2GPS3k  coarse 99.97  20.0/63.4/92.4/99.6/100  20.8/64.6/94.2/99.7/100
Im2GPS3k  middle 99.70  30.7/73.7/96.0/99.6/99.7 32.1/75.0/97.1/100/100
Im2GPS3k  fine   98.90  38.6/79.3/97.4/98.9/98.9 39.7/81.4/98.6/100/100
YFCC4k    coarse 99.85  16.4/68.5/96.4/99.5/99.8 17.3/71.1/97.4/99.8/100
YFCC4k    middle 99.54  24.3/80.1/97.9/99.5/99.5 25.4/82.5/98.7/100/100
YFCC4k    fine   98.30  32.9/86.7/97.5/98.3/98.3 34.3/89.4/99.4/100/100
YFCC26k   coarse 100    18.6/70.2/97.0/99.8/100  19.5/72.4/97.8/99.9/100
YFCC26k   middle 100    28.0/81.5/98.5/99.9/100  29.0/83.6/99.0/99.9/100
YFCC26k   fine   100    35.8/88.8/99.3/100/100   37.0/90.3/99.5/100/100
"""
FILES = {
    "Im2GPS": "translocator_mit/im2gps_places365.csv",
    "Im2GPS3k": "translocator_mit/im2gps3k_places365.csv",
    "YFCC4k": "mever_apache2/yfcc4k.csv",
    "YFCC26k": "translocator_mit/yfcc25600_places365.csv",
}
PARIS = {
    "Im2GPS": (1.3, 3.4, 3.4, 13.1, 37.1),
    "Im2GPS3k": (0.9, 2.6, 2.8, 13.2, 35.4),
    "YFCC4k": (0.5, 1.5, 1.9, 21.5, 39.6),
    "YFCC26k": (0.3, 1.3, 1.7, 21.6, 39.0),
}


@pytest.mark.shared
@pytest.mark.parametrize("name", list(FILES))
def test_published_bounds(shared: Path, name: str):
    photos = read_photo_table(shared / "eval" / FILES[name]).positions
    for line in PUBLISHED.strip().splitlines():
        one, partition, inside, true_cell, nearest = line.split()
        if one != name:
            continue
        classes = read_classes(shared / f"eval/translocator_mit/cells_{partition}_repaired.csv")
        found = cell_bounds(photos.lon, photos.lat, classes)
        assert found["true_cell"]["answered"] == pytest.approx(float(inside), abs=0.005)
        for bound, printed in (("true_cell", true_cell), ("nearest_mean", nearest)):
            shares = [round(value, 1) for value in found[bound]["accuracy_km"].values()]
            assert shares == [float(text) for text in printed.split("/")], (partition, bound)
        if partition == "fine":
            assert tuple(round(v, 1) for v in found["most_populated"]["accuracy_km"].values()) == PARIS[name]
