"""Training a classifier from a snapshot directory: resumed, interrupted, diverged, with bad input."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from training_files import snapshot  # noqa: E402

from geofix.errors import BadInputError, NotFoundError, UsageError  # noqa: E402
from geofix.imagery.transforms import InputTransform  # noqa: E402
from geofix.localizers.crops import find_policy  # noqa: E402
from geofix.localizers.trained import trained_localizer  # noqa: E402
from geofix.log import progress_to  # noqa: E402
from geofix.models.classifier_dir import load_classifier  # noqa: E402
from geofix.models.mvmf import kappa_of_cells  # noqa: E402
from geofix.spatial.distance import great_circle_m  # noqa: E402
from geofix.training.checkpoint import DamagedCheckpointError, OtherRunError  # noqa: E402
from geofix.training.classify import train_classifier  # noqa: E402
from geofix.training.classify_config import (  # noqa: E402
    ClassifierConfig,
    load_classifier_config,
    parse_classifier_config,
)
from geofix.training.classify_run import cell_edges_m, prepare_run  # noqa: E402
from geofix.training.step import DivergedError  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
TINY: dict[str, Any] = {
    "encoder": {"trunk": "test_resnet", "size": 32, "fit": "squash", "aggregation": "avg"},
    "partitions": {"tau_min": 0, "tau_max": [12, 6, 3]},
    "batch": {"photos": 6, "crop": 0.9},
    "optimiser": {"kind": "adamw", "trunk_lr": 1e-3, "head_lr": 1e-2},
    "epochs": 3,
    "workers": 0,
    "threads": 1,
}
ONE = {"partitions": {"tau_min": 0, "tau_max": [3]}}
MIXTURE = {**ONE, "kind": "mvmf", "mixture": {"prekappa": "cells"}}


def config(**changes: Any) -> ClassifierConfig:
    return parse_classifier_config({**TINY, **changes}, "test")


class Stopper:
    """A progress sink that ends the run at one report of its steps, as a cancelled job does."""

    def __init__(self, step: int) -> None:
        self.left = step

    def __call__(self, done: int, total: int | None, message: str = "", unit: str = "") -> None:
        self.left -= unit == "steps" and done > 0
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory):
    return snapshot(tmp_path_factory.mktemp("town"), aerial=False).path


def weights(out: Path) -> dict[str, Any]:
    return dict(load_classifier(out).network.state_dict())


def test_a_joint_model_learns_its_photos_and_answers_from_its_directory(town, tmp_path) -> None:
    result = train_classifier(config(epochs=12), town, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "epochs.jsonl").read_text().splitlines()]
    assert len(lines) == 12 and lines[-1]["loss"] < lines[0]["loss"] + 1
    assert set(result["classes"]) == {"adaptive-coarse", "adaptive-middle", "adaptive-fine"}
    assert result["outside"] == dict.fromkeys(result["classes"], 0) and result["steps"] == 12 * 3
    run = prepare_run(config(), town, tmp_path / "x", torch.device("cpu"))
    uris = [run.photos.uri[i] for i in range(len(run.photos))]
    for name in ("classifier", "classifier_c", "classifier_m", "classifier_f", "classifier_fstar"):
        localizer = trained_localizer(name, tmp_path)
        found = localizer.localize_photos([*uris, None, str(tmp_path / "nothing.png")], 4)
        assert found.answered[: len(uris), 0].all() and not found.answered[len(uris) :].any()
        scores = np.where(found.answered, found.score, -np.inf)
        assert (np.diff(scores[: len(uris)][:, : found.answered[0].sum()], axis=1) <= 0).all()
    assert localizer.name == "classifier_fstar"
    error = great_circle_m(run.photos.lon, run.photos.lat, found.lon[:-2, 0], found.lat[:-2, 0])
    assert np.median(error) < 400  # the square is 700 m wide, an answer drawn at random 360 m away


def test_training_takes_up_where_it_was_interrupted_to_the_same_weights(town, tmp_path) -> None:
    for name, changes in (("softmax", {}), ("mvmf", MIXTURE)):
        asked = config(optimiser={"kind": "sgd", "trunk_lr": 1e-3, "head_lr": 1e-2}, **changes)
        whole, parts = tmp_path / name / "whole", tmp_path / name / "parts"
        train_classifier(asked, town, whole)
        for resume, stop in ((False, 2), (True, 4)):
            with pytest.raises(KeyboardInterrupt), progress_to(Stopper(stop)):
                train_classifier(asked, town, parts, resume=resume)
        result = train_classifier(asked, town, parts, resume=True)
        assert result["steps"] == 9
        one, other = weights(whole), weights(parts)
        assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_a_mixture_learns_and_answers(town, tmp_path) -> None:
    result = train_classifier(config(**MIXTURE, epochs=6), town, tmp_path)
    assert result["kind"] == "mvmf" and np.isfinite(result["val"]["loss"])
    trained = load_classifier(tmp_path)
    edges = cell_edges_m(trained.partitions[0])
    expected = np.log(kappa_of_cells(edges))
    assert trained.network.prekappa.detach().numpy() == pytest.approx(expected, abs=1e-9)
    run = prepare_run(config(**MIXTURE), town, tmp_path / "x", torch.device("cpu"))
    uris = [run.photos.uri[i] for i in range(6)]
    plain, mode = (trained_localizer(name, tmp_path) for name in ("mvmf", "mvmf_mode"))
    a, b = plain.localize_photos(uris, 3), mode.localize_photos(uris, 3)
    assert np.array_equal(b.s2_id[:, 1:], a.s2_id[:, :-1])
    assert (great_circle_m(b.lon[:, 0], b.lat[:, 0], run.photos.lon[:6], run.photos.lat[:6]) < 1500).all()
    with pytest.raises(UsageError, match="another kind"):
        trained_localizer("classifier", tmp_path)


def test_centres_and_kappa_are_trained_where_asked_for(town, tmp_path) -> None:
    mixture = {"prekappa": "cells", "train_centres": True, "train_kappa": True}
    run = prepare_run(config(**{**MIXTURE, "mixture": mixture}), town, tmp_path / "x", torch.device("cpu"))
    before = {key: value.clone() for key, value in run.network.state_dict().items()}
    train_classifier(config(**{**MIXTURE, "mixture": mixture}), town, tmp_path / "y")
    after = weights(tmp_path / "y")
    assert not torch.equal(before["prekappa"], after["prekappa"])
    assert not torch.equal(before["centres"], after["centres"])
    moved = (before["centres"] - after["centres"]).norm(dim=1).max() * 6_371_000
    assert float(moved) < 200  # nine steps of at most 1e-6 along each axis


def test_a_single_partition_answers_with_its_centre_or_its_mean(town, tmp_path) -> None:
    train_classifier(config(**ONE, epochs=1), town, tmp_path)
    run = prepare_run(config(**ONE), town, tmp_path / "x", torch.device("cpu"))
    uris = [run.photos.uri[i] for i in range(4)]
    mean, centre = (trained_localizer(name, tmp_path) for name in ("classifier", "planet"))
    a, b = mean.localize_photos(uris, 5), centre.localize_photos(uris, 5)
    part = load_classifier(tmp_path).partitions[0]
    own = part.assign(a.lon[:, 0], a.lat[:, 0])
    assert np.array_equal(part.class_cells()[own], b.s2_id[:, 0]) and np.array_equal(a.score, b.score)
    assert a.lon[:, 0] == pytest.approx(part.lon[own]) and not np.allclose(
        a.lon[:, 0], b.lon[:, 0], atol=1e-7
    )
    for name in ("classifier_f", "classifier_fstar"):
        with pytest.raises(UsageError, match="1 partitions"):
            trained_localizer(name, tmp_path)
    only = np.stack([mean.answer_ids[:1], mean.answer_ids[:1]], axis=1)
    there = mean.localize_photos(uris, 5, only)
    assert (there.answered.sum(axis=1) == 1).all() and (there.s2_id[:, 0] == only[0, 0]).all()
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    one = mean.localize_photos([str(tmp_path / "noise.png")], 5)
    five = mean.with_crops(find_policy("five-max")).localize_photos([str(tmp_path / "noise.png")], 5)
    assert five.answered.all() and not np.allclose(five.score, one.score, atol=1e-4)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_of_a_whole_step(town, tmp_path, number) -> None:
    def ask(done: int, total: int | None, message: str = "", unit: str = "") -> None:
        if unit == "steps" and done == 2:
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt), progress_to(ask):
        train_classifier(config(), town, tmp_path)
    result = train_classifier(config(), town, tmp_path, resume=True)
    assert result["steps"] == 9


def test_photos_outside_every_class_are_told_and_left_out(town, tmp_path) -> None:
    sparse = {"partitions": {"tau_min": 2, "tau_max": [12, 3]}}
    result = train_classifier(config(**sparse, epochs=1), town, tmp_path)
    outside = list(result["outside"].values())
    assert outside[0] < outside[1] and outside[1] > 0


def test_too_many_classes_for_the_memory_given(town, tmp_path) -> None:
    with pytest.raises(UsageError, match="GiB") as refused:
        train_classifier(config(memory_gb=1e-5), town, tmp_path)
    assert "tau_max" in refused.value.hint and not (tmp_path / "checkpoint.pt").exists()


def test_one_class_and_no_class_are_refused(town, tmp_path) -> None:
    with pytest.raises(BadInputError, match="one class"):
        train_classifier(config(partitions={"tau_min": 0, "tau_max": [1000]}), town, tmp_path)
    with pytest.raises(BadInputError, match="tau_min"):
        train_classifier(config(partitions={"tau_min": 500, "tau_max": [1000]}), town, tmp_path)


def test_a_loss_that_is_no_number_names_the_step(town, tmp_path, monkeypatch) -> None:
    original, count = InputTransform.apply, iter(range(1000))

    def broken(self: InputTransform, photo: Any) -> Any:
        pixels = original(self, photo)
        return pixels * np.nan if next(count) >= 6 else pixels

    monkeypatch.setattr(InputTransform, "apply", broken)
    with pytest.raises(DivergedError, match=r"adaptive-coarse is nan at step 2 \(epoch 1\)"):
        train_classifier(config(), town, tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_checkpoints_are_refused_where_they_do_not_belong(town, tmp_path) -> None:
    with pytest.raises(NotFoundError, match="No checkpoint"):
        train_classifier(config(), town, tmp_path, resume=True)
    train_classifier(config(epochs=1), town, tmp_path)
    with pytest.raises(UsageError, match="holds a run"):
        train_classifier(config(epochs=1), town, tmp_path)
    with pytest.raises(OtherRunError, match="epochs 1 -> 2"):
        train_classifier(config(epochs=2), town, tmp_path, resume=True)
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\x03\x04 no checkpoint")
    with pytest.raises(DamagedCheckpointError, match="cannot be read"):
        train_classifier(config(epochs=1), town, tmp_path, resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encodr": {}}, "encodr.*Keys there: kind, encoder"),
        ({"partitions": {"tau": 3}}, "partitions.tau.*Keys there: tau_min"),
        ({"partitions": {"tau_max": [100, 200]}}, "not descending"),
        ({"partitions": {"tau_min": 50, "tau_max": [50]}}, "not below"),
        ({"partitions": {"tau_max": [200, 100], "weights": [1]}}, "1 weights for 2"),
        ({"kind": "mvmf"}, "one partition"),
        ({"mixture": {"prekappa": 99}}, "mixture.prekappa"),
        ({"epochs": 0}, "epochs"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_by_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError) as refused:
        parse_classifier_config({**TINY, **changes}, "test.yaml")
    import re

    assert re.search(message, f"{refused.value.message} {refused.value.hint}")


def test_the_configurations_that_come_along_are_read() -> None:
    assert len(load_classifier_config(ROOT / "configs/classifier.yaml").partitions.tau_max) == 3
    assert load_classifier_config(ROOT / "configs/mvmf.yaml").kind == "mvmf"


def test_every_key_is_listed_with_its_default() -> None:
    from test_docs import keys_of, read_value, rows

    text = (ROOT / "docs/localizers.md").read_text()
    import re

    (table,) = re.findall(r"^\| key \| default .*?(?=\n\n)", text, re.MULTILINE | re.DOTALL)
    listed = {row[0].strip("`"): read_value(row[1].strip("`")) for row in rows(table)[2:]}
    expected = {key: value for key, value in keys_of(ClassifierConfig) if not key.startswith("encoder.")}
    assert listed == {"encoder": "required", **expected}
