"""Encoders: pooling, weights, determinism, the model directory, and embedding of many files."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("timm")
from safetensors.torch import save_file  # noqa: E402

from geofix.codes.embed import EmbedReport, embed_images, load_input  # noqa: E402
from geofix.errors import BadInputError, NotFoundError, ServiceError, UsageError  # noqa: E402
from geofix.imagery.transforms import InputTransform  # noqa: E402
from geofix.models.aggregate import GeM  # noqa: E402
from geofix.models.config import EncoderConfig  # noqa: E402
from geofix.models.encoder import Encoder, as_map, build_encoder  # noqa: E402
from geofix.models.manifest import read_manifest  # noqa: E402
from geofix.models.registry import Model, choose_device, load_model, save_model  # noqa: E402
from geofix.models.weights import load_trunk, read_state_dict  # noqa: E402

torch.set_num_threads(1)
TINY = EncoderConfig(trunk="mobilenetv3_small_050", image_size=32, seed=3)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return build_encoder(TINY)


def images(n: int = 4, side: int = 32) -> torch.Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_gem_equals_its_definition() -> None:
    x = torch.rand(2, 5, 3, 4, dtype=torch.float64)
    for p in (1.0, 3.0, 4.5):
        expected = np.mean(x.numpy() ** p, axis=(2, 3)) ** (1 / p)
        np.testing.assert_allclose(GeM(p)(x).detach().numpy(), expected, rtol=1e-5)
    peak = torch.zeros(1, 1, 4, 4)
    peak[0, 0, 1, 2] = 2.0
    assert GeM(60.0)(peak).item() == pytest.approx(2 * 16 ** (-1 / 60), rel=1e-3)  # towards the maximum
    assert torch.isfinite(GeM(3.0)(torch.full((1, 1, 2, 2), -1.0))).all()


def test_gem_learns_p() -> None:
    pool = GeM(3.0)
    pool(torch.rand(2, 3, 4, 4)).sum().backward()
    assert pool.p.grad is not None and pool.p.grad.abs() > 0


def test_embeddings_are_unit_float32(encoder: Encoder) -> None:
    with torch.inference_mode():
        out = encoder(images())
    assert out.shape == (4, encoder.dimension) and out.dtype == torch.float32
    assert encoder.dimension == 288 and not encoder.training
    np.testing.assert_allclose(out.norm(dim=1), 1.0, atol=1e-6)


def test_seed_decides_and_global_state_is_kept() -> None:
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    first, second = build_encoder(TINY), build_encoder(TINY)
    other = build_encoder(TINY.model_copy(update={"seed": 4}))
    assert torch.equal(before, torch.random.get_rng_state())
    a, b, c = (e.state_dict()["trunk.conv_stem.weight"] for e in (first, second, other))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_input_is_resolved_from_timm_and_kept(encoder: Encoder) -> None:
    assert encoder.config.input is not None and encoder.config.image_size is None
    assert encoder.transform.size == (32, 32) and encoder.transform.crop == 1.0
    again = EncoderConfig.model_validate_json(encoder.config.model_dump_json())
    assert again == encoder.config


@pytest.mark.parametrize("projection", ["random", "learned"])
def test_projection(projection: str) -> None:
    config = TINY.model_copy(update={"dimension": 16, "projection": projection})
    small = build_encoder(config)
    weight = small.project.weight
    np.testing.assert_allclose((weight @ weight.T).detach().numpy(), np.eye(16), atol=1e-5)
    assert weight.requires_grad is (projection == "learned")
    with torch.inference_mode():
        assert small(images()).shape == (4, 16)


def test_vision_transformer_tokens_become_a_map() -> None:
    config = EncoderConfig(
        trunk="vit_tiny_patch16_224",
        trunk_kwargs={"img_size": 32, "depth": 1},
        image_size=32,
        aggregation="avg",
    )
    vit = build_encoder(config)
    with torch.inference_mode():
        features = vit.trunk.forward_features(images())
        assert as_map(features, vit.trunk, vit.width).shape == (4, 192, 4, 1)
        np.testing.assert_allclose(
            vit(images()), torch.nn.functional.normalize(features[:, 1:].mean(1), dim=1), atol=1e-6
        )


@pytest.mark.parametrize(
    "kwargs",
    [{"pretrained": True}, {"num_classes": 5}, {"checkpoint_path": "x"}],
    ids=lambda k: next(iter(k)),
)
def test_downloads_cannot_be_asked_for(kwargs: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="weights_uri"):
        EncoderConfig(trunk="resnet18", trunk_kwargs=kwargs)


def test_unknown_trunk_is_named() -> None:
    with pytest.raises(UsageError, match="no_such_trunk"):
        build_encoder(EncoderConfig(trunk="no_such_trunk"))


def test_weights_half_precision_and_classifier(encoder: Encoder, tmp_path: Path) -> None:
    state = {k: v.half() if v.is_floating_point() else v for k, v in encoder.trunk.state_dict().items()}
    state["classifier.weight"] = torch.zeros(3, 3)
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": state}, path)
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    loaded = build_encoder(
        TINY.model_copy(update={"weights_uri": str(path), "weights_sha256": sha, "seed": 9})
    )
    assert loaded.config.weights_sha256 == sha
    weight = loaded.state_dict()["trunk.conv_stem.weight"]
    assert weight.dtype == torch.float32
    assert torch.equal(weight, encoder.state_dict()["trunk.conv_stem.weight"].half().float())
    assert load_trunk(loaded.trunk, path.as_uri()).dropped == ("classifier.weight",)


def test_weights_faults_are_reported(encoder: Encoder, tmp_path: Path) -> None:
    state = {k: v.contiguous() for k, v in encoder.trunk.state_dict().items()}
    path = tmp_path / "w.safetensors"
    save_file(state, path)
    with pytest.raises(BadInputError, match=r"sha256 [0-9a-f]{64}, expected 0000"):
        read_state_dict(str(path), "0" * 64)
    kernel = state.pop("conv_stem.weight")
    save_file(state | {"stray": kernel, "bn1.bias": torch.zeros(1)}, path)
    with pytest.raises(BadInputError) as caught:
        load_trunk(encoder.trunk, str(path))
    for text in ("1 missing (conv_stem.weight", "1 unexpected (stray", "1 of another shape (bn1.bias"):
        assert text in str(caught.value)
    path.write_bytes(b"junk")
    with pytest.raises(BadInputError, match="not a plain state dict"):
        read_state_dict(str(path))
    with pytest.raises(NotFoundError):
        read_state_dict(str(tmp_path / "none.pth"))


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"state_dict": Path("x")}, path)
    with pytest.raises(BadInputError, match="not a plain state dict"):
        read_state_dict(str(path))


def test_model_directory_round_trip(encoder: Encoder, tmp_path: Path) -> None:
    model = Model(
        "demo", {"ground": encoder, "aerial": encoder}, {"prototypes": torch.rand(3, 4)}, {"loss": 0.5}
    )
    manifest = save_model(model, tmp_path / "m")
    assert manifest.shares == {"aerial": "ground"} and manifest.dimensions == {"ground": 288, "aerial": 288}
    assert read_manifest(tmp_path / "m") == manifest
    again = load_model(tmp_path / "m")
    assert again.sha256 == model.sha256 == manifest.weights_sha256 and again.metadata == {"loss": 0.5}
    assert again.encoder("aerial") is again.encoder("ground")
    assert torch.equal(again.tensors["prototypes"], model.tensors["prototypes"])
    with torch.inference_mode():
        assert torch.equal(again.encoder("ground")(images()), encoder(images()))
    with pytest.raises(NotFoundError, match="no sky encoder"):
        again.encoder("sky")


def test_two_encoders_keep_their_own_weights(encoder: Encoder, tmp_path: Path) -> None:
    aerial = build_encoder(TINY.model_copy(update={"seed": 8, "dimension": 8}))
    save_model(Model("two", {"ground": encoder, "aerial": aerial}), tmp_path / "m")
    again = load_model(tmp_path / "m")
    with torch.inference_mode():
        assert torch.equal(again.encoder("aerial")(images()), aerial(images()))
        assert torch.equal(again.encoder("ground")(images()), encoder(images()))


def test_saving_is_all_or_nothing(encoder: Encoder, tmp_path: Path) -> None:
    target = tmp_path / "m"
    save_model(Model("one", {"ground": encoder}), target)
    with pytest.raises(UsageError, match="exists already"):
        save_model(Model("two", {"ground": encoder}), target)
    with pytest.raises(UsageError, match="cannot be described"):
        save_model(Model("", {"ground": encoder}), target, overwrite=True)
    assert load_model(target).name == "one"
    save_model(Model("three", {"ground": encoder}), target, overwrite=True)
    assert load_model(target).name == "three"
    assert [p.name for p in tmp_path.iterdir()] == ["m"]  # nothing left beside it


def test_damaged_model_is_refused(encoder: Encoder, tmp_path: Path) -> None:
    save_model(Model("one", {"ground": encoder}), tmp_path / "m")
    path = tmp_path / "m" / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadInputError, match="sha256"):
        load_model(tmp_path / "m")
    path.unlink()
    with pytest.raises(NotFoundError):
        load_model(tmp_path / "m")


def test_choose_device() -> None:
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ServiceError, match="CUDA devices"):
        choose_device("cuda:99")
    for bad in ("gpu", "meta"):
        with pytest.raises(UsageError, match=bad):
            choose_device(bad)


def jpeg(seed: int, width: int = 60) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


def embed(encoder: Encoder, items: list, **options: object) -> tuple[list, np.ndarray, EmbedReport]:
    report = EmbedReport()
    parts = list(embed_images(encoder, items, report=report, **options))  # type: ignore[arg-type]
    keys = [key for part, _ in parts for key in part]
    return keys, np.concatenate([v for _, v in parts]), report


def test_embedding_is_independent_of_workers_and_batches(encoder: Encoder, tmp_path: Path) -> None:
    items: list = [(i, jpeg(i, 50 + i)) for i in range(11)]
    (tmp_path / "a.jpg").write_bytes(jpeg(3, 53))
    items[3] = (3, tmp_path / "a.jpg")
    items[4] = (4, lambda: jpeg(4, 54))
    items[5] = (5, (tmp_path / "a.jpg").as_uri())
    keys, reference, report = embed(encoder, items, batch_size=4, workers=1, dtype=np.float32)
    assert keys == list(range(11)) and report.embedded == 11 and report.per_second > 0
    for batch, workers in ((1, 3), (3, 2), (32, 4)):
        again, vectors, _ = embed(encoder, items, batch_size=batch, workers=workers, dtype=np.float32)
        assert again == keys
        np.testing.assert_allclose(vectors, reference, atol=1e-5)
    with torch.inference_mode():
        single = torch.from_numpy(load_input(jpeg(3, 53), encoder.transform)).unsqueeze(0)
        np.testing.assert_allclose(encoder(single)[0].numpy(), reference[3], atol=1e-5)
    np.testing.assert_allclose(reference[5], reference[3], atol=1e-5)


def test_bad_files_are_set_aside(encoder: Encoder) -> None:
    def broken() -> bytes:
        raise OSError("disk on fire")

    items = [
        ("a", jpeg(1)),
        ("cut", jpeg(2)[:400]),
        ("b", jpeg(3)),
        ("text", b"hello"),
        ("none", "/no/such.jpg"),
    ]
    items += [("fire", broken), ("c", jpeg(4))]
    keys, vectors, report = embed(encoder, items, batch_size=2, workers=2)
    assert keys == ["a", "b", "c"] and vectors.dtype == np.float16 and vectors.shape == (3, 288)
    assert [key for key, _ in report.failures] == ["cut", "text", "none", "fire"]
    assert "disk on fire" in dict(report.failures)["fire"]
    assert report.failed == 4 and len(report.take_failures()) == 4 and report.failures == []


def test_nothing_but_bad_files(encoder: Encoder) -> None:
    report = EmbedReport()
    assert list(embed_images(encoder, [("x", b"")], report=report)) == []
    assert list(embed_images(encoder, [], report=report)) == []
    assert (report.embedded, report.failed) == (0, 1)


def test_items_are_read_lazily_and_closing_ends_it(encoder: Encoder) -> None:
    read = 0

    def items():
        nonlocal read
        for i in range(10_000):
            read += 1
            yield i, jpeg(0)

    stream = embed_images(encoder, items(), batch_size=4, workers=2)
    next(stream)
    assert read <= 3 * 4 + 1
    stream.close()
    assert read <= 3 * 4 + 1


WEIGHTS = "data/weights/mobilenetv2_100_tf2_imagenet_dequant_fp16.pth"


@pytest.mark.shared
def test_real_weights_find_the_neighbouring_frame(shared: Path) -> None:
    """576 frames of one walk: the nearest other frame lies about 14 m away, 79 % within 50 m."""
    pd = pytest.importorskip("pandas")
    from geofix.localizers.knn import KnnLocalizer
    from geofix.spatial.distance import great_circle_m

    walk = shared / "data/ground/wuhan_cn_walk"
    frames = pd.read_csv(walk / "metadata.csv")
    config = EncoderConfig(
        trunk="mobilenetv2_100",
        trunk_kwargs={"pad_type": "same"},
        weights_uri=str(shared / WEIGHTS),
        aggregation="avg",
        input=InputTransform((224, 224), 1.0, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), fit="squash"),
    )
    items = [(i, walk / name) for i, name in enumerate(frames["image_path"])]
    keys, vectors, report = embed(build_encoder(config), items, batch_size=16)
    assert len(keys) == len(frames) and report.failed == 0
    lon, lat = frames["lon"].to_numpy(), frames["lat"].to_numpy()
    found = KnnLocalizer.fit(vectors, lon, lat).localize(vectors, 1, exclude=np.arange(len(frames)))
    error = great_circle_m(found.lon[:, 0], found.lat[:, 0], lon, lat)
    assert np.median(error) == pytest.approx(14, abs=2)
    assert 100 * np.mean(error <= 50) == pytest.approx(79, abs=3)
    assert error.min() >= 0 and np.mean(error == 0) < 0.2
