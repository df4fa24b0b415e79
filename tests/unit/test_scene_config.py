"""Configurations with scenes and semantic maps: those that come along, and those that cannot be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from scene_files import vit_config

from geofix.errors import BadInputError
from geofix.training.classify_config import load_classifier_config

ROOT = Path(__file__).resolve().parents[2]


def test_the_configurations_that_come_along_are_read() -> None:
    for kind in ("vit_mt", "translocator", "isn"):
        read = load_classifier_config(ROOT / f"configs/{kind}.yaml")
        assert read.kind == kind and read.scenes.heads == (3,)
    assert read.weights == (1.0, 1.0, 1.0)
    seg = vit_config(
        kind="translocator", semantics={"maps": "m"}, scenes={"heads": []}, fusion={"layers": False}
    )
    assert seg.weights == (0.5, 0.3, 0.2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "translocator", "scenes": {"heads": []}}, "needs semantics.maps"),
        ({"kind": "translocator", "semantics": {"maps": "m"}}, "needs scenes.labels, or scenes.heads"),
        ({"kind": "vit_mt", "semantics": {"maps": "m"}, "scenes": {"heads": []}}, "sees no semantic maps"),
        ({"kind": "isn"}, "kind isn needs scenes.labels"),
        ({"scenes": {"labels": "s.csv"}}, "learns no scenes"),
        ({"kind": "vit_mt", "dimension": 8, "scenes": {"heads": []}}, "no projection"),
        ({"kind": "vit_mt", "scenes": {"heads": [4]}}, "scenes.heads"),
        ({"kind": "vit_mt", "scenes": {"heads": [3, 3]}}, "twice"),
        ({"kind": "translocator", "semantics": {"maps": "m", "network": "n"}}, "one of them"),
        ({"kind": "translocator", "semantics": {"network": "n"}}, "sha256"),
        ({"fusion": {"layer": True}}, "fusion.layer.*Keys there: layers"),
    ],
)
def test_configurations_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError) as refused:
        vit_config(**changes)
    assert re.search(message, f"{refused.value.message} {refused.value.hint}")
