"""Checkpoints are refused where the encoders would see another input, or began at other weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from test_classify_training import TINY as CLASSIFIER  # noqa: E402
from test_training_loop import TINY, Stopper  # noqa: E402
from training_files import snapshot  # noqa: E402

from geofix.log import progress_to  # noqa: E402
from geofix.models import encoder  # noqa: E402
from geofix.training.checkpoint import OtherRunError  # noqa: E402
from geofix.training.classify import train_classifier  # noqa: E402
from geofix.training.classify_config import parse_classifier_config  # noqa: E402
from geofix.training.config import parse_config  # noqa: E402
from geofix.training.loop import train  # noqa: E402

Begin = Callable[..., dict[str, Any]]


def kinds(**section: Any) -> list[tuple[Begin, Any, str]]:
    """Both kinds of training, one epoch each: what begins it, its configuration, and the encoder's name."""
    own = {"batch": {"photos": 8}, "epochs": 1}
    ground = {**TINY["ground"], **section}
    return [
        (train, parse_config({**TINY, **own, "ground": ground}, "t"), "ground"),
        (train_classifier, parse_classifier_config({**CLASSIFIER, **own, "encoder": ground}, "t"), "encoder"),
    ]


def interrupt(begin: Begin, asked: Any, made: Path, out: Path) -> None:
    with progress_to(Stopper(1)), pytest.raises(RuntimeError, match="cancelled"):
        begin(asked, made, out)


@pytest.mark.parametrize("number", [0, 1])
def test_another_input_of_the_trunk_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    begin, asked, role = kinds()[number]
    made, out = snapshot(tmp_path).path, tmp_path / "out"
    interrupt(begin, asked, made, out)
    before = (out / "checkpoint.pt").read_bytes()
    with monkeypatch.context() as changed:
        original = encoder.resolve_model_data_config
        changed.setattr(
            encoder,
            "resolve_model_data_config",
            lambda trunk: {**original(trunk), "mean": (0.25, 0.25, 0.25), "interpolation": "bilinear"},
        )  # as by another version of timm
        told = rf"another input .*{role}\.input\.(interpolation|mean) .*\[0\.25, 0\.25, 0\.25\]"
        with pytest.raises(OtherRunError, match=told):
            begin(asked, made, out, resume=True)
    assert (out / "checkpoint.pt").read_bytes() == before
    assert begin(asked, made, out, resume=True)["epochs"] == 1


@pytest.mark.parametrize("number", [0, 1])
def test_other_weights_under_the_same_name_are_refused(tmp_path: Path, number: int) -> None:
    weights = tmp_path / "trunk.pth"
    begin, asked, role = kinds(weights=str(weights))[number]
    made, out = snapshot(tmp_path).path, tmp_path / "out"
    state = timm.create_model("test_resnet", pretrained=False, num_classes=0).state_dict()
    torch.save(state, weights)
    first = weights.read_bytes()
    interrupt(begin, asked, made, out)
    torch.save({name: value + 1 for name, value in state.items()}, weights)
    with pytest.raises(OtherRunError, match=rf"other weights: {role}\.weights_sha256 '[0-9a-f]{{64}}' -> '"):
        begin(asked, made, out, resume=True)
    weights.write_bytes(first)
    assert begin(asked, made, out, resume=True)["epochs"] == 1


def test_a_classifier_s_checkpoint_of_before_is_taken(tmp_path: Path) -> None:
    """Those did not describe their encoder."""
    begin, asked, _ = kinds()[1]
    made, out = snapshot(tmp_path).path, tmp_path / "out"
    interrupt(begin, asked, made, out)
    content = torch.load(out / "checkpoint.pt", weights_only=True)
    described = json.loads(content["description"])
    del described["encoders"]
    torch.save({**content, "description": json.dumps(described)}, out / "checkpoint.pt")
    assert begin(asked, made, out, resume=True)["epochs"] == 1
