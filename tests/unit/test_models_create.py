"""`geofix models create`: what it writes, and what it refuses to replace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("timm")

from typer.testing import CliRunner

from geofix.cli import models as models_cli
from geofix.errors import NotFoundError, UsageError
from geofix.models.create import create_model
from geofix.models.manifest import read_manifest
from geofix.models.registry import load_model


def create(directory: Path, *arguments: str, code: int = 0) -> str:
    line = ["create", str(directory), "--trunk", "mobilenetv3_small_050", "--size", "32", *arguments]
    done = CliRunner().invoke(models_cli.app, line)
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.stderr


def test_an_existing_model_is_replaced_when_asked(tmp_path: Path) -> None:
    create(tmp_path / "m")
    assert "--overwrite" in create(tmp_path / "m", "--seed", "4", code=2)
    assert read_manifest(tmp_path / "m").encoders["ground"].seed == 0
    create(tmp_path / "m", "--seed", "4", "--overwrite")
    assert read_manifest(tmp_path / "m").encoders["ground"].seed == 4


def test_a_folder_with_other_things_is_never_replaced(tmp_path: Path) -> None:
    photo = tmp_path / "photos" / "holiday.jpg"
    photo.parent.mkdir()
    photo.write_bytes(b"irreplaceable")
    assert "something else than a model" in create(photo.parent, "--overwrite", code=2)
    assert photo.read_bytes() == b"irreplaceable"
    (tmp_path / "empty").mkdir()
    create(tmp_path / "empty", "--overwrite")
    assert load_model(tmp_path / "empty").name == "empty"


def test_salad_by_its_options(tmp_path: Path) -> None:
    options = ["--aggregation", "salad", "--salad-clusters", "4", "--salad-width", "6", "--salad-token", "0"]
    made = json.loads(create(tmp_path / "m", *options, "--json"))
    assert made["dimensions"] == {"ground": 24, "aerial": 24}
    assert "none of gem, avg, salad and token" in create(tmp_path / "n", "--aggregation", "max", code=2)
    with pytest.raises(UsageError, match="salad_clusters"):
        create_model(tmp_path / "n", trunk="resnet18", aggregation="salad", salad={"clusters": 0})


def test_the_hint_of_a_missing_model_names_both_ways_to_one(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"geofix train.*geofix models create"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("trunk", ["hf-hub:timm/resnet18.a1_in1k", "local-dir:/tmp", "../resnet18"])
def test_a_trunk_is_never_described_from_elsewhere(tmp_path: Path, trunk: str) -> None:
    with pytest.raises(UsageError, match=r"trunk: .*pattern"):
        create_model(tmp_path / "m", trunk=trunk)
