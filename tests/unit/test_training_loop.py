"""Training from a snapshot directory: resumed, interrupted, diverged, without imagery, with bad input."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_files import snapshot

from geofix.errors import BadInputError, ServiceError, UsageError
from geofix.imagery.transforms import InputTransform
from geofix.log import progress_to
from geofix.models.manifest import MANIFEST, model_directory
from geofix.models.registry import load_model
from geofix.pipeline.train_stage import learn
from geofix.spatial import s2
from geofix.training import samples
from geofix.training.checkpoint import OtherRunError
from geofix.training.config import TrainingConfig, load_config, parse_config
from geofix.training.distributed import Team
from geofix.training.exclusive import only_run_in
from geofix.training.first_values import set_to_means
from geofix.training.loop import train
from geofix.training.pictures import embed_pictures, photo_pictures
from geofix.training.places import TrainingPhotos
from geofix.training.run import prepare
from geofix.training.step import DivergedError

TINY: dict[str, Any] = {
    "dimension": 16,
    "ground": {"trunk": "test_resnet", "size": 32, "fit": "squash", "aggregation": "avg"},
    "prototypes": {"level": 16},
    "tiles": {"side_m": 154, "shift_m": 40},
    "batch": {"photos": 8, "neighbourhood_km": [0.2, 1]},
    "optimiser": {"trunk_lr": 1e-3, "head_lr": 1e-3, "prototype_lr": 1e-2},
    "epochs": 3,
    "workers": 0,
    "threads": 1,
}


def config(**changes: Any) -> TrainingConfig:
    return parse_config({**TINY, **changes}, "test")


class Stopper:
    """A progress sink that ends the run at one step, as a cancelled job does."""

    def __init__(self, step: int) -> None:
        self.left = step

    def __call__(self, done: int, total: int | None, message: str = "", unit: str = "") -> None:
        if unit == "steps" and done:
            self.left -= 1
            if self.left == 0:
                raise RuntimeError("cancelled")


def tensors(out: Path) -> dict[str, torch.Tensor]:
    model = load_model(out / "model")
    states = {f"{r}.{k}": v for r, e in model.encoders.items() for k, v in e.state_dict().items()}
    return states | model.tensors


def test_a_run_makes_a_model(tmp_path: Path) -> None:
    made = snapshot(tmp_path)
    result = train(config(), made.path, tmp_path / "out")
    assert result["epochs"] == 3 and result["steps"] == 6 and result["photos"] == 20
    assert result["terms"] == ["ground_prototype", "ground_aerial", "aerial_prototype"]
    assert {"cellcode.200", "prototype_only.200", "aerial_only.200", "main"} <= result["val"].keys()
    assert model_directory(tmp_path / "out") == tmp_path / "out" / "model"
    model = load_model(tmp_path / "out" / "model")
    assert model.metadata["snapshot_sha256"] == made.sha256 and model.metadata["prototype_level"] == 16
    assert model.metadata["training"]["loss"]["lambda"] == 0.0
    leaves = made.read(split="train").column("s2_id").to_numpy()
    cells, counts = np.unique(s2.parent(leaves, 16), return_counts=True)
    np.testing.assert_array_equal(model.tensors["prototypes.s2_id"].numpy(), cells)
    np.testing.assert_array_equal(model.tensors["prototypes.photos"].numpy(), counts)
    length = model.tensors["prototypes.weight"].norm(dim=1)
    torch.testing.assert_close(length, torch.ones(len(cells)))
    own = [e.state_dict()["project.weight"] for e in model.encoders.values()]
    assert len(own) == 2 and not torch.equal(own[0], own[1])
    epochs = [json.loads(line) for line in (tmp_path / "out" / "epochs.jsonl").read_text().splitlines()]
    assert [item["epoch"] for item in epochs] == [1, 2, 3]
    assert list((tmp_path / "out" / "tensorboard").glob("events*"))


@pytest.mark.parametrize(("average", "dropped"), [(0.0, 0.0), (0.9, 0.3)])
def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path, average: float, dropped: float) -> None:
    made = snapshot(tmp_path)
    ground = {**TINY["ground"], "trunk_options": {"drop_path_rate": dropped}}
    asked = config(average=average, ground=ground, validation={"keep": "last"})
    train(asked, made.path, tmp_path / "whole")
    for step in (1, 3):  # within an epoch, then at the end of one
        with progress_to(Stopper(step)), pytest.raises(RuntimeError, match="cancelled"):
            train(asked, made.path, tmp_path / "parts", resume=step > 1)
    result = train(asked, made.path, tmp_path / "parts", resume=True)
    assert result["epochs"] == 3
    whole, parts = tensors(tmp_path / "whole"), tensors(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        assert torch.equal(value, parts[name]), name
    histories = [(tmp_path / run / "epochs.jsonl").read_text() for run in ("whole", "parts")]
    assert histories[0] == histories[1]


def test_an_epoch_gone_through_again_has_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = snapshot(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with progress_to(Stopper(3)), pytest.raises(RuntimeError, match="cancelled"):
        train(config(), made.path, Path("."))
    early = Path("checkpoint.pt").read_bytes()
    train(config(), made.path, Path("."), resume=True)
    Path("checkpoint.pt").write_bytes(early)  # as if the machine had gone down before the last was written
    train(config(), made.path, Path("."), resume=True)
    assert [json.loads(line)["epoch"] for line in Path("epochs.jsonl").read_text().splitlines()] == [1, 2, 3]
    assert load_model(Path("model")).name == "here"


def test_what_a_killed_run_left_half_written_is_removed(tmp_path: Path) -> None:
    made = snapshot(tmp_path)
    (tmp_path / "out").mkdir()
    beside = [tmp_path / "out" / f".checkpoint{name}" for name in (".pt.12345", "-rank1.pt.12345")]
    for path in beside:
        path.write_bytes(b"half")
    train(config(epochs=1), made.path, tmp_path / "out")
    assert [path.exists() for path in beside] == [False, True], "another process's own is left to it"


def test_prototypes_begin_at_the_mean_of_their_photos(tmp_path: Path) -> None:
    made = snapshot(tmp_path, aerial=False, count=60)
    run = prepare(config(prototypes={"level": 15}), made.path, tmp_path, torch.device("cpu"), Team())
    state, photos = run.state, run.photos
    assert state.table is not None and 1 < len(state.table) < 20
    (tmp_path / "photos" / "0.png").unlink()
    set_to_means(state, photos, seed=0, threads=1)
    numbers, vectors = embed_pictures(
        state.networks["ground"], photo_pictures(photos, state.networks["ground"].transform, threads=1)
    )
    assert 0 not in numbers and len(numbers) == len(photos) - 1
    rows = state.table.rows_of(s2.parent(photos.s2_id[numbers], 15))
    for row, vector in enumerate(state.table.unit().detach().numpy()):
        mean = vectors[rows == row].mean(axis=0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)


def test_kept_pictures_are_the_same_in_every_pass(tmp_path: Path) -> None:
    made = snapshot(tmp_path, aerial=False)
    photos = TrainingPhotos.from_snapshot(made)
    odd = InputTransform((32, 32), 1.0, "bilinear", (0.1, 0.2, 0.3), (0.7, 0.6, 0.5))
    pictures = photo_pictures(photos, odd, threads=2, keep=True)
    passes = [list(pictures.batches(7)) for _ in range(2)]
    assert [len(numbers) for numbers, _ in passes[0]] == [7, 7, 6]
    for first, second in zip(*passes, strict=True):
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_array_equal(first[1], second[1])


def test_the_loss_falls(tmp_path: Path) -> None:
    made = snapshot(tmp_path)
    seen: list[str] = []

    def listen(done: int, total: int | None, message: str = "", unit: str = "") -> None:
        if unit == "steps" and "GP" in message:
            seen.append(message)

    with progress_to(listen):
        train(config(epochs=25, validation={"every": 25}), made.path, tmp_path / "out")
    terms = [{k: float(v) for k, v in re.findall(r"(GP|GA|AP) ([\d.]+)", m)} for m in seen]
    first = {k: np.mean([t[k] for t in terms[:4]]) for k in ("GP", "GA", "AP")}
    last = {k: np.mean([t[k] for t in terms[-4:]]) for k in ("GP", "GA", "AP")}
    assert all(last[k] < first[k] for k in first), (first, last)
    assert "photos/s" in seen[0]


def test_without_imagery_prototypes_alone_are_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = snapshot(tmp_path, aerial=False)
    result = train(config(), made.path, tmp_path / "out")
    assert "no aerial imagery: prototypes alone are trained" in "".join(capsys.readouterr())
    assert result["terms"] == ["ground_prototype"] and "cellcode.200" not in result["val"]
    assert set(load_model(tmp_path / "out" / "model").encoders) == {"ground"}
    with pytest.raises(UsageError, match="no aerial imagery"):
        train(config(loss={"ground_prototype": 0, "aerial_prototype": 0}), made.path, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_rasters_that_are_all_gone_leave_prototypes(tmp_path: Path) -> None:
    made = snapshot(tmp_path)
    for raster in (tmp_path / "imagery").iterdir():
        raster.unlink()
    result = train(config(), made.path, tmp_path / "out")
    assert "prototype_only.200" in result["val"] and "aerial_only.200" not in result["val"]
    assert len(result["unreadable"]) == 2


def test_tiles_of_another_size_than_ingested_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = snapshot(tmp_path)
    for side_m in (154, 300):
        prepare(config(tiles={"side_m": side_m}), made.path, tmp_path, torch.device("cpu"), Team())
        assert ("another size than codes" in "".join(capsys.readouterr())) == (side_m == 300)


@pytest.mark.parametrize("workers", [0, 1])
def test_photos_that_are_gone_are_named(tmp_path: Path, workers: int) -> None:
    made = snapshot(tmp_path)
    for photo in (tmp_path / "photos").iterdir():
        photo.unlink()
    with pytest.raises(BadInputError, match=r"photos one after the other cannot be read; .*\.png") as caught:
        train(config(workers=workers), made.path, tmp_path / "out")
    assert "Traceback" not in str(caught.value)


def test_a_decoding_process_that_is_killed_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = snapshot(tmp_path)
    decode, own = samples.read_photo, os.getpid()

    def killed(uri: str, transform: InputTransform) -> Any:
        if os.getpid() != own:
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory runs out
        return decode(uri, transform)

    monkeypatch.setattr(samples, "read_photo", killed)
    with pytest.raises(ServiceError, match=r"decodes pictures ended .*--resume"):
        train(config(workers=1), made.path, tmp_path / "out")


def test_a_cell_with_one_photo_and_a_photo_without_a_tile(tmp_path: Path) -> None:
    made = snapshot(tmp_path, spread_m=900.0)  # imagery reaches 512 m from the middle
    result = train(config(epochs=2, prototypes={"level": 18}), made.path, tmp_path / "out")
    photos = load_model(tmp_path / "out" / "model").tensors["prototypes.photos"]
    assert int(photos.min()) == 1 and result["prototypes"] == len(photos)


def test_aerial_alone_trains_no_prototypes(tmp_path: Path) -> None:
    made = snapshot(tmp_path)
    asked = config(loss={"ground_prototype": 0, "aerial_prototype": 0}, epochs=1)
    result = train(asked, made.path, tmp_path / "out")
    assert result["terms"] == ["ground_aerial"] and result["prototypes"] == 0
    assert "prototypes.weight" not in load_model(tmp_path / "out" / "model").tensors


def test_a_loss_that_is_no_number_ends_the_run_by_name(tmp_path: Path) -> None:
    made = snapshot(tmp_path)
    wild = config(optimiser={"trunk_lr": 1e30, "head_lr": 1e30, "warmup": 0})
    with pytest.raises(DivergedError, match=r"(term|gradient of) .*ground_aerial.* step \d+ \(epoch 1\)"):
        train(wild, made.path, tmp_path / "out")


def test_two_runs_in_one_directory_at_once_are_refused(tmp_path: Path) -> None:
    made, out = snapshot(tmp_path), tmp_path / "out"
    words = [
        "train",
        str(Path(__file__).parents[2] / "configs" / "tiny.yaml"),
        "--snapshot",
        str(made.path),
        "--out",
        str(out),
    ]
    with only_run_in(out, Team()):
        refused = subprocess.run(
            [sys.executable, "-m", "geofix.cli", *words], capture_output=True, text=True, check=False
        )
    assert refused.returncode == 2 and "Another training is writing to" in refused.stderr
    with only_run_in(out, Team()):
        pass


def test_a_directory_with_another_run_is_refused(tmp_path: Path) -> None:
    made = snapshot(tmp_path / "a")
    train(config(epochs=1), made.path, tmp_path / "out")
    with pytest.raises(UsageError, match="holds a run already"):
        train(config(epochs=1), made.path, tmp_path / "out")
    with pytest.raises(OtherRunError, match="dimension 16 -> 8"):
        train(config(epochs=1, dimension=8), made.path, tmp_path / "out", resume=True)
    other = snapshot(tmp_path / "b", seed=1)
    with pytest.raises(OtherRunError, match="belongs to snapshot"):
        train(config(epochs=1), other.path, tmp_path / "out", resume=True)
    (tmp_path / "out" / "checkpoint.pt").write_bytes(b"PK" * 500)
    with pytest.raises(BadInputError, match="cannot be read"):
        train(config(epochs=1), made.path, tmp_path / "out", resume=True)


def test_a_pipeline_begins_again_where_a_checkpoint_is_damaged(tmp_path: Path) -> None:
    made, out = snapshot(tmp_path / "a"), tmp_path / "out"
    first = learn(train, config(epochs=1), made.path, out)
    assert (out / "checkpoint.pt").write_bytes(b"half")
    again = learn(train, config(epochs=1), made.path, out)
    assert again["steps"] == first["steps"] and again["val"] == first["val"]


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ({"epoch": 3}, r"epoch: .*Keys there: .*epochs"),
        ({"loss": {"lamda": 1}}, r"loss\.lamda: .*Keys there: .*lambda"),
        ({"tiles": {"shift_m": 90}}, "takes the camera out"),
        ({"loss": {"ground_prototype": 0}}, "needs ground_prototype"),
        ({"epochs": 0}, "epochs: .*greater than or equal to 1"),
        ({"loss": {"lambda": 3}}, r"loss\.lambda: .*less than or equal to 1"),
        ({"loss": {"beta": float("inf")}}, r"loss\.beta: .*finite"),
        ({"batch": {"photos": 8, "neighbourhood_km": [10, 2]}}, r"batch\.neighbourhood_km: .*ascending"),
        ({"seed": 1 << 64}, "seed: .*less than"),
    ],
)
def test_a_wrong_configuration_names_the_key(raw: dict[str, Any], named: str) -> None:
    with pytest.raises(BadInputError, match=named):
        parse_config({**TINY, **raw}, "x.yaml")


def test_the_configurations_that_come_with_the_project() -> None:
    root = Path(__file__).parents[2]  # those of classifiers and benchmarks have tests of their own
    found = sorted(path for path in (root / "configs").glob("*.yaml") if "ground:" in path.read_text())
    assert [path.stem for path in found] == ["cpu", "distributed", "gpu", "tiny"]
    for path in [*found, *(root / "examples" / "training").glob("*.yaml")]:
        load_config(path)


def _command(made: Path, out: Path, *more: str) -> list[str]:
    file = out.parent / "tiny.yaml"
    file.write_text(json.dumps({**TINY, "epochs": 400, "validation": {"every": 400}}), encoding="utf-8")
    return [str(file), "--snapshot", str(made), "--out", str(out), *more]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint(tmp_path: Path, number: signal.Signals) -> None:
    made = snapshot(tmp_path)
    out = tmp_path / "out"
    began = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    call = [sys.executable, "-c", began + "from geofix.cli.main import main; main()", "train"]
    process = subprocess.Popen([*call, *_command(made.path, out)], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (out / "tensorboard").exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr
        time.sleep(0.1)
    process.send_signal(number)
    assert process.wait(60) == 130
    kept = torch.load(out / "checkpoint.pt", weights_only=True)
    clock = json.loads(kept["description"])["clock"]
    assert clock["step"] > 0 and clock["epoch"] < 400
    assert not list(out.glob(".checkpoint*"))
    assert (out / "model" / MANIFEST).exists() is False
