"""The renderer's own semantic maps and scenes: beside the photos, right, and nothing else changed."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from geofix.cli.main import app
from geofix.errors import NotFoundError
from geofix.imagery.semantics import SemanticMaps
from geofix.training.scene_labels import SceneLabels
from geofix.world import create_world
from geofix.world.class_view import CLASSES, SOURCE, class_number, render_classes
from geofix.world.ground_view import render
from geofix.world.semantics import map_path, write_semantics
from geofix.world.sizes import SIZES, Size
from geofix.world.write import Recipe, chance_of, light_at, plan_world


@pytest.fixture(scope="module", autouse=True)
def _small():
    SIZES["nano"] = Size("nano", 3, 300.0, 30, (64, 48), 1.0)
    yield
    del SIZES["nano"]


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, _small: None) -> tuple[Path, dict[str, str]]:
    root = tmp_path_factory.mktemp("nano")
    create_world(root, size="nano", seed=5, workers=1)
    before = digests(root)
    assert write_semantics(root, workers=1) == 30
    return root, before


def test_nothing_else_changes_and_the_world_is_still_whole(world) -> None:
    root, before = world
    after = digests(root)
    assert {name: after[name] for name in before} == before
    new = sorted(set(after) - set(before))
    assert len(new) == 32 and {"scenes.csv", "semantics/semantics.json"} <= set(new)
    summary = create_world(root, size="nano", seed=5, workers=1)
    assert summary.photos == 30 and digests(root) == after
    lost = root / next(name for name in new if name.endswith(".png"))
    lost.unlink()
    write_semantics(root, workers=1)
    assert digests(root) == after


def test_maps_are_read_as_any_others_and_say_who_made_them(world) -> None:
    root, _ = world
    maps = SemanticMaps(root / "semantics")
    assert maps.classes == CLASSES and maps.classes.source == SOURCE
    seen: set[int] = set()
    for path in sorted(root.glob("photos/*/*.jpg")):
        found = np.asarray(maps.read(str(path), Image.open(path).size))
        seen |= set(np.unique(found).tolist())
    assert {class_number(name) for name in ("sky", "road", "building")} <= seen and len(seen) > 8
    labels = SceneLabels(root / "scenes.csv")
    with (root / "scenes.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 30 and {row["source"] for row in rows} == {SOURCE}
    assert {labels.of(str(root / row["photo"]), 3) for row in rows} <= {1, 2}
    assert all((row["s3"] == "2") == (row["kind"] in ("town", "village")) for row in rows)


def test_pixels_of_a_class_look_alike_and_borders_lie_where_colours_change(_small) -> None:
    """Sky is brighter than what is below it; painting a class over moves no other pixel."""
    recipe = Recipe("nano", 5)
    closer = []
    for shot in plan_world(recipe)[::6]:
        _, extra = chance_of(recipe, shot)
        light, scene = light_at(recipe, shot), recipe.scene(shot.patch)
        size = (128, 96)
        colours = render(scene, shot.camera, light, shot.epoch, size, *extra)
        classes = render_classes(scene, shot.camera, light, shot.epoch, size, *extra)
        assert classes.shape == colours.shape[:2] and classes.max() < len(CLASSES)
        horizon = int(shot.camera.horizon * size[1])
        ground = [class_number(name) for name in ("road", "pavement", "grass", "field", "water", "beach")]
        assert not np.isin(classes[: max(0, horizon - 1)], ground).any()
        assert not (classes[horizon + 2 :] == class_number("sky")).any()
        step = np.abs(np.diff(colours, axis=1)).sum(axis=2)
        border = np.diff(classes.astype(int), axis=1) != 0
        if border.sum() > 50:
            closer.append(step[border].mean() / max(step[~border].mean(), 1e-6))
    assert closer and np.median(closer) > 2.5


def test_the_command_writes_them_on_request(tmp_path, _small) -> None:
    made = CliRunner().invoke(
        app,
        ["world", "create", str(tmp_path / "w"), "--size", "nano", "--semantics", "--workers", "1", "--json"],
    )
    assert made.exit_code == 0 and json.loads(made.stdout)["semantic_maps"] == 30
    shot = plan_world(Recipe("nano", 0))[0]
    assert map_path(tmp_path / "w", shot).is_file()
    with pytest.raises(NotFoundError, match="no complete world"):
        write_semantics(tmp_path)
