"""Classifiers of positions: heads, hierarchical inference, losses, memory, crops, model directories."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from partition_samples import skewed  # noqa: E402

from geofix.errors import BadInputError, NotFoundError, UsageError  # noqa: E402
from geofix.imagery.transforms import InputTransform  # noqa: E402
from geofix.localizers.classifier import in_ranges  # noqa: E402
from geofix.localizers.crop_inputs import combine, cut_crops  # noqa: E402
from geofix.localizers.crops import POLICIES, find_policy  # noqa: E402
from geofix.losses.cross_entropy import class_terms, weighted_sum  # noqa: E402
from geofix.models.classifier import Classifier, log_probabilities, product_rule  # noqa: E402
from geofix.models.classifier_dir import (  # noqa: E402
    PARTITIONS,
    TrainedClassifier,
    load_classifier,
    save_classifier,
)
from geofix.models.config import EncoderConfig  # noqa: E402
from geofix.models.create import create_model  # noqa: E402
from geofix.models.encoder import build_encoder  # noqa: E402
from geofix.partitions.adaptive import nested_partitions  # noqa: E402
from geofix.partitions.hierarchy import ancestors  # noqa: E402
from geofix.training.memory import check_classes  # noqa: E402


def tiny_encoder():
    return build_encoder(EncoderConfig(trunk="test_resnet", image_size=32, aggregation="avg"))


def partitions(tau_max=(200, 60, 20)):
    return nested_partitions("a", *skewed(1500), tau_min=3, tau_max=tau_max)


@pytest.mark.parametrize(
    ("trunk", "aggregation", "width"),
    [("resnet101", "avg", 2048), ("efficientnet_b4", "avg", 1792), ("vit_small_patch16_224", "token", 384)],
)
def test_the_trunks_of_the_sources_serve_three_partitions_at_once(
    trunk: str, aggregation: str, width: int
) -> None:
    options = {"img_size": 64} if trunk.startswith("vit") else {}
    config = EncoderConfig(trunk=trunk, trunk_kwargs=options, image_size=64, aggregation=aggregation)
    network = Classifier(build_encoder(config), (7, 30, 90))
    logits = network(torch.rand(2, 3, 64, 64))
    assert [tuple(item.shape) for item in logits] == [(2, 7), (2, 30), (2, 90)]
    assert [head.in_features for head in network.heads] == [width] * 3
    class_terms(logits, torch.tensor([[0, 1, 2], [6, 29, 89]]))[0].mean().backward()
    assert all(weight.grad is not None for weight in network.heads[0].parameters())
    first = next(network.encoder.parameters())
    assert first.grad is not None and torch.isfinite(first.grad).all()


def test_the_product_rule_by_gathers_equals_brute_force() -> None:
    """Over every class of three nested partitions with photos at real skew, by their cells' names alone."""
    parts = partitions()
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(5, len(part), generator=generator) for part in parts]
    gathered = product_rule(log_probabilities(logits), torch.from_numpy(ancestors(parts)))
    probabilities = [values.double().softmax(dim=1).numpy() for values in logits]
    coarse, middle, fine = parts
    for i, cell in enumerate(fine.class_cells().tolist()):
        m, c = (int(part.assign(leaf_ids=np.array([cell]))[0]) for part in (middle, coarse))
        product = probabilities[2][:, i] * probabilities[1][:, m] * probabilities[0][:, c]
        assert np.log(product) == pytest.approx(gathered[:, i].numpy(), abs=1e-4)
    assert len(fine) > len(middle) > len(coarse) > 1


def test_the_product_of_probabilities_is_not_that_of_logits() -> None:
    """The trap of a released code: with raw logits another class would win."""
    held = torch.tensor([[0, 0], [1, 1], [1, 2]])
    coarse, fine = torch.tensor([[-3.0, -1.0]]), torch.tensor([[-2.0, 3.0, -1.0]])
    assert int((coarse[:, held[:, 0]] * fine[:, held[:, 1]]).argmax()) == 0
    assert int(product_rule(log_probabilities([coarse, fine]), held).argmax()) == 1
    with pytest.raises(UsageError, match="partitions"):
        product_rule([coarse], held)


def test_a_photo_outside_every_class_takes_no_part_in_that_term() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = [torch.randn(4, count, generator=generator, requires_grad=True) for count in (2, 5)]
    labels = torch.tensor([[0, 1], [1, -1], [1, 4], [0, -1]])
    terms = class_terms(logits, labels)
    by_hand = -torch.log_softmax(logits[1], dim=1)[[0, 2], [1, 4]].mean()
    assert float(terms[1].detach()) == pytest.approx(float(by_hand.detach()), abs=1e-6)
    weighted_sum(terms, (0.7, 0.3)).backward()
    assert logits[1].grad[[1, 3]].abs().max() == 0 and logits[0].grad[[1, 3]].abs().min() > 0
    nobody = class_terms(logits, torch.full((4, 2), -1))
    assert [float(term.detach()) for term in nobody] == [0.0, 0.0]


def test_labels_of_another_partition_are_refused() -> None:
    with pytest.raises(UsageError, match="another partition"):
        class_terms([torch.zeros(2, 3)], torch.tensor([[0], [3]]))
    with pytest.raises(UsageError, match="labels of shape"):
        class_terms([torch.zeros(2, 3)], torch.tensor([0, 1]))


def test_cross_entropy_has_the_gradient_of_finite_differences() -> None:
    labels = torch.tensor([[0, 2], [1, -1], [1, 0]])

    def loss(coarse, fine):
        return weighted_sum(class_terms([coarse, fine], labels), (0.5, 0.2))

    logits = [torch.randn(3, n, dtype=torch.float64, requires_grad=True) for n in (2, 3)]
    assert torch.autograd.gradcheck(loss, tuple(logits))


def test_more_classes_than_memory_are_refused_before_anything_is_made() -> None:
    cpu = torch.device("cpu")
    needed = check_classes(1000, 512, 64, kind="softmax", moments=2, device=cpu, limit_gb=1.0)
    assert 0.0075 < needed < 0.01  # 4 x 4 bytes x 513 x 1000, and the logits
    with pytest.raises(UsageError, match="GiB") as refused:
        check_classes(10**9, 512, 64, kind="softmax", moments=2, device=cpu, limit_gb=None)
    assert "1,000,000,000 classes" in refused.value.message
    with pytest.raises(UsageError, match="GiB"):
        check_classes(1000, 512, 64, kind="mvmf", moments=2, device=cpu, limit_gb=0.005)


def saved(folder, parts):
    encoder = tiny_encoder()
    network = Classifier(encoder, [len(part) for part in parts], seed=4)
    save_classifier(TrainedClassifier("m", "softmax", network, parts, {"epoch": 3}), folder / "m")
    return network.eval()


def test_a_classifier_comes_back_as_it_was_saved(tmp_path) -> None:
    parts = partitions()
    network = saved(tmp_path, parts)
    back = load_classifier(tmp_path / "m")
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        for a, b in zip(network(images), back.network(images), strict=True):
            assert torch.equal(a, b)
    assert [part.name for part in back.partitions] == ["a-coarse", "a-middle", "a-fine"]
    assert back.metadata["epoch"] == 3
    vector = back.encoder(images)
    assert torch.allclose(vector.norm(dim=1), torch.ones(2), atol=1e-5)


def test_a_partition_of_something_else_is_refused(tmp_path) -> None:
    """Names alike, cells not: every answer would lie somewhere else."""
    import shutil

    saved(tmp_path, partitions((200,)))
    shutil.rmtree(tmp_path / "m" / PARTITIONS)
    from geofix.partitions.files import save_partition

    save_partition(partitions((100,))[0], tmp_path / "m" / PARTITIONS)
    with pytest.raises(BadInputError, match="not the partition that was trained on"):
        load_classifier(tmp_path / "m")


def test_a_partition_with_an_empty_class_is_refused_when_a_model_is_loaded(tmp_path) -> None:
    import json
    from hashlib import sha256

    import pyarrow.parquet as pq

    parts = partitions((200,))
    saved(tmp_path, parts)
    folder = tmp_path / "m" / PARTITIONS / parts[0].name
    table = pq.read_table(folder / "classes.parquet")
    photos = table["photos"].to_numpy().copy()
    photos[2] = 0
    place = table.column_names.index("photos")
    pq.write_table(table.set_column(place, "photos", [photos]), folder / "classes.parquet")
    manifest = json.loads((folder / "partition.json").read_text())
    manifest["files"]["classes.parquet"] = sha256((folder / "classes.parquet").read_bytes()).hexdigest()
    (folder / "partition.json").write_text(json.dumps(manifest))
    with pytest.raises(BadInputError, match="class 2 has 0 photos"):
        load_classifier(tmp_path / "m")


def test_an_encoder_is_no_classifier(tmp_path) -> None:
    create_model(tmp_path / "e", trunk="test_resnet", size=32)
    with pytest.raises(NotFoundError, match="no classifier"):
        load_classifier(tmp_path / "e")


PLAIN = InputTransform((28, 35), 1.0, "bilinear", (0.0,) * 3, (1.0,) * 3, fit="squash")


def test_crops_show_the_corners_the_middle_and_their_mirror_images() -> None:
    across = np.linspace(0, 255, 80).astype(np.uint8)
    photo = np.repeat(np.broadcast_to(across, (60, 80))[..., None], 3, axis=2)
    ten = cut_crops(photo, PLAIN, POLICIES["ten-mean"])
    five = cut_crops(photo, PLAIN, POLICIES["five-max"])
    assert ten.shape == (10, 3, 28, 35) and np.array_equal(ten[:5], five)
    assert np.array_equal(ten[5:], five[..., ::-1])
    left, right, middle = five[0].mean(), five[1].mean(), five[4].mean()
    assert left < middle < right and middle == pytest.approx((left + right) / 2, abs=0.02)
    assert np.array_equal(cut_crops(photo, PLAIN, POLICIES["single"])[0], PLAIN.apply(photo))
    from dataclasses import replace

    tall = cut_crops(np.zeros((90, 20, 3), np.uint8), replace(PLAIN, fit="center"), POLICIES["five-max"])
    assert tall.shape == (5, 3, 28, 35)


def test_answers_to_crops_are_put_together_as_recorded() -> None:
    logits = torch.tensor([[[2.0, 0.0, 0.0], [0.0, 0.0, 4.0]]])
    softmax = logits[0].softmax(dim=1)
    largest = combine(logits, POLICIES["five-max"]).exp()[0]
    assert torch.allclose(largest, torch.maximum(softmax[0], softmax[1]))
    mean = combine(logits, POLICIES["ten-mean"])[0]
    assert torch.allclose(mean, torch.tensor([1.0, 0.0, 2.0]).log_softmax(0))
    with pytest.raises(UsageError, match="not known"):
        find_policy("hundred")


def test_ranges_let_through_what_lies_in_one_of_them() -> None:
    ids = np.array([-9, -5, 0, 3, 8], np.int64)
    ranges = np.array([[3, 5], [-9, -6]], np.int64)
    by_hand = [any(a <= x <= b for a, b in ranges.tolist()) for x in ids.tolist()]
    assert in_ranges(ids, ranges).tolist() == by_hand == [True, False, False, True, False]
    assert in_ranges(ids, None).all() and not in_ranges(ids, np.zeros((0, 2), np.int64)).any()
