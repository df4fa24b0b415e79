"""A run that ended says so, one that was interrupted or began anew does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("timm", reason="needs the extra `train`")

from test_classify_training import TINY as CLASSIFIER
from test_training_loop import TINY, Stopper
from training_files import snapshot

from geofix.errors import UsageError
from geofix.log import progress_to
from geofix.storage import FINISHED
from geofix.training.classify import train_classifier
from geofix.training.classify_config import parse_classifier_config
from geofix.training.config import parse_config
from geofix.training.loop import train


def both(photos: int) -> list[tuple[Callable[..., dict[str, Any]], Any]]:
    """Both kinds of training, two epochs each, in batches of so many photos."""
    asked = [{**own, "epochs": 2, "batch": {**own["batch"], "photos": photos}} for own in (TINY, CLASSIFIER)]
    return [(train, parse_config(asked[0], "t")), (train_classifier, parse_classifier_config(asked[1], "t"))]


@pytest.mark.parametrize("number", [0, 1])
def test_only_a_run_that_ended_is_marked(tmp_path: Path, number: int) -> None:
    begin, config = both(8)[number]
    made, out = snapshot(tmp_path), tmp_path / "out"
    with progress_to(Stopper(1)), pytest.raises(RuntimeError, match="cancelled"):
        begin(config, made.path, out)
    assert not (out / FINISHED).exists()
    result = begin(config, made.path, out, resume=True)
    assert json.loads((out / FINISHED).read_text()) == json.loads(json.dumps(result))
    with pytest.raises(UsageError, match="another configuration"):
        begin(config.model_copy(update={"seed": 9}), made.path, out, resume=True)
    assert (out / FINISHED).exists(), "a refused run changes nothing"
    (out / "checkpoint.pt").unlink()  # as `geofix gc` does; the directory can then be trained in again
    with progress_to(Stopper(1)), pytest.raises(RuntimeError, match="cancelled"):
        begin(config, made.path, out)
    assert not (out / FINISHED).exists() and (out / "checkpoint.pt").exists()
