"""ViT-MT, TransLocator and scene networks, registered and evaluated like every other localizer."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_world import SmallWorld
from typer.testing import CliRunner

from geofix.cli.main import app
from geofix.codes.register import register_model
from geofix.database.engine import connect
from geofix.evaluation.service import evaluate

ENCODER = """
encoder: {trunk: vit_tiny_patch16_224, size: 16, fit: squash,
          trunk_options: {patch_size: 8, embed_dim: 16, depth: 2, num_heads: 2}}
partitions: {tau_min: 0, tau_max: [60, 20, 8]}
batch: {photos: 16}
optimiser: {kind: adamw, trunk_lr: 1.0e-3, head_lr: 1.0e-2}
epochs: 1
workers: 0
threads: 1
"""
SERVED = {
    "vit_mt": ("vit_mt", "classifier_c"),
    "translocator": ("translocator",),
    "isn": ("isn_f", "isn_fstar"),
}


@pytest.fixture(scope="module")
def trained(small_database: SmallWorld, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of each kind, trained through the command line; maps and scenes are made up."""
    folder = tmp_path_factory.mktemp("scenes")
    classes = [{"name": name, "rgb": rgb} for name, rgb in (("a", [0, 0, 0]), ("b", [9, 9, 9]))]
    (folder / "maps").mkdir()
    (folder / "maps" / "semantics.json").write_text(json.dumps({"classes": classes}))
    with (folder / "scenes.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["photo", "s3"])
        for number, path in enumerate(sorted((small_database.folder / "photos").rglob("*.jpg"))):
            key = path.relative_to(small_database.folder / "photos")
            writer.writerow([key.as_posix(), ("natural", "urban")[number % 2]])
            with Image.open(path) as photo:
                values = np.zeros((photo.height, photo.width), np.uint8)
            values[number % 7 :] = 1
            (folder / "maps" / key.parent).mkdir(exist_ok=True)
            Image.fromarray(values).save(folder / "maps" / key.with_suffix(".png"))
    for kind in SERVED:
        text = f"kind: {kind}\nscenes: {{labels: {folder / 'scenes.csv'}}}\n{ENCODER}"
        if kind == "translocator":
            text += f"semantics: {{maps: {folder / 'maps'}}}\n"
        (folder / f"{kind}.yaml").write_text(text)
        words = ["train-classifier", str(folder / f"{kind}.yaml"), "--snapshot", str(small_database.snapshot)]
        done = CliRunner().invoke(app, [*words, "--out", str(folder / kind), "--json"])
        assert done.exit_code == 0, done.output
    return {kind: folder / kind for kind in SERVED}


def test_their_answers_lie_in_the_same_rows(small: SmallWorld, trained: dict[str, Path]) -> None:
    with connect() as conn:
        for kind, directory in trained.items():
            register_model(conn, directory, kind)
            for name in SERVED[kind]:
                result = evaluate(
                    conn,
                    localizer=name,
                    model=kind,
                    split="test_seen",
                    name=f"{name}-{kind}",
                    snapshot=small.snapshot,
                    k=3,
                )
                assert result["localizer"] == name and result["n"] > 0
                asked, answered, ranks = conn.execute(
                    "SELECT count(DISTINCT ep.photo_id), count(DISTINCT p.photo_id), max(p.rank)"
                    " FROM evaluation e JOIN evaluation_photo ep USING (evaluation_id)"
                    " LEFT JOIN prediction p USING (evaluation_id, photo_id) WHERE e.name = %s",
                    (f"{name}-{kind}",),
                ).fetchone()
                assert asked == answered == result["n"] and 1 < ranks <= 3
        conn.rollback()
