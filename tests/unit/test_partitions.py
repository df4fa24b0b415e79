"""Partitions of one rule each: what counts, what nests, what is refused, and what files keep."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from partition_samples import same, skewed

from geofix.errors import BadInputError, NotFoundError, UsageError
from geofix.evaluation.cell_tables import listed_partition
from geofix.partitions.adaptive import adaptive_cells, adaptive_partition, nested_partitions
from geofix.partitions.administrative import administrative_partition
from geofix.partitions.classes import class_means, listed
from geofix.partitions.files import load_partition, save_partition
from geofix.partitions.hierarchy import ancestors, nest, parents
from geofix.partitions.outlines import class_outlines
from geofix.partitions.partition import Partition
from geofix.partitions.uniform import uniform_partition
from geofix.spatial import s2
from geofix.spatial.distance import great_circle_m, mean_position


def by_recursion(leaves: np.ndarray, tau_min: int, tau_max: int, max_level: int) -> list[int]:
    """The rule as it is written, one cell at a time."""
    kept: list[int] = []

    def visit(cell: int, inside: np.ndarray) -> None:
        level = int(s2.level(np.int64(cell)))
        if len(inside) > tau_max and level < max_level:
            own = s2.parent(inside, level + 1)
            for child in s2.children(np.int64(cell)):
                visit(int(child), inside[own == child])
        elif len(inside) > tau_min:
            kept.append(cell)

    for face in range(6):
        cell = np.int64(np.uint64((face << 61) | (1 << 60)).astype(np.int64))
        visit(int(cell), leaves[s2.parent(leaves, 0) == cell])
    return sorted(kept)


@given(st.integers(0, 10**6), st.integers(0, 20), st.integers(1, 60), st.integers(0, 30))
@settings(max_examples=40, deadline=None)
def test_adaptive_cells_are_those_of_the_rule(seed: int, tau_min: int, more: int, max_level: int) -> None:
    leaves = s2.cell_at(*skewed(400, seed))
    expected = by_recursion(leaves, tau_min, tau_min + more, max_level)
    if expected:
        found = adaptive_cells(leaves, tau_min=tau_min, tau_max=tau_min + more, max_level=max_level)
        assert found.tolist() == expected
    else:
        with pytest.raises(BadInputError, match="tau_min"):
            adaptive_cells(leaves, tau_min=tau_min, tau_max=tau_min + more, max_level=max_level)


def test_the_lower_bound_is_strict_and_the_upper_is_not() -> None:
    leaves = np.repeat(s2.cell_at([8.5, -70.0], [47.4, -30.0]), [51, 50])
    assert len(adaptive_cells(leaves, tau_min=50, tau_max=100)) == 1
    assert s2.level(adaptive_cells(leaves, tau_min=49, tau_max=51)).tolist() == [0, 0]
    # Photos at one point cannot be told apart: their leaf stays over-full, as in the published tables.
    assert s2.level(adaptive_cells(leaves, tau_min=5, tau_max=50)).tolist() == [0, 30]


@pytest.mark.parametrize("rule", ["uniform", "adaptive"])
def test_counts_sum_and_positions_are_means(rule: str) -> None:
    lon, lat = skewed(3000)
    if rule == "uniform":
        made = uniform_partition("u", lon, lat, level=6, tau_min=2)
    else:
        made = adaptive_partition("a", lon, lat, tau_min=5, tau_max=60)
    label = made.assign(lon, lat)
    assert (label == made.assign(leaf_ids=s2.cell_at(lon, lat))).all()
    assert (np.bincount(label[label >= 0], minlength=len(made)) == made.photos).all()
    assert made.photos.sum() + (label < 0).sum() == 3000 and (label < 0).any()
    first, last = s2.range_of(made.cells)
    assert (first[1:] > last[:-1]).all()
    for i in range(0, len(made), 7):
        inside = label == i
        there = mean_position(lon[inside], lat[inside])
        assert great_circle_m(made.lon[i], made.lat[i], *there) < 1e-3
        assert (
            s2.parent(s2.cell_at(lon[inside], lat[inside]), int(s2.level(made.cells[i]))) == made.cells[i]
        ).all()


def test_positions_in_degrees_are_those_of_the_published_tables() -> None:
    label, lon, lat = np.array([0, 0, -1, 1]), [10.0, 20.0, 0.0, 5.0], [60.0, 60.0, 0.0, 5.0]
    x, y, photos = class_means(label, 2, lon, lat, "degrees")
    assert x.tolist() == [15, 5] and y.tolist() == [60, 5] and photos.tolist() == [2, 1]
    # On the sphere the mean of two places on a parallel lies on the great circle between them, north of it.
    x, y, _ = class_means(label, 2, lon, lat)
    assert x[0] == pytest.approx(15) and 60.05 < y[0] < 60.2


def test_nested_partitions_nest() -> None:
    lon, lat = skewed(4000, 3)
    made = nested_partitions("w", lon, lat, tau_min=10, tau_max=(400, 150, 50))
    assert [p.name for p in made] == ["w-coarse", "w-middle", "w-fine"]
    assert [p.coarser for p in made] == [None, "w-coarse", "w-middle"]
    own = [p.assign(lon, lat) for p in made]
    chain = ancestors(made)
    inside = own[2] >= 0
    assert (chain[own[2][inside]] == np.stack(own, axis=1)[inside]).all()
    middle = made[1]
    assert middle.parent is not None
    for i, cell in enumerate(middle.class_cells()):
        outer = made[0].class_cells()[middle.parent[i]]
        assert s2.parent(cell, int(s2.level(outer))) == outer
    single = nested_partitions("x", lon, lat, tau_min=10, tau_max=(100,))
    assert [p.name for p in single] == ["x"]
    assert [p.name for p in nested_partitions("y", lon, lat, tau_min=9, tau_max=(80, 40))] == ["y-80", "y-40"]


def test_what_is_not_nested_is_refused() -> None:
    lon, lat = skewed(2000, 5)
    fine = adaptive_partition("fine", lon, lat, tau_min=1, tau_max=20)
    coarse = adaptive_partition("coarse", lon, lat, tau_min=80, tau_max=200)
    with pytest.raises(BadInputError, match="lie in no class of 'coarse'"):
        parents(fine, coarse)
    with pytest.raises(BadInputError, match="no class"):
        parents(coarse, fine)
    with pytest.raises(UsageError, match="nest"):
        ancestors([coarse, fine])
    cells = s2.children(s2.children(np.int64(s2.cell_at(8, 47, 5))))
    several = Partition("several", "geoclass", np.sort(cells.ravel()), np.zeros(16, np.int64), *where(1))
    children = listed("four", np.sort(cells.reshape(4, 4)[:, 1]), *where(4))
    children = replace(children, cells=np.sort(s2.parent(children.cells, 6)))
    with pytest.raises(BadInputError, match="several classes of 'four'"):
        parents(several, children)


def where(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.full(n, 8.0), np.full(n, 47.0), np.ones(n, np.int64)


@pytest.mark.shared
def test_the_published_hierarchy_is_that_of_containment(shared: Path) -> None:
    folder = shared / "eval/translocator_mit"
    made = [
        listed_partition(name, folder / f"cells_{name}_repaired.csv")[0]
        for name in ("coarse", "middle", "fine")
    ]
    assert [len(p) for p in made] == [3298, 7202, 12893]
    assert [int(p.photos.sum()) for p in made] == [4_718_111, 4_702_026, 4_658_503]
    chain = ancestors(nest(made))
    told = pd.read_csv(folder / "hierarchy_fine_middle_coarse.csv")[["coarse", "middle", "fine"]].to_numpy()
    told = told[told[:, 2] < len(made[2])]
    assert len(told) > 12_800 and (chain[told[:, 2]] == told).all()


def test_administrative_classes_are_codes() -> None:
    lon, lat = np.array([8.0, 8.2, 2.0, 30.0, 8.1]), np.array([47.0, 47.2, 48.0, 60.0, 47.1])
    codes = np.array(["CHE", "CHE", "FRA", None, "CHE"], object)
    areas = {
        "CHE": shapely.box(7, 46, 9, 48),
        "FRA": shapely.box(0, 46, 7, 50),
        "DEU": shapely.box(7, 48, 9, 50),
    }
    made = administrative_partition("c", codes, lon, lat, level="country", outlines=areas)
    assert made.codes == ("CHE", "FRA") and made.photos.tolist() == [3, 1]
    assert made.assign_codes(codes).tolist() == [0, 0, 1, -1, 0]
    assert made.assign_codes(["DEU"]).tolist() == [-1]
    assert made.assign(lon, lat).tolist() == [0, 0, 1, -1, 0]
    assert made.assign(leaf_ids=s2.cell_at(lon, lat)).tolist() == [0, 0, 1, -1, 0]
    assert [shape.geom_type for shape in class_outlines(made)] == ["MultiPolygon"] * 2
    assert administrative_partition("c", codes, lon, lat, level="x", tau_min=1).codes == ("CHE",)
    bare = administrative_partition("c", codes, lon, lat, level="country")
    with pytest.raises(UsageError, match="no outlines"):
        bare.assign(lon, lat)
    with pytest.raises(BadInputError, match="no outline, first 'FRA'"):
        administrative_partition("c", codes, lon, lat, level="country", outlines={"CHE": areas["CHE"]})
    with pytest.raises(BadInputError, match="None of 5 photos"):
        administrative_partition("c", [None] * 5, lon, lat, level="country")
    with pytest.raises(BadInputError, match="more than 9"):
        administrative_partition("c", codes, lon, lat, level="country", tau_min=9)


def test_the_smallest_region_decides_where_several_hold_a_place() -> None:
    areas = {"A": shapely.box(0, 0, 20, 20), "B": shapely.box(5, 5, 6, 6)}
    made = administrative_partition("c", ["A", "B"], [1.0, 5.5], [1.0, 5.5], level="x", outlines=areas)
    assert made.assign([5.5, 10.0], [5.5, 10.0]).tolist() == [1, 0]


def test_outside_every_cell_is_minus_one() -> None:
    made = uniform_partition("u", [8.5], [47.4], level=10)
    assert made.assign([8.5, -8.5], [47.4, -47.4]).tolist() == [0, -1]
    assert made.assign(8.5, 47.4).shape == ()
    # A cell that holds the partition's cell, and more, lies in no class.
    assert made.assign(leaf_ids=s2.parent(made.cells, 8)).tolist() == [-1]
    with pytest.raises(BadInputError, match="not within"):
        made.assign([np.nan], [0.0])
    with pytest.raises(UsageError, match="longitudes and latitudes, or leaf ids"):
        made.assign()


LON, LAT = np.full(60, 8.5), np.full(60, 47.4)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: adaptive_partition("a", LON, LAT, tau_min=50, tau_max=50),
            UsageError,
            "tau_min 50 is not below",
        ),
        (lambda: adaptive_partition("a", LON, LAT, tau_min=-1, tau_max=50), UsageError, "tau_min -1"),
        (lambda: adaptive_partition("a", LON, LAT, tau_max=99, max_level=31), UsageError, "Level 31"),
        (lambda: adaptive_partition("a", LON, LAT, tau_min=60, tau_max=99), BadInputError, "fullest has 60"),
        (lambda: adaptive_partition("a", [], [], tau_max=99), BadInputError, "there are none"),
        (lambda: nested_partitions("a", LON, LAT, tau_max=(99, 99)), UsageError, "not descending"),
        (lambda: uniform_partition("a", LON, LAT, level=-1), UsageError, "Level -1"),
        (lambda: uniform_partition("a", LON, LAT, level=31), UsageError, "Level 31"),
        (lambda: uniform_partition("a", LON, LAT, level=5, tau_min=60), BadInputError, "fullest has 60"),
        (lambda: uniform_partition("a", LON, LAT, level=5, tau_min=-2), UsageError, "negative"),
        (lambda: uniform_partition("a", [], [], level=5), BadInputError, "there are none"),
        (lambda: uniform_partition("a", LAT * 2, LON * 20, level=5), BadInputError, "Latitude 170"),
        (lambda: uniform_partition("../a", LON, LAT, level=5), UsageError, "cannot be the name"),
        (lambda: uniform_partition("a", LON, LAT, level=5, position="mode"), UsageError, "'mode'"),  # type: ignore[arg-type]
        (
            lambda: listed("l", s2.cell_at([8.0, 9.0], 47, 9), *where(2)[:2], [3, 0]),
            BadInputError,
            "class 1 has 0",
        ),
        (lambda: listed("l", s2.cell_at([8.0, 8.0], 47, 9), *where(2)), BadInputError, "overlap"),
        (
            lambda: listed("l", s2.parent(s2.cell_at([8.0, 8.0], 47), [9, 10]), *where(2)),
            BadInputError,
            "overlap",
        ),
        (lambda: listed("l", [], [], [], []), BadInputError, "has no class"),
        (lambda: class_means(np.array([0, 2]), 3, [1.0, 2.0], [1.0, 2.0]), BadInputError, "Class 1 of 3"),
    ],
)
def test_what_cannot_be_is_refused(make, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        make()


def test_a_damaged_cell_table_is_refused(tmp_path: Path) -> None:
    good = s2.token(s2.parent(s2.cell_at([8.0, 20.0], 47), [9, 12]))
    frame = pd.DataFrame({"s2_token": ["1.23E+15", *good], "imgs_per_cell": 60})
    frame["latitude_mean"], frame["longitude_mean"] = 47.0, [100.0, 8.0, 20.0]
    frame.to_csv(tmp_path / "cells.csv", index=False)
    with pytest.raises(BadInputError, match=r"line 2: '1\.23e\+15'.*never open it in a spreadsheet"):
        listed_partition("l", tmp_path / "cells.csv")
    frame[1:].to_csv(tmp_path / "sound.csv", index=False)
    with pytest.raises(BadInputError, match="no column 'count'"):
        listed_partition("l", tmp_path / "sound.csv", photos="count")
    frame.loc[1, "imgs_per_cell"] = 0
    frame[1:].to_csv(tmp_path / "empty.csv", index=False)
    with pytest.raises(BadInputError, match="line 2: imgs_per_cell '0' is a class without photos"):
        listed_partition("l", tmp_path / "empty.csv")


def test_files_keep_a_partition(tmp_path: Path) -> None:
    lon, lat = skewed(2000)
    made = [*nested_partitions("w", lon, lat, tau_min=5, tau_max=(200, 100, 50))]
    area = {"A": shapely.box(-180, -90, 180, 90)}
    made.append(administrative_partition("adm", ["A"] * 2000, lon, lat, level="x", outlines=area))
    for one in made:
        folder = save_partition(one, tmp_path / "model" / "partitions")
        assert sorted(f.name for f in folder.iterdir()) == [
            "cells.parquet",
            "classes.parquet",
            "partition.json",
        ]
        back = load_partition(folder)
        assert same(back, one) and back.parameters == one.parameters
    assert same(load_partition(save_partition(made[1], tmp_path, overwrite=True)), made[1])
    with pytest.raises(UsageError, match="exists"):
        save_partition(made[1], tmp_path)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    folder = save_partition(uniform_partition("u", LON, LAT, level=5), tmp_path)
    with pytest.raises(NotFoundError, match="no partition"):
        load_partition(tmp_path)
    classes = folder / "classes.parquet"
    data = classes.read_bytes()
    classes.write_bytes(data[:-1] + b"x")
    with pytest.raises(BadInputError, match="changed"):
        load_partition(folder)
    classes.write_bytes(data)
    manifest = json.loads((folder / "partition.json").read_text())
    for change in ({"format": 2}, {"kind": "magic"}, {"files": {}}, {"sets": ["a"]}):
        (folder / "partition.json").write_text(json.dumps({**manifest, **change}))
        with pytest.raises((BadInputError, UsageError)):
            load_partition(folder)
    (folder / "partition.json").write_text("{")
    with pytest.raises(BadInputError, match="cannot be read"):
        load_partition(folder)
    (tmp_path / "v").mkdir()
    with pytest.raises(UsageError, match="is no partition"):
        save_partition(uniform_partition("v", LON, LAT, level=5), tmp_path)
