"""The script behind the tables and maps of docs/partitions.md, on a few thousand made-up positions."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("matplotlib")

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "partitions.py"
COUNTRIES = {"AAA": (0.0, 10.0), "BBB": (10.0, 20.0)}  # degrees of longitude, between 40 and 50 north


@pytest.fixture
def script(clean_environment: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script, with shared data of its own."""
    rng = np.random.default_rng(0)
    hubs = rng.uniform([0, 40], [20, 50], (40, 2))
    lon, lat = (hubs[rng.integers(0, 40, 3000)] + rng.normal(0, 0.2, (3000, 2))).T
    sets = np.where(np.arange(3000) % 5 == 0, "im2gps", "mp16")
    shared = tmp_path / "shared" / "data"
    (shared / "points").mkdir(parents=True)
    (shared / "boundaries").mkdir()
    columns = {"lon_e6": (lon * 1e6).astype(np.int64), "lat_e6": (lat * 1e6).astype(np.int64), "set": sets}
    pd.DataFrame(columns).to_parquet(shared / "points" / "photo_points.parquet")
    features = [
        {
            "type": "Feature",
            "properties": {"ADM0_A3": code},
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[west, 38], [east, 38], [east, 52], [west, 52], [west, 38]]],
            },
        }
        for code, (west, east) in COUNTRIES.items()
    ]
    for name in ("ne_50m_admin_0_countries.geojson", "ne_110m_admin_0_countries.geojson"):
        text = json.dumps({"type": "FeatureCollection", "features": features})
        (shared / "boundaries" / name).write_text(text)
    clean_environment.setenv("GEOFIX_SHARED", str(tmp_path / "shared"))
    described = importlib.util.spec_from_file_location("partitions_benchmark", SCRIPT)
    assert described is not None and described.loader is not None
    module = importlib.util.module_from_spec(described)
    described.loader.exec_module(module)
    return module


def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    script.main()


def test_every_rule_has_its_bounds_within_five_radii(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(script, monkeypatch, "--table", "--means")
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith("| ") and "---" not in line]
    rules = [row for row in rows if "rule" not in row[0]]
    assert len(rules) == 24 and sum("judged on" in line for line in lines) == 2
    for row in rules:
        true_class, nearest = ([float(x) for x in cell.strip(" |").split(" / ")] for cell in row[-2:])
        assert len(true_class) == len(nearest) == 5
        assert true_class == sorted(true_class) and nearest == sorted(nearest)
        assert all(low <= high for low, high in zip(true_class, nearest, strict=True))
    country = next(row for row in rules if "country" in row[0])
    assert int(country[1]) == len(COUNTRIES)
    assert sum(line.startswith("tau_max") for line in lines) == 3


def test_the_map_shows_a_partition_of_each_kind(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "map.jpg"
    run(script, monkeypatch, "--map", str(file))
    from PIL import Image

    with Image.open(file) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels.shape[0] > pixels.shape[1] and (pixels.std(axis=(0, 1)) > 20).all()
