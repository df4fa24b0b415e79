"""Bounds of partitions in the database, by name on the command line, beside those of the same in folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shapely

from geofix.cli import evaluate as cli
from geofix.database.engine import connect
from geofix.partitions.adaptive import nested_partitions
from geofix.partitions.administrative import administrative_partition
from geofix.partitions.combinatorial import combinatorial_partitions
from geofix.partitions.files import save_partition
from geofix.partitions.store import store_partitions
from geofix.partitions.uniform import uniform_partition
from geofix.spatial.distance import great_circle_m
from owned import run
from servers import Database


def bounds_of(truth: Path, *cells: str) -> tuple[dict[str, Any], Any]:
    """Rows of `evaluate table` by system, and how the command ended."""
    options = [word for one in cells for word in ("--cells", one)]
    done = run(cli.app, "table", "--truth", str(truth), *options, "--json")
    rows = json.loads(done.stdout)["bounds"] if done.exit_code == 0 else []
    figures = ("n", "accuracy_km", "median_km", "mean_km", "geoscore", "note")
    return {row["system"]: {key: row[key] for key in figures} for row in rows}, done


def test_bounds_of_a_stored_partition_are_those_of_its_folder(db: Database, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lon, lat = (np.concatenate([rng.normal(mean, 1, 400), rng.uniform(-50, 50, 200)]) for mean in (8.5, 47))
    codes = np.where(lon > 0, "E", "W").astype(object)
    areas = {"E": shapely.box(0, -60, 180, 60), "W": shapely.box(-180, -60, 0, 60)}
    made = [
        uniform_partition("u", lon, lat, level=4, tau_min=1),
        *nested_partitions("w", lon, lat, tau_min=3, tau_max=(100, 50, 20)),
        *combinatorial_partitions("c", lon, lat, classes=8, sets=2)[0],
        administrative_partition("adm", codes, lon, lat, level="half", outlines=areas),
    ]
    with connect() as conn:
        store_partitions(conn, made)
    x, y = rng.uniform(-10, 30, 300), rng.uniform(30, 60, 300)
    truth = tmp_path / "truth.csv"
    pd.DataFrame({"id": [f"p{i}" for i in range(300)], "lat": y, "lon": x}).to_csv(truth, index=False)
    for one in made:
        folder = save_partition(one, tmp_path / "files")
        stored, done = bounds_of(truth, f"same={one.name}")
        assert done.exit_code == 0 and "warning" not in done.stderr
        assert list(stored) == ["true cell, same", "nearest mean, same", "most populated cell, same"]
        assert stored == bounds_of(truth, f"same={folder}")[0]
        own = one.assign(x, y)
        error = great_circle_m(one.lon[own], one.lat[own], x, y)[own >= 0]
        assert stored["true cell, same"]["accuracy_km"][4] == pytest.approx((error <= 2.5e6).sum() / 3)
    both, _ = bounds_of(truth, "w-fine", str(tmp_path / "files" / "u"))
    assert "true cell, w-fine" in both and "true cell, u" in both
    with connect() as conn:
        conn.execute("UPDATE partition SET stale_reason = '3 photos were deleted' WHERE name = 'u'")
    assert "Partition u is stale: 3 photos were deleted" in bounds_of(truth, "u")[1].stderr
    for name in ("w-fien", "u.csv"):
        lost = " ".join(bounds_of(truth, name)[1].stderr.split())
        assert f"'{name}' is neither a file nor a folder, and no partition is stored under this name." in lost
        assert "There are: adm, c-1, c-2, u, w-coarse, w-fine, w-middle." in lost
