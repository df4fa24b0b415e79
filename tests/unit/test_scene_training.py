"""Training ViT-MT, TransLocator and scene networks from a snapshot: kept, resumed, asked, refused."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from scene_files import RESNET, VIT, vit_config, write_maps, write_scenes  # noqa: E402
from training_files import snapshot  # noqa: E402

from geofix.errors import BadInputError, NotFoundError, UsageError  # noqa: E402
from geofix.localizers.crops import find_policy  # noqa: E402
from geofix.localizers.trained import trained_localizer  # noqa: E402
from geofix.log import progress_to  # noqa: E402
from geofix.models.classifier_dir import load_classifier  # noqa: E402
from geofix.models.scene_networks import SceneNetworks  # noqa: E402
from geofix.models.translocator import TransLocator  # noqa: E402
from geofix.settings import get_settings  # noqa: E402
from geofix.training.classify import train_classifier  # noqa: E402
from geofix.training.classify_run import prepare_run  # noqa: E402
from geofix.training.classify_step import classify_step  # noqa: E402
from geofix.training.planes import pairs_with  # noqa: E402
from geofix.training.samples import NONE  # noqa: E402
from geofix.training.scene_step import scene_terms, term_weights  # noqa: E402


class Stopper:
    """A progress sink that ends the run at one report of its steps, as a cancelled job does."""

    def __init__(self, step: int) -> None:
        self.left = step

    def __call__(self, done: int, total: int | None, message: str = "", unit: str = "") -> None:
        self.left -= unit == "steps" and done > 0
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("town")
    snapshot(folder, aerial=False)
    write_maps(folder / "maps", folder / "photos")
    write_maps(folder / "coloured", folder / "photos", coloured=True)
    write_scenes(folder / "scenes.csv", folder / "photos")
    return folder


def kinds(town: Path) -> dict[str, dict[str, Any]]:
    maps, scenes = {"maps": str(town / "maps")}, {"labels": str(town / "scenes.csv")}
    return {
        "vit_mt": {"kind": "vit_mt", "scenes": {**scenes, "heads": [3, 16]}},
        "translocator": {"kind": "translocator", "semantics": maps, "scenes": scenes},
        "isn": {"kind": "isn", "encoder": RESNET, "scenes": scenes},
        "isn_labels": {
            "kind": "isn",
            "encoder": RESNET,
            "scenes": scenes,
            "networks": {"route": "labels"},
        },
    }


NAMES = {"vit_mt": "vit_mt", "translocator": "translocator", "isn": "isn_fstar", "isn_labels": "isn_f"}


def weights(out: Path) -> dict[str, Any]:
    return dict(load_classifier(out).network.state_dict())


def uris_of(town: Path) -> list[str]:
    return [str(town / "photos" / f"{i}.png") for i in range(24)]


@pytest.mark.parametrize("kind", list(NAMES))
def test_resumed_is_uninterrupted_and_a_directory_answers_as_its_run(kind, town, tmp_path) -> None:
    asked = vit_config(**kinds(town)[kind])
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train_classifier(asked, town / "snapshot", whole)
    for resume, stop in ((False, 2), (True, 3)):
        with pytest.raises(KeyboardInterrupt), progress_to(Stopper(stop)):
            train_classifier(asked, town / "snapshot", parts, resume=resume)
    result = train_classifier(asked, town / "snapshot", parts, resume=True)
    assert result["steps"] == 6 and result["kind"] == kind.partition("_labels")[0]
    one, other = weights(whole), weights(parts)
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    a, b = (trained_localizer(NAMES[kind], out) for out in (whole, parts))
    assert a.name == NAMES[kind]
    found, again = (item.localize_photos([*uris_of(town), None], 3) for item in (a, b))
    assert np.array_equal(found.s2_id, again.s2_id) and np.array_equal(found.score, again.score)
    assert found.answered[:24, 0].all() and not found.answered[24].any()
    crops = a.with_crops(find_policy("ten-mean")).localize_photos(uris_of(town)[:3], 3)
    assert crops.answered.all()


def test_a_run_in_memory_and_its_directory_give_the_same_scores(town, tmp_path) -> None:
    asked = vit_config(**{**kinds(town)["translocator"], "epochs": 1, "validation": {"keep": "last"}})
    result = train_classifier(asked, town / "snapshot", tmp_path)
    assert np.isfinite(result["val"]["loss"]) and "right/scene-3" in result["val"]
    trained = load_classifier(tmp_path)
    assert isinstance(trained.network, TransLocator) and trained.metadata["planes"]["classes"]["source"]
    run = prepare_run(asked, town / "snapshot", tmp_path / "x", torch.device("cpu"))
    run.network.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True)["network"])
    pairs = pairs_with(
        run.planes,
        run.photos,
        np.arange(6)[None],
        run.network.encoder.transform,
        seed=0,
        epoch=0,
        augmentation=NONE,
    )
    images = pairs[0].ground
    with torch.no_grad():
        logits = run.network.eval()(images)[2].log_softmax(dim=1)
    fine = trained_localizer("classifier_f", tmp_path).localize_photos(
        [run.photos.uri[i] for i in range(6)], 1
    )
    assert fine.score[:, 0] == pytest.approx(logits.amax(dim=1).numpy(), abs=1e-5)


def test_a_batch_holds_the_photo_and_its_map_cut_alike(town, tmp_path) -> None:
    asked = vit_config(**kinds(town)["translocator"])
    run = prepare_run(asked, town / "snapshot", tmp_path, torch.device("cpu"))
    plan = np.arange(6)[None]
    transform = run.network.encoder.transform
    images = pairs_with(run.planes, run.photos, plan, transform, seed=0, epoch=0, augmentation=NONE)[0].ground
    assert images.shape == (6, 4, 16, 16)
    for row in range(6):
        number = int(Path(run.photos.uri[row]).stem)
        upper, lower = images[row, 3, :8].unique().tolist(), images[row, 3, 8:].unique().tolist()
        assert upper == [number % 5] and lower == [(number + 1) % 5]
    coloured = {**kinds(town)["translocator"], "semantics": {"maps": str(town / "coloured")}}
    other = prepare_run(vit_config(**coloured), town / "snapshot", tmp_path, torch.device("cpu"))
    again = pairs_with(other.planes, other.photos, plan, transform, seed=0, epoch=0, augmentation=NONE)[0]
    assert torch.equal(again.ground, images)


def test_terms_and_their_weights(town, tmp_path) -> None:
    scenes = {**kinds(town)["vit_mt"]["scenes"], "weight": 0.25}
    run = prepare_run(
        vit_config(kind="vit_mt", scenes=scenes), town / "snapshot", tmp_path, torch.device("cpu")
    )
    images = torch.randn(6, 3, 16, 16)
    labels, own = run.labels[:6], run.scenes[:6]
    names = [item.name for item in run.partitions]
    terms = scene_terms(run.network, images, labels, own, names)
    assert list(terms) == [*names, "scene-3", "scene-16"]
    assert term_weights(run.config, terms, names) == [0.5, 0.3, 0.2, 0.25, 0.25]
    told = run.network.outputs(images)[1][1].log_softmax(dim=1)
    by_hand = -sum(told.tolist()[i][int(own[i, 1])] for i in range(6)) / 6
    assert float(terms["scene-16"]) == pytest.approx(by_hand, abs=1e-5)
    batch = pairs_with(
        None,
        run.photos,
        np.arange(6)[None],
        run.network.encoder.transform,
        seed=0,
        epoch=0,
        augmentation=NONE,
    )[0]
    outcome = classify_step(run, batch)
    expected = sum(w * outcome.terms[n] for w, n in zip((0.5, 0.3, 0.2, 0.25, 0.25), terms, strict=True))
    assert outcome.loss == pytest.approx(expected, abs=1e-5)
    nothing = own.clone()
    nothing[:, 0] = -1
    assert float(scene_terms(run.network, images, labels, nothing, names)["scene-3"]) == 0.0
    given = vit_config(kind="vit_mt", scenes=scenes, partitions={**VIT["partitions"], "weights": [1, 2, 3]})
    assert term_weights(given, terms, names)[:3] == [1, 2, 3]


def test_scene_networks_learn_their_own_photos_alone(town, tmp_path) -> None:
    asked = vit_config(**kinds(town)["isn"])
    run = prepare_run(asked, town / "snapshot", tmp_path, torch.device("cpu"))
    network = run.network
    assert isinstance(network, SceneNetworks) and network.own == (1, 2)  # no photo is indoor
    names = [item.name for item in run.partitions]
    images, labels = torch.randn(6, 3, 32, 32), run.labels[:6]
    scenes = torch.tensor([[1], [1], [1], [1], [1], [2]])
    terms = scene_terms(network, images, labels, scenes, names)
    assert list(terms) == [*(f"natural/{name}" for name in names), "scene-3"]
    assert term_weights(asked, terms, names) == [1.0, 1.0, 1.0, 1.0]
    torch.stack(list(terms.values())[:3]).sum().backward()
    assert any(p.grad is not None for p in network.encoder.parameters())
    assert all(p.grad is None for p in network.others.parameters())
    assert network.router is not None and all(p.grad is None for p in network.router.parameters())


def test_photos_go_to_the_network_of_their_scene(town, tmp_path) -> None:
    for kind in ("isn", "isn_labels"):
        asked = vit_config(**kinds(town)[kind])
        run = prepare_run(asked, town / "snapshot", tmp_path, torch.device("cpu"))
        network = run.network.eval()
        images = torch.randn(4, 3, 32, 32)
        with torch.no_grad():
            torch.nn.init.normal_(network.scene_heads[1][2].weight)
            each = [network.expert(place, images)[2] for place in (0, 1)]
            if kind == "isn":
                torch.nn.init.normal_(network.router_head.weight, std=3.0)
                scene = network.scene_logits(images)[:, 1:].argmax(dim=1)
                found = network(images)[2]
                together = network.outputs(images, together=4)[0][2]
                mean = int(network.scene_logits(images)[:, 1:].mean(dim=0).argmax())
                assert torch.allclose(together, each[mean], atol=1e-5)
            else:
                scene = torch.tensor([0, 1, 1, 0])
                planes = (scene + 1).float()[:, None, None, None].expand(4, 1, 32, 32)
                found = network(torch.cat([images, planes], dim=1))[2]
                with pytest.raises(BadInputError, match="scene 0"):
                    network(torch.cat([images, 0 * planes], dim=1))
        expected = torch.stack([each[int(s)][i] for i, s in enumerate(scene)])
        assert torch.allclose(found, expected, atol=1e-5)


def test_scene_networks_begin_as_copies_of_a_joint_model(town, tmp_path) -> None:
    base = vit_config(encoder=RESNET, epochs=1)
    train_classifier(base, town / "snapshot", tmp_path / "base")
    changed = {**kinds(town)["isn"], "networks": {"start": str(tmp_path / "base")}}
    run = prepare_run(vit_config(**changed), town / "snapshot", tmp_path / "x", torch.device("cpu"))
    joint = load_classifier(tmp_path / "base")
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = joint.network(images)
        for place in (0, 1):
            found = run.network.eval().expert(place, images)
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert [len(item) for item in run.partitions] == [len(item) for item in joint.partitions]
    other = vit_config(
        **{**changed, "encoder": {**RESNET, "trunk": "test_resnet", "gem_p": 2.0, "aggregation": "gem"}}
    )
    with pytest.raises(BadInputError, match="another design"):
        prepare_run(other, town / "snapshot", tmp_path / "x", torch.device("cpu"))
    with pytest.raises(BadInputError, match="kind softmax with 3 partitions"):
        two = {**changed, "partitions": {"tau_min": 0, "tau_max": [12, 6]}}
        prepare_run(vit_config(**two), town / "snapshot", tmp_path / "x", torch.device("cpu"))


def test_photos_without_a_map_are_refused_or_left_out(town, tmp_path) -> None:
    maps = write_maps(tmp_path / "maps", town / "photos")
    for number in (0, 1, 5):
        (maps / f"{number}.png").unlink()
    asked = {**kinds(town)["translocator"], "semantics": {"maps": str(maps)}}
    with pytest.raises(
        BadInputError, match=r"2 of 20 training photos have no semantic map, the first .*0\.png"
    ):
        prepare_run(vit_config(**asked), town / "snapshot", tmp_path / "x", torch.device("cpu"))
    asked["semantics"]["missing"] = "leave_out"
    train_classifier(vit_config(**{**asked, "epochs": 1}), town / "snapshot", tmp_path / "run")
    localizer = trained_localizer("translocator", tmp_path / "run")
    answered = localizer.localize_photos(uris_of(town), 2).answered[:, 0]
    assert np.flatnonzero(~answered).tolist() == [0, 1, 5]


def test_maps_may_come_from_another_place_when_photos_are_asked(town, tmp_path, monkeypatch) -> None:
    asked = vit_config(**{**kinds(town)["translocator"], "epochs": 1})
    train_classifier(asked, town / "snapshot", tmp_path / "run")
    expected = trained_localizer("translocator", tmp_path / "run").localize_photos(uris_of(town), 2)
    table = tmp_path / "maps.csv"
    (tmp_path / "semantics.json").write_bytes((town / "maps/semantics.json").read_bytes())
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["photo", "map"])
        for uri in uris_of(town)[:20]:
            key = hashlib.sha256(Path(uri).read_bytes()).hexdigest()
            writer.writerow([key, town / "maps" / Path(uri).name])
    monkeypatch.setenv("GEOFIX_SEMANTIC_MAPS", str(table))
    get_settings.cache_clear()
    try:
        found = trained_localizer("translocator", tmp_path / "run").localize_photos(uris_of(town), 2)
    finally:
        monkeypatch.undo()
        get_settings.cache_clear()
    assert np.array_equal(found.s2_id[:20], expected.s2_id[:20]) and not found.answered[20:].any()


def test_a_segmentation_network_makes_the_maps(town, tmp_path) -> None:
    class Bright(torch.nn.Module):
        def forward(self, images):
            grey = images.mean(dim=1, keepdim=True)
            return torch.cat([grey - 0.02 * i for i in range(5)], dim=1)

    path = tmp_path / "seg.ts"
    torch.jit.trace(Bright().eval(), torch.zeros(1, 3, 12, 16)).save(str(path))
    given = {
        "network": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "classes": str(town / "maps/semantics.json"),
        "size": [12, 16],
        "input": "channels",
    }
    asked = {**kinds(town)["translocator"], "semantics": given, "epochs": 1}
    train_classifier(vit_config(**asked), town / "snapshot", tmp_path / "run")
    kept = sorted((tmp_path / "run/semantics").glob("*.png"))
    assert len(kept) == 24
    with Image.open(kept[0]) as image:
        assert set(np.unique(np.asarray(image))) <= set(range(5))
    found = trained_localizer("translocator", tmp_path / "run").localize_photos(uris_of(town), 2)
    assert found.answered[:, 0].all()
    wrong = {**asked, "semantics": {**given, "sha256": "0" * 64}}
    with pytest.raises(BadInputError, match="It is a program"):
        prepare_run(vit_config(**wrong), town / "snapshot", tmp_path / "y", torch.device("cpu"))
    path.unlink()
    with pytest.raises(NotFoundError, match=r"seg\.ts"):
        trained_localizer("translocator", tmp_path / "run").localize_photos(uris_of(town), 2)


def test_scenes_that_are_missing_or_unknown(town, tmp_path) -> None:
    partly = write_scenes(tmp_path / "partly.csv", town / "photos", without=(0, 1, 2))
    run = prepare_run(
        vit_config(kind="vit_mt", scenes={"labels": str(partly)}),
        town / "snapshot",
        tmp_path,
        torch.device("cpu"),
    )
    assert (run.scenes[:, 0] == -1).sum() == 3 and len(run.photos) == 20
    split = vit_config(**{**kinds(town)["isn_labels"], "scenes": {"labels": str(partly)}, "epochs": 1})
    result = train_classifier(split, town / "snapshot", tmp_path / "isn")
    assert result["photos"] == 17
    answered = trained_localizer("isn_f", tmp_path / "isn").localize_photos(uris_of(town), 2).answered[:, 0]
    assert np.flatnonzero(~answered).tolist() == [0, 1, 2]
    strangers = tmp_path / "strangers.csv"
    strangers.write_text("photo,s3\nelsewhere/1.png,1\n")
    with pytest.raises(BadInputError, match="none of the 20 training photos"):
        prepare_run(
            vit_config(kind="vit_mt", scenes={"labels": str(strangers)}),
            town / "snapshot",
            tmp_path,
            torch.device("cpu"),
        )
    with pytest.raises(BadInputError, match="no labels of 365"):
        prepare_run(
            vit_config(kind="vit_mt", scenes={"labels": str(partly), "heads": [365]}),
            town / "snapshot",
            tmp_path,
            torch.device("cpu"),
        )
    with pytest.raises(NotFoundError, match=r"nothing\.csv"):
        prepare_run(
            vit_config(kind="vit_mt", scenes={"labels": str(tmp_path / "nothing.csv")}),
            town / "snapshot",
            tmp_path,
            torch.device("cpu"),
        )


@pytest.mark.parametrize("kind", ["vit_mt", "translocator", "isn"])
def test_too_many_classes_for_the_memory_given(kind, town, tmp_path) -> None:
    with pytest.raises(UsageError, match="GiB"):
        train_classifier(vit_config(**kinds(town)[kind], memory_gb=1e-5), town / "snapshot", tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_localizers_want_models_of_their_kind(town, tmp_path) -> None:
    train_classifier(vit_config(**{**kinds(town)["vit_mt"], "epochs": 1}), town / "snapshot", tmp_path)
    for name in ("translocator", "isn_f", "isn_fstar", "mvmf", "planet"):
        with pytest.raises(UsageError, match=r"another kind|one partition"):
            trained_localizer(name, tmp_path)
    assert trained_localizer("classifier_c", tmp_path).name == "classifier_c"
