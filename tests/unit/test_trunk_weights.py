"""Published weights of a trunk: made for another input's size, with more than the network has, or foreign."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from test_classify_training import TINY as CLASSIFIER  # noqa: E402
from test_training_loop import TINY  # noqa: E402
from timm.layers import resample_abs_pos_embed  # noqa: E402

from geofix.errors import BadInputError, NotFoundError  # noqa: E402
from geofix.models.config import EncoderConfig  # noqa: E402
from geofix.models.encoder import build_encoder  # noqa: E402
from geofix.models.weights import load_trunk, read_state_dict  # noqa: E402
from geofix.training.classify_config import parse_classifier_config  # noqa: E402
from geofix.training.config import load_config, load_raw, parse_config, with_changes  # noqa: E402

ROOT = Path(__file__).parents[2]
DINO = "vit_small_patch14_dinov2"
SMALL: dict[str, Any] = {"embed_dim": 32, "depth": 2, "num_heads": 2}


def published(trunk: str = DINO, **options: Any) -> dict[str, torch.Tensor]:
    """A state dict as Meta publishes DINOv2: for 518 px, with the token of its pretraining."""
    state: dict[str, torch.Tensor] = timm.create_model(
        trunk, pretrained=False, num_classes=0, **{**SMALL, **options}
    ).state_dict()
    return {**state, "mask_token": torch.zeros(1, state["cls_token"].shape[-1])}


def trunk(**options: Any) -> torch.nn.Module:
    made: torch.nn.Module = timm.create_model(DINO, pretrained=False, num_classes=0, **SMALL, **options)
    return made


def test_positions_made_for_518_pixels_serve_224(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = published()
    assert state["pos_embed"].shape == (1, 37 * 37 + 1, 32)
    torch.save(state, tmp_path / "dino.pth")
    config = EncoderConfig(
        trunk=DINO,
        trunk_kwargs={"img_size": 224, **SMALL},
        image_size=224,
        weights_uri=str(tmp_path / "dino.pth"),
    )
    own = build_encoder(config).trunk.state_dict()
    said = "".join(capsys.readouterr())
    assert "resampled" in said and "[1, 1370, 32] -> [1, 257, 32]" in said
    expected = resample_abs_pos_embed(state["pos_embed"], new_size=[16, 16], num_prefix_tokens=1)
    torch.testing.assert_close(own["pos_embed"], expected)
    assert torch.equal(own["pos_embed"][:, 0], state["pos_embed"][:, 0]), "the class token's stays"
    for name, value in own.items():
        assert name == "pos_embed" or torch.equal(value, state[name]), name
    report = load_trunk(trunk(img_size=[42, 56]), str(tmp_path / "dino.pth"))
    assert report.resampled == ("pos_embed",) and report.dropped == ("mask_token",)
    report = load_trunk(trunk(), str(tmp_path / "dino.pth"))  # its own size
    assert report.resampled == () and report.dropped == ("mask_token",)


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        (DINO, {"depth": 3}, r"unexpected \(blocks\.2"),
        (DINO, {"embed_dim": 48}, r"of another shape \(cls_token"),
        ("vit_small_patch16_224", {"patch_size": 14, "img_size": 518}, r"missing \(blocks\.0\.ls1\.gamma"),
        (DINO, {"patch_size": 7, "img_size": 112}, r"1 of another shape \(patch_embed\.proj\.weight"),
        ("vit_small_patch14_reg4_dinov2", {}, r"1 unexpected \(reg_token"),
    ],
)
def test_foreign_weights_are_still_refused(
    tmp_path: Path, name: str, options: dict[str, Any], told: str
) -> None:
    state = published(name, **options)
    del state["mask_token"]
    torch.save(state, tmp_path / "other.pth")
    before = trunk(img_size=224)
    kept = {key: value.clone() for key, value in before.state_dict().items()}
    with pytest.raises(BadInputError, match=rf"do not fit the trunk: .*{told}"):
        load_trunk(before, str(tmp_path / "other.pth"))
    assert all(torch.equal(value, kept[key]) for key, value in before.state_dict().items())


@pytest.mark.parametrize("name", ["gpu", "distributed"])
def test_the_configurations_take_the_weights_that_they_name(tmp_path: Path, name: str) -> None:
    path = ROOT / "configs" / f"{name}.yaml"
    text = path.read_text(encoding="utf-8")
    assert (
        load_config(path).ground.weights == "dinov2_vits14_pretrain.pth" and "--set ground.weights=" in text
    )
    with pytest.raises(NotFoundError, match=r"pretrain\.pth do not exist") as missing:
        read_state_dict(str(tmp_path / "dinov2_vits14_pretrain.pth"))
    assert "--set ground.weights=FILE" in str(missing.value.hint)
    asked = parse_config(with_changes(load_raw(path), {"ground.weights": str(tmp_path / "w.pth")}), name)
    torch.save(published(asked.ground.trunk), tmp_path / "w.pth")
    made: torch.nn.Module = timm.create_model(
        asked.ground.trunk, pretrained=False, num_classes=0, **SMALL, **asked.ground.trunk_options
    )
    assert asked.ground.weights is not None
    assert load_trunk(made, asked.ground.weights).resampled == ("pos_embed",)


@pytest.mark.parametrize("value", [{"train_blocks": 0}, {"train_blocks": 4}, {"sha256": "ab" * 32}])
def test_what_only_weights_give_sense_is_refused_without_them(value: dict[str, Any]) -> None:
    (key,) = value
    told = rf"(ground|aerial|encoder)\.{key} .*--set \1\.weights=FILE.*--set \1\.{key}=null"
    ground, encoder = TINY["ground"], CLASSIFIER["encoder"]
    with pytest.raises(BadInputError, match=told):
        parse_config({**TINY, "ground": {**ground, **value}}, "x.yaml")
    with pytest.raises(BadInputError, match=told.replace("ground|", "")):
        parse_config({**TINY, "aerial": {**ground, **value}}, "x.yaml")
    with pytest.raises(BadInputError, match=told):
        parse_classifier_config({**CLASSIFIER, "encoder": {**encoder, **value}}, "x.yaml")
    for parse, raw, section in (
        (parse_config, TINY, "ground"),
        (parse_classifier_config, CLASSIFIER, "encoder"),
    ):
        parse(with_changes(raw, {f"{section}.{key}": value[key], f"{section}.weights": "w.pth"}), "x")
        parse(with_changes(raw, {f"{section}.{key}": None}), "x")


def test_networks_that_begin_at_a_classifier_may_keep_its_trunk() -> None:
    raw = {
        **CLASSIFIER,
        "kind": "isn",
        "scenes": {"labels": "scenes.csv"},
        "encoder": {**CLASSIFIER["encoder"], "train_blocks": 0},
    }
    with pytest.raises(BadInputError, match=r"encoder\.train_blocks 0"):
        parse_classifier_config(raw, "x.yaml")
    assert parse_classifier_config({**raw, "networks": {"start": "base/model"}}, "x.yaml").kind == "isn"
