"""CPlaNet trained on sets of classes: its votes against a plain sum, its directory, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from test_classify_training import TINY, Stopper  # noqa: E402
from training_files import snapshot  # noqa: E402

from geofix.errors import BadInputError, UsageError  # noqa: E402
from geofix.localizers.classifier import network_logits  # noqa: E402
from geofix.localizers.crops import find_policy  # noqa: E402
from geofix.localizers.trained import trained_localizer  # noqa: E402
from geofix.log import progress_to  # noqa: E402
from geofix.models.classifier_dir import load_classifier  # noqa: E402
from geofix.training.classify import train_classifier  # noqa: E402
from geofix.training.classify_config import load_classifier_config, parse_classifier_config  # noqa: E402
from geofix.training.classify_run import prepare_run  # noqa: E402

SETS = {"kind": "cplanet", "geoclasses": {"sets": 3, "classes": 4, "atom_photos": 1}}
WITH_PLANET = {**SETS, "geoclasses": {**SETS["geoclasses"], "planet": True}}


def config(**changes):
    return parse_classifier_config({**TINY, "epochs": 2, **changes}, "test")


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return snapshot(tmp_path_factory.mktemp("town"), aerial=False).path


@pytest.fixture(scope="module", params=[SETS, WITH_PLANET], ids=["sets", "with planet"])
def model(request, town: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    result = train_classifier(config(**request.param), town, out)
    names = [
        "cplanet-1",
        "cplanet-2",
        "cplanet-3",
        *(["cplanet-planet"] if request.param is WITH_PLANET else []),
    ]
    assert list(result["classes"]) == [*names, "cplanet"] and list(result["outside"]) == names
    assert result["val"]["loss"] > 0 and {f"right/{name}" for name in names} <= set(result["val"])
    return out


def plain_votes(probabilities: list[np.ndarray], regions, *, normalise: bool) -> np.ndarray:
    """Region by region and set by set, with the atoms of a class counted one after the other."""
    out = np.zeros((len(probabilities[0]), len(regions)))
    for photo in range(len(out)):
        for region in range(len(regions)):
            for number, values in enumerate(probabilities):
                own = regions.members[region, number]
                if own < 0:
                    continue
                atoms = sum(regions.members[other, number] == own for other in regions.cell_class)
                out[photo, region] += values[photo, own] / (atoms if normalise else 1)
    return out


@pytest.mark.parametrize(("name", "normalise"), [("cplanet", True), ("cplanet_sum", False)])
def test_the_answer_is_the_region_with_most_votes(
    model: Path, town: Path, name: str, normalise: bool
) -> None:
    trained = load_classifier(model)
    *sets, regions = trained.partitions
    assert regions.sets == tuple(item.name for item in sets)
    assert len(regions) >= max(len(item) for item in sets if item.kind == "geoclass")
    assert len(np.unique(regions.members, axis=0)) == len(regions) and (regions.photos > 0).all()
    photos = prepare_run(config(), town, model / "x", torch.device("cpu")).photos
    uris = [photos.uri[i] for i in range(8)]
    ((_, logits),) = network_logits(trained, uris, find_policy("single"))
    given = [torch.softmax(values[:, 0].double(), dim=1).numpy() for values in logits]
    expected = plain_votes(given, regions, normalise=normalise)
    found = trained_localizer(name, model).localize_photos(uris, len(regions))
    np.testing.assert_allclose(found.score, -np.sort(-expected, axis=1), rtol=1e-5)
    best = expected.argmax(axis=1)
    for row in range(len(uris)):
        place = np.flatnonzero(np.isclose(expected[row], expected[row, best[row]], rtol=1e-6))
        assert any(np.isclose(found.lon[row, 0], regions.lon[i], atol=1e-9) for i in place)


def test_a_resumed_run_comes_to_the_same_weights(town: Path, tmp_path: Path) -> None:
    train_classifier(config(**SETS), town, tmp_path / "whole")
    with progress_to(Stopper(4)), pytest.raises(KeyboardInterrupt):
        train_classifier(config(**SETS), town, tmp_path / "cut")
    train_classifier(config(**SETS), town, tmp_path / "cut", resume=True)
    whole, cut = (load_classifier(tmp_path / name).network.state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_what_does_not_fit_is_refused(model: Path, town: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="localizer classifier needs another kind"):
        trained_localizer("classifier", model)
    with pytest.raises(BadInputError, match=r"geoclasses\.sets: .*greater than or equal to 2"):
        config(kind="cplanet", geoclasses={"sets": 1})
    with pytest.raises(BadInputError, match="Keys there: classes, sets, atom_photos"):
        config(kind="cplanet", geoclasses={"atoms": 1})
    with pytest.raises(UsageError, match="classes"):
        train_classifier(config(kind="cplanet", geoclasses={"classes": 500}), town, tmp_path)
    train_classifier(config(epochs=1, partitions={"tau_min": 0, "tau_max": [3]}), town, tmp_path / "plain")
    with pytest.raises(UsageError, match="localizer cplanet needs another kind"):
        trained_localizer("cplanet", tmp_path / "plain")


def test_the_projects_own_file_is_valid() -> None:
    own = load_classifier_config(Path(__file__).resolve().parents[2] / "configs" / "cplanet.yaml")
    assert own.kind == "cplanet" and own.weights == (1.0,) * 5
