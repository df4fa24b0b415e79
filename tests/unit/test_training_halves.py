"""Prototypes and tiles in separate halves of the ground vector: encoders, training, what is written down."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from torch.nn.functional import normalize  # noqa: E402
from training_files import snapshot  # noqa: E402

from geofix.errors import BadInputError  # noqa: E402
from geofix.log import progress_to  # noqa: E402
from geofix.models.config import EncoderConfig  # noqa: E402
from geofix.models.encoder import JoinedEncoder, build_encoder  # noqa: E402
from geofix.models.groups import freeze_trunk, parameter_groups  # noqa: E402
from geofix.models.prototypes import PrototypeTable  # noqa: E402
from geofix.models.registry import Model, load_model, save_model  # noqa: E402
from geofix.training.config import TrainingConfig, parse_config  # noqa: E402
from geofix.training.distributed import Team  # noqa: E402
from geofix.training.first_values import set_to_means  # noqa: E402
from geofix.training.loop import _batches, train  # noqa: E402
from geofix.training.run import prepare  # noqa: E402
from geofix.training.step import take_step  # noqa: E402

torch.set_num_threads(1)
HALVES = EncoderConfig(trunk="test_resnet", image_size=32, aggregation="avg", dimension=16, parts=2)
TILES = HALVES.model_copy(update={"part": 1})
RUN: dict[str, Any] = {
    "dimension": 16,
    "separate": True,
    "ground": {"trunk": "test_resnet", "size": 32, "fit": "squash", "aggregation": "avg"},
    "loss": {"aerial_prototype": 0},
    "prototypes": {"level": 16},
    "tiles": {"side_m": 154, "shift_m": 40},
    "batch": {"photos": 8, "neighbourhood_km": [0.2, 1]},
    "optimiser": {"trunk_lr": 1e-3, "head_lr": 1e-3, "prototype_lr": 1e-2},
    "epochs": 2,
    "workers": 0,
    "threads": 1,
}


def config(**changes: Any) -> TrainingConfig:
    return parse_config({**RUN, **changes}, "test")


def pictures() -> torch.Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_the_ground_vector_has_two_halves_of_equal_length_and_the_tile_one() -> None:
    with torch.inference_mode():
        ground, tile = build_encoder(HALVES)(pictures()), build_encoder(TILES)(pictures())
    assert ground.shape == tile.shape == (4, 16)
    half = torch.full((4,), 0.5**0.5)
    torch.testing.assert_close(ground[:, :8].norm(dim=1), half)
    torch.testing.assert_close(ground[:, 8:].norm(dim=1), half)
    assert not torch.allclose(ground[:, :8], ground[:, 8:]), "both halves have the same weights"
    assert not tile[:, :8].any()
    torch.testing.assert_close(tile[:, 8:].norm(dim=1), torch.ones(4))


def test_what_moves_one_half_leaves_the_other() -> None:
    encoder = build_encoder(HALVES)
    assert isinstance(encoder, JoinedEncoder)
    encoder(pictures())[:, :8].sum().backward()
    first, second = (
        [p.grad is not None and bool(p.grad.any()) for p in m.parameters()] for m in encoder.members
    )
    assert any(first) and not any(second)


def test_frozen_trunks_and_groups_cover_both(tmp_path: Path) -> None:
    encoder = build_encoder(HALVES.model_copy(update={"train_blocks": 0}))
    assert freeze_trunk(encoder) == 0
    encoder.train()
    assert isinstance(encoder, JoinedEncoder)
    assert [m.trunk.training for m in encoder.members] == [False, False]
    free = build_encoder(HALVES)
    assert freeze_trunk(free) > 0
    listed = [p for group in parameter_groups(free, 0.1, 0.2, 0.0) for p in group["params"]]
    wanted = [p for p in free.parameters() if p.requires_grad]
    assert len(listed) == len({id(p) for p in listed}) == len(wanted)


def test_a_model_with_halves_is_written_and_read(tmp_path: Path) -> None:
    encoders = {"ground": build_encoder(HALVES), "aerial": build_encoder(TILES)}
    save_model(Model("halves", dict(encoders)), tmp_path / "model")
    again = load_model(tmp_path / "model")
    with torch.inference_mode():
        for role, encoder in encoders.items():
            assert torch.equal(encoder(pictures()), again.encoder(role)(pictures()))
    assert again.encoder("ground").dimension == 16 and again.encoder("aerial").config.part == 1


@pytest.mark.parametrize(
    "changes", [{"dimension": 15}, {"dimension": None}, {"part": 2}, {"parts": 0}], ids=str
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="part"):
        EncoderConfig.model_validate({**HALVES.model_dump(exclude={"input"}), **changes})


def test_training_keeps_the_halves_apart(tmp_path: Path) -> None:
    made = snapshot(tmp_path)
    result = train(config(), made.path, tmp_path / "out")
    assert result["terms"] == ["ground_prototype", "ground_aerial"]
    assert {"cellcode.200", "prototype_only.200", "aerial_only.200"} <= result["val"].keys()
    model = load_model(tmp_path / "out" / "model")
    rows = model.tensors["prototypes.weight"]
    assert rows.shape[1] == 16 and not rows[:, 8:].any()
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)))
    with torch.inference_mode():
        assert not model.encoder("aerial")(pictures())[:, :8].any()


def test_tiles_are_a_second_task_of_the_half_of_prototypes(tmp_path: Path) -> None:
    made = snapshot(tmp_path)
    one = {"epochs": 1, "prototypes": {"level": 16, "warmup_epochs": 1}}
    train(config(**one), made.path, tmp_path / "alone")
    result = train(config(**one, loss={"aerial_prototype": 0, "auxiliary": 1}), made.path, tmp_path / "out")
    assert result["terms"] == ["ground_prototype", "ground_aerial", "auxiliary"]
    alone, model = (load_model(tmp_path / run / "model") for run in ("alone", "out"))
    images = pictures()
    with torch.inference_mode():
        assert not model.encoder("aerial")(images)[:, :8].any()
        before, after = alone.encoder("ground")(images), model.encoder("ground")(images)
    assert not torch.allclose(before[:, :8], after[:, :8])


def test_soft_labels_are_learned(tmp_path: Path) -> None:
    """The table starts at once, and photos find their cells."""
    soft = {"level": 16, "soft_labels": True, "warmup_epochs": 0}
    loss = {"kind": "softmax", "aerial_prototype": 0, "auxiliary": 1}
    seen: list[float] = []

    def listen(done: int, total: int | None, message: str = "", unit: str = "") -> None:
        if unit == "steps" and (found := re.search(r"GP ([\d.]+)", message)):
            seen.append(float(found[1]))

    with progress_to(listen):
        many = config(epochs=25, prototypes=soft, loss=loss, validation={"every": 25})
        train(many, snapshot(tmp_path).path, tmp_path / "out")
    # It cannot fall to 0: the entropy of the labels is left.
    assert np.mean(seen[-4:]) < 0.9 * np.mean(seen[:4]), seen


def test_photos_and_tiles_meet_at_proxies_of_the_tiles_half(tmp_path: Path) -> None:
    """The term is the cross-entropy of both against the second table, which moves and is not kept."""
    soft = {"level": 16, "soft_labels": True, "temperature": 0.2}
    loss = {"kind": "softmax", "temperature": 0.1, "aerial_prototype": 0.5}
    asked = config(prototypes=soft, loss=loss, workers=0)
    run = prepare(asked, snapshot(tmp_path).path, tmp_path / "out", torch.device("cpu"), Team())
    state = run.state
    set_to_means(state, run.photos, seed=0, threads=1)
    state.clock.table_started = True
    state.eval()
    batch = next(iter(_batches(run)))
    proxies = state.proxies
    assert proxies is not None and state.table is not None and batch.has_aerial.any()
    with torch.inference_mode():
        photos = normalize(state.networks["ground"](batch.ground)[:, 8:], dim=1)
        tiles = state.networks["aerial"](batch.aerial)[:, 8:]
        photo = _plain(photos, proxies, batch.lon, batch.lat)
        tile = _plain(tiles, proxies, batch.tile_lon, batch.tile_lat)[torch.from_numpy(batch.has_aerial)]
    before = {half: table.weight.detach().clone() for half, (table, _) in state.tables.items()}
    outcome = take_step(state, batch, asked)
    assert outcome.terms["aerial_prototype"] == pytest.approx(float(photo.mean() + tile.mean()), rel=1e-4)
    weighed = sum(value * (0.5 if name == "aerial_prototype" else 1) for name, value in outcome.terms.items())
    assert outcome.loss == pytest.approx(weighed, rel=1e-5)
    for half, (table, _) in state.tables.items():
        assert not torch.equal(before[half], table.weight), f"{half}: no row has moved"
    assert not torch.allclose(state.table.unit(), proxies.unit())


def _plain(vectors: torch.Tensor, table: PrototypeTable, lon: Any, lat: Any) -> torch.Tensor:
    place = table.place(lon, lat)
    assert place.has_positive.all()
    logits = vectors @ table.unit().T / 0.2
    return logits.logsumexp(1) - (place.weights * logits.gather(1, place.rows.clamp(min=0))).sum(1)


def test_the_model_keeps_no_proxies(tmp_path: Path) -> None:
    made = snapshot(tmp_path)
    result = train(config(loss={}), made.path, tmp_path / "out")
    assert result["terms"] == ["ground_prototype", "ground_aerial", "aerial_prototype"]
    model = load_model(tmp_path / "out" / "model")
    assert sorted(model.tensors) == ["prototypes.photos", "prototypes.s2_id", "prototypes.weight"]
    assert not model.tensors["prototypes.weight"][:, 8:].any()
    kept = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)
    assert kept["proxies"]["weight"].shape == kept["table"]["weight"].shape


class Stopper:
    """A progress sink that ends the run at its third step."""

    left = 3

    def __call__(self, done: int, total: int | None, message: str = "", unit: str = "") -> None:
        if unit == "steps" and done:
            self.left -= 1
            if self.left == 0:
                raise RuntimeError("cancelled")


@pytest.mark.parametrize("proxies", [0, 1])
def test_a_resumed_run_ends_with_the_same_halves(tmp_path: Path, proxies: int) -> None:
    made = snapshot(tmp_path)
    asked = config(loss={"aerial_prototype": proxies})
    train(asked, made.path, tmp_path / "whole")
    with progress_to(Stopper()), pytest.raises(RuntimeError, match="cancelled"):
        train(asked, made.path, tmp_path / "parts")
    train(asked, made.path, tmp_path / "parts", resume=True)
    whole, parts = (load_model(tmp_path / run / "model") for run in ("whole", "parts"))
    for name, value in whole.tensors.items():
        assert torch.equal(value, parts.tensors[name]), name
    for role, encoder in whole.encoders.items():
        for name, value in encoder.state_dict().items():
            assert torch.equal(value, parts.encoder(role).state_dict()[name]), (role, name)


def test_without_imagery_the_whole_vector_is_the_prototypes(tmp_path: Path) -> None:
    made = snapshot(tmp_path, aerial=False)
    result = train(config(), made.path, tmp_path / "out")
    assert result["terms"] == ["ground_prototype"]
    rows = load_model(tmp_path / "out" / "model").tensors["prototypes.weight"]
    assert np.count_nonzero(rows.numpy()[:, 8:]) > 0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"loss": {"aerial_prototype": 0, "ground_aerial": 0}}, "need both"),
        ({"dimension": 15}, "has no halves"),
        ({"prototypes": {"soft_labels": True}}, "soft_labels are for loss.kind softmax"),
        ({"prototypes": {"temperature": 0.1}}, "temperature is for loss.kind softmax"),
        ({"separate": False, "loss": {"auxiliary": 0.5}}, "for separate halves alone"),
    ],
)
def test_what_does_not_go_with_separate_halves_is_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(BadInputError, match=named):
        config(**changes)


def test_models_from_before_have_one_part() -> None:
    told = json.loads(HALVES.model_dump_json(exclude={"parts", "part"}))
    assert EncoderConfig.model_validate(told).parts == 1
